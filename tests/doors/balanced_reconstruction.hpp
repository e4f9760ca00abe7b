// A user's objective with batch statistics, in one file: reconstruct hidden frames under a smooth L1, while the mean of
// a learned summary over the whole batch is pulled to zero. Its mean is complete before any lane's forward.
#pragma once

#include <sotto/nn/linear.hpp>
#include <sotto/objective/masking.hpp>
#include <sotto/objective/objective.hpp>

struct BalancedReconstruction {
  static constexpr std::string_view name = "BalancedReconstruction";
  static constexpr int summary = 4, classes = 0;
  struct Options {
    sotto::MaskOptions mask{};
    float balance = .5f;
    template <class F> void visit(F&& f) { f("objective.balance", balance); }
  };
  using Statistics = sotto::Sums<summary>;
  using Targets = sotto::NoTargets;

  struct SmoothDistance {
    template <class T> static SOTTO_HOST_DEVICE T term(T const& predicted, T const& wanted) {
      const T d = predicted - wanted;
      return sqrt(T(1) + d * d) - T(1);
    }
  };

  template <class Model, class Store> struct Parameters {
    static constexpr int width = Model::shape.width, features = Model::Frontend::features;
    typename Store::template Vector<width> mask;
    sotto::LinearParameters<Store, features, width> output;
    sotto::LinearParameters<Store, summary, features> observer;
    template <class F, class... P> static constexpr void visit(F&& f, P&... p) {
      f(sotto::ParameterInfo{"masked_spec_embed", {width}, {sotto::Initialiser::Kind::unit}, false}, p.mask...);
      decltype(output)::visit(f, {"output.weight", "output.bias"}, sotto::fan_in_uniform(width), p.output...);
      decltype(observer)::visit(f, {"observer.weight", "observer.bias"}, sotto::fan_in_uniform(features),
                                p.observer...);
    }
  };

  template <class Model, class B> struct Head {
    static constexpr int width = Model::shape.width, features = Model::Frontend::features;
    using E = typename B::Element;
    using R = typename B::Master;
    using Lane = sotto::Lane<typename B::Index>;
    using Features = sotto::Rows<E const, features>;
    using Encoded = sotto::Rows<E const, width>;
    using Scope = sotto::BatchScope<B>;
    using Gradients = Parameters<Model, sotto::Values<R>>;
    using Output = sotto::Linear<B, features, width>;
    using Observer = sotto::Linear<B, summary, features>;
    static constexpr sotto::LinearShape output_shape{features, width}, observer_shape{summary, features};

    struct Weights {
      sotto::Vector<R const, width> mask;
      typename B::Prepared output, observer;
    };
    struct Activations {
      sotto::Rows<E, width> chosen, d_chosen;
      sotto::Rows<E, features> predicted, wanted;
      sotto::Rows<E, summary> d_summary;
      sotto::Rows<R, summary> d_mean;
    };

    static constexpr Weights carve_weights(sotto::Arena& arena) {
      return {{}, B::carve_linear(arena, output_shape), B::carve_linear(arena, observer_shape)};
    }
    static void prepare(B& b, Parameters<Model, sotto::Values<R const>> const& m, Weights& w) {
      w.mask = m.mask;
      b.prepare_linear(output_shape, m.output.weight.begin, m.output.bias.begin, w.output);
      b.prepare_linear(observer_shape, m.observer.weight.begin, m.observer.bias.begin, w.observer);
    }
    static void finish(B&, Parameters<Model, sotto::Values<R const>> const&, Gradients const&) {}
    static constexpr Activations carve(sotto::Arena& arena, int rows) {
      return {arena.rows<E, width>(rows),    arena.rows<E, width>(rows),   arena.rows<E, features>(rows),
              arena.rows<E, features>(rows), arena.rows<E, summary>(rows), arena.rows<R, summary>(1)};
    }

    static void observe(B& b, Weights const& w, Lane const& lane, Features x, typename B::Sum* sums) {
      E observed[summary];
      for (int t = 0; t < lane.rows; ++t) {
        b.product(sotto::Matrix<E const>{x.begin + t * features, 1, features, features}, w.observer,
                  sotto::Matrix<E>{observed, 1, summary, summary});
        b.column_sums(sotto::Matrix<E const>{observed, 1, summary, summary}, sums);
      }
    }
    static void corrupt(B& b, Weights const& w, Lane const& lane, sotto::Rows<E, width> projected) {
      b.fill_rows(w.mask, lane.masked, lane.masked_rows, projected);
    }
    static void corrupt_back(B& b, Gradients const& g, Lane const& lane, sotto::Rows<E, width> d) {
      b.fill_rows_back(d, lane.masked, lane.masked_rows, g.mask);
    }
    static void forward(B& b, Weights const& w, Lane const& lane, Options const& options, Scope const& scope,
                        Features x, Encoded encoded, Activations& a, sotto::Measures<typename B::Sum>& measures) {
      using Sum = typename B::Sum;
      a.chosen.rows = a.d_chosen.rows = a.predicted.rows = a.wanted.rows = lane.masked_rows;
      b.gather(encoded, lane.masked, a.chosen);
      b.gather(x, lane.masked, a.wanted);
      Output::forward(b, a.chosen, w.output, a.predicted);
      b.template row_loss<SmoothDistance>(a.predicted, a.wanted, lane.masked, 1. / features, scope.masked,
                                          measures.loss);
      // each lane pays its rows' part of the batch's penalty
      for (int i = 0; i < summary; ++i) {
        const Sum mean = scope.statistics[i] / Sum(static_cast<double>(scope.rows));
        measures.loss +=
            Sum(static_cast<double>(options.balance) * lane.rows / static_cast<double>(scope.rows)) * mean * mean;
      }
    }
    static void backward(B& b, Weights const& w, Gradients const& g, Lane const& lane, Options const& options,
                         Scope const& scope, Features x, Encoded, Activations& a, sotto::Rows<E, width> d) {
      b.clear(d.flat());
      Output::gradient(b, a.predicted, a.chosen, w.output, g.output.weight, g.output.bias);
      Output::backward(b, a.predicted, w.output, a.d_chosen);
      b.scatter_add(a.d_chosen, lane.masked, d);
      const auto rows = static_cast<double>(scope.rows);
      b.from_sums(scope.statistics, 2 * static_cast<double>(options.balance) / rows / rows, a.d_mean.flat());
      b.fill_rows(a.d_mean.flat(), lane.masked, lane.masked_rows, a.d_summary);
      b.fill_rows(a.d_mean.flat(), lane.unmasked, lane.unmasked_rows, a.d_summary);
      Observer::gradient(b, a.d_summary, x, w.observer, g.observer.weight, g.observer.bias);
    }
    /// The output layer three times over masked rows; the observer twice over all: nothing trains below it.
    static constexpr std::uint64_t training_multiply_adds(std::int64_t masked, std::int64_t unmasked, Options const&) {
      return 3 * static_cast<std::uint64_t>(masked) * features * width +
             2 * static_cast<std::uint64_t>(masked + unmasked) * features * summary;
    }
  };
};
