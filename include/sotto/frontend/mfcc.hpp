// The MFCC of HuBERT's first k-means (fairseq examples/hubert/simple_kmeans/dump_mfcc_feature.py,
// which calls torchaudio.compliance.kaldi.mfcc(use_energy=False) and compute_deltas twice).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <span>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/views.hpp>
#include <sotto/frontend/filterbank.hpp>

namespace sotto::frontend::inline SOTTO_ABI {

/// 13 liftered cepstra (C0 among them) of 23 mel bands, their deltas and the deltas' deltas, every
/// 10 ms of 16 kHz audio. No normalisation. One object a thread; it allocates nothing after
/// construction.
class Mfcc {
 public:
  static constexpr int cepstra = 13, bands = 23, dimensions = 3 * cepstra, hop = Filterbank::hop;

  SOTTO_COLD Mfcc() : filterbank_({.bands = bands, .window = Window::povey, .scale = 1}) {
    constexpr double pi = 3.14159265358979323846;
    for (int c = 0; c < cepstra; ++c) {
      const double lifter = 1 + 11 * std::sin(pi * c / 22);
      for (int band = 0; band < bands; ++band)
        transform_[static_cast<std::size_t>(band * cepstra + c)] = static_cast<float>(
            lifter * (c == 0 ? std::sqrt(1. / bands) : std::sqrt(2. / bands) * std::cos(pi / bands * (band + .5) * c)));
    }
  }

  static constexpr int frames(std::int64_t samples) { return Filterbank::frames(samples); }
  /// The filterbank's, 2 a weight of the cosine transform and 4 (two weighted differences) a delta.
  static constexpr std::uint64_t flops(std::int64_t frames) {
    return Filterbank::flops(frames, bands) +
           static_cast<std::uint64_t>(frames) * (2 * bands * cepstra + 4 * 2 * cepstra);
  }

  /// samples: 16 kHz, in [-1, 1]. out: [frames(samples), 39]. Error(usage) if out has another
  /// shape.
  SOTTO_NOINLINE void compute(std::span<float const> samples, Matrix<float> out) {
    if (out.columns != dimensions) throw_error(ErrorCode::usage, {"MFCC need 39 columns to be written into"});
    // The row is long enough to hold the energies that its cepstra are made of.
    filterbank_.compute(samples, out.slice_columns(0, bands));
    for (int t = 0; t < out.rows; ++t) {
      float* row = out.row(t);
      std::array<float, cepstra> sums{};
      for (int band = 0; band < bands; ++band)
        for (int c = 0; c < cepstra; ++c)
          sums[static_cast<std::size_t>(c)] += row[band] * transform_[static_cast<std::size_t>(band * cepstra + c)];
      for (int c = 0; c < cepstra; ++c) row[c] = sums[static_cast<std::size_t>(c)];
    }
    deltas(out, 0);
    deltas(out, cepstra);
  }

 private:
  /// Writes the deltas of 13 columns from `from` on into the next 13: Σ k (x[t + k] - x[t - k]) /
  /// 10, k = 1, 2, edges repeated.
  static void deltas(Matrix<float> out, int from) {
    const auto row = [&](int t) { return out.row(t < 0 ? 0 : t < out.rows ? t : out.rows - 1) + from; };
    for (int t = 0; t < out.rows; ++t) {
      float const *before2 = row(t - 2), *before = row(t - 1), *after = row(t + 1), *after2 = row(t + 2);
      float* to = row(t) + cepstra;
      for (int c = 0; c < cepstra; ++c) to[c] = .1f * (after[c] - before[c]) + .2f * (after2[c] - before2[c]);
    }
  }

  Filterbank filterbank_;
  std::array<float, static_cast<std::size_t>(bands* cepstra)> transform_;  // [bands, cepstra], liftered
};

}  // namespace sotto::frontend::inline SOTTO_ABI
