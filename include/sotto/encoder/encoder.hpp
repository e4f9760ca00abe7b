// The backbone: input projection, position, blocks. Compiled for (shape, features, norm, attention, position), never
// for a whole spec: specs that differ in objective or front-end alone share it.
#pragma once

#include <array>

#include <sotto/nn/block.hpp>
#include <sotto/nn/position.hpp>

namespace sotto::inline SOTTO_ABI {

template <int Features, int Width, int Depth, int Heads, int FeedForward, class NormOrder, class AttentionPolicy,
          class PositionKind>
struct EncoderConfiguration {
  static constexpr int features = Features, width = Width, depth = Depth;
  using Norm = NormOrder;
  using Attention = AttentionPolicy;
  using Position = PositionKind;
  using BlockConfig = BlockConfiguration<Width, Heads, FeedForward, NormOrder, AttentionPolicy>;
  static constexpr bool pre_norm = BlockConfig::pre_norm;
};

template <class C, class Store> struct EncoderParameters {
  static constexpr int width = C::width;
  LinearParameters<Store, width, C::features> projection;
  typename PositionLayer<typename C::Position, width>::template Parameters<Store> position;
  TableParameters<typename C::Attention, Store, C::BlockConfig::shared_table> table;
  LayerNormParameters<Store, width> norm;
  std::array<BlockParameters<typename C::BlockConfig, Store>, C::depth> blocks;

  template <class F, class... P> SOTTO_COLD static constexpr void visit(F&& f, P&... p) {
    decltype(projection)::visit(f, {"feature_projection.projection.weight", "feature_projection.projection.bias"},
                                fan_in_uniform(C::features), p.projection...);
    decltype(position)::visit(f, p.position...);
    decltype(table)::visit(f, "encoder.layers.{}.attention.rel_attn_embed.weight", C::BlockConfig::heads, 0,
                           p.table...);
    decltype(norm)::visit(f, "encoder.layer_norm.weight", "encoder.layer_norm.bias", -1, p.norm...);
#pragma GCC unroll 1
    for (int i = 0; i < C::depth; ++i)
      BlockParameters<typename C::BlockConfig, Store>::visit(f, i, p.blocks[static_cast<std::size_t>(i)]...);
  }
};

template <class C, class B> struct Encoder {
  using E = typename B::Element;
  using R = typename B::Master;
  using Index = typename B::Index;
  static constexpr int width = C::width, depth = C::depth, features = C::features;
  using BlockLayer = Block<typename C::BlockConfig, B>;
  using Position = typename PositionLayer<typename C::Position, width>::template Over<B>;
  using Norm = LayerNorm<B, width>;
  using Master = EncoderParameters<C, Values<R const>>;
  using Gradients = EncoderParameters<C, Values<R>>;
  static constexpr LinearShape projection{width, features};
  static constexpr int shared_table = C::BlockConfig::shared_table;

  struct Weights {
    typename B::Prepared projection;
    typename Position::Weights position;
    LayerNormParameters<Values<R const>, width> norm;
    std::array<typename BlockLayer::Weights, depth> blocks;
    Array<R const> table;
  };
  struct Activations {
    Rows<E, width> projected;  ///< input projection, then what the objective corrupted
    typename Position::Activations position;
    Rows<E, width> positioned;  ///< projected + position
    Rows<R, 2> statistics;
    Rows<E, width> input;  ///< of the first block
    std::array<typename BlockLayer::Activations, depth> blocks;
    Rows<E, width> output;
    typename BlockLayer::Scratch scratch;
    Rows<E, width> d;       ///< the gradient that travels down
    Rows<E, width> bypass;  ///< the same around a skipped layer, where steps are replayed
  };

  SOTTO_COLD static constexpr Weights carve_weights(Arena& arena) {
    Weights w{};
    w.projection = B::carve_linear(arena, projection);
    w.position = Position::carve_weights(arena);
    if constexpr (shared_table > 0) w.table = B::carve_table(arena, C::Attention::table(C::BlockConfig::heads));
    for (auto& block : w.blocks) block = BlockLayer::carve_weights(arena);
    return w;
  }
  /// The working copy that products read: after a load and once an optimiser step. Part 0: what surrounds the blocks;
  /// part i: block i - 1. Parts may be prepared at once.
  static constexpr int prepare_parts = depth + 1;
  static void prepare(B& b, Master const& m, Weights& w, int part) {
    if (part > 0) {
      auto& block = w.blocks[at(part - 1)];
      BlockLayer::prepare(b, m.blocks[at(part - 1)], block);
      if constexpr (shared_table > 0) block.table = w.table;
      return;
    }
    b.prepare_linear(projection, m.projection.weight.begin, m.projection.bias.begin, w.projection);
    Position::prepare(b, m.position, w.position);
    w.norm = m.norm;
    if constexpr (shared_table > 0)
      b.template prepare_table<typename C::Attention>(C::BlockConfig::heads, m.table.values, w.table);
  }
  /// Once a step, when gradients are complete and before they are clipped.
  static void finish(B& b, Master const& m, Gradients const& g) { Position::finish(b, m.position, g.position); }

  SOTTO_COLD static constexpr Activations carve(Arena& arena, int rows, int longest) {
    Activations a{};
    a.projected = arena.rows<E, width>(rows);
    a.position = Position::carve(arena, rows, longest);
    a.positioned = arena.rows<E, width>(rows);
    a.statistics = arena.rows<R, 2>(rows);
    a.input = arena.rows<E, width>(rows);
    for (auto& block : a.blocks) block = BlockLayer::carve(arena, rows);
    a.output = arena.rows<E, width>(rows);
    a.scratch = BlockLayer::carve_scratch(arena, rows);
    a.d = arena.rows<E, width>(rows);
    if constexpr (B::replays) a.bypass = arena.rows<E, width>(rows);
    return a;
  }

  static void project(B& b, Weights const& w, Lane<Index> const& lane, Noise const& noise, Rows<E const, features> x,
                      Activations& a) {
    Linear<B, width, features>::forward(b, x, w.projection, a.projected);
    if (noise.dropout > 0) b.dropout(lane, noise, 0, a.projected);
  }
  /// From a.projected to a.output. hidden(i), 0 <= i <= depth: Hugging Face's hidden_states[i], but that the last is
  /// always the output: in a pre-norm encoder, after the final norm.
  static void forward(B& b, Weights const& w, Lane<Index> const& lane, Noise const& noise, Activations& a) {
    Position::forward(b, w.position, lane, a.projected, a.position, a.positioned);
    if constexpr (C::pre_norm)
      b.copy(a.positioned.flat(), a.input.flat());
    else
      Norm::forward(b, a.positioned, w.norm, a.input, a.statistics);
    if (noise.dropout > 0) b.dropout(lane, noise, 1, a.input);
    for (int i = 0; i < depth; ++i) {
      if (noise.skips(i)) continue;
      BlockLayer::forward(b, w.blocks[at(i)], lane, noise, i, input_of(i, a, noise), a.blocks[at(i)], a.scratch);
      if constexpr (B::replays)
        if (noise.layer_drop) b.skip_forward(i, input_of(i, a, noise), a.blocks[at(i)].output);
    }
    const Rows<E const, width> last = input_of(depth, a, noise);
    if constexpr (C::pre_norm)
      Norm::forward(b, last, w.norm, a.output, a.statistics);
    else
      b.copy(last.flat(), a.output.flat());
  }
  static Rows<E const, width> hidden(int i, Activations const& a) {
    if (i < depth || !C::pre_norm) return input_of(i, a, Noise::off());
    return a.output;
  }

  /// a.d: gradient by a.output on entry, by a.projected on return.
  static void backward(B& b, Weights const& w, Gradients const& g, Lane<Index> const& lane, Noise const& noise,
                       Activations& a) {
    if constexpr (C::pre_norm) {
      Norm::backward(b, a.d, input_of(depth, a, noise), w.norm, a.statistics, g.norm, a.d, false);
    }
    Array<R> table{};
    if constexpr (shared_table > 0) table = g.table.values;
    for (int i = depth; i-- > 0;) {
      if (noise.skips(i)) continue;
      if constexpr (B::replays)
        if (noise.layer_drop) b.skip_back(i, a.d, a.bypass);
      BlockLayer::backward(b, w.blocks[at(i)], g.blocks[at(i)], table, lane, noise, i, input_of(i, a, noise),
                           a.blocks[at(i)], a.scratch, a.d);
      if constexpr (B::replays)
        if (noise.layer_drop) b.skip_forward(i, a.bypass, a.d);
    }
    if (noise.dropout > 0) b.dropout(lane, noise, 1, a.d);
    if constexpr (!C::pre_norm) {
      Norm::backward(b, a.d, a.positioned, w.norm, a.statistics, g.norm, a.d, false);
    }
    Position::backward(b, w.position, g.position, lane, a.projected, a.position, a.d, a.scratch.a, a.scratch.b);
  }
  /// The input projection's gradient; nothing trains below it.
  static void project_back(B& b, Weights const& w, Gradients const& g, Lane<Index> const& lane, Noise const& noise,
                           Rows<E const, features> x, Activations& a) {
    if (noise.dropout > 0) b.dropout(lane, noise, 0, a.d);
    Linear<B, width, features>::gradient(b, a.d, x, w.projection, g.projection.weight, g.projection.bias);
  }

 private:
  static constexpr std::size_t at(int i) { return static_cast<std::size_t>(i); }
  /// What block i reads: the output of the last block before it that was not skipped. i == depth: the last norm.
  static Rows<E const, width> input_of(int i, Activations const& a, Noise const& noise) {
    while (i > 0 && noise.skips(i - 1)) --i;
    return i == 0 ? Rows<E const, width>(a.input) : Rows<E const, width>(a.blocks[at(i - 1)].output);
  }
};

}  // namespace sotto::inline SOTTO_ABI
