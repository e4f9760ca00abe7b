// What a user writes: a spec is a type. What changes code or shapes is a member of it.
#pragma once

#include <concepts>
#include <utility>

#include <sotto/attention/full.hpp>
#include <sotto/augment/chain.hpp>
#include <sotto/core/rule.hpp>
#include <sotto/encoder/encoder.hpp>
#include <sotto/encoder/shape.hpp>
#include <sotto/frontend/log_mel.hpp>
#include <sotto/objective/hubert.hpp>

namespace sotto::inline SOTTO_API {

/// Base of every spec; its members are the defaults, the paper's. Derive and hide what differs.
struct Spec {
  static constexpr EncoderShape shape{};
  using Frontend = frontend::LogMel<>;
  using Position = position::Convolution<16, 128>;
  using Norm = norm::Post;
  using Attention = attention::Full;
  using Objective = objective::Hubert<100>;
  using Augmentation = augment::Chain<>;
};

/// A spec in one line, for sweeps over types.
template <int Width, int Depth, class AttentionPolicy = attention::Full, class ObjectiveKind = objective::Hubert<100>>
struct Configuration : Spec {
  static constexpr EncoderShape shape{.width = Width, .depth = Depth};
  using Attention = AttentionPolicy;
  using Objective = ObjectiveKind;
};

}  // namespace sotto::inline SOTTO_API

namespace sotto::detail::inline SOTTO_API {

template <class Position, int Width>
concept PositionKind = requires {
  sizeof(PositionLayer<Position, Width>);
};

/// What objective and front-end must have, by name; their Heads are checked where they are built.
template <class S> consteval Rule broken_part() {
  if constexpr (!requires {
                  typename S::Frontend::Extractor;
                  typename S::Frontend::template Parameters<Extents>;
                  S::Frontend::features;
                  S::Frontend::frames(std::int64_t{});
                })
    return Rule::frontend_must_be_a_frontend;
  else if constexpr (!requires {
                       std::declval<typename S::Objective::Options const&>().mask;
                       typename S::Objective::Targets;
                       S::Objective::Statistics::size;
                       S::Objective::classes;
                       typename S::Objective::template Parameters<S, Extents>;
                     })
    return Rule::objective_must_be_an_objective;
  else
    return Rule::none;
}

/// The first broken rule of a spec is the only one reported.
template <class S> consteval Rule broken_rule() {
  if constexpr (!std::derived_from<S, Spec>)
    return Rule::a_spec_must_derive_from_spec;
  else if constexpr (!std::same_as<decltype(S::shape), EncoderShape const>)
    return Rule::shape_must_be_an_encoder_shape;
  else if constexpr (S::shape.width < 1)
    return Rule::width_must_be_at_least_1;
  else if constexpr (S::shape.depth < 1)
    return Rule::depth_must_be_at_least_1;
  else if constexpr (S::shape.depth > 64)
    return Rule::depth_must_be_at_most_64;
  else if constexpr (S::shape.heads < 0)
    return Rule::heads_must_not_be_negative;
  else if constexpr (S::shape.feed_forward < 0)
    return Rule::feed_forward_must_not_be_negative;
  else if constexpr (S::shape.width % S::shape.resolved().heads != 0)
    return Rule::width_must_be_a_multiple_of_heads;
  else if constexpr (S::shape.width / S::shape.resolved().heads > 128)
    return Rule::head_width_must_be_at_most_128;
  else if constexpr (!std::same_as<typename S::Norm, norm::Pre> && !std::same_as<typename S::Norm, norm::Post>)
    return Rule::norm_must_be_pre_or_post;
  else if constexpr (!attention::AttentionPolicy<typename S::Attention>)
    return Rule::attention_must_be_a_policy;
  else if constexpr (!PositionKind<typename S::Position, S::shape.width>)
    return Rule::position_must_be_a_position;
  else if constexpr (requires { S::Position::groups; }) {
    if constexpr (S::shape.width % S::Position::groups != 0)
      return Rule::width_must_be_a_multiple_of_position_groups;
    else
      return broken_part<S>();
  } else
    return broken_part<S>();
}

}  // namespace sotto::detail::inline SOTTO_API

namespace sotto::inline SOTTO_API {

/// Whether a type is a spec that sotto can build.
template <class S>
concept EncoderSpec = (detail::broken_rule<S>() == detail::Rule::none);

}  // namespace sotto::inline SOTTO_API

namespace sotto::detail::inline SOTTO_API {
template <class S> struct Sound { using type = S; };
template <class S>
requires(!EncoderSpec<S>) struct Sound<S> {
  using type = Spec;
};
/// The spec itself, or a sound stand-in for a broken one, so that nothing follows the one sentence.
template <class S> using sound = typename Sound<S>::type;
}  // namespace sotto::detail::inline SOTTO_API

namespace sotto::inline SOTTO_ABI {

/// What the encoder of a spec is compiled for.
template <class Model>
using EncoderOf = EncoderConfiguration<Model::Frontend::features, Model::shape.width, Model::shape.depth,
                                       Model::shape.resolved().heads, Model::shape.resolved().feed_forward,
                                       typename Model::Norm, typename Model::Attention, typename Model::Position>;

/// All parameters of a spec: front-end constants, encoder, the objective's heads.
template <class Model, class Store> struct ModelParameters {
  typename Model::Frontend::template Parameters<Store> frontend;
  EncoderParameters<EncoderOf<Model>, Store> encoder;
  typename Model::Objective::template Parameters<Model, Store> objective;

  template <class F, class... P> static constexpr void visit(F&& f, P&... p) {
    decltype(frontend)::visit(f, p.frontend...);
    decltype(encoder)::visit(f, p.encoder...);
    decltype(objective)::visit(f, p.objective...);
  }
};

}  // namespace sotto::inline SOTTO_ABI

namespace sotto::detail::inline SOTTO_ABI {
template <class Model> struct TableOf {
  template <class Store> using Parameters = ModelParameters<Model, Store>;
  using type = ParameterTable<Parameters>;
};
}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

/// Every parameter of a spec, in the order of the flat buffer.
template <class Model> inline constexpr auto parameter_table = detail::TableOf<detail::sound<Model>>::type::make();

/// Trained parameters of a spec.
template <class Model>
inline constexpr std::size_t parameter_count = [] {
  [[maybe_unused]] detail::Door<Model, detail::broken_rule<Model>()> door{};
  std::size_t n = 0;
  for (auto const& entry : parameter_table<Model>)
    if (entry.info.trained) n += entry.size;
  return n;
}();

}  // namespace sotto::inline SOTTO_ABI
