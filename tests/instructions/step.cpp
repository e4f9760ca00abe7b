// One training step of a small model, for valgrind to count: step fp32|bf16. Only counted_step() is counted.
#include <cstdio>
#include <memory>
#include <string_view>

#include <sotto/backend/cpu/cpu.hpp>
#include <sotto/encoder/presets.hpp>
#include <sotto/train/engine.hpp>

using namespace sotto;

namespace {

using Model = presets::Tiny;
constexpr int frames = 150, crops = 2;

PackedLane lane() {
  PackedLane lane;
  lane.clear();
  Random random(1, Purpose::user);
  for (int crop = 0; crop < crops; ++crop) {
    for (int i = 0; i < frames; ++i) {
      const int row = lane.rows() + i;
      (i / 10 % 2 == 0 ? lane.masked : lane.unmasked).push_back(row);
      lane.targets.push_back(static_cast<int>(random.below(Model::Objective::classes)));
    }
    lane.offsets.push_back(lane.rows() + frames);
    lane.utterances.push_back(crop);
    lane.starts.push_back(0);
  }
  for (int i = 0; i < lane.rows() * Model::Frontend::features; ++i)
    lane.features.push_back(static_cast<float>(random.normal()));
  return lane;
}

template <class Engine> SOTTO_NOINLINE double counted_step(Engine& engine, Batch const& batch, int step) {
  const Noise noise = Noise::of({.dropout = .1f}, Model::shape.depth, 1, static_cast<std::uint32_t>(step));
  engine.submit(batch, noise, {}, {}, 1e-4, static_cast<std::uint64_t>(step));
  return engine.collect().measures.loss;
}

template <class Storage> double train() {
  ThreadPool pool(1);
  auto engine = std::make_unique<Engine<Model, Cpu<Storage>>>(pool, Capacity{crops * frames, frames}, 1);
  initialise(std::span<ParameterEntry const>(parameter_table<Model>), engine->values().data(), 1);
  engine->prepare();
  Batch batch;
  batch.lanes.push_back(lane());
  batch.rows = batch.lanes[0].rows();
  batch.masked = static_cast<std::int64_t>(batch.lanes[0].masked.size());
  return counted_step(*engine, batch, 1);
}

}  // namespace

int main(int argc, char** argv) {
  const bool narrow = argc > 1 && std::string_view(argv[1]) == "bf16";
  std::printf("loss %.4f\n", narrow ? train<bf16>() : train<float>());
}
