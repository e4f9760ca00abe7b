#!/usr/bin/env bash
# Everything there is to measure on a GPU, in one command: builds in build/gpu, runs the models' parity tests on the
# device and stops if they fail, then the training step, PyTorch's beside it in turns (where python3 has torch), and
# each operation alone. Writes bench/results/DATE-gpu-DEVICE.md. Without a GPU it says so, and exits 77.
#   bench/gpu.sh [MINUTES]    10: what PyTorch has not compiled by then is left out
set -euo pipefail
limit=$((60 * ${1:-10}))
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'bench/gpu.sh: %s\n' "$1" >&2; }

if ! facts=$(nvidia-smi --id=0 --query-gpu=name,driver_version,compute_cap --format=csv,noheader 2>/dev/null); then
  say 'there is no NVIDIA GPU here, or no driver for it: nothing was measured'
  exit 77
fi
IFS=, read -r device driver capability <<<"${facts//, /,}"
PATH=$PATH:/usr/local/cuda/bin
for program in cmake ninja nvcc python3; do
  command -v "$program" >/dev/null || { say "$program is missing: install it and run this again"; exit 1; }
done

architecture=${capability/./}
if [ "$architecture" = 90 ]; then architecture=90a; fi
build=build/gpu
mkdir -p build
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSOTTO_CUDA=ON -DSOTTO_BUILD_EXAMPLES=OFF \
  -DCMAKE_CUDA_ARCHITECTURES="$architecture" >"$build.log" || { cat "$build.log" >&2; exit 1; }
cmake --build "$build" --target bench_gpu_step test_cuda_models_device

tests=$(find "$build/tests" -name test_cuda_models_device -type f)
if ! "$tests"; then
  say 'the models on the device are not those of the Reference: nothing was measured'
  exit 1
fi

lines=$build/lines
mkdir -p "$lines"
rm -f "$lines"/*.jsonl
export TORCHINDUCTOR_CACHE_DIR=$PWD/$build/inductor  # a second round does not compile again
notes=
# peer ROUND SECONDS: PyTorch, for so long at most.
peer() {
  local status=0
  timeout "$2" python3 bench/gpu/peer.py --models 12x384x1536,3x768x3072 --batches 16384x250,2048x250 \
    >"$lines/peer-$1.jsonl" || status=$?
  case $status in
    0 | 124) ;;
    77) notes=' PyTorch was not measured: python3 has no torch that sees this GPU.' ;;
    *) notes=" PyTorch ended with exit code $status in round $1; what it had measured by then is below." ;;
  esac
}
# What is left, shared among so many rounds of PyTorch, after what sotto still needs: its first round's time for each.
share() {
  local left=$(((limit - SECONDS - $1 * spent) / $1))
  echo $((left > 30 ? left : 30))
}
step=$build/bench/gpu/step
began=$SECONDS
"$step" --json >"$lines/sotto-1.jsonl"
spent=$((SECONDS - began + 1))
peer 1 "$(share 2)"
"$step" --json >"$lines/sotto-2.jsonl"
peer 2 "$(share 1)"
"$step" --breakdown --json >"$lines/operations.jsonl"

name=$(tr '[:upper:] ' '[:lower:]-' <<<"${device#NVIDIA }")
result=bench/results/$(date +%F)-gpu-$name.md
cuda=$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
machine="$device, driver $driver, CUDA $cuda, kernels for $architecture; \`bench/gpu.sh\`, two rounds.$notes"
python3 bench/gpu/report.py "The training step on a GPU: $(date +%F)" "$machine" "$lines"/*.jsonl >"$result.new"
mv "$result.new" "$result"
say "wrote $result"
