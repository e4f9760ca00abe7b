// expect: sotto: `shape` must be a static constexpr sotto::EncoderShape
#include <sotto/train/pretrainer.hpp>

struct Bad : sotto::Spec {
  static constexpr int shape = 384;
};

void use(sotto::AnySource const& speech) {
  sotto::Pretrainer<Bad> trainer(speech, {});
  trainer.run();
}
