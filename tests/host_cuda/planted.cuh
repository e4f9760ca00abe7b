// Kernels with mistakes in them, for the checkers to find: Bug 0 is none.
#pragma once

#include <sotto/backend/cuda/device.cuh>

namespace planted {

using sotto::cuda::shared;

struct Sums {
  float of_warp[8];
};
/// The sum over a block of up to 256 threads, in every thread.
template <int Bug> __device__ float block_sum(float x) {
  Sums& s = shared<Sums>();
  x = sotto::cuda::warp_sum(x);
  if constexpr (Bug != 2) __syncthreads();  // 2: the last sum may still be read
  if (threadIdx.x % 32 == 0) s.of_warp[threadIdx.x / 32] = x;
  if constexpr (Bug != 1) __syncthreads();  // 1: others have not written yet
  float sum = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) sum += s.of_warp[w];
  return sum;
}
/// y = (x - mean) / deviation, a block a row. 4: one past the end. 11: half of the block skips a block's sum.
template <int Bug> __global__ void normalise(float const* x, float* y, int columns) {
  float const* const row = x + static_cast<std::size_t>(blockIdx.x) * static_cast<std::size_t>(columns);
  float* const out = y + static_cast<std::size_t>(blockIdx.x) * static_cast<std::size_t>(columns);
  float sum = 0;
  for (int c = static_cast<int>(threadIdx.x); c < columns; c += static_cast<int>(blockDim.x)) sum += row[c];
  if (Bug != 11 || threadIdx.x < blockDim.x / 2) sum = block_sum<Bug>(sum);
  const float mean = sum / static_cast<float>(columns);
  float squares = 0;
  for (int c = static_cast<int>(threadIdx.x); c < columns; c += static_cast<int>(blockDim.x))
    squares += (row[c] - mean) * (row[c] - mean);
  const float deviation = sqrtf(block_sum<Bug>(squares) / static_cast<float>(columns));
  const int end = Bug == 4 ? columns + 1 : columns;
  for (int c = static_cast<int>(threadIdx.x); c < end; c += static_cast<int>(blockDim.x))
    out[c] = (row[c] - mean) / deviation;
}

struct Tile {
  float value[32][33];
};
/// y [columns, rows] = the transpose of x [rows, columns], both multiples of 32, by tiles; 32 x 8 threads. 3: a row of
/// the tile is read that nobody wrote. 5: one past the tile. 6: the tile is written while it is read. 10: a block
/// writes into its neighbour's place.
template <int Bug> __global__ void transpose(float const* x, float* y, int rows, int columns) {
  Tile& tile = shared<Tile>();
  for (int r0 = 0; r0 < rows; r0 += 32) {
    for (int r = static_cast<int>(threadIdx.y); r < (Bug == 3 ? 31 : 32); r += 8)
      tile.value[r][threadIdx.x] = x[(r0 + r) * columns + static_cast<int>(blockIdx.x * 32 + threadIdx.x)];
    __syncthreads();
    for (int c = static_cast<int>(threadIdx.y); c < 32; c += 8) {
      float const* const column = &tile.value[0][0] + c;
      const int r = static_cast<int>(threadIdx.x);
      y[(static_cast<int>(blockIdx.x) * 32 + c) * rows + r0 + r] = column[33 * r + (Bug == 5 && r == 31 ? 33 : 0)];
    }
    if constexpr (Bug != 6) __syncthreads();
  }
  if constexpr (Bug == 10)
    if (threadIdx.x == 0 && threadIdx.y == 0) y[(blockIdx.x + 1) % gridDim.x * 32 * static_cast<unsigned>(rows)] = 0;
}

/// The sum of x by the block that comes last. 9: no fence between a block's sum and its ticket.
template <int Bug> __global__ void sum_last(float const* x, int n, float* partial, unsigned* ticket, float* sum) {
  float s = 0;
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n;
       i += static_cast<int>(gridDim.x * blockDim.x))
    s += x[i];
  s = block_sum<0>(s);
  if (threadIdx.x != 0) return;
  partial[blockIdx.x] = s;
  if constexpr (Bug != 9) __threadfence();
  if (atomicAdd(ticket, 1u) != gridDim.x - 1) return;
  __threadfence();
  float total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += partial[b];
  *sum = total;
}

/// y = sums of rows, a warp a row. 7: lanes beyond the row skip a shuffle that names them. 12: the mask leaves lanes
/// out.
template <int Bug> __global__ void sum_rows(float const* x, float* y, int columns) {
  const int lane = static_cast<int>(threadIdx.x);
  float s = 0;
  if (lane < columns) s = x[static_cast<int>(blockIdx.x) * columns + lane];
  if constexpr (Bug == 7)
    if (lane >= columns) return;
  for (int d = 16; d > 0; d /= 2) s += __shfl_xor_sync(Bug == 12 ? 0xffffu : 0xffffffffu, s, d);
  if (lane == 0) y[blockIdx.x] = s;
}

/// y = x, through shared memory by asynchronous copies; 128 threads, 512 numbers a block, each thread reading what its
/// neighbour copied. 13: the copies are not waited for. 14: they are, but not the other threads. 8: the buffer is
/// copied to again while it is read.
template <int Bug> __global__ void pass_through(float const* x, float* y, int rounds) {
  float* const buffer = sotto::cuda::dynamic_shared<float>();
  const int mine = 4 * static_cast<int>(threadIdx.x), other = (mine + 4) % 512;
  for (int round = 0; round < rounds; ++round) {
    const int base = (static_cast<int>(blockIdx.x) * rounds + round) * 512;
    sotto::cuda::copy_16(buffer + mine, x + base + mine, true);
    sotto::cuda::commit_copies();
    if constexpr (Bug != 13) sotto::cuda::wait_for_copies<0>();
    if constexpr (Bug != 14) __syncthreads();
    for (int k = 0; k < 4; ++k) y[base + other + k] = buffer[other + k];
    if constexpr (Bug != 8) __syncthreads();
  }
  if constexpr (Bug == 13) sotto::cuda::wait_for_copies<0>();
}

template <class = void> __global__ void set(float* x, float value, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) x[i] = value;
}
template <class = void> __global__ void add(float* x, float const* y, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) x[i] += y[i];
}

}  // namespace planted
