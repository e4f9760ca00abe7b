// The training step, forward + backward + AdamW, on one thread or more: GF/s of model FLOPs, and the fraction of the
// FMA peak that a register-only loop reaches just before and after. Shapes are performance.md's.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <sotto/backend/cpu/cpu.hpp>
#include <sotto/budget/cost.hpp>
#include <sotto/encoder/presets.hpp>
#include <sotto/train/engine.hpp>

#include "fma.hpp"

using namespace sotto;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Shape384 : presets::Deep {
  using Norm = norm::Pre;
};
struct Shape768 : presets::Wide {
  using Norm = norm::Pre;
};
struct Shape192 : presets::Tiny {
  static constexpr EncoderShape shape{.width = 192, .depth = 12, .heads = 3, .feed_forward = 768};
};

/// A batch of equal crops with random features, labels and HuBERT's masks.
template <class Model> Batch batch_of(int crops, int frames, int lane_rows, int slots) {
  Batch batch;
  LanePacking packing(lane_rows, slots);
  const std::vector<int> lengths(static_cast<std::size_t>(crops), frames);
  std::vector<int> order, lane_of;
  packing.deal(lengths, order, lane_of);
  batch.lanes.resize(static_cast<std::size_t>(packing.lanes(crops * frames, lengths.size())));
  for (auto& lane : batch.lanes) lane.clear();
  SpanMasker masker;
  Random random(1, Purpose::user);
  for (const int crop : order) {
    PackedLane& lane = batch.lanes[static_cast<std::size_t>(lane_of[static_cast<std::size_t>(crop)])];
    masker.draw({}, frames, Random(1, Purpose::mask, 0, static_cast<std::uint64_t>(crop)), lane.rows(), lane.masked);
    lane.offsets.push_back(lane.rows() + frames);
    lane.utterances.push_back(crop);
    lane.starts.push_back(0);
  }
  for (auto& lane : batch.lanes) {
    std::vector<char> hidden(static_cast<std::size_t>(lane.rows()), 0);
    for (const int row : lane.masked) hidden[static_cast<std::size_t>(row)] = 1;
    for (int row = 0; row < lane.rows(); ++row) {
      if (hidden[static_cast<std::size_t>(row)] == 0) lane.unmasked.push_back(row);
      lane.targets.push_back(static_cast<int>(random.below(100)));
    }
    for (int i = 0; i < lane.rows() * Model::Frontend::features; ++i)
      lane.features.push_back(static_cast<float>(random.normal()));
    batch.rows += lane.rows();
    batch.masked += static_cast<std::int64_t>(lane.masked.size());
  }
  return batch;
}

template <class Model> void measure(char const* name, int threads, int lane_rows, float dropout) {
  const int crops = 8, frames = 250;
  ThreadPool pool(threads);
  const Batch batch = batch_of<Model>(crops, frames, lane_rows, threads);
  int rows = 0;
  for (auto const& lane : batch.lanes) rows = std::max(rows, lane.rows());
  auto engine = std::make_unique<Engine<Model, Cpu<float>>>(pool, Capacity{rows, frames}, threads);
  initialise(std::span<ParameterEntry const>(parameter_table<Model>), engine->values().data(), 1);
  engine->prepare();
  Flops cost = Cost<Model>::head(batch.masked, batch.rows - batch.masked, {});
  for (int i = 0; i < crops; ++i) cost += Cost<Model>::train(frames);
  const typename Model::Objective::Options options;
  std::vector<double> rates, fractions;
  double loss = 0;
  for (int i = 0; i < 12; ++i) {
    const double before = bench::fma_peak(threads), start = now();
    const Noise noise = Noise::of({.dropout = dropout}, Model::shape.depth, 1, static_cast<std::uint32_t>(i));
    loss = engine->accumulate(batch, noise, options).loss;
    engine->update({}, 1e-4, engine->gradient_norm(), static_cast<std::uint64_t>(i + 1));
    const double seconds = now() - start, after = bench::fma_peak(threads);
    if (i < 2) continue;  // first touch
    rates.push_back(static_cast<double>(cost.count) / seconds * 1e-9);
    fractions.push_back(rates.back() / (.5 * (before + after)));
  }
  std::printf("%-10s %d thread(s), lanes of %4d, dropout %.1f: %6.1f GF/s, %.2f of the FMA peak (loss %.3f)\n", name,
              threads, lane_rows, static_cast<double>(dropout), bench::median(rates), bench::median(fractions), loss);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  for (const int lane_rows : {250, 500, 1000, 2000}) measure<Shape384>("12x384", threads, lane_rows, 0);
  measure<Shape384>("12x384", threads, 1000, .1f);
  measure<Shape768>("3x768", threads, 1000, 0);
  measure<Shape192>("12x192", threads, 1000, 0);
  measure<presets::Tiny>("4x192", threads, 1000, 0);
  measure<presets::Slim>("slim", threads, 1000, 0);
}
