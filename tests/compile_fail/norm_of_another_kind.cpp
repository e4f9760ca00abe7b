// expect: sotto: Norm must be sotto::norm::Pre or sotto::norm::Post
#include <sotto/train/pretrainer.hpp>

struct Bad : sotto::Spec {
  static constexpr sotto::EncoderShape shape{.width = 64};
  using Norm = int;
};

void use(sotto::AnySource const& speech) {
  sotto::Pretrainer<Bad> trainer(speech, {});
  trainer.run();
}
