// A user's functors inside CUDA kernels: the same text that the Cpu and Reference backends run. Compiled where nvcc is.
#include "balanced_reconstruction.hpp"
#include "chunked_attention.hpp"

#include <sotto/attention/full.hpp>
#include <sotto/attention/relative_bias.hpp>
#include <sotto/attention/windowed.hpp>
#include <sotto/core/dual.hpp>
#include <sotto/nn/dropout_mask.hpp>
#include <sotto/nn/noise.hpp>

using namespace sotto;

template <class Policy>
__global__ void slopes(float const* raw, float const* table, float const* gate, float* by_raw, float* by_table,
                       int length) {
  const int query = static_cast<int>(blockIdx.x), key = static_cast<int>(threadIdx.x);
  const attention::Pair at{0, query, key};
  if (key >= length || !attention::seen<Policy>(at)) return;
  const auto slope = attention::score_slope<Policy>(raw[query * length + key], at, table, gate[query]);
  by_raw[query * length + key] = slope.by_raw;
  for (int i = 0; i < slope.used; ++i) by_table[slope.entry[i]] = slope.by_entry[i];
}
template <class Term> __global__ void loss_slopes(float const* predicted, float const* wanted, float* by_predicted) {
  const unsigned i = threadIdx.x;
  Dual<float, 1> at(predicted[i]);
  at.by[0] = 1;
  by_predicted[i] = Term::term(at, Dual<float, 1>(wanted[i])).by[0];
}
__global__ void drop(Noise noise, float* x) {
  if (!dropout_kept(noise.key, noise.cursor, 3, blockIdx.x, blockIdx.y, threadIdx.x, noise.dropout)) x[threadIdx.x] = 0;
}

template __global__ void slopes<ChunkedCapped>(float const*, float const*, float const*, float*, float*, int);
template __global__ void slopes<attention::Full>(float const*, float const*, float const*, float*, float*, int);
template __global__ void slopes<attention::Windowed<8>>(float const*, float const*, float const*, float*, float*, int);
template __global__ void slopes<attention::RelativeBias<320, 800, true, true>>(float const*, float const*, float const*,
                                                                               float*, float*, int);
template __global__ void loss_slopes<BalancedReconstruction::SmoothDistance>(float const*, float const*, float*);
