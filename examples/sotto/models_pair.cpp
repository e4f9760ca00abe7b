#include "model_bodies.hpp"

PROGRAM_MODEL(sotto::presets::Deep);
PROGRAM_MODEL(sotto::presets::Wide);
PROGRAM_MODEL(sotto::presets::Base);
PROGRAM_MODEL(sotto::presets::Large);
