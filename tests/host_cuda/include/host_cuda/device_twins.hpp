// What the library's seam says in PTX, as a host does it: device.cuh takes these where it is not compiled by nvcc.
#pragma once
#pragma GCC system_header

#include <cuda_runtime.h>

#include <cstring>

#include <sotto/core/bf16.hpp>

namespace host_cuda {

template <class T> T& shared() {
  static char tag;
  return *static_cast<T*>(static_memory(&tag, sizeof(T)));
}
template <class T> T* dynamic_shared() { return static_cast<T*>(dynamic_memory()); }
inline float fast_exp(float x) { return std::exp(x); }

// Tensor cores. The layouts of fragments are those of the PTX ISA, "Matrix fragments for mma.m16n8k16".
struct Fragments {
  std::uint32_t const *a, *b;
  float* d;
};
HOST_CUDA_UNSEEN inline float half_of(std::uint32_t pair, int high) {
  return std::bit_cast<float>(high != 0 ? pair & 0xffff0000u : pair << 16);
}
HOST_CUDA_UNSEEN inline void multiply_fragments(WarpView const& warp) {
  float a[16][16], b[16][8];
  for (int l = 0; l < 32; ++l) {
    auto const& f = *static_cast<Fragments const*>(warp.in[l]);
    const int g = l / 4, t = l % 4;
    for (int h = 0; h < 2; ++h) {
      for (int r = 0; r < 4; ++r) a[g + 8 * (r & 1)][2 * t + h + 8 * (r >> 1)] = half_of(f.a[r], h);
      for (int r = 0; r < 2; ++r) b[2 * t + h + 8 * r][g] = half_of(f.b[r], h);
    }
  }
  for (int l = 0; l < 32; ++l) {
    float* const d = static_cast<Fragments const*>(warp.in[l])->d;
    for (int i = 0; i < 4; ++i) {
      const int row = l / 4 + 8 * (i >> 1), column = 2 * (l % 4) + (i & 1);
      float sum = d[i];
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      d[i] = sum;
    }
  }
}
inline void mma_16816(float (&d)[4], std::uint32_t const (&a)[4], std::uint32_t const (&b)[2], HOST_CUDA_SITE) {
  const Fragments mine{a, b, d};
  collective(0xffffffffu, &mine, nullptr, &multiply_fragments, false, HOST_CUDA_HERE);
}

struct MatrixRow {
  sotto::bf16 const* row;
  std::uint32_t* received;
};
template <bool Transposed> HOST_CUDA_UNSEEN void distribute_matrices(WarpView const& warp) {
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i) {
      std::uint32_t pair = 0;
      for (int h = 0; h < 2; ++h) {
        const int along = 2 * (l % 4) + h, across = l / 4;
        auto const* const row = static_cast<MatrixRow const*>(warp.in[8 * i + (Transposed ? along : across)])->row;
        pair |= static_cast<std::uint32_t>(row[Transposed ? across : along].bits) << (16 * h);
      }
      static_cast<MatrixRow const*>(warp.in[l])->received[i] = pair;
    }
}
template <bool Transposed> void take_matrices(std::uint32_t (&r)[4], sotto::bf16 const* row, Site where) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) report("ldmatrix reads a row at no multiple of 16 bytes");
  touch_read(row, 16);
  const MatrixRow mine{row, r};
  collective(0xffffffffu, &mine, nullptr, &distribute_matrices<Transposed>, false, where);
}
inline void load_matrices(std::uint32_t (&r)[4], sotto::bf16 const* row, HOST_CUDA_SITE) {
  take_matrices<false>(r, row, HOST_CUDA_HERE);
}
inline void load_matrices_transposed(std::uint32_t (&r)[4], sotto::bf16 const* row, HOST_CUDA_SITE) {
  take_matrices<true>(r, row, HOST_CUDA_HERE);
}

inline void copy_16(void* to, void const* from, bool real, HOST_CUDA_SITE) {
  copy_later(to, real ? from : nullptr, 16, HOST_CUDA_HERE);
}
inline void commit_copies() { commit_group(); }
template <int Pending> void wait_for_copies() { wait_groups(Pending); }

}  // namespace host_cuda
