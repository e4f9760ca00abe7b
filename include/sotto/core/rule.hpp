// A broken rule is one sentence, first: what a compiler says of a spec that cannot be built.
#pragma once

#include <sotto/config.hpp>

namespace sotto::detail::inline SOTTO_API {

/// Each rule reads as a sentence, since g++ prints the enumerator before the static_assert's text.
enum class Rule {
  none,
  a_spec_must_derive_from_spec,
  shape_must_be_an_encoder_shape,
  width_must_be_at_least_1,
  depth_must_be_at_least_1,
  depth_must_be_at_most_64,
  heads_must_not_be_negative,
  feed_forward_must_not_be_negative,
  width_must_be_a_multiple_of_heads,
  head_width_must_be_at_most_128,
  norm_must_be_pre_or_post,
  attention_must_be_a_policy,
  position_must_be_a_position,
  width_must_be_a_multiple_of_position_groups,
  frontend_must_be_a_frontend,
  objective_must_be_an_objective
};

/// Empty base of every public template that takes a spec.
template <class S, Rule broken> struct Door {
  static_assert(broken != Rule::a_spec_must_derive_from_spec, "sotto: a spec must derive from sotto::Spec");
  static_assert(broken != Rule::shape_must_be_an_encoder_shape,
                "sotto: `shape` must be a static constexpr sotto::EncoderShape");
  static_assert(broken != Rule::width_must_be_at_least_1, "sotto: width must be at least 1");
  static_assert(broken != Rule::depth_must_be_at_least_1, "sotto: depth must be at least 1");
  static_assert(broken != Rule::depth_must_be_at_most_64, "sotto: depth must be at most 64");
  static_assert(broken != Rule::heads_must_not_be_negative, "sotto: heads must not be negative (0 lets sotto choose)");
  static_assert(broken != Rule::feed_forward_must_not_be_negative,
                "sotto: feed_forward must not be negative (0 means 4 * width)");
  static_assert(broken != Rule::width_must_be_a_multiple_of_heads, "sotto: width must be a multiple of heads");
  static_assert(broken != Rule::head_width_must_be_at_most_128,
                "sotto: width / heads must be at most 128: use more heads");
  static_assert(broken != Rule::norm_must_be_pre_or_post, "sotto: Norm must be sotto::norm::Pre or sotto::norm::Post");
  static_assert(broken != Rule::attention_must_be_a_policy,
                "sotto: Attention must derive from sotto::attention::Softmax and keep its members' signatures");
  static_assert(broken != Rule::position_must_be_a_position,
                "sotto: Position must be sotto::position::Convolution<Groups, Taps...> or sotto::position::Sinusoidal");
  static_assert(broken != Rule::width_must_be_a_multiple_of_position_groups,
                "sotto: width must be a multiple of the positional convolution's groups");
  static_assert(broken != Rule::frontend_must_be_a_frontend,
                "sotto: Frontend must be a front-end such as sotto::frontend::LogMel<>");
  static_assert(broken != Rule::objective_must_be_an_objective,
                "sotto: Objective must have Options with a mask, Targets, Statistics, classes, Parameters<Model, "
                "Store> and Head<Model, B>");
};

}  // namespace sotto::detail::inline SOTTO_API
