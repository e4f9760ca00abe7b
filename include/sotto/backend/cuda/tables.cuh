// What an attention policy with learned numbers or gates needs beside its kernels.
#pragma once

#include <sotto/attention/policy.hpp>
#include <sotto/backend/cuda/context.cuh>
#include <sotto/backend/cuda/cuda.hpp>
#include <sotto/backend/cuda/fixed_point.cuh>
#include <sotto/backend/cuda/rows.cuh>

namespace sotto::cuda::inline SOTTO_ABI {

template <class Policy>
__global__ void __launch_bounds__(256) fill_table(float const* parameters, int heads, float* table, int entries) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < entries) table[i] = parameters[Policy::source(i, heads)];
}
template <class Policy>
__global__ void __launch_bounds__(256)
    collect_entries(float const* d_table, int heads, int entries, unsigned long long* sums) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < entries) add_fixed(sums + Policy::source(i, heads), d_table[i]);
}
/// One thread a (row, head).
template <class Policy, class T>
__global__ void __launch_bounds__(128) make_gates(Matrix<T const> x, Matrix<float const> weight, float const* bias,
                                                  float const* constant, Matrix<T> gates) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), heads = gates.columns;
  if (i >= x.rows * heads) return;
  const int row = i / heads, head = i % heads;
  T const* const slice = x.row(row) + head * weight.columns;
  float raw[Policy::gates];
#pragma unroll
  for (int g = 0; g < Policy::gates; ++g) raw[g] = bias[g];
  for (int c = 0; c < weight.columns; ++c) {
    const float v = to_float(slice[c]);
#pragma unroll
    for (int g = 0; g < Policy::gates; ++g) raw[g] += v * weight.row(g)[c];
  }
  gates.row(row)[head] = from_float<T>(attention::gated<Policy>(raw, constant[head]));
}

inline constexpr int gate_rows = 16;

/// dx += what comes through the gates, and the sums of a block's rows by weight [gates, head width], bias [gates] and
/// constant [heads]: partial [blocks, gates * head width], then [blocks, gates], then [blocks, heads].
template <class Policy, class T>
__global__ void __launch_bounds__(128)
    make_gates_back(Matrix<T const> x, Matrix<float const> weight, float const* bias, float const* constant,
                    Matrix<T const> d_gates, Matrix<T> dx, float* by_weight, float* by_bias, float* by_constant) {
  constexpr int n = Policy::gates;
  const int heads = d_gates.columns, width = weight.columns, first = static_cast<int>(blockIdx.x) * gate_rows,
            rows = x.rows - first < gate_rows ? x.rows - first : gate_rows;
  float* const slopes = dynamic_shared<float>();  // [rows, heads, n + 1]: by raw values, by the constant
  for (int i = static_cast<int>(threadIdx.x); i < rows * heads; i += 128) {
    const int row = first + i / heads, head = i % heads;
    T const* const slice = x.row(row) + head * width;
    float raw[n];
#pragma unroll
    for (int g = 0; g < n; ++g) raw[g] = bias[g];
    for (int c = 0; c < width; ++c) {
      const float v = to_float(slice[c]);
#pragma unroll
      for (int g = 0; g < n; ++g) raw[g] += v * weight.row(g)[c];
    }
    const auto slope = attention::gate_slope<Policy>(raw, constant[head]);
    const float d = to_float(d_gates.row(row)[head]);
#pragma unroll
    for (int g = 0; g < n; ++g) slopes[i * (n + 1) + g] = d * slope.by_raw[g];
    slopes[i * (n + 1) + n] = d * slope.by_constant;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < rows * heads * width; i += 128) {
    const int row = i / (heads * width), c = i % (heads * width), head = c / width;
    float sum = to_float(dx.row(first + row)[c]);
    for (int g = 0; g < n; ++g) sum += slopes[(row * heads + head) * (n + 1) + g] * weight.row(g)[c % width];
    dx.row(first + row)[c] = from_float<T>(sum);
  }
  const auto block = static_cast<std::size_t>(blockIdx.x);
  for (int i = static_cast<int>(threadIdx.x); i < n * width; i += 128) {
    float sum = 0;
    for (int k = 0; k < rows * heads; ++k)
      sum += slopes[k * (n + 1) + i / width] * to_float(x.row(first + k / heads)[k % heads * width + i % width]);
    by_weight[block * static_cast<std::size_t>(n * width) + static_cast<std::size_t>(i)] = sum;
  }
  for (int g = static_cast<int>(threadIdx.x); g < n; g += 128) {
    float sum = 0;
    for (int k = 0; k < rows * heads; ++k) sum += slopes[k * (n + 1) + g];
    by_bias[block * n + static_cast<std::size_t>(g)] = sum;
  }
  for (int h = static_cast<int>(threadIdx.x); h < heads; h += 128) {
    float sum = 0;
    for (int row = 0; row < rows; ++row) sum += slopes[(row * heads + h) * (n + 1) + n];
    by_constant[block * static_cast<std::size_t>(heads) + static_cast<std::size_t>(h)] = sum;
  }
}

}  // namespace sotto::cuda::inline SOTTO_ABI

