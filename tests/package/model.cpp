#include "model.hpp"

#include <sotto/core/philox.hpp>
#include <sotto/dispatch.hpp>

double draw() { return sotto::Random(7, sotto::Purpose::user).uniform(); }
std::string_view level() { return sotto::compiled_level(); }
