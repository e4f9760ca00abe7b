// Gates of an attention: numbers a row and head, linear in the block's input, that scores are multiplied by (WavLM).
#pragma once

#include <sotto/attention/policy.hpp>
#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>
#include <sotto/core/views.hpp>

namespace sotto::cpu::detail::inline SOTTO_ABI {
template <class Policy, int HeadWidth, class E>
SOTTO_ALWAYS_INLINE void raw_gates(E const* x, Matrix<float const> weight, Array<float const> bias, float* raw) {
  for (int g = 0; g < Policy::gates; ++g) {
    float sum = bias.begin[g];
    for (int c = 0; c < HeadWidth; ++c) sum += static_cast<float>(x[c]) * weight.row(g)[c];
    raw[g] = sum;
  }
}
}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// gates [rows, heads]: Policy::gate() of the raw values x_h weight^T + bias, where x_h is head h's
/// slice of the block's input x [rows, heads HeadWidth]. HeadWidth: the true one. weight:
/// [Policy::gates, HeadWidth]; bias: [Policy::gates]; constant: [heads].
template <class Policy, int HeadWidth, class E>
void attention_gates(In<E> x, Matrix<float const> weight, Array<float const> bias, Array<float const> constant,
                     Matrix<E> gates) {
  for (int i = 0; i < x.rows; ++i)
    for (int h = 0; h < gates.columns; ++h) {
      float raw[Policy::gates];
      detail::raw_gates<Policy, HeadWidth>(x.row(i) + h * HeadWidth, weight, bias, raw);
      gates.row(i)[h] = stored<E>(attention::gated<Policy>(raw, constant.begin[h]));
    }
}

/// Backward of attention_gates(); everything is added to: dx, d_weight, d_bias, d_constant.
template <class Policy, int HeadWidth, class E>
void attention_gates_back(In<E> x, Matrix<float const> weight, Array<float const> bias, Array<float const> constant,
                          In<E> d_gates, Matrix<E> dx, Matrix<float> d_weight, Array<float> d_bias,
                          Array<float> d_constant) {
  for (int i = 0; i < x.rows; ++i)
    for (int h = 0; h < d_gates.columns; ++h) {
      E const* const slice = x.row(i) + h * HeadWidth;
      E* const d_slice = dx.row(i) + h * HeadWidth;
      float raw[Policy::gates];
      detail::raw_gates<Policy, HeadWidth>(slice, weight, bias, raw);
      const auto slope = attention::gate_slope<Policy>(raw, constant.begin[h]);
      const auto d = static_cast<float>(d_gates.row(i)[h]);
      d_constant.begin[h] += d * slope.by_constant;
      float along[HeadWidth] = {};
      for (int g = 0; g < Policy::gates; ++g) {
        const float by_raw = d * slope.by_raw[g];
        float const* const w = weight.row(g);
        float* const dw = d_weight.row(g);
        d_bias.begin[g] += by_raw;
        for (int c = 0; c < HeadWidth; ++c) {
          along[c] += by_raw * w[c];
          dw[c] += by_raw * static_cast<float>(slice[c]);
        }
      }
      for (int c = 0; c < HeadWidth; ++c) d_slice[c] = stored<E>(static_cast<float>(d_slice[c]) + along[c]);
    }
}

}  // namespace sotto::cpu::inline SOTTO_ABI
