// Numbers that kernels read and write, and how far they are from what they should be.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <new>
#include <vector>

#include <sotto/backend/cpu/simd.hpp>

namespace sotto::test {

template <class T> using Numbers = std::vector<T>;
inline std::size_t index(int row, int columns, int column) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(columns) + static_cast<std::size_t>(column);
}

// At a multiple of 64 bytes, filled with NaN: whoever reads what was never written is found out.
template <class E> struct Memory {
  E* begin;
  std::size_t size;
  explicit Memory(std::size_t n)
      : begin(static_cast<E*>(::operator new ((n + 1) * sizeof(E), std::align_val_t{64}))), size(n) {
    for (std::size_t i = 0; i <= n; ++i) begin[i] = cpu::stored<E>(std::numeric_limits<float>::quiet_NaN());
  }
  explicit Memory(Numbers<double> const& from) : Memory(from.size()) {
    for (std::size_t i = 0; i < size; ++i) begin[i] = cpu::stored<E>(static_cast<float>(from[i]));
  }
  Memory(Memory const&) = delete;
  Memory& operator=(Memory const&) = delete;
  ~Memory() { ::operator delete (begin, std::align_val_t{64}); }
};
using Floats = Memory<float>;

// |a - b| / |b| over all numbers.
template <class E> double distance(Memory<E> const& a, Numbers<double> const& b) {
  double apart = 0, norm = 1e-30;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double d = static_cast<double>(static_cast<float>(a.begin[i])) - b[i];
    apart += d * d;
    norm += b[i] * b[i];
  }
  return std::sqrt(apart / norm);
}

}  // namespace sotto::test
