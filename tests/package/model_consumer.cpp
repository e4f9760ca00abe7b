// A program whose model is compiled for several processors, or for its own flags.
#include "model.hpp"

int main() {
  const double number = draw();
  return number >= 0 && number < 1 && !level().empty() ? 0 : 1;
}
