// AdamW on the CPU, and what is asked of whole gradient buffers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>
#include <sotto/core/views.hpp>

namespace sotto::cpu::detail::inline SOTTO_ABI {

// GNU vectors have no root, std::sqrt in a loop stays scalar (it might have to set errno), and <immintrin.h> takes a
// compiler longer than all the rest of this library.
SOTTO_ALWAYS_INLINE Vec square_root(Vec x) {
#if defined(__AVX__)
  __asm__("vsqrtps %1, %0" : "=v"(x) : "v"(x));
#elif defined(__SSE2__)
  __asm__("sqrtps %1, %0" : "=x"(x) : "x"(x));
#else
  for (int i = 0; i < lanes; ++i) x[i] = std::sqrt(x[i]);
#endif
  return x;
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// One step of AdamW (Loshchilov & Hutter 2019).
struct AdamwStep {
  double rate, beta1, beta2, epsilon, decay;
  std::int64_t step;  ///< of this update: 1, 2, ...
  double clip = 1;    ///< gradients are multiplied by it first
};

/// The numbers that one step multiplies by, made in double: the bias corrections are powers close
/// to 1.
template <class Scalar> struct AdamwFactors {
  Scalar shrink, rate, beta1, rest1, beta2, rest2, root, epsilon, clip;
  explicit AdamwFactors(AdamwStep const& s)
      : shrink(static_cast<Scalar>(s.rate * s.decay)),
        rate(static_cast<Scalar>(s.rate / (1 - std::pow(s.beta1, static_cast<double>(s.step))))),
        beta1(static_cast<Scalar>(s.beta1)), rest1(static_cast<Scalar>(1 - s.beta1)),
        beta2(static_cast<Scalar>(s.beta2)), rest2(static_cast<Scalar>(1 - s.beta2)),
        root(static_cast<Scalar>(1 / std::sqrt(1 - std::pow(s.beta2, static_cast<double>(s.step))))),
        epsilon(static_cast<Scalar>(s.epsilon)), clip(static_cast<Scalar>(s.clip)) {}
};

/// Updates a number, or a vector of them, and its moments: PyTorch's form, in which epsilon is
/// added to the corrected root. (fairseq adds it before the correction: epsilon / sqrt(1 -
/// beta2^step) here gives that.)
template <class Scalar, class Number, class Root>
SOTTO_ALWAYS_INLINE void adamw_update(AdamwFactors<Scalar> const& f, Number gradient, Number& value, Number& first,
                                      Number& second, Root root) {
  gradient = gradient * f.clip;
  first = first * f.beta1 + gradient * f.rest1;
  second = second * f.beta2 + gradient * gradient * f.rest2;
  // Not value * (1 - shrink): rounded to float that factor is off by the same amount in every step.
  value = value - (value * f.shrink + first * f.rate / (root(second) * f.root + f.epsilon));
}

/// AdamW over flat buffers of one size: decoupled decay (values shrink by rate * decay of
/// themselves), then the step.
inline SOTTO_NOINLINE void adamw(Array<float> values, Array<float const> gradients, Array<float> first,
                                 Array<float> second, AdamwStep const& step) {
  const AdamwFactors<float> factors(step);
  const std::size_t whole = values.size - values.size % lanes;
  auto update = [&](std::size_t i, int count) {
    auto get = [&](float const* p) { return count == lanes ? load(p + i) : load_part(p + i, count); };
    Vec value = get(values.begin), m = get(first.begin), v = get(second.begin);
    adamw_update(factors, get(gradients.begin), value, m, v, [](Vec x) { return detail::square_root(x); });
    auto put = [&](float* p, Vec x) { count == lanes ? store(p + i, x) : store_part(p + i, x, count); };
    put(values.begin, value);
    put(first.begin, m);
    put(second.begin, v);
  };
  for (std::size_t i = 0; i < whole; i += lanes) update(i, lanes);
  if (whole < values.size) update(whole, static_cast<int>(values.size - whole));
}

/// to += from.
inline SOTTO_NOINLINE void add(Array<float const> from, Array<float> to) {
  for (std::size_t i = 0; i < to.size; ++i) to.begin[i] += from.begin[i];
}

/// The sum of squares, in double and in an order that depends on the size alone: eight running sums
/// over each block of 4096 numbers, added in a fixed tree, the blocks in order.
inline SOTTO_NOINLINE double squared_norm(Array<float const> x) {
  constexpr std::size_t block = 4096, strands = 8;
  double total = 0;
  for (std::size_t from = 0; from < x.size; from += block) {
    const std::size_t to = std::min(x.size, from + block), whole = to - (to - from) % strands;
    double sums[strands] = {};
    for (std::size_t i = from; i < whole; i += strands)
      for (std::size_t j = 0; j < strands; ++j) {
        const auto number = static_cast<double>(x.begin[i + j]);
        sums[j] += number * number;
      }
    for (std::size_t i = whole; i < to; ++i) {
      const auto number = static_cast<double>(x.begin[i]);
      sums[i - whole] += number * number;
    }
    total += ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  }
  return total;
}

}  // namespace sotto::cpu::inline SOTTO_ABI
