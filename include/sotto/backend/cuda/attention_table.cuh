// The gradient of an attention's table: what the blocks of a kernel add to it.
#pragma once

#include <sotto/attention/policy.hpp>
#include <sotto/backend/cuda/attention_fma.cuh>
#include <sotto/backend/cuda/fixed_point.cuh>

namespace sotto::cuda::inline SOTTO_ABI {

/// A block's sums of the table's gradient, in shared memory and fixed point: integers add up to the same whatever the
/// order. A warp puts the gradients of its 16 rows by 32 columns of pairs here; each lane then walks a diagonal, where
/// a bias by distance has one entry, and adds up neighbours of the same entry before it touches what others touch.
template <class Policy> struct TableSums {
  static constexpr int slots = 512, columns = 32, pitch = 40;
  static constexpr int reads = Policy::reads > 0 ? Policy::reads : 1;
  static constexpr int keys_a_flush = slots / 2;  // entries by distance then find a slot each
  struct Run {
    int entry = -1;
    long long sum = 0;
  };

  unsigned long long sums[slots];
  int owners[slots];  // the entry that a slot sums, or -1
  float values[attention_warps][reads][warp_rows * pitch];
  int entries[attention_warps][reads][warp_rows * pitch];  // -1: nothing read

  __device__ __forceinline__ void clear() {
    for (int i = static_cast<int>(threadIdx.x); i < slots; i += attention_threads) {
      sums[i] = 0;
      owners[i] = -1;
    }
  }
  __device__ __forceinline__ void put(int read, int row, int column, int entry, float value) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    entries[warp][read][row * pitch + column] = entry;
    values[warp][read][row * pitch + column] = value;
  }
  __device__ __forceinline__ void add(int entry, long long sum, unsigned long long* all) {
    if (entry < 0 || sum == 0) return;
    const int slot = entry % slots, owner = atomicCAS(&owners[slot], -1, entry);
    atomicAdd(owner == -1 || owner == entry ? &sums[slot] : all + entry, static_cast<unsigned long long>(sum));
  }
  /// Adds what the warp has put.
  __device__ __forceinline__ void walk(Run (&runs)[reads], unsigned long long* all) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    __syncwarp();
#pragma unroll
    for (int read = 0; read < reads; ++read) {
      Run& run = runs[read];
      float sum = 0;
#pragma unroll 4
      for (int row = 0; row < warp_rows; ++row) {
        const int at = row * pitch + (lane + row) % columns, entry = entries[warp][read][at];
        if (entry < 0) continue;
        if (entry != run.entry) {
          add(run.entry, run.sum + to_fixed(sum), all);
          run = {entry, 0};
          sum = 0;
        }
        sum += values[warp][read][at];
      }
      run.sum += to_fixed(sum);
    }
    __syncwarp();
  }
  /// Moves the block's sums to `all`. Who adds more afterwards waits at a barrier first, as each tile does.
  __device__ __forceinline__ void flush(unsigned long long* all) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < slots; i += attention_threads) {
      if (owners[i] < 0) continue;
      atomicAdd(all + owners[i], sums[i]);
      sums[i] = 0;
      owners[i] = -1;
    }
  }
};
template <class Policy> constexpr unsigned table_bytes() {
  if constexpr (Policy::reads > 0) {
    return sizeof(TableSums<Policy>);
  } else {
    return 0;
  }
}

}  // namespace sotto::cuda::inline SOTTO_ABI
