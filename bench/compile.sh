#!/usr/bin/env bash
# What a user's compiler pays: seconds and peak memory of one translation unit that trains 1, 2, 3 and 4 configurations.
#   bench/compile.sh [COMPILER…]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
models=('sotto::presets::Deep' 'sotto::Configuration<512, 8>' 'sotto::Configuration<256, 24, sotto::attention::Windowed<64>>'
  'sotto::Configuration<768, 12, sotto::attention::RelativeBias<>, sotto::objective::Hubert<500>>')
printf '#include <sotto/sotto.hpp>\n' > "$scratch/0.cpp"
for count in 1 2 3 4; do
  cp "$scratch/0.cpp" "$scratch/$count.cpp"
  for ((i = 0; i < count; ++i)); do
    printf 'template class sotto::detail::PretrainerBody<%s, sotto::Cpu<float>>;\n' "${models[i]}" >> "$scratch/$count.cpp"
  done
done
for compiler in "${@:-g++}"; do
  for count in 0 1 2 3 4; do
    /usr/bin/env time -f "$compiler -O3, $count configurations: %U s user, %M KiB" \
      "$compiler" -std=c++20 -O3 -march=native -mtune=generic -I "$root/include" -c "$scratch/$count.cpp" -o "$scratch/o.o"
  done
done
