// expect: sotto: Objective must have Options with a mask, Targets, Statistics, classes, Parameters<Model, Store> and
// Head<Model, B>
#include <sotto/train/pretrainer.hpp>

struct Bad : sotto::Spec {
  static constexpr sotto::EncoderShape shape{.width = 64};
  using Objective = int;
};

void use(sotto::AnySource const& speech) {
  sotto::Pretrainer<Bad> trainer(speech, {});
  trainer.run();
}
