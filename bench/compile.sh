#!/usr/bin/env bash
# What a user's compiler pays for one translation unit that trains 0 to 4 models: user seconds (the least of three)
# and the size of the code. Each model has another width; two have another attention, one another
# objective. A plain parse of the standard headers that sotto.hpp includes stands beside them.
#   bench/compile.sh [COMPILER…]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
models=('sotto::presets::Deep' 'sotto::Configuration<512, 8>' 'sotto::Configuration<256, 24, sotto::attention::Windowed<64>>'
  'sotto::Configuration<768, 12, sotto::attention::RelativeBias<>, sotto::objective::Hubert<500>>')
grep -rhoE '^#include <[a-z_]+>' "$root"/include/sotto/{core,nn,attention,encoder,backend,frontend,objective,train,io} |
  sort -u | grep -v sndfile > "$scratch/standard.cpp"
echo '#include <sotto/sotto.hpp>' > "$scratch/0.cpp"
for count in 1 2 3 4; do
  i=$((count - 1))
  { cat "$scratch/$i.cpp"
    echo "sotto::Outcome train$i(sotto::AnySource source, sotto::Pretrainer<${models[i]}>::Options const& options) {"
    echo "  return sotto::Pretrainer<${models[i]}>(source, options).run();"
    echo '}'; } > "$scratch/$count.cpp"
done
for compiler in "${@:-g++}"; do
  tune=$("$compiler" --version | grep -q clang || echo -mtune=generic)
  for _ in 1 2 3; do  # in turns: a machine that slows down slows all of them
    for unit in standard 0 1 2 3 4; do
      TIMEFORMAT="$unit %U"
      { time "$compiler" -std=c++20 -O3 -march=native $tune -I "$root/include" -c "$scratch/$unit.cpp" -o "$scratch/$unit.o"; } 2>&1
    done
  done > "$scratch/seconds"
  for unit in standard 0 1 2 3 4; do
    what="$unit models"
    [[ $unit == standard ]] && what='the standard headers alone'
    printf '%s -O3, %s: %s s, %d KiB of code\n' "$compiler" "$what" \
      "$(awk -v unit="$unit" '$1 == unit { print $2 }' "$scratch/seconds" | sort -n | head -1)" \
      $(($(size "$scratch/$unit.o" | awk 'NR == 2 { print $1 }') / 1024))
  done
done
