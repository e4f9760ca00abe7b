#include "model_bodies.hpp"

PROGRAM_MODEL(sotto::presets::Tiny);
PROGRAM_MODEL(sotto::presets::Slim);
PROGRAM_MODEL(sotto::presets::Small);
