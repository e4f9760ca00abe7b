// Log-mel features: the front-end that costs next to nothing (MelHuBERT; arXiv 2409.16295 section
// 3).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/views.hpp>
#include <sotto/frontend/filterbank.hpp>
#include <sotto/nn/parameters.hpp>

namespace sotto::frontend::inline SOTTO_API {

/// What each mel band is shifted and scaled by.
enum class Normalisation {
  none,       ///< nothing
  utterance,  ///< its mean and deviation over the frames presented at once
  corpus      ///< those of a corpus
};

}  // namespace sotto::frontend::inline SOTTO_API

namespace sotto::frontend::inline SOTTO_ABI {

/// Mean and deviation of each band over any number of utterances. Merging parts in a fixed order
/// gives the same bits whatever computed them.
class CorpusStatistics {
 public:
  explicit CorpusStatistics(int bands) : bands_(static_cast<std::size_t>(bands)) {}

  /// features: [frames, a multiple of bands], several frames a row or one.
  void add(Matrix<float const> features) {
    const auto bands = bands_.size();
    if (features.columns <= 0 || static_cast<std::size_t>(features.columns) % bands != 0)
      throw_error(ErrorCode::usage, {"features whose width is no multiple of the bands cannot be counted"});
    CorpusStatistics part(static_cast<int>(bands));
    const int stack = features.columns / static_cast<int>(bands);
    for (int i = 0; i < features.rows; ++i)
      for (int s = 0; s < stack; ++s) {
        float const* frame = features.row(i) + static_cast<std::size_t>(s) * bands;
        for (std::size_t b = 0; b < bands; ++b) part.bands_[b].mean += static_cast<double>(frame[b]);
      }
    part.frames_ = std::int64_t{features.rows} * stack;
    if (part.frames_ == 0) return;
    for (auto& band : part.bands_) band.mean /= static_cast<double>(part.frames_);
    for (int i = 0; i < features.rows; ++i)
      for (int s = 0; s < stack; ++s) {
        float const* frame = features.row(i) + static_cast<std::size_t>(s) * bands;
        for (std::size_t b = 0; b < bands; ++b) {
          const double distance = static_cast<double>(frame[b]) - part.bands_[b].mean;
          part.bands_[b].squares += distance * distance;
        }
      }
    merge(part);
  }
  /// Adds what another has seen (Chan, Golub & LeVeque 1979).
  void merge(CorpusStatistics const& other) {
    if (other.bands_.size() != bands_.size())
      throw_error(ErrorCode::usage, {"statistics of different numbers of bands cannot be merged"});
    if (other.frames_ == 0) return;
    const auto mine = static_cast<double>(frames_), theirs = static_cast<double>(other.frames_);
    for (std::size_t b = 0; b < bands_.size(); ++b) {
      const double apart = other.bands_[b].mean - bands_[b].mean;
      bands_[b].mean += apart * (theirs / (mine + theirs));
      bands_[b].squares += other.bands_[b].squares + apart * apart * (mine * theirs / (mine + theirs));
    }
    frames_ += other.frames_;
  }

  std::int64_t frames() const { return frames_; }
  /// [bands]; zeros before the first frame.
  std::vector<float> mean() const {
    std::vector<float> result;
    for (auto const& band : bands_) result.push_back(static_cast<float>(band.mean));
    return result;
  }
  /// [bands], of the population; zeros before the first frame.
  std::vector<float> deviation() const {
    std::vector<float> result;
    for (auto const& band : bands_)
      result.push_back(frames_ == 0 ? 0.f : static_cast<float>(std::sqrt(band.squares / static_cast<double>(frames_))));
    return result;
  }

