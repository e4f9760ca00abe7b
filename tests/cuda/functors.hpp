// A program's own arithmetic, for the tests of the Cuda backend and the kernels that they link.
#pragma once

#include <sotto/config.hpp>

struct SoftSign {
  template <class T> static SOTTO_HOST_DEVICE T apply(T const& x) { return x / (T(1) + sqrt(x * x)); }
};
struct SmoothDistance {
  template <class T> static SOTTO_HOST_DEVICE T term(T const& predicted, T const& wanted) {
    const T d = predicted - wanted;
    return sqrt(T(1) + d * d) - T(1);
  }
};
