// The pipeline alone: log-mel, MFCC and whole batches of decoded speech on one core, as multiples of real time, and the
// share of two cores' time that feeds a step of 1,000 x real time. Medians of samples that the FMA loop lets pass.
//   bench/data CORPUS     a folder of audio or a manifest, decoded before anything is timed: examples/data, say
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <functional>
#include <numeric>
#include <thread>
#include <vector>

#include <sotto/audio.hpp>
#include <sotto/augment/chain.hpp>
#include <sotto/data/sampler.hpp>
#include <sotto/frontend/log_mel.hpp>
#include <sotto/frontend/mfcc.hpp>
#include <sotto/objective/mfcc_clusters.hpp>
#include <sotto/train/batcher.hpp>
#include <sotto/train/options.hpp>
#include <sotto/train/prefetch.hpp>

#include "fma.hpp"

namespace {

using namespace sotto;
using Frontend = frontend::LogMel<>;
using Targets = objective::MfccClusters<100>;
using Maker = Batcher<Frontend, augment::Chain<>, Targets, false>;

// Of all threads: other programs' turns do not count.
double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// f works once and returns the seconds of audio that it was given.
void measure(char const* name, bench::Gate& gate, std::function<double()> const& f) {
  f();
  const double once = processor_seconds();
  f();
  const int times = std::max(1, static_cast<int>(.01 / std::max(1e-6, processor_seconds() - once)));
  std::vector<double> rates, peaks;
  for (int attempt = 0; attempt < 100 && rates.size() < 15; ++attempt) {
    const double before = gate.rate(), start = processor_seconds();
    double audio = 0;
    for (int i = 0; i < times; ++i) audio += f();
    const double seconds = processor_seconds() - start;
    const double after = gate.rate();
    if (!gate.passes(before, after)) continue;
    rates.push_back(audio / seconds);
    peaks.push_back(.5 * (before + after));
  }
  std::printf("%-38s %7.0f x real time a core (%zu samples; FMA loop: %.1f GF/s)\n", name, bench::median(rates),
              rates.size(), bench::median(peaks));
}

/// Batches of the run's default shape, one after another.
struct Batches {
  Sampler const& sampler;
  Maker maker;
  Sampler::Plan plan{};
  std::uint32_t cursor = 0;

  void operator()(Batch& batch) {
    sampler.plan(plan.next, plan);
    maker.make(plan.crops, cursor++, Purpose::mask, batch);
  }
};

/// A step that takes no processor time but consumes audio at `speed` times real time, fed as a run's is.
void feed(Batches batches, double speed) {
  Prefetch prefetch(std::move(batches));
  prefetch.front();  // the first is late in a run too
  double audio = 0, waited = 0;
  const auto start = std::chrono::steady_clock::now();
  const double used = processor_seconds();
  for (int i = 0; i < 30; ++i) {
    const double asked = bench::now();
    audio += prefetch.front().audio_seconds;
    waited += bench::now() - asked;
    std::this_thread::sleep_until(start + std::chrono::duration<double>(audio / speed));
    prefetch.release();
  }
  const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("a step of %.0f x real time: %.1f %% of two cores' time; it waited %.2f %% of its own\n", audio / wall,
              50 * (processor_seconds() - used) / wall, 100 * waited / wall);
}

void run(char const* path) {
  ThreadPool pool(2);
  const Corpus corpus = Corpus::open(path);
  corpus.preload(pool);
  const AnySource source(corpus);
  bench::Gate gate(1);

  std::vector<float> samples(std::size_t{16000} * 15), features;  // about the longest crop
  for (std::size_t i = 0, filled = 0; filled < samples.size(); i = (i + 1) % source.size()) {
    const auto n = std::min(static_cast<std::size_t>(source.samples(i)), samples.size() - filled);
    source.read(i, 0, std::span(samples).subspan(filled, n));
    filled += n;
  }
  const auto extract = [&](char const* name, auto extractor, int frames, int width) {
    features.resize(static_cast<std::size_t>(frames) * static_cast<std::size_t>(width));
    measure(name, gate, [&] {
      extractor.compute(samples, {features.data(), frames, width, width});
      return static_cast<double>(samples.size()) / 16000;
    });
  };
  const auto n = static_cast<std::int64_t>(samples.size());
  extract("log-mel, 2 x 80, normalised", Frontend::Extractor(), Frontend::frames(n), Frontend::features);
  extract("MFCC, 39", frontend::Mfcc(), frontend::Mfcc::frames(n), frontend::Mfcc::dimensions);

  std::vector<std::uint32_t> utterances(source.size());
  std::iota(utterances.begin(), utterances.end(), 0u);
  std::vector<std::int32_t> frames;
  for (const std::uint32_t i : utterances) frames.push_back(Frontend::frames(source.samples(i)));
  Targets targets;
  targets.fit(source, utterances, {.fit_frames = 20'000, .restarts = 1, .iterations = 5}, 1, pool, [](double) {});
  targets.label(source, pool);
  const BatchOptions shape;
  const Sampler sampler(utterances, frames, {.rows = shape.rows}, 1);
  const LanePacking packing(shape.lane_rows, 2);
  Batches batches{sampler, Maker(source, targets, packing, {}, {}, 1)};
  batches.maker.reserve(packing.most_rows(shape.rows, sampler.options().crop), shape.rows);

  Batch batch;
  measure("batches", gate, [&] {
    batches(batch);
    return batch.audio_seconds;
  });
  measure("of that, reading and checking samples", gate, [&] {
    double audio = 0;
    sampler.plan(batches.plan.next, batches.plan);
    for (Crop const& crop : batches.plan.crops) {
      samples.resize(static_cast<std::size_t>(Frontend::samples_for(crop.frames)));
      source.read_sound(crop.utterance, crop.first_sample, samples);
      audio += static_cast<double>(crop.frames) * Frontend::hop / 16000;
    }
    return audio;
  });
  std::printf("the last batch: %.0f s of audio in %zu crops\n", batch.audio_seconds, batches.plan.crops.size());
  feed(batches, 1000);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) {
    std::fprintf(stderr, "bench/data CORPUS\n");
    return 2;
  }
  run(argv[1]);
} catch (sotto::Error const& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