 private:
  struct Band {
    double mean = 0, squares = 0;  // squares: of the distances from the mean, summed
  };
  std::vector<Band> bands_;
  std::int64_t frames_ = 0;
};

/// Stack successive 10 ms frames of Bands log-mel energies side by side, [frames, Stack · Bands] at
/// 100 / Stack Hz, from 16 kHz audio. Nothing in it is trained.
template <int Bands = 80, int Stack = 2, Normalisation Normalise = Normalisation::utterance> struct LogMel {
  static_assert(Bands >= 1 && Bands <= Filterbank::max_bands, "sotto: LogMel needs 1 to 128 mel bands");
  static_assert(Stack >= 1 && Stack <= 8, "sotto: LogMel stacks 1 to 8 frames of 10 ms");

  static constexpr int bands = Bands, stack = Stack;
  static constexpr Normalisation normalisation = Normalise;
  static constexpr int features = Bands * Stack, hop = Filterbank::hop * Stack;

  /// The fewest samples that give so many frames.
  static constexpr std::int64_t samples_for(int frames) {
    return frames <= 0 ? 0 : Filterbank::frame_samples + Filterbank::hop * (std::int64_t{frames} * Stack - 1);
  }
  /// The 10 ms frames that fit, divided by Stack and rounded down: an odd tail is dropped.
  static constexpr int frames(std::int64_t samples) { return Filterbank::frames(samples) / Stack; }
  /// Of the filterbank; the normalisation has no products.
  static constexpr std::uint64_t flops(int frames) {
    return Filterbank::flops(1, Bands) * static_cast<std::uint64_t>(frames) * Stack;
  }

  /// What inference needs of the corpus: constants of the parameter table, only where they are
  /// used.
  template <class Store> struct Parameters {
    static constexpr int constants = Normalise == Normalisation::corpus ? Bands : 0;
    typename Store::template Vector<constants> mean, deviation;

    template <class F, class... P> static constexpr void visit(F&& f, P&... p) {
      if constexpr (constants > 0) {
        f(ParameterInfo{"frontend.mean", {Bands}, {}, false, -1, false}, p.mean...);
        f(ParameterInfo{"frontend.deviation", {Bands}, {Initialiser::Kind::ones}, false, -1, false}, p.deviation...);
      }
    }
  };

  /// Features before normalisation: what corpus statistics are made of.
  using Raw = LogMel<Bands, Stack, Normalisation::none>;
  /// Whether Parameters must be filled from a corpus before anything is computed.
  static constexpr bool needs_corpus = Normalise == Normalisation::corpus;

  /// One object a thread; it allocates nothing after construction.
  class Extractor {
   public:
    Extractor() : filterbank_({.bands = Bands}) {}

    /// The corpus's mean and deviation, [Bands] each; a band of deviation zero will be zero. Needed
    /// before compute().
    void corpus_statistics(std::span<float const> mean,
                           std::span<float const> deviation) requires(Normalise == Normalisation::corpus) {
      if (mean.size() != Bands || deviation.size() != Bands)
        throw_error(ErrorCode::usage, {"corpus statistics need one mean and one deviation a mel band"});
      for (std::size_t b = 0; b < Bands; ++b) {
        mean_[b] = mean[b];
        factor_[b] = factor(static_cast<double>(deviation[b]));
      }
      known_ = true;
    }

    /// samples: 16 kHz, in [-1, 1]. out: [frames(samples), features]. Error(usage) if out has
    /// another shape, or if corpus statistics are wanted and not yet given.
    SOTTO_NOINLINE void compute(std::span<float const> samples, Matrix<float> out) {
      if (Normalise == Normalisation::corpus && !known_)
        throw_error(ErrorCode::usage, {"LogMel normalises by corpus statistics; call corpus_statistics() first"});
      if (out.columns != features)
        throw_error(ErrorCode::usage,
                    {"LogMel writes rows of Bands x Stack features; give it room for so many columns"});
      filterbank_.compute(samples, out);
      if constexpr (Normalise == Normalisation::none) return;
      if constexpr (Normalise == Normalisation::utterance) measure(out);
      for (int i = 0; i < out.rows; ++i)
        for (int s = 0; s < Stack; ++s) {
          float* frame = out.row(i) + s * Bands;
          for (std::size_t b = 0; b < Bands; ++b) frame[b] = (frame[b] - mean_[b]) * factor_[b];
        }
    }

    /// Takes what it needs from the parameters.
    template <class P> void configure(P const& parameters) {
      if constexpr (needs_corpus)
        corpus_statistics({parameters.mean.begin, static_cast<std::size_t>(Bands)},
                          {parameters.deviation.begin, static_cast<std::size_t>(Bands)});
    }

   private:
    /// 1 / deviation, or 0 where the band is as good as constant: what is left of it then is
    /// rounding.
    static float factor(double deviation) { return deviation > 1e-5 ? static_cast<float>(1 / deviation) : 0.f; }

    void measure(Matrix<float const> out) {
      std::array<double, Bands> sums{}, squares{};
      const double count = static_cast<double>(out.rows) * Stack;
      each_frame(out, [&](float const* frame) {
        for (std::size_t b = 0; b < Bands; ++b) sums[b] += static_cast<double>(frame[b]);
      });
      for (std::size_t b = 0; b < Bands; ++b) mean_[b] = static_cast<float>(sums[b] / count);
      each_frame(out, [&](float const* frame) {
        for (std::size_t b = 0; b < Bands; ++b) {
          const double distance = static_cast<double>(frame[b] - mean_[b]);
          squares[b] += distance * distance;
        }
      });
      for (std::size_t b = 0; b < Bands; ++b) factor_[b] = factor(std::sqrt(squares[b] / count));
    }
    template <class Use> static void each_frame(Matrix<float const> out, Use use) {
      for (int i = 0; i < out.rows; ++i)
        for (int s = 0; s < Stack; ++s) use(out.row(i) + s * Bands);
    }

    Filterbank filterbank_;
    std::array<float, Bands> mean_{}, factor_{};
    bool known_ = false;
  };
};

}  // namespace sotto::frontend::inline SOTTO_ABI
