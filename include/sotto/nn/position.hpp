// What tells an encoder where a frame stands: x + position(x).
#pragma once

#include <array>
#include <tuple>

#include <sotto/core/arena.hpp>
#include <sotto/nn/linear.hpp>
#include <sotto/nn/parameters.hpp>

namespace sotto::position::inline SOTTO_API {

/// Grouped convolutions in series, each with weight norm over taps and followed by GELU (wav2vec 2.0, arXiv 2006.11477,
/// section 2; fairseq's and Hugging Face's layout). The paper's is Convolution<16, 128>.
template <int Groups, int... Taps> struct Convolution {
  static_assert(Groups >= 1, "sotto: a convolutional position needs at least 1 group");
  static_assert(sizeof...(Taps) >= 1, "sotto: a convolutional position needs the taps of at least one convolution");
  static_assert(((Taps >= 1) && ...), "sotto: a convolution needs at least 1 tap");
  static constexpr int groups = Groups;
  static constexpr std::array<int, sizeof...(Taps)> taps{Taps...};
};

/// Fixed sines and cosines: channel 2i holds sin(t / 10000^(2i / width)), channel 2i + 1 the cosine
/// (Vaswani et al., arXiv 1706.03762, section 3.5).
struct Sinusoidal {};

}  // namespace sotto::position::inline SOTTO_API

namespace sotto::inline SOTTO_API {

/// Extents of a grouped "same" convolution: for an even number of taps the last output is dropped.
struct ConvolutionShape {
  int width, groups, taps;
  SOTTO_HOST_DEVICE constexpr int channels() const { return width / groups; }
};

}  // namespace sotto::inline SOTTO_API

