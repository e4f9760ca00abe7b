// The encoder and HuBERT's head against Hugging Face's and torchaudio's, in float64 (parity/README.md: tolerances).
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <sotto/backend/cpu/cpu.hpp>
#include <sotto/backend/reference/reference.hpp>
#include <sotto/core/buffer.hpp>
#include <sotto/data/batch.hpp>
#include <sotto/io/safetensors.hpp>
#include <sotto/train/network.hpp>

using namespace sotto;

namespace {

template <class C> struct OfEncoder { template <class Store> using Parameters = EncoderParameters<C, Store>; };

template <int Depth, class NormOrder>
using Configuration64 =
    EncoderConfiguration<32, 64, Depth, 4, 128, NormOrder, attention::Full, position::Convolution<4, 16>>;

std::optional<Safetensors> open(char const* name) {
  char const* const shared = std::getenv("SOTTO_SHARED");
  if (shared == nullptr) {
    MESSAGE("SKIPPED: no shared material");
    return std::nullopt;
  }
  return Safetensors::open(std::filesystem::path(shared) / "parity" / name);
}

/// Our name of a parameter, as the fixture spells it.
std::string spelled(std::string name, bool torchaudio) {
  const auto replace = [&](std::string const& from, std::string const& to) {
    if (const auto at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to);
  };
  replace("conv.weight_g", "conv.parametrizations.weight.original0");
  replace("conv.weight_v", "conv.parametrizations.weight.original1");
  if (!torchaudio) return name;
  if (name == "masked_spec_embed") return "mask_generator.mask_embedding";
  if (name == "label_embs_concat") return "logit_generator.label_embeddings";
  if (name.starts_with("final_proj")) return "logit_generator." + name;
  replace("encoder.", "encoder.transformer.");
  if (name.starts_with("feature_projection")) name = "encoder." + name;
  return "wav2vec2." + name;
}

template <class T> void read(Safetensors const& file, ParameterEntry const& entry, bool torchaudio, T* to) {
  const auto values = file.floats("w." + spelled(entry.name(), torchaudio));
  REQUIRE(values.size() == entry.size);
  std::copy(values.begin(), values.end(), to);
}

template <class T>
void compare_gradients(Safetensors const& file, std::span<ParameterEntry const> table, bool torchaudio,
                       std::vector<T> const& gradients, double factor, double tolerance) {
  for (auto const& entry : table) {
    const auto wanted = file.floats("g." + spelled(entry.name(), torchaudio));
    double most = 0, worst = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      most = std::max(most, std::abs(static_cast<double>(wanted[i])));
      worst = std::max(
          worst, std::abs(static_cast<double>(wanted[i]) - factor * static_cast<double>(gradients[entry.offset + i])));
    }
    CAPTURE(entry.name());
    CAPTURE(most);
    // a key's bias has gradient 0 but for rounding; it is held to that of its query's
    CHECK(worst < tolerance * std::max(most, entry.info.name.ends_with("k_proj.bias") ? 1. : 0.));
  }
}

/// Layer norm over the columns, in double.
std::vector<double> normalised(std::vector<double> x, int columns, std::vector<float> const& gain,
                               std::vector<float> const& bias) {
  const auto width = static_cast<std::size_t>(columns);
  for (std::size_t t = 0; t < x.size() / width; ++t) {
    double mean = 0, variance = 0;
    for (std::size_t c = 0; c < width; ++c) mean += x[t * width + c] / columns;
    for (std::size_t c = 0; c < width; ++c) variance += (x[t * width + c] - mean) * (x[t * width + c] - mean) / columns;
    for (std::size_t c = 0; c < width; ++c)
      x[t * width + c] = (x[t * width + c] - mean) / std::sqrt(variance + 1e-5) * static_cast<double>(gain[c]) +
                         static_cast<double>(bias[c]);
  }
  return x;
}

