// expect: sotto: depth must be at least 1
#include <sotto/train/pretrainer.hpp>

struct Bad : sotto::Spec {
  static constexpr sotto::EncoderShape shape{.width = 64, .depth = 0};
};

void use(sotto::AnySource const& speech) {
  sotto::Pretrainer<Bad> trainer(speech, {});
  trainer.run();
}
