// The training step, forward + backward + clip + AdamW: GF/s of model FLOPs, and the fraction of the FMA peak that a
// register-only loop reaches just before and after. A batch is 2,000 rows in crops of one length.
//   step [--model NAME,…] [--frames 250,500,1000] [--threads 1,all] [--precision fp32,bf16] [--dropout 0,.1]
//        [--samples 10] [--rows 2000] [--lane-rows 1000] [--breakdown] [--json]
//   step … --serve    one case: a line of JSON for each line read, after one that says what it is
//   step --gate [--threads N]    the FMA loop alone, a line for each line read
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iostream>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <sotto/backend/cpu/cpu.hpp>
#include <sotto/budget/cost.hpp>
#include <sotto/encoder/presets.hpp>
#include <sotto/train/engine.hpp>
#include <sotto/train/options.hpp>

#include "fma.hpp"
#include "timed.hpp"

using namespace sotto;
using namespace sotto::bench;

namespace {

/// What operator new gave out, below.
struct Heap {
  std::atomic<std::size_t> held{0}, allocations{0};
} heap;

void* counted(std::size_t bytes, std::size_t alignment) {
  alignment = std::max(alignment, alignof(std::max_align_t));
  const std::size_t whole = (bytes + 2 * alignment - 1) / alignment * alignment;  // the size stands in front
  auto* const block = static_cast<std::byte*>(std::aligned_alloc(alignment, whole));
  if (block == nullptr) throw std::bad_alloc();
  std::memcpy(block, &bytes, sizeof bytes);
  heap.held += bytes;
  ++heap.allocations;
  return block + alignment;
}
void uncounted(void* p, std::size_t alignment) noexcept {
  if (p == nullptr) return;
  auto* const block = static_cast<std::byte*>(p) - std::max(alignment, alignof(std::max_align_t));
  std::size_t bytes = 0;
  std::memcpy(&bytes, block, sizeof bytes);
  heap.held -= bytes;
  std::free(block);
}

}  // namespace

void* operator new(std::size_t bytes) { return counted(bytes, 0); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* p) noexcept { uncounted(p, 0); }
void operator delete(void* p, std::size_t) noexcept { uncounted(p, 0); }
void operator delete(void* p, std::align_val_t alignment) noexcept {
  uncounted(p, static_cast<std::size_t>(alignment));
}
void operator delete(void* p, std::size_t, std::align_val_t alignment) noexcept {
  uncounted(p, static_cast<std::size_t>(alignment));
}

