// A number that carries its derivatives along: what turns a user's formula into its own gradient.
#pragma once

#include <math.h>  // not <cmath>: policies call exp, tanh ... unqualified, so that one text serves float, Dual and a GPU

#include <concepts>
#include <type_traits>

#include <sotto/config.hpp>

namespace sotto::detail::inline SOTTO_API {
template <class T> struct InnermostOf { using type = T; };
}  // namespace sotto::detail::inline SOTTO_API

namespace sotto::inline SOTTO_API {

/// A value with its derivatives by N variables (forward-mode automatic differentiation). T: float,
/// double or a Dual. Comparisons look at the value only. The functions are found by
/// argument-dependent lookup: call them unqualified.
template <class T, int N> struct Dual {
  static_assert(N >= 0, "sotto: a Dual cannot have a negative number of derivatives");
  /// float or double, however deeply nested.
  using Innermost = typename detail::InnermostOf<T>::type;

  T value{};
  T by[N > 0 ? N : 1]{};  // one unused if N is 0: C++ has no empty arrays

  SOTTO_HOST_DEVICE constexpr Dual() {}
  /// A constant.
  SOTTO_HOST_DEVICE constexpr Dual(T const& constant) : value(constant) {}  // NOLINT: numbers are Duals
  template <class A>
  requires(std::is_arithmetic_v<A> && !std::same_as<A, T>) SOTTO_HOST_DEVICE constexpr Dual(A constant)
      : value(T(static_cast<Innermost>(constant))) {}  // NOLINT
  /// The i-th variable: its derivative by itself is 1. 0 <= i < N.
  static SOTTO_HOST_DEVICE constexpr Dual variable(T const& value, int i) {
    Dual x(value);
    x.by[i] = T(1);
    return x;
  }
  /// f(*this), given f's value and its slope here.
  SOTTO_HOST_DEVICE constexpr Dual chain(T const& f, T const& slope) const {
    Dual y(f);
    for (int i = 0; i < N; ++i) y.by[i] = slope * by[i];
    return y;
  }

  SOTTO_HOST_DEVICE constexpr Dual& operator+=(Dual const& b) { return *this = *this + b; }
  SOTTO_HOST_DEVICE constexpr Dual& operator-=(Dual const& b) { return *this = *this - b; }
  SOTTO_HOST_DEVICE constexpr Dual& operator*=(Dual const& b) { return *this = *this * b; }
  SOTTO_HOST_DEVICE constexpr Dual& operator/=(Dual const& b) { return *this = *this / b; }

  friend SOTTO_HOST_DEVICE constexpr Dual operator+(Dual const& a) { return a; }
  friend SOTTO_HOST_DEVICE constexpr Dual operator-(Dual const& a) { return a.chain(-a.value, T(-1)); }
  friend SOTTO_HOST_DEVICE constexpr Dual operator+(Dual const& a, Dual const& b) {
    Dual y(a.value + b.value);
    for (int i = 0; i < N; ++i) y.by[i] = a.by[i] + b.by[i];
    return y;
  }
  friend SOTTO_HOST_DEVICE constexpr Dual operator-(Dual const& a, Dual const& b) {
    Dual y(a.value - b.value);
    for (int i = 0; i < N; ++i) y.by[i] = a.by[i] - b.by[i];
    return y;
  }
  friend SOTTO_HOST_DEVICE constexpr Dual operator*(Dual const& a, Dual const& b) {
    Dual y(a.value * b.value);
    for (int i = 0; i < N; ++i) y.by[i] = a.by[i] * b.value + a.value * b.by[i];
    return y;
  }
  friend SOTTO_HOST_DEVICE constexpr Dual operator/(Dual const& a, Dual const& b) {
    Dual y(a.value / b.value);
    for (int i = 0; i < N; ++i) y.by[i] = (a.by[i] - y.value * b.by[i]) / b.value;
    return y;
  }
  // With constants, whose derivatives need no arithmetic.
  template <class A>
  requires(std::is_arithmetic_v<A> || std::same_as<A, T>) friend SOTTO_HOST_DEVICE constexpr Dual operator+(
      Dual a, A const& b) {
    a.value = a.value + constant(b);
    return a;
  }
  template <class A>
  requires(std::is_arithmetic_v<A> || std::same_as<A, T>) friend SOTTO_HOST_DEVICE constexpr Dual operator+(A const& a,
                                                                                                            Dual b) {
    b.value = constant(a) + b.value;
    return b;
  }
  template <class A>
  requires(std::is_arithmetic_v<A> || std::same_as<A, T>) friend SOTTO_HOST_DEVICE constexpr Dual operator-(
      Dual a, A const& b) {
    a.value = a.value - constant(b);
    return a;
  }
  template <class A>
  requires(std::is_arithmetic_v<A> || std::same_as<A, T>) friend SOTTO_HOST_DEVICE constexpr Dual operator-(
      A const& a, Dual const& b) {
    return b.chain(constant(a) - b.value, T(-1));
  }
  template <class A>
  requires(std::is_arithmetic_v<A> || std::same_as<A, T>) friend SOTTO_HOST_DEVICE constexpr Dual operator*(
      Dual const& a, A const& b) {
    return a.chain(a.value * constant(b), constant(b));
  }
  template <class A>
  requires(std::is_arithmetic_v<A> || std::same_as<A, T>) friend SOTTO_HOST_DEVICE constexpr Dual operator*(
      A const& a, Dual const& b) {
    return b.chain(constant(a) * b.value, constant(a));
  }
  template <class A>
  requires(std::is_arithmetic_v<A> || std::same_as<A, T>) friend SOTTO_HOST_DEVICE constexpr Dual operator/(
      Dual const& a, A const& b) {
    return a.chain(a.value / constant(b), T(1) / constant(b));
  }
  template <class A>
  requires(std::is_arithmetic_v<A> || std::same_as<A, T>) friend SOTTO_HOST_DEVICE constexpr Dual operator/(
      A const& a, Dual const& b) {
    const T q = constant(a) / b.value;
    return b.chain(q, -q / b.value);
  }

  friend SOTTO_HOST_DEVICE constexpr bool operator==(Dual const& a, Dual const& b) { return a.value == b.value; }
  friend SOTTO_HOST_DEVICE constexpr bool operator<(Dual const& a, Dual const& b) { return a.value < b.value; }
  friend SOTTO_HOST_DEVICE constexpr bool operator>(Dual const& a, Dual const& b) { return a.value > b.value; }
  friend SOTTO_HOST_DEVICE constexpr bool operator<=(Dual const& a, Dual const& b) { return a.value <= b.value; }
  friend SOTTO_HOST_DEVICE constexpr bool operator>=(Dual const& a, Dual const& b) { return a.value >= b.value; }

  // Hidden friends: a free sotto::exp would make CUDA's own headers ambiguous after `using
  // namespace sotto`.
  friend SOTTO_HOST_DEVICE Dual exp(Dual const& x) {
    const T e = exp(x.value);
    return x.chain(e, e);
  }
  friend SOTTO_HOST_DEVICE Dual log(Dual const& x) { return x.chain(log(x.value), T(1) / x.value); }
  friend SOTTO_HOST_DEVICE Dual sqrt(Dual const& x) {
    const T s = sqrt(x.value);
    return x.chain(s, T(Innermost(0.5)) / s);
  }
  friend SOTTO_HOST_DEVICE Dual tanh(Dual const& x) {
    const T t = tanh(x.value);
    return x.chain(t, T(1) - t * t);
  }
  friend SOTTO_HOST_DEVICE Dual erf(Dual const& x) {
    return x.chain(erf(x.value),
                   T(Innermost(1.1283791670955126)) * exp(-(x.value * x.value)));  // 2 / sqrt(pi)
  }
  friend SOTTO_HOST_DEVICE Dual sin(Dual const& x) { return x.chain(sin(x.value), cos(x.value)); }
  friend SOTTO_HOST_DEVICE Dual cos(Dual const& x) { return x.chain(cos(x.value), -sin(x.value)); }
  /// x to a constant power.
  template <class A>
  requires std::is_arithmetic_v<A>
  friend SOTTO_HOST_DEVICE Dual pow(Dual const& x, A power) {
    const Innermost p = static_cast<Innermost>(power);
    return x.chain(T(pow(x.value, p)), T(p) * T(pow(x.value, p - Innermost(1))));
  }
  friend SOTTO_HOST_DEVICE constexpr Dual abs(Dual const& x) { return x.value < T(0) ? -x : x; }
  friend SOTTO_HOST_DEVICE constexpr Dual fabs(Dual const& x) { return abs(x); }
  friend SOTTO_HOST_DEVICE constexpr Dual max(Dual const& a, Dual const& b) { return a.value < b.value ? b : a; }
  friend SOTTO_HOST_DEVICE constexpr Dual min(Dual const& a, Dual const& b) { return b.value < a.value ? b : a; }
  friend SOTTO_HOST_DEVICE constexpr Dual fmax(Dual const& a, Dual const& b) { return max(a, b); }
  friend SOTTO_HOST_DEVICE constexpr Dual fmin(Dual const& a, Dual const& b) { return min(a, b); }

 private:
  template <class A> static SOTTO_HOST_DEVICE constexpr T constant(A const& a) {
    if constexpr (std::same_as<A, T>) {
      return a;
    } else {
      return T(static_cast<Innermost>(a));
    }
  }
};

}  // namespace sotto::inline SOTTO_API

namespace sotto::detail::inline SOTTO_API {
template <class T, int N> struct InnermostOf<Dual<T, N>> { using type = typename Dual<T, N>::Innermost; };
}  // namespace sotto::detail::inline SOTTO_API

namespace sotto::inline SOTTO_API {

/// The plain number, without derivatives.
SOTTO_HOST_DEVICE constexpr float real(float x) { return x; }
SOTTO_HOST_DEVICE constexpr double real(double x) { return x; }
template <class T, int N> SOTTO_HOST_DEVICE constexpr typename Dual<T, N>::Innermost real(Dual<T, N> const& x) {
  return real(x.value);
}

}  // namespace sotto::inline SOTTO_API
