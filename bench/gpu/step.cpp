// The training step on a GPU: what a replayed step takes, or what its operations take one by one.
//   step [--breakdown] [--json]
// A step is the copy of features and labels to the device, forward, backward and AdamW. --json: one object a line.
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

#include "measure.hpp"

using namespace sotto;
using namespace sotto::bench;

namespace {

struct Deep : Spec {
  static constexpr char const* name = "12x384x1536";
  static constexpr EncoderShape shape{.width = 384, .depth = 12, .heads = 8, .feed_forward = 1536};
};
struct Wide : Spec {
  static constexpr char const* name = "3x768x3072";
  static constexpr EncoderShape shape{.width = 768, .depth = 3, .heads = 12, .feed_forward = 3072};
};
struct Slim : Spec {
  static constexpr char const* name = "12x384x768";
  static constexpr EncoderShape shape{.width = 384, .depth = 12, .heads = 8, .feed_forward = 768};
};
struct Narrow : Spec {
  static constexpr char const* name = "12x256x1024";
  static constexpr EncoderShape shape{.width = 256, .depth = 12, .heads = 4, .feed_forward = 1024};
};

constexpr BatchShape batches[] = {{2048, 250}, {2048, 780}, {16384, 250}, {16384, 780}};

struct Report {
  cuda::DeviceFacts device;
  bool json;
  DeviceSheet const* sheet = sheet_of(device.name);
  bool has_bf16 = device.major >= 8;

  /// As JSON has it; `none` where there is no sheet.
  template <class Model> std::string bound_fraction(BatchShape shape, double seconds, char const* none) const {
    if (sheet == nullptr) return none;
    char text[32];
    std::snprintf(text, sizeof text, "%.3f", bound<Model>(shape, *sheet) / seconds);
    return text;
  }

  template <class Model, class Storage> void step(BatchShape shape, bool tf32) const {
    const StepTime time = replayed<Model, Cuda<Storage>>(shape, tf32);
    const double rate = shape.frames() / time.seconds,
                 tflops = static_cast<double>(time.cost.count) / time.seconds * 1e-12;
    constexpr bool narrow = sizeof(Storage) == 2;
    char const* const arithmetic = narrow ? "bf16" : tf32 ? "tf32" : "fp32";
    // The bound is that of bf16.
    const auto fraction = [&](char const* none) {
      return narrow ? bound_fraction<Model>(shape, time.seconds, none) : std::string(none);
    };
    if (json)
      std::printf(
          "{\"program\": \"sotto\", \"mode\": \"replayed\", \"device\": \"%s\", \"model\": \"%s\", \"sequences\": %d, "
          "\"length\": %d, \"arithmetic\": \"%s\", \"step_ms\": %.4f, \"frames_per_second\": %.0f, "
          "\"times_real_time\": %.0f, \"tflops\": %.3f, \"bound_fraction\": %s, \"launches\": %zu, \"loss\": %.4f}\n",
          device.name, Model::name, shape.sequences(), shape.length, arithmetic, 1e3 * time.seconds, rate, rate / 50,
          tflops, fraction("null").c_str(), time.launches, time.loss);
    else
      std::printf(
          "%-12s %3d x %3d %s: %8.3f ms, %9.0f frames/s, %6.0f x real time, %6.1f TFLOP/s, %s of the bound, "
          "%zu launches (loss %.3f)\n",
          Model::name, shape.sequences(), shape.length, arithmetic, 1e3 * time.seconds, rate, rate / 50, tflops,
          fraction("-").c_str(), time.launches, time.loss);
    std::fflush(stdout);
  }
  template <class Model> void steps() const {
    for (const auto shape : batches) {
      if (has_bf16) step<Model, bf16>(shape, false);
      if (has_bf16) step<Model, float>(shape, true);  // tensor cores learned tf32 when they learned bf16
      step<Model, float>(shape, false);
    }
  }

  template <class Model> void operations(BatchShape shape) const {
    const double whole = 1e3 * replayed<Model, Cuda<bf16>>(shape, false).seconds;
    if (!json)
      std::printf("%s, %d x %d, bf16: %.3f ms replayed; one by one:\n", Model::name, shape.sequences(), shape.length,
                  whole);
    const auto line = [&](char const* kind, std::string_view name, int calls, double milliseconds, double tflops) {
      const std::string text(name);
      if (json)
        std::printf(
            "{\"program\": \"sotto\", \"mode\": \"%s\", \"device\": \"%s\", \"model\": \"%s\", \"sequences\": %d, "
            "\"length\": %d, \"arithmetic\": \"bf16\", \"step_ms\": %.4f, \"operation\": \"%s\", \"calls\": %d, "
            "\"ms\": %.4f, \"tflops\": %.3f}\n",
            kind, device.name, Model::name, shape.sequences(), shape.length, whole, text.c_str(), calls, milliseconds,
            tflops);
      else
        std::printf("  %8.4f ms  %4d x  %6.1f TFLOP/s  %s\n", milliseconds, calls, tflops, text.c_str());
    };
    for (auto const& operation : breakdown<Model, Cuda<bf16>>(shape))
      line("operation", operation.name, operation.calls, operation.milliseconds,
           operation.flops / operation.milliseconds * 1e-9);
    if (sheet == nullptr) return;
    if (!json) std::printf(" no faster on a %s than:\n", std::string(sheet->title).c_str());
    for (auto const& operation : device_operations<Model>(shape.frames(), shape.length)) {
      const double seconds = operation.seconds(*sheet);
      line("bound", operation.name, operation.launches, 1e3 * seconds, operation.flops / seconds * 1e-12);
    }
  }
};

}  // namespace

int main(int argc, char** argv) try {
  bool one_by_one = false, json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--breakdown") {
      one_by_one = true;
    } else if (argument == "--json") {
      json = true;
    } else {
      std::fprintf(stderr, "usage: step [--breakdown] [--json]\n");
      return 2;
    }
  }
  const Report report{cuda::device_facts(0), json};
  if (one_by_one) {
    report.operations<Deep>({16384, 250});
    report.operations<Deep>({2048, 250});
    report.operations<Wide>({16384, 250});
    return 0;
  }
  report.steps<Deep>();
  report.steps<Wide>();
  report.steps<Slim>();
  report.steps<Narrow>();
} catch (Error const& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return error.code() == ErrorCode::device ? 6 : 1;
} catch (std::exception const& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
