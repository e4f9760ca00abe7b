// HuBERT (Hsu et al., arXiv 2106.07447): predict the cluster of each hidden frame.
#pragma once

#include <sotto/nn/linear.hpp>
#include <sotto/objective/masking.hpp>
#include <sotto/objective/mfcc_clusters.hpp>
#include <sotto/objective/objective.hpp>

namespace sotto::objective::inline SOTTO_ABI {

/// Logits as HuBERT's: cosine of a projection of the frame and an embedding of the class, over a temperature.
template <int Projection = 256> struct Cosine {
  static_assert(Projection >= 1, "sotto: Cosine needs a projection of at least 1");
};
/// Logits as MelHuBERT's and Fast-HuBERT's: one affine layer.
struct Plain {};

/// The two kinds of logits over a backend: parameters, forward and backward.
template <class Logits, int Classes, int Width> struct ClassLogits;

template <int Projection, int Classes, int Width> struct ClassLogits<Cosine<Projection>, Classes, Width> {
  static constexpr LinearShape projection{Projection, Width}, embedding{Classes, Projection};

  template <class Store> struct Parameters {
    LinearParameters<Store, Projection, Width> projection;
    typename Store::template Weight<Classes, Projection> embedding;
    template <class F, class... P> static constexpr void visit(F&& f, P&... p) {
      decltype(projection)::visit(f, {"final_proj.weight", "final_proj.bias"}, fan_in_uniform(Width), p.projection...);
      f(ParameterInfo{"label_embs_concat", {Classes, Projection}, {Initialiser::Kind::unit}, true}, p.embedding...);
    }
  };
  template <class B> struct Over {
    using E = typename B::Element;
    using R = typename B::Master;
    struct Weights {
      typename B::Prepared projection, embedding;
    };
    struct Activations {
      Rows<E, Projection> projected, direction;
      Rows<R, 1> inverse_norm;
      Rows<E, Classes> scores;
    };
    static constexpr Weights carve_weights(Arena& arena) {
      return {B::carve_linear(arena, ClassLogits::projection), B::carve_linear(arena, embedding)};
    }
    static void prepare(B& b, Parameters<Values<R const>> const& m, Weights& w) {
      b.prepare_linear(ClassLogits::projection, m.projection.weight.begin, m.projection.bias.begin, w.projection);
      b.prepare_directions(embedding, m.embedding.begin, w.embedding);
    }
    static void finish(B& b, Parameters<Values<R const>> const& m, Parameters<Values<R>> const& g) {
      b.finish_directions(m.embedding, g.embedding);
    }
    static constexpr Activations carve(Arena& arena, int rows) {
      return {arena.rows<E, Projection>(rows), arena.rows<E, Projection>(rows), arena.rows<R, 1>(rows),
              arena.rows<E, Classes>(rows)};
    }
    /// a.scores = cosines.
    static void forward(B& b, Weights const& w, Rows<E const, Width> x, Activations& a) {
      Linear<B, Projection, Width>::forward(b, x, w.projection, a.projected);
      b.normalise_rows(a.projected, a.direction, a.inverse_norm.flat());
      Linear<B, Classes, Projection>::forward(b, a.direction, w.embedding, a.scores);
    }
    /// From the gradient in a.scores to dx; a.projected is overwritten.
    static void backward(B& b, Weights const& w, Parameters<Values<R>> const& g, Rows<E const, Width> x, Activations& a,
                         Rows<E, Width> dx) {
      Linear<B, Classes, Projection>::gradient(b, a.scores, a.direction, w.embedding, g.embedding, {});
      Linear<B, Classes, Projection>::backward(b, a.scores, w.embedding, a.projected);
      b.normalise_rows_back(a.projected, a.direction, a.inverse_norm.flat(), a.projected);
      Linear<B, Projection, Width>::gradient(b, a.projected, x, w.projection, g.projection.weight, g.projection.bias);
      Linear<B, Projection, Width>::backward(b, a.projected, w.projection, dx);
    }
    static constexpr bool divided = true;  ///< scores are cosines, to be divided by the temperature
  };
  static constexpr std::uint64_t multiply_adds_per_row() {
    return static_cast<std::uint64_t>(Width) * Projection + static_cast<std::uint64_t>(Projection) * Classes;
  }
};

template <int Classes, int Width> struct ClassLogits<Plain, Classes, Width> {
  static constexpr LinearShape shape{Classes, Width};

  template <class Store> struct Parameters {
    LinearParameters<Store, Classes, Width> projection;
    template <class F, class... P> static constexpr void visit(F&& f, P&... p) {
      decltype(projection)::visit(f, {"final_proj.weight", "final_proj.bias"}, fan_in_uniform(Width), p.projection...);
    }
  };
  template <class B> struct Over {
    using E = typename B::Element;
    using R = typename B::Master;
    struct Weights {
      typename B::Prepared projection;
    };
    struct Activations {
      Rows<E, Classes> scores;
    };
    static constexpr Weights carve_weights(Arena& arena) { return {B::carve_linear(arena, shape)}; }
    static void prepare(B& b, Parameters<Values<R const>> const& m, Weights& w) {
      b.prepare_linear(shape, m.projection.weight.begin, m.projection.bias.begin, w.projection);
    }
    static void finish(B&, Parameters<Values<R const>> const&, Parameters<Values<R>> const&) {}
    static constexpr Activations carve(Arena& arena, int rows) { return {arena.rows<E, Classes>(rows)}; }
    static void forward(B& b, Weights const& w, Rows<E const, Width> x, Activations& a) {
      Linear<B, Classes, Width>::forward(b, x, w.projection, a.scores);
    }
    static void backward(B& b, Weights const& w, Parameters<Values<R>> const& g, Rows<E const, Width> x, Activations& a,
                         Rows<E, Width> dx) {
      Linear<B, Classes, Width>::gradient(b, a.scores, x, w.projection, g.projection.weight, g.projection.bias);
      Linear<B, Classes, Width>::backward(b, a.scores, w.projection, dx);
    }
    static constexpr bool divided = false;
  };
  static constexpr std::uint64_t multiply_adds_per_row() { return static_cast<std::uint64_t>(Width) * Classes; }
};

/// Masked prediction of clusters. Loss: (w_m sum of masked + w_u sum of unmasked cross-entropies) / rows that count
/// (fairseq hubert_criterion: masked rows, and unmasked ones if w_u > 0). fairseq's logits put the target first and
/// remove its own column, which is the softmax over all classes taken here.
template <int Clusters, class Logits = Cosine<>> struct Hubert {
  static_assert(Clusters >= 2, "sotto: Hubert needs at least 2 clusters");
  static_assert(Clusters <= 65536, "sotto: Hubert has labels of 16 bits: at most 65536 clusters");
  static constexpr int classes = Clusters;

  using Targets = MfccClusters<Clusters>;
  struct Options {
    MaskOptions mask{};
    float masked_weight = 1, unmasked_weight = 0;
    float temperature = .1f;  ///< of cosine logits; plain logits ignore it
    typename Targets::Options targets{};

    template <class F> void visit(F&& f) {
      f("masked_weight", masked_weight);
      f("unmasked_weight", unmasked_weight);
      f("temperature", temperature);
      targets.visit(f);
    }
  };
  using Statistics = None;

  /// The objective's parameters: the mask embedding (fairseq: uniform in [0, 1)) and the logits' own.
  template <class Model, class Store> struct Parameters {
    static constexpr int width = Model::shape.width;
    typename Store::template Vector<width> mask;
    typename ClassLogits<Logits, Clusters, width>::template Parameters<Store> logits;
    template <class F, class... P> static constexpr void visit(F&& f, P&... p) {
      f(ParameterInfo{"masked_spec_embed", {width}, {Initialiser::Kind::unit}, false}, p.mask...);
      decltype(logits)::visit(f, p.logits...);
    }
  };

  template <class Model, class B> struct Head {
    static constexpr int width = Model::shape.width;
    using E = typename B::Element;
    using R = typename B::Master;
    using Index = typename B::Index;
    using Scores = typename ClassLogits<Logits, Clusters, width>::template Over<B>;
    using Master = Parameters<Model, Values<R const>>;
    using Gradients = Parameters<Model, Values<R>>;

    struct Weights {
      Vector<R const, width> mask;
      typename Scores::Weights logits;
    };
    struct Activations {
      Rows<E, width> chosen, d_chosen;
      typename Scores::Activations masked, unmasked;
    };

    static constexpr Weights carve_weights(Arena& arena) { return {{}, Scores::carve_weights(arena)}; }
    static void prepare(B& b, Master const& m, Weights& w) {
      w.mask = m.mask;
      Scores::prepare(b, m.logits, w.logits);
    }
    static void finish(B& b, Master const& m, Gradients const& g) { Scores::finish(b, m.logits, g.logits); }

    /// rows: most rows of a lane; each kind of row may be all of them.
    static constexpr Activations carve(Arena& arena, int rows) {
      return {arena.rows<E, width>(rows), arena.rows<E, width>(rows), Scores::carve(arena, rows),
              Scores::carve(arena, rows)};
    }

    /// Masked rows of the projected features become the mask embedding.
    static void corrupt(B& b, Weights const& w, Lane<Index> const& lane, Rows<E, width> projected) {
      b.fill_rows(w.mask, lane.masked, lane.masked_rows, projected);
    }
    static void corrupt_back(B& b, Gradients const& g, Lane<Index> const& lane, Rows<E, width> d) {
      b.fill_rows_back(d, lane.masked, lane.masked_rows, g.mask);
    }

    /// The loss of a lane; leaves its gradient by the scores where the scores were.
    static void forward(B& b, Weights const& w, Lane<Index> const& lane, Options const& options,
                        BatchScope<B> const& scope, Rows<E const, Model::Frontend::features>,
                        Rows<E const, width> encoded, Activations& a, Measures<typename B::Sum>& measures) {
      score(b, w, lane.masked, lane.masked_rows, lane.targets, options.masked_weight, options, scope, encoded, a,
            a.masked, &measures, measures.loss);
      if (options.unmasked_weight > 0)
        score(b, w, lane.unmasked, lane.unmasked_rows, lane.targets + lane.masked_rows, options.unmasked_weight,
              options, scope, encoded, a, a.unmasked, nullptr, measures.loss);
    }
    /// d = the gradient by the encoder's output.
    static void backward(B& b, Weights const& w, Gradients const& g, Lane<Index> const& lane, Options const& options,
                         BatchScope<B> const&, Rows<E const, Model::Frontend::features>, Rows<E const, width> encoded,
                         Activations& a, Rows<E, width> d) {
      b.clear(d.flat());
      score_back(b, w, g, lane.masked, lane.masked_rows, encoded, a, a.masked, d);
      if (options.unmasked_weight > 0)
        score_back(b, w, g, lane.unmasked, lane.unmasked_rows, encoded, a, a.unmasked, d);
    }
    /// Multiply-adds of a batch's heads: logits forward, by their weights, by their input.
    static constexpr std::uint64_t training_multiply_adds(std::int64_t masked, std::int64_t unmasked,
                                                          Options const& options) {
      const std::int64_t rows = masked + (options.unmasked_weight > 0 ? unmasked : 0);
      return 3 * static_cast<std::uint64_t>(rows) * ClassLogits<Logits, Clusters, width>::multiply_adds_per_row();
    }

   private:
    static void score(B& b, Weights const& w, Index const* rows, int n, Index const* targets, float weight,
                      Options const& options, BatchScope<B> const& scope, Rows<E const, width> encoded, Activations& a,
                      typename Scores::Activations& s, Measures<typename B::Sum>* measures, typename B::Sum& loss) {
      if (n == 0) return;
      const auto counted = options.unmasked_weight > 0 ? scope.rows : scope.masked;
      const Rows<E, width> chosen{a.chosen.begin, n};
      resize(s, n);
      b.gather(encoded, rows, chosen);
      Scores::forward(b, w.logits, chosen, s);
      b.cross_entropy(s.scores, targets, Scores::divided ? 1 / options.temperature : 1.f, weight, counted, loss,
                      measures);
    }
    static void score_back(B& b, Weights const& w, Gradients const& g, Index const* rows, int n,
                           Rows<E const, width> encoded, Activations& a, typename Scores::Activations& s,
                           Rows<E, width> d) {
      if (n == 0) return;
      const Rows<E, width> chosen{a.chosen.begin, n}, d_chosen{a.d_chosen.begin, n};
      b.gather(encoded, rows, chosen);
      Scores::backward(b, w.logits, g.logits, chosen, s, d_chosen);
      b.scatter_add(d_chosen, rows, d);
    }
    static void resize(typename Scores::Activations& s, int n) {
      s.scores.rows = n;
      if constexpr (Scores::divided) s.projected.rows = s.direction.rows = s.inverse_norm.rows = n;
    }
  };
};

}  // namespace sotto::objective::inline SOTTO_ABI