namespace {

struct Narrow : Spec {
  static constexpr EncoderShape shape{.width = 256, .depth = 12, .heads = 4, .feed_forward = 1024};
};
struct Thin : Spec {
  static constexpr EncoderShape shape{.width = 192, .depth = 12, .heads = 3, .feed_forward = 768};
};

/// What is measured. A batch has no padding: rows / frames crops.
struct Case {
  std::string model;
  int frames = 250, threads = 1;
  std::string precision = "fp32";
  float dropout = 0;
  int rows = 2000, lane_rows = BatchOptions{}.lane_rows;
  int crops() const { return rows / frames; }
};

double mebibytes(std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

/// The most that was resident since forget_resident(), in MiB; 0 where there is no /proc.
double resident() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmHWM:", 0) == 0) return std::atof(line.c_str() + 6) / 1024;
  return 0;
}
void forget_resident() { std::ofstream("/proc/self/clear_refs") << 5; }

/// A batch of equal crops with random features, labels and HuBERT's masks.
Batch batch_of(Case const& c, int features, int classes) {
  Batch batch;
  LanePacking packing(c.lane_rows, c.threads);
  const std::vector<int> lengths(static_cast<std::size_t>(c.crops()), c.frames);
  std::vector<int> order, lane_of;
  packing.deal(lengths, order, lane_of);
  batch.lanes.resize(static_cast<std::size_t>(packing.lanes(c.crops() * c.frames, lengths.size())));
  for (auto& lane : batch.lanes) lane.clear();
  SpanMasker masker;
  Random random(1, Purpose::user);
  for (const int crop : order) {
    PackedLane& lane = batch.lanes[static_cast<std::size_t>(lane_of[static_cast<std::size_t>(crop)])];
    masker.draw({}, c.frames, Random(1, Purpose::mask, 0, static_cast<std::uint64_t>(crop)), lane.rows(), lane.masked);
    lane.offsets.push_back(lane.rows() + c.frames);
    lane.utterances.push_back(crop);
    lane.starts.push_back(0);
  }
  for (auto& lane : batch.lanes) {
    std::vector<char> hidden(static_cast<std::size_t>(lane.rows()), 0);
    for (const int row : lane.masked) hidden[static_cast<std::size_t>(row)] = 1;
    for (int row = 0; row < lane.rows(); ++row) {
      if (hidden[static_cast<std::size_t>(row)] == 0) lane.unmasked.push_back(row);
      lane.targets.push_back(static_cast<int>(random.below(static_cast<std::uint32_t>(classes))));
    }
    for (int i = 0; i < lane.rows() * features; ++i) lane.features.push_back(static_cast<float>(random.normal()));
    batch.rows += lane.rows();
    batch.masked += static_cast<std::int64_t>(lane.masked.size());
  }
  return batch;
}

/// A model that trains on one batch.
class Step {
 public:
  virtual ~Step() = default;
  virtual double run() = 0;  ///< the loss
  virtual Flops cost() const = 0;
  virtual std::size_t predicted_bytes() const = 0;  ///< of the engine: a constant expression of the type
  std::size_t engine_bytes = 0;                     ///< what it did allocate
};

template <class Model, class B> class StepOf final : public Step {
 public:
  explicit StepOf(Case const& c)
      : case_(c), pool_(c.threads), batch_(batch_of(c, Model::Frontend::features, Model::Objective::classes)) {
    for (auto const& lane : batch_.lanes) capacity_.rows = std::max(capacity_.rows, lane.rows());
    capacity_.longest = c.frames;
    const std::size_t held = heap.held;
    engine_ = std::make_unique<Net>(pool_, capacity_, c.threads);
    engine_bytes = heap.held - held;
    initialise(std::span<ParameterEntry const>(parameter_table<Model>), engine_->values().data(), 1);
    engine_->prepare();
  }
  double run() override {
    ++step_;
    const Noise noise = Noise::of({.dropout = case_.dropout}, Model::shape.depth, 1, static_cast<std::uint32_t>(step_));
    engine_->submit(batch_, noise, {}, {}, 1e-4, step_);
    return engine_->collect().measures.loss;
  }
  Flops cost() const override {
    Flops cost = Cost<Model>::head(batch_.masked, batch_.rows - batch_.masked, {});
    for (int i = 0; i < case_.crops(); ++i)
      cost += Cost<Model>::train(case_.frames) - Flops{Model::Frontend::flops(case_.frames)};
    return cost;
  }
  std::size_t predicted_bytes() const override { return Net::bytes(capacity_, case_.threads, case_.threads); }

 private:
  using Net = Engine<Model, B>;
  Case case_;
  ThreadPool pool_;
  Batch batch_;
  Capacity capacity_;
  std::unique_ptr<Net> engine_;
  std::uint64_t step_ = 0;
};

template <class Model> std::unique_ptr<Step> step_of(Case const& c) {
  if (c.precision == "bf16") return std::make_unique<StepOf<Model, Timed<Cpu<bf16>>>>(c);
  return std::make_unique<StepOf<Model, Timed<Cpu<float>>>>(c);
}

struct Entry {
  std::string_view model;
  std::unique_ptr<Step> (*make)(Case const&);
};
constexpr Entry entries[] = {
    {"12x384x1536", step_of<presets::Deep>}, {"3x768x3072", step_of<presets::Wide>},
    {"12x384x768", step_of<presets::Slim>},  {"3x640x2048", step_of<presets::Small>},
    {"12x256x1024", step_of<Narrow>},        {"12x192x768", step_of<Thin>},
    {"4x192x768", step_of<presets::Tiny>},
};

std::unique_ptr<Step> make_step(Case const& c) {
  for (auto const& entry : entries)
    if (entry.model == c.model) return entry.make(c);
  return nullptr;
}

struct Sample {
  double seconds = 0, gflops = 0, peak = 0, loss = 0;
  std::size_t allocations = 0;
  bool alone = false;  ///< nobody else was on our cores
  double fraction() const { return gflops / peak; }
};

Sample sample_of(Step& step, Gate& gate, int threads) {
  Sample s;
  const double before = gate.rate();
  const double waited_before = waited();
  const std::size_t allocations = heap.allocations;
  const double start = now();
  s.loss = step.run();
  s.seconds = now() - start;
  s.allocations = heap.allocations - allocations;
  const double waiting = waited() - waited_before, after = gate.rate();
  s.gflops = static_cast<double>(step.cost().count) / s.seconds * 1e-9;
  s.peak = .5 * (before + after);
  s.alone = gate.passes(before, after) && waiting < .03 * threads * s.seconds;
  return s;
}

/// A case that has run often enough for nothing to be touched for the first time.
struct Measured {
  Case const& c;
  std::unique_ptr<Step> step;
  Gate gate{c.threads};
  double frames = c.crops() * c.frames;
  std::size_t outside = 0;  ///< bytes held beside the engine's own: the batch, and scratch that grew