namespace sotto::cuda::inline SOTTO_API {

template <class Policy, class Storage>
void TableOperations<Policy, Storage>::prepare(Context& context, int heads, Array<R const> parameters,
                                               Array<R const> table) {
  const int entries = static_cast<int>(table.size);
  context.run(fill_table<Policy>, {blocks_for(table.size, 256), 256}, raw(parameters.begin), heads,
              const_cast<float*>(raw(table.begin)), entries);  // carve_table made it ours
}
template <class Policy, class Storage>
void TableOperations<Policy, Storage>::collect(Context& context, int heads, Array<R const> d_table,
                                               Array<R> d_parameters) {
  auto* const sums = context.scratch<unsigned long long>(d_parameters.size);
  check(cudaMemsetAsync(sums, 0, d_parameters.size * sizeof *sums, context.stream), "clearing");
  context.run(collect_entries<Policy>, {blocks_for(d_table.size, 256), 256}, raw(d_table.begin), heads,
              static_cast<int>(d_table.size), sums);
  context.run(add_fixed_sums<>, {blocks_for(d_parameters.size, 256), 256}, sums, static_cast<int>(d_parameters.size),
              raw(d_parameters.begin));
}
template <class Policy, class Storage>
void TableOperations<Policy, Storage>::gates(Context& context, Matrix<E const> x, Matrix<R const> weight,
                                             Array<R const> bias, Array<R const> constant, Matrix<E> gates) {
  if constexpr (Policy::gates > 0)
    context.run(make_gates<Policy, Storage>, {blocks_for(static_cast<std::size_t>(x.rows * gates.columns), 128), 128},
                raw(x), raw(weight), raw(bias.begin), raw(constant.begin), raw(gates));
}
template <class Policy, class Storage>
void TableOperations<Policy, Storage>::gates_back(Context& context, Matrix<E const> x, Matrix<R const> weight,
                                                  Array<R const> bias, Array<R const> constant, Matrix<E const> d_gates,
                                                  Matrix<E> dx, Matrix<R> d_weight, Array<R> d_bias,
                                                  Array<R> d_constant) {
  if constexpr (Policy::gates > 0) {
    const int n = Policy::gates, heads = d_gates.columns, weights = n * weight.columns;
    const unsigned blocks = blocks_for(static_cast<std::size_t>(x.rows), gate_rows);
    auto* const by_weight =
        context.scratch<float>(static_cast<std::size_t>(blocks) * static_cast<std::size_t>(weights + n + heads));
    auto* const by_bias = by_weight + static_cast<std::size_t>(blocks) * static_cast<std::size_t>(weights);
    auto* const by_constant = by_bias + static_cast<std::size_t>(blocks) * static_cast<std::size_t>(n);
    context.run(make_gates_back<Policy, Storage>,
                {blocks, 128, static_cast<unsigned>(gate_rows * heads * (n + 1)) * 4u}, raw(x), raw(weight),
                raw(bias.begin), raw(constant.begin), raw(d_gates), raw(dx), by_weight, by_bias, by_constant);
    const auto add = [&](float const* partial, int columns, R* to) {
      context.run(add_partials<float>, {blocks_for(static_cast<std::size_t>(columns), 32), 256}, partial,
                  static_cast<int>(blocks), columns, raw(to), nullptr);
    };
    add(by_weight, weights, d_weight.begin);
    add(by_bias, n, d_bias.begin);
    add(by_constant, heads, d_constant.begin);
  }
}

}  // namespace sotto::cuda::inline SOTTO_API
