// How the warps of an attention kernel multiply bf16: tensor cores, fp32 sums (after FlashAttention-2, arXiv
// 2307.08691).
#pragma once

#include <cstdint>

#include <sotto/backend/cuda/device.cuh>

namespace sotto::cuda::inline SOTTO_ABI {

/// The products of a warp that owns 16 rows of numbers [16, W]. What a thread holds of a result [16, Columns] is a
/// Numbers<Columns>: at(i, j) stands in row row_of(i), column column_of(j). Tiles in shared memory have rows of `pitch`
/// numbers, 8 more than W: eight rows then begin in different banks.
template <int W> struct TensorCores {
  static_assert(W % 16 == 0, "sotto: tensor cores multiply 16 columns at a time");
  using Number = bf16;
  static constexpr int width = W, pitch = W + 8;
  static constexpr int stages = 2, streamed = W > 64 ? 32 : 64;  // what registers and shared memory allow
  static constexpr int rows = 2, row_lanes = 4;                  // a thread's rows; threads that share a row
  static constexpr int scratch_size = 0;

  template <int Columns> struct Numbers {
    static constexpr int columns = Columns / row_lanes;
    float value[Columns / 8][4];  // as mma_16816 wants it
    __device__ __forceinline__ float& at(int i, int j) { return value[j / 2][2 * i + j % 2]; }
    __device__ __forceinline__ float at(int i, int j) const { return value[j / 2][2 * i + j % 2]; }
  };
  static __device__ __forceinline__ int row_of(int i) { return static_cast<int>(threadIdx.x) % 32 / 4 + 8 * i; }
  static __device__ __forceinline__ int column_of(int j) {
    return 8 * (j / 2) + 2 * (static_cast<int>(threadIdx.x) % 4) + j % 2;
  }
  static __device__ __forceinline__ int score_column_of(int j) { return column_of(j); }

  /// The rows that the warp owns, from shared memory [16, W]: Kept in registers, or read again for each product.
  template <bool Kept> struct Own {
    bf16 const* from;
    std::uint32_t kept[Kept ? W / 16 : 1][4];
    __device__ __forceinline__ explicit Own(bf16 const* tile) : from(tile + corner()) {
      if constexpr (Kept) {
#pragma unroll
        for (int k = 0; k < W / 16; ++k) load_matrices(kept[k], from + 16 * k);
      }
    }
    __device__ __forceinline__ void fragment(std::uint32_t (&a)[4], int k) const {
      if constexpr (Kept) {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = kept[k][i];
      } else {
        load_matrices(a, from + 16 * k);
      }
    }
  };

  /// result [16, Columns] = own [16, W] times the transpose of tile [Columns, W].
  template <int Columns, bool Kept>
  static __device__ __forceinline__ void products(Numbers<Columns>& result, Own<Kept> const& own, bf16 const* tile) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    bf16 const* const from = tile + (lane / 16 * 8 + lane % 8) * pitch + lane / 8 % 2 * 8;
#pragma unroll
    for (int n = 0; n < Columns / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) result.value[n][i] = 0;
#pragma unroll
    for (int k = 0; k < W / 16; ++k) {
      std::uint32_t a[4];
      own.fragment(a, k);
#pragma unroll
      for (int n = 0; n < Columns / 8; n += 2) {
        std::uint32_t b[4];
        load_matrices(b, from + 8 * n * pitch + 16 * k);
        mma_16816(result.value[n], a, {b[0], b[1]});
        mma_16816(result.value[n + 1], a, {b[2], b[3]});
      }
    }
  }
  /// sum [16, W] += p [16, Columns] times tile [Columns, W]; p rounded to bf16.
  template <int Columns>
  static __device__ __forceinline__ void accumulate(Numbers<W>& sum, Numbers<Columns> const& p, bf16 const* tile,
                                                    float*) {
    bf16 const* const from = tile + corner();
#pragma unroll
    for (int k = 0; k < Columns / 16; ++k) {
      auto const &left = p.value[2 * k], &right = p.value[2 * k + 1];
      const std::uint32_t a[4] = {packed_pair(left[0], left[1]), packed_pair(left[2], left[3]),
                                  packed_pair(right[0], right[1]), packed_pair(right[2], right[3])};
#pragma unroll
      for (int n = 0; n < W / 8; n += 2) {
        std::uint32_t b[4];
        load_matrices_transposed(b, from + 16 * k * pitch + 8 * n);
        mma_16816(sum.value[n], a, {b[0], b[1]});
        mma_16816(sum.value[n + 1], a, {b[2], b[3]});
      }
    }
  }
  /// Puts numbers into shared memory [16, W], row i times factor[i].
  static __device__ __forceinline__ void put(bf16* tile, Numbers<W> const& numbers, float const (&factor)[rows]) {
#pragma unroll
    for (int n = 0; n < W / 8; ++n)
#pragma unroll
      for (int i = 0; i < rows; ++i)
        *reinterpret_cast<std::uint32_t*>(tile + row_of(i) * pitch + column_of(2 * n)) =
            packed_pair(numbers.value[n][2 * i] * factor[i], numbers.value[n][2 * i + 1] * factor[i]);
  }

 private:
  // Where a lane's row of four matrices begins, when they cover 16 x 16 numbers column by column.
  static __device__ __forceinline__ int corner() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return lane % 16 * pitch + lane / 16 * 8;
  }
};

}  // namespace sotto::cuda::inline SOTTO_ABI
