// Products of the attention kernels in fp32, by fused multiply-adds.
#pragma once

#include <sotto/backend/cuda/device.cuh>
#include <sotto/backend/cuda/tile.cuh>

namespace sotto::cuda::inline SOTTO_ABI {

inline constexpr int attention_warps = 4, attention_threads = 32 * attention_warps, warp_rows = 16;
static_assert(attention_warps * warp_rows == tile_rows);

/// The products of a warp in fp32; as TensorCores, whose comments apply. Rows in shared memory are 4 numbers longer
/// than W.
template <int W> struct FusedMultiplyAdds {
  static_assert(W % 16 == 0);
  using Number = float;
  static constexpr int width = W, pitch = W + 4;
  static constexpr int stages = 1, streamed = 32;
  static constexpr int rows = 4, row_lanes = 8;
  static constexpr int scratch_pitch = streamed + 4, scratch_size = warp_rows * scratch_pitch;

  template <int Columns> struct Numbers {
    static constexpr int columns = Columns / row_lanes;
    float value[rows][columns];
    __device__ __forceinline__ float& at(int i, int j) { return value[i][j]; }
    __device__ __forceinline__ float at(int i, int j) const { return value[i][j]; }
  };
  static __device__ __forceinline__ int row_of(int i) { return static_cast<int>(threadIdx.x) % 32 / 8 * 4 + i; }
  static __device__ __forceinline__ int column_of(int j) {
    return 16 * (j / 2) + 2 * (static_cast<int>(threadIdx.x) % 8) + j % 2;
  }
  /// The column of a score: neighbouring lanes then read neighbouring rows of the tile, in different banks.
  static __device__ __forceinline__ int score_column_of(int j) { return static_cast<int>(threadIdx.x) % 8 + 8 * j; }

  template <bool Kept> struct Own {
    float const* from;
    __device__ __forceinline__ explicit Own(float const* tile) : from(tile + row_of(0) * pitch) {}
  };
  template <int Columns, bool Kept>
  static __device__ __forceinline__ void products(Numbers<Columns>& result, Own<Kept> const& own, float const* tile) {
    constexpr int columns = Numbers<Columns>::columns;
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int j = 0; j < columns; ++j) result.value[i][j] = 0;
#pragma unroll 2
    for (int c = 0; c < W; c += 4) {
      Pack<float> a[rows], b[columns];
#pragma unroll
      for (int i = 0; i < rows; ++i) a[i] = load_pack(own.from + i * pitch + c);
#pragma unroll
      for (int j = 0; j < columns; ++j) b[j] = load_pack(tile + score_column_of(j) * pitch + c);
#pragma unroll
      for (int k = 0; k < 4; ++k)
#pragma unroll
        for (int i = 0; i < rows; ++i)
#pragma unroll
          for (int j = 0; j < columns; ++j) result.value[i][j] += a[i].value[k] * b[j].value[k];
    }
  }
  template <int Columns>
  static __device__ __forceinline__ void accumulate(Numbers<W>& sum, Numbers<Columns> const& p, float const* tile,
                                                    float* scratch) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int j = 0; j < Numbers<Columns>::columns; ++j)
        scratch[row_of(i) * scratch_pitch + score_column_of(j)] = p.value[i][j];
    __syncwarp();
    float const* const from = tile + column_of(0);
#pragma unroll 1
    for (int k = 0; k < Columns; k += 4) {
      Pack<float> a[rows];
#pragma unroll
      for (int i = 0; i < rows; ++i) a[i] = load_pack(scratch + row_of(i) * scratch_pitch + k);
#pragma unroll
      for (int kk = 0; kk < 4; ++kk)
#pragma unroll
        for (int n = 0; n < W / 16; ++n) {
          const Pair2 b = *reinterpret_cast<Pair2 const*>(from + (k + kk) * pitch + 16 * n);
#pragma unroll
          for (int i = 0; i < rows; ++i) {
            sum.value[i][2 * n] += a[i].value[kk] * b.value[0];
            sum.value[i][2 * n + 1] += a[i].value[kk] * b.value[1];
          }
        }
    }
  }
  static __device__ __forceinline__ void put(float* tile, Numbers<W> const& numbers, float const (&factor)[rows]) {
#pragma unroll
    for (int n = 0; n < W / 16; ++n)
#pragma unroll
      for (int i = 0; i < rows; ++i)
        *reinterpret_cast<Pair2*>(tile + row_of(i) * pitch + column_of(2 * n)) = {
            {numbers.value[i][2 * n] * factor[i], numbers.value[i][2 * n + 1] * factor[i]}};
  }

 private:
  struct alignas(8) Pair2 {
    float value[2];
  };
};

}  // namespace sotto::cuda::inline SOTTO_ABI
