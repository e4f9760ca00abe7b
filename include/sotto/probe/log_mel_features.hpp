// Log-mel features for a probe: what any pretrained encoder must beat.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/views.hpp>
#include <sotto/frontend/log_mel.hpp>
#include <sotto/probe/features.hpp>

namespace sotto::probe::inline SOTTO_ABI {

/// The features that a self-supervised model must beat: log-mel energies, 80 bins of two stacked
/// 10 ms frames, each bin normalised over the utterance to mean 0 and deviation 1.
class LogMelFeatures final : public FeatureExtractor {
 public:
  using Frontend = frontend::LogMel<80, 2>;

  int layers() const override { return 1; }
  int width(int) const override { return Frontend::features; }
  std::string layer_name(int) const override { return "log-mel"; }

  void extract(std::span<float const> samples, std::vector<std::vector<float>>& layers) const override {
    layers.resize(1);
    const int frames = static_cast<int>(Frontend::frames(static_cast<std::int64_t>(samples.size())));
    layers[0].assign(static_cast<std::size_t>(frames) * Frontend::features, 0);
    if (frames == 0) return;
    extractor_.compute(samples, Matrix<float>{layers[0].data(), frames, Frontend::features, Frontend::features});
  }

  std::unique_ptr<FeatureExtractor> clone() const override { return std::make_unique<LogMelFeatures>(); }

 private:
  mutable Frontend::Extractor extractor_{};
};

}  // namespace sotto::probe::inline SOTTO_ABI
