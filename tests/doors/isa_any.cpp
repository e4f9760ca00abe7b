#include "isa_body.hpp"
std::vector<float> product_for_any_cpu(std::vector<float> const& x, int rows, int width) {
  return body(x, rows, width);
}
double training_for_any_cpu() { return loss_after_training(); }
