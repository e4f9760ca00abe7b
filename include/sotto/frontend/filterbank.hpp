// Log-mel energies as Kaldi computes them (feature-fbank.cc; torchaudio.compliance.kaldi.fbank with
// dither 0).
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/views.hpp>
#include <sotto/frontend/detail/power_spectrum.hpp>

namespace sotto::frontend::detail::inline SOTTO_ABI {

/// ln x, x > 0, at compile time too: halved into [1, 2), then artanh's series.
constexpr double constant_log(double x) {
  int doublings = 0;
  for (; x >= 2; x /= 2) ++doublings;
  for (; x < 1; x *= 2) --doublings;
  const double s = (x - 1) / (x + 1);
  double term = s, sum = 0;
  for (int i = 1; i < 40; i += 2, term *= s * s) sum += term / i;
  return 2 * sum + doublings * 0.69314718055994530942;
}

/// Kaldi's mel scale and its triangles, which are straight in mel: band b rises from edge b to b +
/// 1 and falls to b + 2, edges evenly spaced from 20 Hz to Nyquist.
struct MelScale {
  static constexpr double mel(double hertz) { return 1127 * constant_log(1 + hertz / 700); }
  /// The weights of FFT bins in bands as use(bin, band, weight), ascending in the bin; nonzero ones
  /// only.
  template <class Use> static constexpr void each_weight(int bands, Use use) {
    const double low = mel(20), step = (mel(8000) - low) / (bands + 1);
    for (int bin = 0; bin < PowerSpectrum::bins; ++bin) {
      const double at = (mel(bin * 16000. / PowerSpectrum::samples) - low) / step;  // in steps from the first edge
      if (at <= 0) continue;
      const int below = static_cast<int>(at);
      const double up = at - below;
      if (below >= 1 && below - 1 < bands) use(bin, below - 1, 1 - up);
      if (up > 0 && below < bands) use(bin, below, up);
    }
  }
};

}  // namespace sotto::frontend::detail::inline SOTTO_ABI

namespace sotto::frontend::inline SOTTO_ABI {

/// What a frame is multiplied by before its spectrum is taken.
enum class Window {
  povey,   ///< a Hann window to the power 0.85: Kaldi's default
  hamming  ///< 0.54 - 0.46 cos: MelHuBERT's
};

struct FilterbankOptions {
  int bands = 80;  ///< 1 to 128
  Window window = Window::povey;
  float scale = 32768;  ///< samples in [-1, 1] are multiplied by it; Kaldi's features are of 16-bit numbers
};

/// Log-mel energies of 25 ms frames every 10 ms of 16 kHz audio, 20 Hz to Nyquist: mean removed,
/// pre-emphasis 0.97, window, power spectrum, triangles in the mel domain, ln(max(energy, 2^-23)).
/// One object a thread: it owns its scratch and allocates nothing after construction.
class Filterbank {
 public:
  static constexpr int frame_samples = 400, hop = 160, max_bands = 128;

  /// Error(usage) if bands is out of range.
  SOTTO_COLD explicit Filterbank(FilterbankOptions const& options = {}) : bands_(options.bands) {
    if (bands_ < 1 || bands_ > max_bands)
      throw_error(ErrorCode::usage, {"a filterbank of ", bands_, " bands cannot be; ask for 1 to 128"});
    for (int i = 0; i < frame_samples; ++i) {
      const double cosine = std::cos(2 * 3.14159265358979323846 * i / (frame_samples - 1));
      window_[static_cast<std::size_t>(i)] = static_cast<float>(
          options.scale * (options.window == Window::povey ? std::pow(.5 - .5 * cosine, .85) : .54 - .46 * cosine));
    }
    // A band's bins lie side by side: one range and its weights each.
    std::vector<std::vector<float>> weights(static_cast<std::size_t>(bands_));
    std::vector<int> first(weights.size());
    detail::MelScale::each_weight(bands_, [&](int bin, int band, double weight) {
      auto& of_band = weights[static_cast<std::size_t>(band)];
      if (of_band.empty()) first[static_cast<std::size_t>(band)] = bin;
      of_band.push_back(static_cast<float>(weight) / PowerSpectrum::scale);
    });
    for (std::size_t band = 0; band < weights.size(); ++band) {
      ranges_.push_back({first[band], static_cast<int>(weights[band].size())});
      weights_.insert(weights_.end(), weights[band].begin(), weights[band].end());
    }
  }

  int bands() const { return bands_; }
  /// How many whole frames fit ("snip edges").
  static constexpr int frames(std::int64_t samples) {
    return samples < frame_samples ? 0 : static_cast<int>((samples - frame_samples) / hop + 1);
  }
  /// 2 a nonzero mel weight and 5/2 N log2 N the transform, N = 512, a frame.
  static constexpr std::uint64_t flops(std::int64_t frames, int bands = 80) {
    std::uint64_t weights = 0;
    detail::MelScale::each_weight(bands, [&](int, int, double) { ++weights; });
    return static_cast<std::uint64_t>(frames) * (2 * weights + detail::PowerSpectrum::flops);
  }

