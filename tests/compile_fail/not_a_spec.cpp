// expect: sotto: a spec must derive from sotto::Spec
#include <sotto/train/pretrainer.hpp>

struct Bad {};

void use(sotto::AnySource const& speech) {
  sotto::Pretrainer<Bad> trainer(speech, {});
  trainer.run();
}
