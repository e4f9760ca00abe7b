// A program that gets sotto::sotto and nothing else.
#include <sotto/core/philox.hpp>

int main() {
  sotto::Random random(7, sotto::Purpose::user);
  const double number = random.uniform();
  return number >= 0 && number < 1 ? 0 : 1;
}
