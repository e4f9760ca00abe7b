// Affine layers: y = x W^T + b.
#pragma once

#include <sotto/core/arena.hpp>
#include <sotto/nn/parameters.hpp>

namespace sotto::inline SOTTO_API {

/// Extents of an affine layer. An extent that is made of heads is cut into blocks, and activations carry each block
/// padded with zeros to what kernels like; masters and gradients know nothing of it. A block of 0 means none.
struct LinearShape {
  int out, in;
  int out_block = 0, out_padded_block = 0;
  int in_block = 0, in_padded_block = 0;

  SOTTO_HOST_DEVICE constexpr int padded_out() const {
    return out_block == 0 ? out : out / out_block * out_padded_block;
  }
  SOTTO_HOST_DEVICE constexpr int padded_in() const { return in_block == 0 ? in : in / in_block * in_padded_block; }
  SOTTO_HOST_DEVICE constexpr bool padded() const { return padded_out() != out || padded_in() != in; }
};

}  // namespace sotto::inline SOTTO_API

namespace sotto::inline SOTTO_ABI {

/// Where a layer's weight and bias stand in the table.
struct LinearNames {
  std::string_view weight, bias;
  int layer = -1;
};

template <class Store, int Out, int In> struct LinearParameters {
  typename Store::template Weight<Out, In> weight;
  typename Store::template Vector<Out> bias;

  template <class F, class... P> static constexpr void visit(F&& f, LinearNames names, Initialiser start, P&... p) {
    f(ParameterInfo{names.weight, {Out, In}, start, true, names.layer}, p.weight...);
    f(ParameterInfo{names.bias, {Out}, {}, false, names.layer}, p.bias...);
  }
};

/// PyTorch's default for nn.Linear: uniform within 1 / sqrt(fan-in).
constexpr Initialiser fan_in_uniform(int fan_in) {
  double root = 1;  // Newton, since std::sqrt is not constexpr in C++20
  for (int i = 0; i < 40; ++i) root = .5 * (root + fan_in / root);
  return {Initialiser::Kind::uniform, static_cast<float>(1 / root)};
}
/// fairseq's init_bert_params.
inline constexpr Initialiser bert_normal{Initialiser::Kind::normal, .02f};

/// An affine layer over backend B. In and Out are those of activations: padded where the shape says so.
template <class B, int Out, int In> struct Linear {
  using E = typename B::Element;
  using R = typename B::Master;
  using Weights = typename B::Prepared;

  static void forward(B& b, Rows<E const, In> x, Weights const& w, Rows<E, Out> y) { b.product(x, w, y); }
  /// y = gelu(before), before = x W^T + b.
  static void forward_gelu(B& b, Rows<E const, In> x, Weights const& w, Rows<E, Out> before, Rows<E, Out> y) {
    b.product_gelu(x, w, before, y);
  }
  /// y = x W^T + b + residual.
  static void forward_add(B& b, Rows<E const, In> x, Weights const& w, Rows<E const, Out> residual, Rows<E, Out> y) {
    b.product_add(x, w, residual, y);
  }
  /// dW += dy^T x, db += column sums of dy.
  static void gradient(B& b, Rows<E const, Out> dy, Rows<E const, In> x, Weights const& w, Matrix<R> dw, Array<R> db) {
    b.weight_gradient(dy, x, w, dw, db);
  }
  /// dx = dy W.
  static void backward(B& b, Rows<E const, Out> dy, Weights const& w, Rows<E, In> dx) { b.product_back(dy, w, dx); }
  /// dx += dy W.
  static void backward_add(B& b, Rows<E const, Out> dy, Weights const& w, Rows<E, In> dx) {
    b.product_back_add(dy, w, dx);
  }
  /// dx = (dy W) gelu'(before).
  static void backward_gelu(B& b, Rows<E const, Out> dy, Weights const& w, Rows<E const, In> before, Rows<E, In> dx) {
    b.product_back_gelu(dy, w, before, dx);
  }
};

}  // namespace sotto::inline SOTTO_ABI
