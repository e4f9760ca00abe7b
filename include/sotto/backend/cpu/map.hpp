// A user's element-wise function on the CPU.
#pragma once

#include <cstddef>

#include <sotto/config.hpp>
#include <sotto/core/dual.hpp>
#include <sotto/core/views.hpp>

namespace sotto::cpu::inline SOTTO_ABI {

/// y = Functor::apply(x), element by element; y may be x. Functor is stateless and has
/// `template <class T> static SOTTO_HOST_DEVICE T apply(T const&)`.
template <class Functor> SOTTO_NOINLINE void map(Array<float const> x, Array<float> y) {
  for (std::size_t i = 0; i < x.size; ++i) y.begin[i] = Functor::template apply<float>(x.begin[i]);
}

/// dx = dy * Functor's slope at x, which Dual finds: nobody writes it. dx may be dy.
template <class Functor> SOTTO_NOINLINE void map_back(Array<float const> x, Array<float const> dy, Array<float> dx) {
  using Number = Dual<float, 1>;
  for (std::size_t i = 0; i < x.size; ++i) {
    Number number(x.begin[i]);
    number.by[0] = 1;
    dx.begin[i] = dy.begin[i] * Functor::template apply<Number>(number).by[0];
  }
}

}  // namespace sotto::cpu::inline SOTTO_ABI
