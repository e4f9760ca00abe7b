// expect: sotto: Position must be sotto::position::Convolution<Groups, Taps...> or sotto::position::Sinusoidal
#include <sotto/train/pretrainer.hpp>

struct Bad : sotto::Spec {
  static constexpr sotto::EncoderShape shape{.width = 64};
  using Position = int;
};

void use(sotto::AnySource const& speech) {
  sotto::Pretrainer<Bad> trainer(speech, {});
  trainer.run();
}
