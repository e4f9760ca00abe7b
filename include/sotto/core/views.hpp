// Views: who owns nothing and knows its shape. Layers see widths in the type; backends see run-time sizes.
#pragma once

#include <cstddef>
#include <type_traits>

#include <sotto/config.hpp>

namespace sotto::inline SOTTO_API {

/// An element in GPU memory. It has a size, so that pointers move, but host code can neither read, write nor copy it.
template <class T> struct OnDevice {
  OnDevice() = delete;
  OnDevice(OnDevice const&) = delete;
  OnDevice& operator=(OnDevice const&) = delete;

 private:
  T value_;
};

}  // namespace sotto::inline SOTTO_API

namespace sotto::detail::inline SOTTO_API {
struct Never;  // incomplete: nvcc warns (#554-D) of a conversion to a view's own type, even when constrained away
template <class E> using ToConst = std::conditional_t<std::is_const_v<E>, Never, E const>;
}  // namespace sotto::detail::inline SOTTO_API

namespace sotto::inline SOTTO_API {

/// [rows, columns], row i at begin + i * stride. What a backend sees.
template <class E> struct Matrix {
  E* begin;
  int rows, columns;
  std::ptrdiff_t stride;
  SOTTO_HOST_DEVICE constexpr operator Matrix<detail::ToConst<E>>() const {  // NOLINT: a view widens to a const one
    return {begin, rows, columns, stride};
  }
  SOTTO_HOST_DEVICE constexpr E* row(int i) const { return begin + i * stride; }
  /// Columns [first, first + count).
  SOTTO_HOST_DEVICE constexpr Matrix slice_columns(int first, int count) const {
    return {begin + first, rows, count, stride};
  }
  /// Rows [first, first + count).
  SOTTO_HOST_DEVICE constexpr Matrix slice_rows(int first, int count) const {
    return {begin + first * stride, count, columns, stride};
  }
};

/// [size] numbers side by side.
template <class E> struct Array {
  E* begin;
  std::size_t size;
  SOTTO_HOST_DEVICE constexpr operator Array<detail::ToConst<E>>() const { return {begin, size}; }  // NOLINT
};

/// [rows, Width], dense. What a layer sees.
template <class E, int Width> struct Rows {
  E* begin;
  int rows;
  static constexpr int width = Width;
  SOTTO_HOST_DEVICE constexpr operator Matrix<E>() const { return {begin, rows, Width, Width}; }  // NOLINT
  SOTTO_HOST_DEVICE constexpr operator Matrix<detail::ToConst<E>>() const {
    return {begin, rows, Width, Width};
  }                                                                                                       // NOLINT
  SOTTO_HOST_DEVICE constexpr operator Rows<detail::ToConst<E>, Width>() const { return {begin, rows}; }  // NOLINT
  SOTTO_HOST_DEVICE constexpr Array<E> flat() const { return {begin, static_cast<std::size_t>(rows) * Width}; }
};

/// [Out, In], dense: a weight, its gradient or a moment of it.
template <class E, int Out, int In> struct Weight {
  E* begin;
  static constexpr int out = Out, in = In;
  static constexpr std::size_t size = static_cast<std::size_t>(Out) * In;
  SOTTO_HOST_DEVICE constexpr operator Matrix<E>() const { return {begin, Out, In, In}; }                   // NOLINT
  SOTTO_HOST_DEVICE constexpr operator Matrix<detail::ToConst<E>>() const { return {begin, Out, In, In}; }  // NOLINT
};

/// [N]: a bias, a gain, a table.
template <class E, int N> struct Vector {
  E* begin;
  static constexpr std::size_t size = static_cast<std::size_t>(N);
  SOTTO_HOST_DEVICE constexpr operator Array<E>() const { return {begin, size}; }                   // NOLINT
  SOTTO_HOST_DEVICE constexpr operator Array<detail::ToConst<E>>() const { return {begin, size}; }  // NOLINT
};

/// Some whole sequences of a batch, packed: rows of sequence i are [offsets[i], offsets[i + 1]). Index: int, or
/// OnDevice<int>. On a host offsets[sequences] == rows. On a device all numbers here are capacities, the same for every
/// batch: sequences may be empty, rows after the last sequence hold zeros, and unused entries of masked, unmasked and
/// targets are -1, which every operation passes over.
template <class Index> struct Lane {
  Index const* offsets;     ///< [sequences + 1]
  Index const* utterances;  ///< [sequences] the utterance a sequence was cut from: dropout is keyed by it
  Index const* starts;      ///< [sequences] the frame of the utterance at which the sequence begins
  int sequences, rows;
  int longest;            ///< rows of the longest sequence, or more: scratch is sized by it
  Index const* masked;    ///< [masked_rows] rows that the objective predicts, ascending
  Index const* unmasked;  ///< [unmasked_rows] the others, ascending
  int masked_rows, unmasked_rows;
  Index const* targets;  ///< [masked_rows + unmasked_rows] labels in that order, for objectives that have labels
};

}  // namespace sotto::inline SOTTO_API
