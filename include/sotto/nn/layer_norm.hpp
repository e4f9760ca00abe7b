// Layer normalisation over the channels of a row.
#pragma once

#include <sotto/nn/parameters.hpp>

namespace sotto::inline SOTTO_ABI {

inline constexpr float layer_norm_epsilon = 1e-5f;

template <class Store, int N> struct LayerNormParameters {
  typename Store::template Vector<N> weight, bias;

  template <class F, class... P>
  static constexpr void visit(F&& f, std::string_view weight_name, std::string_view bias_name, int layer, P&... p) {
    f(ParameterInfo{weight_name, {N}, {Initialiser::Kind::ones}, false, layer}, p.weight...);
    f(ParameterInfo{bias_name, {N}, {}, false, layer}, p.bias...);
  }
};

/// y = (x - mean) / sqrt(variance + 1e-5) * weight + bias; statistics [rows, 2] are kept for backward.
template <class B, int N> struct LayerNorm {
  using E = typename B::Element;
  using R = typename B::Master;
  using Weights = LayerNormParameters<Values<R const>, N>;
  using Gradients = LayerNormParameters<Values<R>, N>;

  static void forward(B& b, Rows<E const, N> x, Weights const& w, Rows<E, N> y, Rows<R, 2> statistics) {
    b.layer_norm(x, w.weight, w.bias, layer_norm_epsilon, y, statistics);
  }
  /// dx = the gradient, and dx may be dy; or dx += it.
  static void backward(B& b, Rows<E const, N> dy, Rows<E const, N> x, Weights const& w, Rows<R const, 2> statistics,
                       Gradients const& g, Rows<E, N> dx, bool accumulate) {
    b.layer_norm_back(dy, x, w.weight, statistics, dx, accumulate, g.weight, g.bias);
  }
};

}  // namespace sotto::inline SOTTO_ABI