  /// samples: 16 kHz, in [-1, 1]. out: [frames(samples) / stack, stack · bands()], stack successive
  /// frames a row, of which out's width is the measure; a tail of fewer than stack frames is
  /// dropped. A frame's bits depend on its samples only. Error(usage) if out has another shape.
  SOTTO_NOINLINE void compute(std::span<float const> samples, Matrix<float> out) {
    const int stack = std::max(1, out.columns / bands_);
    const int rows = frames(static_cast<std::int64_t>(samples.size())) / stack;
    if (out.columns != stack * bands_ || out.rows != rows)
      throw_error(ErrorCode::usage, {"a filterbank was given room for [", out.rows, ", ", out.columns,
                                     "] features where [", rows, ", ", stack * bands_, "] are due"});
    const int count = rows * stack;
    for (int first = 0; first < count; first += cpu::lanes) {
      const int together = std::min(cpu::lanes, count - first);
      float const* from = samples.data() + static_cast<std::ptrdiff_t>(first) * hop;
      if (together < cpu::lanes) {  // the end: silence follows
        std::fill(std::copy_n(from, (together - 1) * hop + frame_samples, end_.begin()), end_.end(), 0.f);
        from = end_.data();
      }
      load(from);
      spectrum_.compute(power_.data());
      float const* weight = weights_.data();
      for (int band = 0; band < bands_; ++band) {
        const auto [begin, size] = ranges_[static_cast<std::size_t>(band)];
        cpu::Vec energy{};
        for (int k = 0; k < size; ++k) energy += *weight++ * power_[static_cast<std::size_t>(begin + k)];
        energies_[static_cast<std::size_t>(band)] = detail::log_of(cpu::max(energy, cpu::splat(0x1p-23f)));
      }
      float const* energies = reinterpret_cast<float const*>(energies_.data());
      for (int lane = 0; lane < together; ++lane) {
        const int frame = first + lane;
        float* row = out.row(frame / stack) + (frame % stack) * bands_;
        for (int band = 0; band < bands_; ++band) row[band] = energies[band * cpu::lanes + lane];
      }
    }
  }

 private:
  using PowerSpectrum = detail::PowerSpectrum;
  // How many halves of hops the frames of all lanes span, and hops.
  static constexpr int half = hop / 2, halves = 2 * (cpu::lanes - 1) + frame_samples / half, columns = (halves + 1) / 2;
  static_assert(hop % 2 == 0 && frame_samples % half == 0 && half % 8 == 0);
  struct Range {
    int begin, size;
  };

  /// Puts frames, prepared, side by side into the lanes: the first is at `samples`, each next one `hop` later.
  void load(float const* samples) {
    // Frames overlap, and each sample is moved once: sample i of all of them is rows_[i mod hop], from column i / hop
    // on. A frame's sum is that of five halves of hops, however many frames share them.
    double sums[halves];
    for (int k = 0; k < halves; ++k, samples += half) {
      float* to = half_hop(k);
      for (int i = 0; i < half; ++i) to[i * columns] = samples[i];
      sums[k] = sum_of(samples);
    }
    float means[cpu::lanes];
    for (int lane = 0; lane < cpu::lanes; ++lane) {
      double const* s = sums + 2 * lane;
      means[lane] = static_cast<float>((((s[0] + s[1]) + (s[2] + s[3])) + s[4]) / frame_samples);
    }
    const cpu::Vec mean = cpu::load(means);
    cpu::Vec* to = spectrum_.sample(0);
    float const* window = window_.data();
    cpu::Vec before = cpu::load(rows_.data()) - mean;
    for (int k = 0; k < frame_samples / half; ++k) {
      float const* from = half_hop(k);
      for (int i = 0; i < half; ++i, from += columns) {
        const cpu::Vec now = cpu::load(from) - mean;
        *to++ = *window++ * (now - .97f * before);
        before = now;
      }
    }
    std::fill(to, spectrum_.sample(0) + PowerSpectrum::samples, cpu::Vec{});
  }
  /// Where the samples of rows_ begin that are k halves after the first frame's.
  float* half_hop(int k) { return &rows_[static_cast<std::size_t>(k % 2 * half * columns + k / 2)]; }
  /// Of half a hop, in double, so that a constant frame is exactly zero; in eight sums, so that they run side by side.
  static double sum_of(float const* x) {
    double sums[8]{};
    for (int i = 0; i < half; i += 8)
      for (int j = 0; j < 8; ++j) sums[j] += static_cast<double>(x[i + j]);
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
  }

  int bands_;
  std::array<float, frame_samples> window_;
  std::vector<Range> ranges_;                                       // [bands]
  std::vector<float> weights_;                                      // the nonzero ones, band by band
  std::array<float, static_cast<std::size_t>(halves* half)> end_;   // the last samples, and zeros
  std::array<float, static_cast<std::size_t>(hop* columns)> rows_;  // [hop, columns]
  PowerSpectrum spectrum_;
  std::array<cpu::Vec, PowerSpectrum::bins> power_;
  std::array<cpu::Vec, max_bands> energies_;
};

}  // namespace sotto::frontend::inline SOTTO_ABI
