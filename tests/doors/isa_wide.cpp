#include "isa_body.hpp"
#ifndef __AVX2__
#error "this file is compiled for AVX2"
#endif
std::vector<float> product_for_wide_cpus(std::vector<float> const& x, int rows, int width) {
  return body(x, rows, width);
}
double training_for_wide_cpus() { return loss_after_training(); }
