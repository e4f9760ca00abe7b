// A user's element-wise function on the CPU.
#pragma once

#include <cstddef>
#include <type_traits>

#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>
#include <sotto/core/dual.hpp>
#include <sotto/core/views.hpp>

namespace sotto::cpu::inline SOTTO_ABI {

/// y = Functor::apply(x), element by element; y may be x. Functor is stateless and has
/// `template <class T> static SOTTO_HOST_DEVICE T apply(T const&)`.
template <class Functor, class E> SOTTO_NOINLINE void map(Array<std::type_identity_t<E> const> x, Array<E> y) {
  for (std::size_t i = 0; i < x.size; ++i)
    y.begin[i] = stored<E>(Functor::template apply<float>(static_cast<float>(x.begin[i])));
}

/// dx = dy * Functor's slope at x, which Dual finds: nobody writes it. dx may be dy.
template <class Functor, class E>
SOTTO_NOINLINE void map_back(Array<std::type_identity_t<E> const> x, Array<std::type_identity_t<E> const> dy,
                             Array<E> dx) {
  using Number = Dual<float, 1>;
  for (std::size_t i = 0; i < x.size; ++i) {
    Number number(static_cast<float>(x.begin[i]));
    number.by[0] = 1;
    dx.begin[i] = stored<E>(static_cast<float>(dy.begin[i]) * Functor::template apply<Number>(number).by[0]);
  }
}

}  // namespace sotto::cpu::inline SOTTO_ABI
