// What a probe looks at: features of an utterance, layer by layer.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include <sotto/config.hpp>

namespace sotto::probe::inline SOTTO_API {

/// Features of an utterance, one matrix a layer. Derive to probe features of your own.
/// An object serves one thread at a time; each worker asks for its own by clone().
class FeatureExtractor {
 public:
  virtual ~FeatureExtractor() = default;
  /// How many layers there are, >= 1.
  virtual int layers() const = 0;
  /// Numbers a frame in this layer.
  virtual int width(int layer) const = 0;
  /// What a table calls this layer.
  virtual std::string layer_name(int layer) const = 0;
  /// Writes layers[l] = [frames, width(l)], row by row, for each layer l; all layers have the same
  /// frames. No frames (empty vectors) if the utterance is too short. samples: 16 kHz mono, [-1,
  /// 1].
  virtual void extract(std::span<float const> samples, std::vector<std::vector<float>>& layers) const = 0;
  /// Another object that gives the same features and shares nothing that extract() changes.
  virtual std::unique_ptr<FeatureExtractor> clone() const = 0;
};

}  // namespace sotto::probe::inline SOTTO_API
