#include <doctest/doctest.h>

#include <string>

#include <sotto/attention/relative_bias.hpp>
#include <sotto/attention/windowed.hpp>
#include <sotto/augment/spec_augment.hpp>
#include <sotto/encoder/describe.hpp>

#include "../doors/balanced_reconstruction.hpp"

using namespace sotto;

namespace {
struct Mine : Spec {
  static constexpr EncoderShape shape{.width = 96, .depth = 3, .heads = 4};
  using Attention = attention::Windowed<20, 10>;
  using Norm = norm::Pre;
};
struct Other : Mine {
  using Attention = attention::RelativeBias<320, 800, true>;
  using Frontend = frontend::LogMel<40, 1, frontend::Normalisation::corpus>;
  using Objective = objective::Hubert<50, objective::Plain>;
  using Augmentation = augment::Chain<augment::SpecAugment<>>;
  using Position = position::Sinusoidal;
};
struct Named : Mine {
  struct Frontend : frontend::LogMel<40> {
    static constexpr std::string_view name = "forty bands";
  };
};
}  // namespace

TEST_CASE("a spec's fields say everything that makes it another model, in the same words from every compiler") {
  const Texts fields = spec_fields<Mine>();
  CHECK(*fields.find("width") == "96");
  CHECK(*fields.find("depth") == "3");
  CHECK(*fields.find("heads") == "4");
  CHECK(*fields.find("feed_forward") == "384");
  CHECK(*fields.find("norm") == "norm::Pre");
  CHECK(*fields.find("attention") == "attention::Windowed<20, 10>");
  CHECK(*fields.find("position") == "position::Convolution<16, 128>");
  CHECK(*fields.find("augmentation") == "augment::Chain<>");
  CHECK(*fields.find("frontend") == "frontend::LogMel<80, 2, utterance>");
  CHECK(*fields.find("objective") == "objective::Hubert<100, objective::Cosine<256>>");
  CHECK(*fields.find("parameters") == std::to_string(count(parameter_table<Mine>)));
  for (auto const& field : fields) {
    std::string const& text = field.second;
    CAPTURE(text);
    CHECK(text.find("sotto") == std::string::npos);
    CHECK(text.find("v_0_") == std::string::npos);
  }
}

TEST_CASE("defaults are written out, nested ones too") {
  const Texts fields = spec_fields<Other>();
  CHECK(*fields.find("attention") == "attention::RelativeBias<320, 800, true, false>");
  CHECK(*fields.find("frontend") == "frontend::LogMel<40, 1, corpus>");
  CHECK(*fields.find("objective") == "objective::Hubert<50, objective::Plain>");
  CHECK(*fields.find("augmentation") == "augment::Chain<augment::SpecAugment<2>>");
  CHECK(*fields.find("position") == "position::Sinusoidal");
}

TEST_CASE("only whole namespaces of sotto's go, and an unnamed one has one spelling") {
  CHECK(detail::short_type_name("my_sotto::sotto::v_0_1::conv_0_1_x::Full", "") == "my_sotto::conv_0_1_x::Full");
  CHECK(detail::short_type_name("sotto::attention::v_0_1::W<3>", "<3, 4>") == "attention::W<3, 4>");
  CHECK(detail::short_type_name("sotto::v_0_1_isa111::A<sotto::B>", "") == "A<B>");
  CHECK(detail::short_type_name("{anonymous}::A", "") == detail::short_type_name("(anonymous namespace)::A", ""));
}

TEST_CASE("a type may say its name") { CHECK(*spec_fields<Named>().find("frontend") == "forty bands"); }
