// One transformer block: attention, then a feed-forward layer, each on a residual branch.
#pragma once

#include <sotto/attention/policy.hpp>
#include <sotto/nn/layer_norm.hpp>
#include <sotto/nn/linear.hpp>
#include <sotto/nn/noise.hpp>

namespace sotto::norm::inline SOTTO_API {

/// Norm after each residual sum, and one before the first block (BERT, HuBERT Base: the paper's).
struct Post {};
/// Norm at the head of each branch, and one after the last block (HuBERT Large).
struct Pre {};

}  // namespace sotto::norm::inline SOTTO_API

namespace sotto::inline SOTTO_ABI {

/// Everything a block is compiled for.
template <int Width, int Heads, int FeedForward, class Norm, class AttentionPolicy> struct BlockConfiguration {
  static constexpr int width = Width, heads = Heads, feed_forward = FeedForward;
  static constexpr int head_width = Width / Heads;
  /// Heads as activations carry them: padded to a multiple of 8.
  static constexpr int padded_head_width = (head_width + 7) / 8 * 8;
  static constexpr int attention_width = Heads * padded_head_width;
  static constexpr bool pre_norm = std::is_same_v<Norm, norm::Pre>;
  using Attention = AttentionPolicy;
  static constexpr int gates = Attention::gates;
  /// Learned numbers of a block's own table; a shared table belongs to the encoder.
  static constexpr int own_table = Attention::shared ? 0 : Attention::parameters(Heads);
  static constexpr int shared_table = Attention::shared ? Attention::parameters(Heads) : 0;

  static constexpr LinearShape query_key_value{3 * width, width, head_width, padded_head_width};
  static constexpr LinearShape projection{width, width, 0, 0, head_width, padded_head_width};
  static constexpr LinearShape intermediate{feed_forward, width};
  static constexpr LinearShape output{width, feed_forward};
};

/// The learned numbers of an attention's table.
template <class Attention, class Store, int N> struct TableParameters {
  typename Store::template Vector<N> values;
  template <class F, class... P>
  static constexpr void visit(F&& f, std::string_view name, int heads, int layer, P&... p) {
    if constexpr (N > 0) {
      const float deviation = Attention::deviation(heads);
      f(ParameterInfo{name,
                      {N / heads, heads},
                      {deviation > 0 ? Initialiser::Kind::normal : Initialiser::Kind::zeros, deviation},
                      true,
                      layer},
        p.values...);
    }
  }
};

/// WavLM's gate: `gates` values a head from the head's slice of the layer's input, and a constant a head.
template <class Store, int Gates, int HeadWidth, int Heads> struct GateParameters {
  typename Store::template Weight<Gates, HeadWidth> weight;
  typename Store::template Vector<Gates> bias;
  typename Store::template Vector<Heads> constant;
  template <class F, class... P> static constexpr void visit(F&& f, int layer, P&... p) {
    if constexpr (Gates > 0) {
      f(ParameterInfo{"encoder.layers.{}.attention.gru_rel_pos_linear.weight",
                      {Gates, HeadWidth},
                      fan_in_uniform(HeadWidth),
                      true,
                      layer},
        p.weight...);
      f(ParameterInfo{"encoder.layers.{}.attention.gru_rel_pos_linear.bias", {Gates}, {}, false, layer}, p.bias...);
      f(
          ParameterInfo{
              "encoder.layers.{}.attention.gru_rel_pos_const", {Heads}, {Initialiser::Kind::ones}, false, layer},
          p.constant...);
    }
  }
};

template <class Configuration, class Store> struct BlockParameters {
  static constexpr int width = Configuration::width, hidden = Configuration::feed_forward;
  template <int Out, int In> using Weight = typename Store::template Weight<Out, In>;
  template <int N> using Vector = typename Store::template Vector<N>;

  Weight<width, width> query, key, value;
  Vector<width> query_bias, key_bias, value_bias;  // q, k, v lie side by side: one product, three names
  LinearParameters<Store, width, width> projection;
  TableParameters<typename Configuration::Attention, Store, Configuration::own_table> table;
  GateParameters<Store, Configuration::gates, Configuration::head_width, Configuration::heads> gate;
  LayerNormParameters<Store, width> attention_norm;
  LinearParameters<Store, hidden, width> intermediate;
  LinearParameters<Store, width, hidden> output;
  LayerNormParameters<Store, width> final_norm;

  template <class F, class... P> static constexpr void visit(F&& f, int layer, P&... p) {
    constexpr std::array<int, 3> square{width, width};
    f(ParameterInfo{"encoder.layers.{}.attention.q_proj.weight", square, bert_normal, true, layer}, p.query...);
    f(ParameterInfo{"encoder.layers.{}.attention.k_proj.weight", square, bert_normal, true, layer}, p.key...);
    f(ParameterInfo{"encoder.layers.{}.attention.v_proj.weight", square, bert_normal, true, layer}, p.value...);
    f(ParameterInfo{"encoder.layers.{}.attention.q_proj.bias", {width}, {}, false, layer}, p.query_bias...);
    f(ParameterInfo{"encoder.layers.{}.attention.k_proj.bias", {width}, {}, false, layer}, p.key_bias...);
    f(ParameterInfo{"encoder.layers.{}.attention.v_proj.bias", {width}, {}, false, layer}, p.value_bias...);
    decltype(projection)::visit(
        f, {"encoder.layers.{}.attention.out_proj.weight", "encoder.layers.{}.attention.out_proj.bias", layer},
        bert_normal, p.projection...);
    decltype(table)::visit(f, "encoder.layers.{}.attention.rel_attn_embed.weight", Configuration::heads, layer,
                           p.table...);
    decltype(gate)::visit(f, layer, p.gate...);
    decltype(attention_norm)::visit(f, "encoder.layers.{}.layer_norm.weight", "encoder.layers.{}.layer_norm.bias",
                                    layer, p.attention_norm...);
    decltype(intermediate)::visit(f,
                                  {"encoder.layers.{}.feed_forward.intermediate_dense.weight",
                                   "encoder.layers.{}.feed_forward.intermediate_dense.bias", layer},
                                  bert_normal, p.intermediate...);
    decltype(output)::visit(f,
                            {"encoder.layers.{}.feed_forward.output_dense.weight",
                             "encoder.layers.{}.feed_forward.output_dense.bias", layer},
                            bert_normal, p.output...);
    decltype(final_norm)::visit(f, "encoder.layers.{}.final_layer_norm.weight",
                                "encoder.layers.{}.final_layer_norm.bias", layer, p.final_norm...);
  }
};

template <class C, class B> struct Block {
  using E = typename B::Element;
  using R = typename B::Master;
  using Index = typename B::Index;
  static constexpr int width = C::width, feed_forward = C::feed_forward, heads = C::heads, inner = C::attention_width;
  using Attention = typename C::Attention;
  using Master = BlockParameters<C, Values<R const>>;
  using Gradients = BlockParameters<C, Values<R>>;

  struct Weights {
    typename B::Prepared query_key_value, projection, intermediate, output;
    LayerNormParameters<Values<R const>, width> attention_norm, final_norm;
    GateParameters<Values<R const>, C::gates, C::head_width, heads> gate;
    Array<R const> table;  ///< as score() reads it: one entry a source
  };

  /// What backward needs of a forward pass, [rows, ...].
  struct Activations {
    Rows<E, width> normed;  ///< pre-norm: the attention's input; post-norm: the first norm's output
    Rows<E, 3 * inner> query_key_value;
    Rows<E, inner> attended;
    Rows<R, heads> log_sum;
    Rows<E, heads> gates;
    Rows<E, width> middle;  ///< x + attention
    Rows<R, 2> attention_statistics, final_statistics;
    Rows<E, width> second;  ///< pre-norm: the second norm's output; post-norm: the second residual sum
    Rows<E, feed_forward> before, after;
    Rows<E, width> output;
  };
  /// What backward overwrites, shared by all blocks.
  struct Scratch {
    Rows<E, width> a, b;
    Rows<E, 3 * inner> query_key_value;
    Rows<E, inner> attended;
    Rows<E, heads> gates;
    Rows<E, feed_forward> hidden;
    Array<R> table;
  };

  static constexpr Weights carve_weights(Arena& arena) {
    Weights w{};
    w.query_key_value = B::carve_linear(arena, C::query_key_value);
    w.projection = B::carve_linear(arena, C::projection);
    w.intermediate = B::carve_linear(arena, C::intermediate);
    w.output = B::carve_linear(arena, C::output);
    if constexpr (C::own_table > 0) w.table = B::carve_table(arena, Attention::table(heads));
    return w;
  }
  SOTTO_COLD static void prepare(B& b, Master const& m, Weights& w) {
    b.prepare_linear(C::query_key_value, m.query.begin, m.query_bias.begin, w.query_key_value);
    b.prepare_linear(C::projection, m.projection.weight.begin, m.projection.bias.begin, w.projection);
    b.prepare_linear(C::intermediate, m.intermediate.weight.begin, m.intermediate.bias.begin, w.intermediate);
    b.prepare_linear(C::output, m.output.weight.begin, m.output.bias.begin, w.output);
    if constexpr (C::own_table > 0) b.template prepare_table<Attention>(heads, m.table.values, w.table);
    w.attention_norm = m.attention_norm;
    w.final_norm = m.final_norm;
    w.gate = m.gate;
  }

  static constexpr Activations carve(Arena& arena, int rows) {
    Activations a{};
    a.normed = arena.rows<E, width>(rows);
    a.query_key_value = arena.rows<E, 3 * inner>(rows);
    a.attended = arena.rows<E, inner>(rows);
    a.log_sum = arena.rows<R, heads>(rows);
    if constexpr (C::gates > 0) a.gates = arena.rows<E, heads>(rows);
    a.middle = arena.rows<E, width>(rows);
    a.attention_statistics = arena.rows<R, 2>(rows);
    a.final_statistics = arena.rows<R, 2>(rows);
    a.second = arena.rows<E, width>(rows);
    a.before = arena.rows<E, feed_forward>(rows);
    a.after = arena.rows<E, feed_forward>(rows);
    a.output = arena.rows<E, width>(rows);
    return a;
  }
  static constexpr Scratch carve_scratch(Arena& arena, int rows) {
    Scratch s{};
    s.a = arena.rows<E, width>(rows);
    s.b = arena.rows<E, width>(rows);
    s.query_key_value = arena.rows<E, 3 * inner>(rows);
    s.attended = arena.rows<E, inner>(rows);
    if constexpr (C::gates > 0) s.gates = arena.rows<E, heads>(rows);
    s.hidden = arena.rows<E, feed_forward>(rows);
    const auto entries = static_cast<std::size_t>(Attention::table(heads));
    if constexpr (Attention::table(heads) > 0) s.table = {arena.take<R>(entries), entries};
    return s;
  }

  /// a.output = block(x). scratch.a is used.
  SOTTO_COLD static void forward(B& b, Weights const& w, Lane<Index> const& lane, Noise const& noise, int layer,
                                 Rows<E const, width> x, Activations& a, Scratch& s) {
    using Norm = LayerNorm<B, width>;
    Rows<E const, width> input = x;
    if constexpr (C::pre_norm) {
      Norm::forward(b, x, w.attention_norm, a.normed, a.attention_statistics);
      input = a.normed;
    }
    if constexpr (C::gates > 0) b.template attention_gates<Attention>(input, w.gate, a.gates);
    Linear<B, 3 * inner, width>::forward(b, input, w.query_key_value, a.query_key_value);
    b.template attention<Attention, C::head_width>(lane, heads, a.query_key_value, w.table, a.gates, a.attended,
                                                   a.log_sum);
    residual<inner>(b, lane, noise, 2 * layer + 2, a.attended, w.projection, x, a.middle, s.a);
    Rows<E const, width> inner_input, base;
    if constexpr (C::pre_norm) {
      Norm::forward(b, a.middle, w.final_norm, a.second, a.final_statistics);
      inner_input = a.second;
      base = a.middle;
    } else {
      Norm::forward(b, a.middle, w.attention_norm, a.normed, a.attention_statistics);
      inner_input = a.normed;
      base = a.normed;
    }
    Linear<B, feed_forward, width>::forward_gelu(b, inner_input, w.intermediate, a.before, a.after);
    if constexpr (C::pre_norm) {
      residual<feed_forward>(b, lane, noise, 2 * layer + 3, a.after, w.output, base, a.output, s.a);
    } else {
      residual<feed_forward>(b, lane, noise, 2 * layer + 3, a.after, w.output, base, a.second, s.a);
      Norm::forward(b, a.second, w.final_norm, a.output, a.final_statistics);
    }
  }

  /// d: gradient by the block's output on entry, by x on return. shared_table: that of a table shared by all layers.
  SOTTO_COLD static void backward(B& b, Weights const& w, Gradients const& g, Array<R> shared_table,
                                  Lane<Index> const& lane, Noise const& noise, int layer, Rows<E const, width> x,
                                  Activations const& a, Scratch& s, Rows<E, width> d) {
    using Norm = LayerNorm<B, width>;
    // feed-forward
    if constexpr (!C::pre_norm) {
      Norm::backward(b, d, a.second, w.final_norm, a.final_statistics, g.final_norm, d, false);  // by the second sum
    }
    Rows<E const, width> branch = dropped(b, lane, noise, 2 * layer + 3, d, s.a);
    Linear<B, width, feed_forward>::gradient(b, branch, a.after, w.output, g.output.weight, g.output.bias);
    Linear<B, width, feed_forward>::backward_gelu(b, branch, w.output, a.before, s.hidden);
    Rows<E const, width> feed_forward_input = a.normed;
    if constexpr (C::pre_norm) feed_forward_input = a.second;
    Linear<B, feed_forward, width>::gradient(b, s.hidden, feed_forward_input, w.intermediate, g.intermediate.weight,
                                             g.intermediate.bias);
    if constexpr (C::pre_norm) {
      Linear<B, feed_forward, width>::backward(b, s.hidden, w.intermediate, s.b);
      Norm::backward(b, s.b, a.middle, w.final_norm, a.final_statistics, g.final_norm, d, true);
    } else {
      Linear<B, feed_forward, width>::backward_add(b, s.hidden, w.intermediate, d);  // by the first norm's output
      Norm::backward(b, d, a.middle, w.attention_norm, a.attention_statistics, g.attention_norm, d, false);
    }
    // attention; d: by a.middle = x + branch
    branch = dropped(b, lane, noise, 2 * layer + 2, d, s.a);
    Linear<B, width, inner>::gradient(b, branch, a.attended, w.projection, g.projection.weight, g.projection.bias);
    Linear<B, width, inner>::backward(b, branch, w.projection, s.attended);
    if constexpr (Attention::table(heads) > 0) b.clear(s.table);
    b.template attention_back<Attention, C::head_width>(lane, heads, a.query_key_value, w.table, a.gates, a.attended,
                                                        s.attended, a.log_sum, s.query_key_value, s.table, s.gates);
    if constexpr (C::own_table > 0) b.template collect_table<Attention>(heads, s.table, g.table.values);
    if constexpr (C::shared_table > 0) b.template collect_table<Attention>(heads, s.table, shared_table);
    Rows<E const, width> attention_input = x;
    if constexpr (C::pre_norm) attention_input = a.normed;
    Linear<B, 3 * inner, width>::gradient(b, s.query_key_value, attention_input, w.query_key_value,
                                          Matrix<R>{g.query.begin, 3 * width, width, width},
                                          Array<R>{g.query_bias.begin, 3 * width});
    Rows<E, width> d_input = d;
    if constexpr (C::pre_norm) {
      d_input = s.b;
      Linear<B, 3 * inner, width>::backward(b, s.query_key_value, w.query_key_value, d_input);
    } else {
      Linear<B, 3 * inner, width>::backward_add(b, s.query_key_value, w.query_key_value, d_input);
    }
    if constexpr (C::gates > 0)
      b.template attention_gates_back<Attention>(attention_input, w.gate, s.gates, d_input, g.gate);
    if constexpr (C::pre_norm)
      Norm::backward(b, s.b, x, w.attention_norm, a.attention_statistics, g.attention_norm, d, true);
  }

 private:
  /// y = base + dropout(x W^T + b).
  template <int In>
  static void residual(B& b, Lane<Index> const& lane, Noise const& noise, int site, Rows<E const, In> x,
                       typename B::Prepared const& w, Rows<E const, width> base, Rows<E, width> y,
                       Rows<E, width> scratch) {
    if (noise.dropout > 0) {
      Linear<B, width, In>::forward(b, x, w, scratch);
      b.dropout(lane, noise, site, scratch);
      b.sum(base, scratch, y);
    } else {
      Linear<B, width, In>::forward_add(b, x, w, base, y);
    }
  }
  /// The gradient that reaches a branch: d itself, or d through the branch's dropout, in scratch.
  static Rows<E const, width> dropped(B& b, Lane<Index> const& lane, Noise const& noise, int site,
                                      Rows<E const, width> d, Rows<E, width> scratch) {
    if (!(noise.dropout > 0)) return d;
    b.copy(d.flat(), scratch.flat());
    b.dropout(lane, noise, site, scratch);
    return scratch;
  }
};

}  // namespace sotto::inline SOTTO_ABI
