// expect: sotto: Objective must have Options, Targets, Parameters<Model, Store>, Statistics and Head<Model, B>
#include <sotto/train/pretrainer.hpp>

struct Bad : sotto::Spec {
  static constexpr sotto::EncoderShape shape{.width = 64};
  using Objective = int;
};

void use(sotto::AnySource const& speech) {
  sotto::Pretrainer<Bad> trainer(speech, {});
  trainer.run();
}