namespace sotto::inline SOTTO_ABI {

/// What an encoder needs of its position: Parameters, and a layer over a backend.
template <class Position, int Width> struct PositionLayer;

template <int Groups, int... Taps, int Width> struct PositionLayer<position::Convolution<Groups, Taps...>, Width> {
  using Position = position::Convolution<Groups, Taps...>;
  static constexpr int count = sizeof...(Taps), channels = Width / Groups;
  static constexpr bool series = count > 1;
  static constexpr ConvolutionShape shape(int i) {
    return {Width, Groups, Position::taps[static_cast<std::size_t>(i)]};
  }

  /// One convolution: v [width, width / groups, taps], g [taps], bias [width].
  template <class Store, int K> struct ConvolutionParameters {
    typename Store::template Vector<Width> bias;
    typename Store::template Weight<Width, channels * K> direction;
    typename Store::template Vector<K> magnitude;

    template <class F, class... P> static constexpr void visit(F&& f, int layer, P&... p) {
      // fairseq: N(0, sqrt(4 / (taps * width))); the square root by Newton since std::sqrt is not constexpr
      double root = 1;
      for (int i = 0; i < 60; ++i) root = .5 * (root + 4. / (K * Width) / root);
      f(ParameterInfo{series ? "encoder.pos_conv_embed.layers.{}.conv.bias" : "encoder.pos_conv_embed.conv.bias",
                      {Width},
                      {},
                      false,
                      layer},
        p.bias...);
      f(ParameterInfo{series ? "encoder.pos_conv_embed.layers.{}.conv.weight_v"
                             : "encoder.pos_conv_embed.conv.weight_v",
                      {Width, channels, K},
                      {Initialiser::Kind::normal, static_cast<float>(root)},
                      true,
                      layer},
        p.direction...);
      f(ParameterInfo{series ? "encoder.pos_conv_embed.layers.{}.conv.weight_g"
                             : "encoder.pos_conv_embed.conv.weight_g",
                      {1, 1, K},
                      {Initialiser::Kind::tap_norms},
                      false,
                      layer},
        p.magnitude...);
    }
  };
  template <class Store> struct Parameters {
    std::tuple<ConvolutionParameters<Store, Taps>...> convolutions;

    template <class F, class... P> static constexpr void visit(F&& f, P&... p) { visit_each<0>(f, p...); }

   private:
    template <int I, class F, class... P> static constexpr void visit_each(F&& f, P&... p) {
      if constexpr (I < count) {
        ConvolutionParameters<Store, Position::taps[I]>::visit(f, I, std::get<I>(p.convolutions)...);
        visit_each<I + 1>(f, p...);
      }
    }
  };

  /// multiply-adds of one frame, forward.
  static constexpr std::uint64_t multiply_adds_per_frame() {
    return (std::uint64_t{0} + ... + (static_cast<std::uint64_t>(Width) * channels * Taps));
  }

  template <class B> struct Over {
    using E = typename B::Element;
    using R = typename B::Master;
    struct Weights {
      std::array<typename B::PreparedConvolution, count> convolutions;
    };
    struct Activations {
      std::array<Rows<E, Width>, count> before, after;
    };
    using Gradients = Parameters<Values<R>>;
    using Master = Parameters<Values<R const>>;

    static constexpr Weights carve_weights(Arena& arena) {
      Weights w{};
      for (int i = 0; i < count; ++i)
        w.convolutions[static_cast<std::size_t>(i)] = B::carve_convolution(arena, shape(i));
      return w;
    }
    static void prepare(B& b, Master const& m, Weights& w) { prepare_each<0>(b, m, w); }
    /// Turns the gradients of effective weights, accumulated in v's place, into those of g and v. Once a step.
    static void finish(B& b, Master const& m, Gradients const& g) { finish_each<0>(b, m, g); }

    static constexpr Activations carve(Arena& arena, int rows, int /*longest*/) {
      Activations a{};
      for (int i = 0; i < count; ++i) {
        a.before[static_cast<std::size_t>(i)] = arena.rows<E, Width>(rows);
        a.after[static_cast<std::size_t>(i)] = arena.rows<E, Width>(rows);
      }
      return a;
    }
    /// y = x + position(x).
    static void forward(B& b, Weights const& w, Lane<typename B::Index> const& lane, Rows<E const, Width> x,
                        Activations& a, Rows<E, Width> y) {
      Rows<E const, Width> from = x;
      for (std::size_t i = 0; i < count; ++i) {
        b.convolution(lane, from, w.convolutions[i], a.before[i]);
        b.gelu(a.before[i].flat(), a.after[i].flat());
        from = a.after[i];
      }
      b.sum(x, from, y);
    }
    /// d: gradient by y on entry, by x on return. scratch: two of [rows, width].
    static void backward(B& b, Weights const& w, Gradients const& g, Lane<typename B::Index> const& lane,
                         Rows<E const, Width> x, Activations const& a, Rows<E, Width> d, Rows<E, Width> scratch_a,
                         Rows<E, Width> scratch_b) {
      backward_each<count - 1>(b, w, g, lane, x, a, d, d, scratch_a, scratch_b);
    }

   private:
    template <int I> static void prepare_each(B& b, Master const& m, Weights& w) {
      if constexpr (I < count) {
        auto& c = std::get<I>(m.convolutions);
        b.prepare_convolution(shape(I), c.direction.begin, c.magnitude.begin, c.bias.begin, w.convolutions[I]);
        prepare_each<I + 1>(b, m, w);
      }
    }
    template <int I> static void finish_each(B& b, Master const& m, Gradients const& g) {
      if constexpr (I < count) {
        auto& c = std::get<I>(m.convolutions);
        auto& d = std::get<I>(g.convolutions);
        b.finish_convolution(shape(I), c.direction.begin, c.magnitude.begin, d.direction.begin, d.magnitude.begin);
        finish_each<I + 1>(b, m, g);
      }
    }
    template <int I>
    static void backward_each(B& b, Weights const& w, Gradients const& g, Lane<typename B::Index> const& lane,
                              Rows<E const, Width> x, Activations const& a, Rows<E const, Width> dy, Rows<E, Width> d,
                              Rows<E, Width> free_a, Rows<E, Width> free_b) {
      b.gelu_back(a.before[I].flat(), dy.flat(), free_a.flat());
      Rows<E const, Width> from = x;
      if constexpr (I > 0) from = a.after[I - 1];
      auto& gradient = std::get<I>(g.convolutions);
      b.convolution_gradient(lane, free_a, from, w.convolutions[I], gradient.direction.begin, gradient.bias.begin);
      b.convolution_back(lane, free_a, w.convolutions[I], free_b);
      if constexpr (I > 0)
        backward_each<I - 1>(b, w, g, lane, x, a, free_b, d, free_a, free_b);
      else
        b.sum(d, free_b, d);
    }
  };
};

template <int Width> struct PositionLayer<position::Sinusoidal, Width> {
  template <class Store> struct Parameters {
    template <class F, class... P> static constexpr void visit(F&&, P&...) {}
  };
  static constexpr std::uint64_t multiply_adds_per_frame() { return 0; }

  template <class B> struct Over {
    using E = typename B::Element;
    using R = typename B::Master;
    struct Weights {};
    struct Activations {};
    using Gradients = Parameters<Values<R>>;
    using Master = Parameters<Values<R const>>;

    static constexpr Weights carve_weights(Arena&) { return {}; }
    static void prepare(B&, Master const&, Weights&) {}
    static void finish(B&, Master const&, Gradients const&) {}
    static constexpr Activations carve(Arena&, int, int) { return {}; }
    static void forward(B& b, Weights const&, Lane<typename B::Index> const& lane, Rows<E const, Width> x, Activations&,
                        Rows<E, Width> y) {
      b.add_sinusoids(lane, x, y);
    }
    static void backward(B&, Weights const&, Gradients const&, Lane<typename B::Index> const&, Rows<E const, Width>,
                         Activations const&, Rows<E, Width>, Rows<E, Width>, Rows<E, Width>) {}
  };
};

}  // namespace sotto::inline SOTTO_ABI
