// A spec over a backend: the encoder and the objective's head together, one lane at a time.
#pragma once

#include <sotto/backend/backend.hpp>
#include <sotto/encoder/spec.hpp>

namespace sotto::inline SOTTO_ABI {

/// What a lane may hold at most: the size of an arena is a function of it.
struct Capacity {
  int rows = 0;     ///< rows of a lane
  int longest = 0;  ///< rows of its longest sequence
};

template <class Model, Backend B> struct Network {
  using E = typename B::Element;
  using R = typename B::Master;
  using Index = typename B::Index;
  using EncoderLayer = Encoder<EncoderOf<Model>, B>;
  using Objective = typename Model::Objective;
  using Head = typename Objective::template Head<Model, B>;
  using Statistics = typename Objective::Statistics;
  using Master = ModelParameters<Model, Values<R const>>;
  using Gradients = ModelParameters<Model, Values<R>>;
  static constexpr int width = Model::shape.width, features = Model::Frontend::features;

  struct Weights {
    typename EncoderLayer::Weights encoder;
    typename Head::Weights head;
  };
  struct Activations {
    typename EncoderLayer::Activations encoder;
    typename Head::Activations head;
  };

  template <class T> static auto carve_parameters(T* flat) { return detail::TableOf<Model>::type::carve(flat); }

  SOTTO_COLD static constexpr Weights carve_weights(Arena& arena) {
    return {EncoderLayer::carve_weights(arena), Head::carve_weights(arena)};
  }
  /// Bytes of the working copy that products read.
  static constexpr std::size_t weight_bytes() {
    Arena arena;
    static_cast<void>(carve_weights(arena));
    return arena.used();
  }
  /// Parts that may be prepared at once: the encoder's, and the head.
  static constexpr int prepare_parts = EncoderLayer::prepare_parts + 1;
  SOTTO_COLD static void prepare(B& b, Master const& m, Weights& w, int part) {
    if (part < EncoderLayer::prepare_parts)
      EncoderLayer::prepare(b, m.encoder, w.encoder, part);
    else
      Head::prepare(b, m.objective, w.head);
  }
  SOTTO_COLD static void finish(B& b, Master const& m, Gradients const& g) {
    EncoderLayer::finish(b, m.encoder, g.encoder);
    Head::finish(b, m.objective, g.objective);
  }

  SOTTO_COLD static constexpr Activations carve(Arena& arena, Capacity capacity) {
    return {EncoderLayer::carve(arena, capacity.rows, capacity.longest), Head::carve(arena, capacity.rows)};
  }
  /// Bytes of a lane's activations.
  static constexpr std::size_t activation_bytes(Capacity capacity) {
    Arena arena;
    static_cast<void>(carve(arena, capacity));
    return arena.used();
  }

  /// Batch statistics of objectives that have them: adds this lane's to sums [Statistics::size].
  static void observe(B& b, Weights const& w, Lane<Index> const& lane, Rows<E const, features> x,
                      typename B::Sum* sums) requires(Statistics::size > 0) {
    Head::observe(b, w.head, lane, x, sums);
  }
  /// Loss of a lane; its activations are left for backward.
  SOTTO_COLD static void forward(B& b, Weights const& w, Lane<Index> const& lane, Noise const& noise,
                                 typename Objective::Options const& options, BatchScope<B> const& scope,
                                 Rows<E const, features> x, Activations& a, Measures<typename B::Sum>& measures) {
    EncoderLayer::project(b, w.encoder, lane, noise, x, a.encoder);
    Head::corrupt(b, w.head, lane, a.encoder.projected);
    EncoderLayer::forward(b, w.encoder, lane, noise, a.encoder);
    Head::forward(b, w.head, lane, options, scope, x, a.encoder.output, a.head, measures);
  }
  /// Adds the gradients of a lane whose forward() came just before.
  SOTTO_COLD static void backward(B& b, Weights const& w, Gradients const& g, Lane<Index> const& lane,
                                  Noise const& noise, typename Objective::Options const& options,
                                  BatchScope<B> const& scope, Rows<E const, features> x, Activations& a) {
    Head::backward(b, w.head, g.objective, lane, options, scope, x, a.encoder.output, a.head, a.encoder.d);
    EncoderLayer::backward(b, w.encoder, g.encoder, lane, noise, a.encoder);
    Head::corrupt_back(b, g.objective, lane, a.encoder.d);
    EncoderLayer::project_back(b, w.encoder, g.encoder, lane, noise, x, a.encoder);
  }
  /// Hidden states of clean input, in a: EncoderLayer::hidden(i, a.encoder).
  static void encode(B& b, Weights const& w, Lane<Index> const& lane, Rows<E const, features> x,
                     typename EncoderLayer::Activations& a) {
    EncoderLayer::project(b, w.encoder, lane, Noise::off(), x, a);
    EncoderLayer::forward(b, w.encoder, lane, Noise::off(), a);
  }
  /// The activations of a lane of this many rows, in an arena carved for at least as many.
  SOTTO_COLD static Activations resized(std::byte* buffer, Capacity capacity) {
    Arena arena(buffer);
    return carve(arena, capacity);
  }
};

}  // namespace sotto::inline SOTTO_ABI