template <class B, class NormOrder> void hidden_states_and_gradients(char const* name) {
  const auto file = open(name);
  if (!file) return;
  using T = typename B::Element;
  using C = Configuration64<3, NormOrder>;
  using Net = Encoder<C, B>;
  using Table = ParameterTable<OfEncoder<C>::template Parameters>;
  static constexpr auto table = Table::make();
  std::vector<T> values(count(table)), gradients(count(table), T(0));
  for (auto const& entry : table) read(*file, entry, false, values.data() + entry.offset);
  constexpr int rows = 49;
  const auto convolved = file->floats("extract_features");  // [32, 49]
  std::vector<double> features(convolved.size());
  for (std::size_t t = 0; t < rows; ++t)
    for (std::size_t c = 0; c < 32; ++c) features[t * 32 + c] = static_cast<double>(convolved[c * rows + t]);
  features = normalised(features, 32, file->floats("w.feature_projection.layer_norm.weight"),
                        file->floats("w.feature_projection.layer_norm.bias"));
  const std::vector<T> x(features.begin(), features.end());

  B b;
  Arena measure;
  static_cast<void>(Net::carve_weights(measure));
  static_cast<void>(Net::carve(measure, rows, rows));
  Buffer buffer(measure.used());
  Arena arena(buffer.begin());
  auto weights = Net::carve_weights(arena);
  auto a = Net::carve(arena, rows, rows);
  const auto master = Table::template carve<T const>(values.data());
  const auto g = Table::template carve<T>(gradients.data());
  for (int part = 0; part < Net::prepare_parts; ++part) Net::prepare(b, master, weights, part);
  const int offsets[2] = {0, rows}, zero = 0;
  const Lane<int> lane{offsets, &zero, &zero, 1, rows, rows, nullptr, nullptr, 0, 0, nullptr};
  const Rows<T const, 32> input{x.data(), rows};
  Net::project(b, weights, lane, Noise::off(), input, a);
  Net::forward(b, weights, lane, Noise::off(), a);
  for (int i = 0; i <= 3; ++i) {
    const auto wanted = file->floats("hidden_" + std::to_string(i));
    // Hugging Face's last hidden state of a pre-norm encoder is what the final norm reads; ours is what it writes
    const Rows<T const, 64> got = i == 3 ? Rows<T const, 64>(a.blocks[2].output) : Net::hidden(i, a);
    double worst = 0;
    for (std::size_t k = 0; k < wanted.size(); ++k)
      worst = std::max(worst, std::abs(static_cast<double>(wanted[k]) - static_cast<double>(got.begin[k])));
    CAPTURE(i);
    CHECK(worst < 2e-5);
  }
  // loss = sum of the last state times a ramp from -1 to 1
  double loss = 0, terms = 0;
  const int n = rows * 64;
  for (int k = 0; k < n; ++k) {
    const double ramp = -1 + 2. * k / (n - 1), term = ramp * static_cast<double>(a.output.begin[k]);
    loss += term;
    terms += std::abs(term);
    a.d.begin[k] = static_cast<T>(ramp);
  }
  CHECK(std::abs(loss - static_cast<double>(file->floats("loss")[0])) < 1e-5 * terms);
  Net::backward(b, weights, g, lane, Noise::off(), a);
  Net::project_back(b, weights, g, lane, Noise::off(), input, a);
  Net::finish(b, master, g);
  compare_gradients(*file, table, false, gradients, 1, 1e-4);
}

struct Pretrained : Spec {
  static constexpr EncoderShape shape{.width = 64, .depth = 2, .heads = 4, .feed_forward = 128};
  using Frontend = frontend::LogMel<16, 2>;  // 32 features a frame, like the fixture's convolutions
  using Position = position::Convolution<4, 16>;
  using Objective = objective::Hubert<20, objective::Cosine<24>>;
};

/// wav2vec 2.0's waveform stack at 32 channels, group norm after the first convolution: [frames, 32], in double.
std::vector<double> waveform_features(Safetensors const& file, float const* samples, int n) {
  constexpr int kernels[] = {10, 3, 3, 3, 3, 2, 2}, strides[] = {5, 2, 2, 2, 2, 2, 2};
  const std::string prefix = "w.wav2vec2.feature_extractor.conv_layers.";
  std::vector<double> x(samples, samples + n);
  int frames = n, channels = 1;
  for (int layer = 0; layer < 7; ++layer) {
    const auto w = file.floats(prefix + std::to_string(layer) + ".conv.weight");
    const int k = kernels[layer], s = strides[layer], length = (frames - k) / s + 1;
    std::vector<double> y(static_cast<std::size_t>(length) * 32, 0);
    for (int t = 0; t < length; ++t)
      for (int o = 0; o < 32; ++o)
        for (int i = 0; i < channels; ++i)
          for (int j = 0; j < k; ++j)
            y[static_cast<std::size_t>(t * 32 + o)] +=
                static_cast<double>(w[static_cast<std::size_t>((o * channels + i) * k + j)]) *
                x[static_cast<std::size_t>((t * s + j) * channels + i)];
    if (layer == 0) {
      const auto gain = file.floats(prefix + "0.layer_norm.weight"), bias = file.floats(prefix + "0.layer_norm.bias");
      for (std::size_t o = 0; o < 32; ++o) {
        double mean = 0, variance = 0;
        for (int t = 0; t < length; ++t) mean += y[static_cast<std::size_t>(t) * 32 + o] / length;
        for (int t = 0; t < length; ++t)
          variance += std::pow(y[static_cast<std::size_t>(t) * 32 + o] - mean, 2) / length;
        for (int t = 0; t < length; ++t) {
          double& v = y[static_cast<std::size_t>(t) * 32 + o];
          v = (v - mean) / std::sqrt(variance + 1e-5) * static_cast<double>(gain[o]) + static_cast<double>(bias[o]);
        }
      }
    }
    for (double& v : y) v = .5 * v * (1 + std::erf(v / std::sqrt(2.)));
    x = std::move(y);
    frames = length;
    channels = 32;
  }
  return x;
}

