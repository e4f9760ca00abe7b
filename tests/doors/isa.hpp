// What each translation unit of the instruction-set test offers.
#pragma once
#include <vector>
std::vector<float> product_for_any_cpu(std::vector<float> const& x, int rows, int width);
std::vector<float> product_for_wide_cpus(std::vector<float> const& x, int rows, int width);
double training_for_any_cpu();
double training_for_wide_cpus();
