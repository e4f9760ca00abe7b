// expect: sotto: Attention must derive from sotto::attention::Softmax and keep its members' signatures
#include <sotto/train/pretrainer.hpp>

struct Bad : sotto::Spec {
  static constexpr sotto::EncoderShape shape{.width = 64};
  using Attention = int;
};

void use(sotto::AnySource const& speech) {
  sotto::Pretrainer<Bad> trainer(speech, {});
  trainer.run();
}