template <class B> void hubert_loss_and_gradients() {
  const auto file = open("hubert_pretrain.safetensors");
  if (!file) return;
  using T = typename B::Element;
  using Net = Network<Pretrained, B>;
  static constexpr auto table = std::span<ParameterEntry const>(parameter_table<Pretrained>);
  std::vector<T> values(count(table)), gradients(count(table), T(0));
  for (auto const& entry : table) read(*file, entry, true, values.data() + entry.offset);
  const auto input = file->floats("input");
  const auto labels = file->ints("labels"), mask = file->ints("mask");
  PackedLane packed;
  packed.clear();
  std::vector<T> features;
  for (int u = 0; u < 2; ++u) {
    auto x = waveform_features(*file, input.data() + u * 16000, 16000);
    x = normalised(x, 32, file->floats("w.wav2vec2.encoder.feature_projection.layer_norm.weight"),
                   file->floats("w.wav2vec2.encoder.feature_projection.layer_norm.bias"));
    features.insert(features.end(), x.begin(), x.end());
    packed.offsets.push_back(49 * (u + 1));
    packed.utterances.push_back(u);
    packed.starts.push_back(0);
  }
  for (int row = 0; row < 98; ++row)
    (mask[static_cast<std::size_t>(row)] != 0 ? packed.masked : packed.unmasked).push_back(row);
  for (const int row : packed.masked) packed.targets.push_back(static_cast<int>(labels[static_cast<std::size_t>(row)]));
  for (const int row : packed.unmasked)
    packed.targets.push_back(static_cast<int>(labels[static_cast<std::size_t>(row)]));
  const auto masked = static_cast<double>(packed.masked.size());

  B b;
  Buffer weight_buffer(Net::weight_bytes()), arena(Net::activation_bytes({98, 49}));
  Arena carve(weight_buffer.begin());
  auto weights = Net::carve_weights(carve);
  const auto master = Net::template carve_parameters<T const>(values.data());
  const auto g = Net::template carve_parameters<T>(gradients.data());
  for (int part = 0; part < Net::prepare_parts; ++part) Net::prepare(b, master, weights, part);
  auto a = Net::resized(arena.begin(), {98, 49});
  const Lane<int> lane = packed.view();
  const Rows<T const, 32> x{features.data(), 98};
  const BatchScope<B> scope{lane.masked_rows, lane.rows, nullptr};

  Pretrained::Objective::Options options;
  options.masked_weight = 0;
  options.unmasked_weight = 1;
  Measures<typename B::Sum> measures;
  Net::forward(b, weights, lane, Noise::off(), options, scope, x, a, measures);
  CHECK(static_cast<double>(measures.loss) * 98 ==
        doctest::Approx(static_cast<double>(file->floats("loss_unmasked")[0])).epsilon(1e-5));

  options = {};
  measures = {};
  Net::forward(b, weights, lane, Noise::off(), options, scope, x, a, measures);
  CHECK(static_cast<double>(measures.loss) * masked ==
        doctest::Approx(static_cast<double>(file->floats("loss_masked")[0])).epsilon(1e-5));
  CHECK(measures.correct == static_cast<double>(file->ints("correct_masked")[0]));
  Net::backward(b, weights, g, lane, Noise::off(), options, scope, x, a);
  Net::finish(b, master, g);
  // the fixture's feature penalty reaches the convolutions only, which stand below what is compared
  compare_gradients(*file, table, true, gradients, masked, 2e-4);
}

}  // namespace

TEST_CASE_TEMPLATE("a post-norm encoder has Hugging Face's hidden states and gradients", B, Reference<double>,
                   Cpu<float>) {
  hidden_states_and_gradients<B, norm::Post>("hf_hubert_post_norm.safetensors");
}
TEST_CASE_TEMPLATE("a pre-norm encoder has Hugging Face's hidden states and gradients", B, Reference<double>,
                   Cpu<float>) {
  hidden_states_and_gradients<B, norm::Pre>("hf_wav2vec2_pre_norm.safetensors");
}
TEST_CASE_TEMPLATE("HuBERT's loss, correct predictions and gradients are torchaudio's", B, Reference<double>,
                   Cpu<float>) {
  hubert_loss_and_gradients<B>();
}
