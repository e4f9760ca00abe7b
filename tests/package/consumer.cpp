// A program that gets sotto::sotto and nothing else.
#include <sotto/sotto.hpp>

struct Narrow : sotto::Spec {
  static constexpr sotto::EncoderShape shape{.width = 64, .depth = 2};
};
static_assert(sotto::parameter_count<Narrow> > 0);

int main() {
  sotto::Random random(7, sotto::Purpose::user);
  const double number = random.uniform();
  return number >= 0 && number < 1 ? 0 : 1;
}
