// The same on a GPU: plain C++, compiled by a host compiler and linked to sotto::cuda.
#include <cstdio>

#include <sotto/cuda.hpp>
#include <sotto/sotto.hpp>

struct Mine : sotto::Spec {
  static constexpr sotto::EncoderShape shape{.width = 256, .depth = 6, .heads = 4};
  using Norm = sotto::norm::Pre;
  using Position = sotto::position::Convolution<16, 31>;
};

int main() try {
  const sotto::SyntheticSpeech speech({.speakers = 20, .utterances = 200});
  sotto::Pretrainer<Mine, sotto::Cuda<sotto::bf16>> trainer(
      speech, {.budget = sotto::updates(200), .batch = {.rows = 8000}, .on_step = [](sotto::Step const& step) {
                 if (step.step % 20 == 0)
                   std::printf("step %llu: loss %.3f, %.0f GFLOP/s\n", static_cast<unsigned long long>(step.step),
                               step.loss, step.gflops);
               }});
  trainer.run();
} catch (sotto::Error const& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return error.code() == sotto::ErrorCode::device ? 6 : 1;
}