  explicit Measured(Case const& measured) : c(measured) {
    forget_resident();
    const std::size_t before = heap.held;
    step = make_step(c);
    for (int i = 0; i < 2; ++i) step->run();
    outside = heap.held - before - step->engine_bytes;
  }

  /// Fields that no sample changes.
  std::string described() const {
    char text[512];
    std::snprintf(text, sizeof text,
                  "\"program\": \"sotto\", \"model\": \"%s\", \"frames\": %d, \"crops\": %d, \"lane_rows\": %d, "
                  "\"threads\": %d, \"mode\": \"%s\", \"dropout\": %g, \"gflop\": %.4f, \"predicted_mib\": %.2f, "
                  "\"engine_mib\": %.2f, \"beside_mib\": %.2f, \"resident_mib\": %.1f",
                  c.model.c_str(), c.frames, c.crops(), c.lane_rows, c.threads, c.precision.c_str(),
                  static_cast<double>(c.dropout), static_cast<double>(step->cost().count) * 1e-9,
                  mebibytes(step->predicted_bytes()), mebibytes(step->engine_bytes), mebibytes(outside), resident());
    return text;
  }
  std::string values(Sample const& s) const {
    char text[256];
    std::snprintf(text, sizeof text,
                  "\"seconds\": %.6f, \"gflops\": %.3f, \"fma_peak\": %.3f, \"fraction\": %.4f, "
                  "\"frames_per_second\": %.0f, \"times_real_time\": %.1f, \"loss\": %.5f, \"allocations\": %zu",
                  s.seconds, s.gflops, s.peak, s.fraction(), frames / s.seconds, frames / 50 / s.seconds, s.loss,
                  s.allocations);
    return text;
  }
};

void print(std::string const& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

void serve(Case const& c) {
  Measured measured(c);
  print("{" + measured.described() + "}");
  for (std::string line; std::getline(std::cin, line);) {
    const Sample s = sample_of(*measured.step, measured.gate, c.threads);
    print("{" + measured.described() + ", " + measured.values(s) + ", \"alone\": " + (s.alone ? "true" : "false") +
          "}");
  }
}

void serve_gate(int threads) {
  Gate gate(threads);
  for (std::string line; std::getline(std::cin, line);) print("{\"fma_peak\": " + std::to_string(gate.rate()) + "}");
}

/// Medians of samples on cores of our own, of `wanted` of them if three times as many suffice.
void report(Case const& c, int wanted, bool json) {
  Measured measured(c);
  std::vector<double> seconds, fractions, peaks;
  Sample last;
  int taken = 0;
  for (; taken < 3 * wanted && static_cast<int>(seconds.size()) < wanted; ++taken) {
    last = sample_of(*measured.step, measured.gate, c.threads);
    if (!last.alone) continue;
    seconds.push_back(last.seconds);
    fractions.push_back(last.fraction());
    peaks.push_back(last.peak);
  }
  const auto dropped = static_cast<std::size_t>(taken) - seconds.size();
  if (seconds.empty()) {
    std::fprintf(stderr, "%s: all of %d samples were disturbed\n", c.model.c_str(), taken);
    return;
  }
  Sample middle = last;
  middle.seconds = median(seconds);
  middle.gflops = static_cast<double>(measured.step->cost().count) / middle.seconds * 1e-9;
  middle.peak = middle.gflops / median(fractions);
  if (json) {
    print("{" + measured.described() + ", " + measured.values(middle) +
          ", \"samples\": " + std::to_string(seconds.size()) + ", \"dropped\": " + std::to_string(dropped) + "}");
    return;
  }
  std::printf(
      "%-12s %d x %4d  %d  %s %4.1f  %8.1f ms  %6.1f GF/s  %.3f of %5.1f  %6.0f frames/s  %4.0f x real time  "
      "%6.1f MiB (+%5.1f) of %6.1f, resident %6.1f  %zu samples, %zu dropped\n",
      c.model.c_str(), c.crops(), c.frames, c.threads, c.precision.c_str(), static_cast<double>(c.dropout),
      1e3 * middle.seconds, middle.gflops, middle.fraction(), median(peaks), measured.frames / middle.seconds,
      measured.frames / 50 / middle.seconds, mebibytes(measured.step->engine_bytes), mebibytes(measured.outside),
      mebibytes(measured.step->predicted_bytes()), resident(), seconds.size(), dropped);
  std::fflush(stdout);
}

/// The sample of median duration, operation by operation. With threads, the time of all of them.
void break_down(Case const& c, int wanted, bool json) {
  Measured measured(c);
  struct Profile {
    Sample sample;
    std::vector<OperationTime> operations;
  };
  std::vector<Profile> profiles;
  std::vector<double> plain;  // what the clocks cost is seen against samples without them
  for (int taken = 0; taken < 3 * wanted && static_cast<int>(profiles.size()) < wanted; ++taken) {
    if (const Sample s = sample_of(*measured.step, measured.gate, c.threads); s.alone) plain.push_back(s.seconds);
    OperationTimes::begin();
    Profile profile;
    profile.sample = sample_of(*measured.step, measured.gate, c.threads);
    profile.operations = OperationTimes::end();
    if (profile.sample.alone) profiles.push_back(std::move(profile));
  }
  if (profiles.empty()) {
    std::fprintf(stderr, "%s: all samples were disturbed\n", c.model.c_str());
    return;
  }
  const auto shorter = [](Profile const& a, Profile const& b) { return a.sample.seconds < b.sample.seconds; };
  const auto middle = profiles.begin() + static_cast<std::ptrdiff_t>(profiles.size() / 2);
  std::nth_element(profiles.begin(), middle, profiles.end(), shorter);
  auto& operations = middle->operations;
  std::sort(operations.begin(), operations.end(), [](auto const& a, auto const& b) { return a.seconds > b.seconds; });

  Sample const& s = middle->sample;
  const double whole = s.seconds * c.threads, peak = s.peak / c.threads;
  struct Part {
    char const* name;
    double seconds = 0, flops = 0;
  } parts[] = {{"products"}, {"convolution"}, {"attention: grows with T^2"}, {"everything else"}};
  double timed = 0;
  const auto line = [&](char const* kind, std::string const& title, int calls, double seconds, double flops) {
    if (json) {
      char text[384];
      std::snprintf(text, sizeof text,
                    ", \"step_ms\": %.3f, \"kind\": \"%s\", \"operation\": \"%s\", \"calls\": %d, \"ms\": %.4f, "
                    "\"share\": %.4f, \"gflops\": %.2f, \"fraction\": %.4f}",
                    1e3 * s.seconds, kind, title.c_str(), calls, 1e3 * seconds, seconds / whole, flops / seconds * 1e-9,
                    flops / seconds * 1e-9 / peak);
      print("{" + measured.described() + text);
      return;
    }
    std::printf("  %9.3f ms  %5.2f %%  ", 1e3 * seconds, 100 * seconds / whole);
    calls > 0 ? std::printf("%5d x  ", calls) : std::printf("         ");
    flops > 0 ? std::printf("%6.1f GF/s  %.3f  ", flops / seconds * 1e-9, flops / seconds * 1e-9 / peak)
              : std::printf("                    ");
    std::puts(title.c_str());
  };
  if (!json)
    std::printf(
        "%s, %d x %d frames, %s, dropout %.1f, %d thread(s): %.1f ms (%.1f untimed), %.1f GF/s, %.3f of the "
        "FMA peak; ms are of all threads\n",
        c.model.c_str(), c.crops(), c.frames, c.precision.c_str(), static_cast<double>(c.dropout), c.threads,
        1e3 * s.seconds, 1e3 * median(plain), s.gflops, s.fraction());
  for (auto const& operation : operations) {
    line("operation", operation.title(), operation.calls, operation.seconds, operation.flops);
    Part& part = parts[static_cast<std::size_t>(operation.work)];
    part.seconds += operation.seconds;
    part.flops += operation.flops;
    timed += operation.seconds;
  }
  if (!json) std::puts(" of these:");
  for (auto const& part : parts) line("part", part.name, 0, part.seconds, part.flops);
  line("part", "between operations, and waiting", 0, whole - timed, 0);
  if (json) return;
  std::printf("  no product: %.2f %%\n", 100 * (1 - (parts[0].seconds + parts[1].seconds + parts[2].seconds) / whole));
  std::fflush(stdout);
}

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t end = std::min(list.find(',', at), list.size());
    parts.emplace_back(list.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

int threads_of(std::string const& text) {
  return text == "all" ? static_cast<int>(std::thread::hardware_concurrency()) : std::atoi(text.c_str());
}

int usage() {
  std::fprintf(stderr,
               "usage: step [--model NAME,...] [--frames N,...] [--threads N|all,...] "
               "[--precision fp32,bf16] [--dropout P,...] [--samples N] [--rows N] [--lane-rows N] "
               "[--breakdown] [--json] [--serve] [--gate]\nmodels:");
  for (auto const& entry : entries) std::fprintf(stderr, " %s", std::string(entry.model).c_str());
  std::fprintf(stderr, "\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) try {
  std::vector<std::string> models, frames{"250"}, threads{"1"}, precisions{"fp32"}, dropouts{"0"};
  for (auto const& entry : entries) models.emplace_back(entry.model);
  Case c;
  int samples = 10;
  bool by_operation = false, json = false, serving = false, gating = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view key = argv[i];
    bool* const flag = key == "--breakdown" ? &by_operation
                       : key == "--json"    ? &json
                       : key == "--serve"   ? &serving
                       : key == "--gate"    ? &gating
                                            : nullptr;
    if (flag != nullptr) {
      *flag = true;
      continue;
    }
    if (++i == argc) return usage();
    std::vector<std::string>* const list = key == "--model"       ? &models
                                           : key == "--frames"    ? &frames
                                           : key == "--threads"   ? &threads
                                           : key == "--precision" ? &precisions
                                           : key == "--dropout"   ? &dropouts
                                                                  : nullptr;
    int* const number = key == "--samples"     ? &samples
                        : key == "--rows"      ? &c.rows
                        : key == "--lane-rows" ? &c.lane_rows
                                               : nullptr;
    if (list != nullptr)
      *list = split(argv[i]);
    else if (number != nullptr)
      *number = std::atoi(argv[i]);
    else
      return usage();
  }
  if (gating) {
    serve_gate(threads_of(threads.front()));
    return 0;
  }
  for (auto const& precision : precisions)
    for (auto const& dropout : dropouts)
      for (auto const& thread : threads)
        for (auto const& frame : frames)
          for (auto const& model : models) {
            c.model = model;
            c.frames = std::atoi(frame.c_str());
            c.threads = threads_of(thread);
            c.precision = precision;
            c.dropout = std::strtof(dropout.c_str(), nullptr);
            bool known = precision == "fp32" || precision == "bf16";
            known = known && std::any_of(std::begin(entries), std::end(entries),
                                         [&](auto const& entry) { return entry.model == model; });
            if (!known || c.frames < 1 || c.threads < 1 || c.crops() < 1 || samples < 1) return usage();
            if (serving) {
              serve(c);
              return 0;
            }
            by_operation ? break_down(c, samples, json) : report(c, samples, json);
          }
} catch (std::exception const& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
