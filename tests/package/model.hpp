// What the consumer of sotto_add_model() asks of its model.
#pragma once
#include <string_view>

double draw();
std::string_view level();
