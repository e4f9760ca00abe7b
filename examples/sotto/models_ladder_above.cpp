#include "model_bodies.hpp"

PROGRAM_MODEL(sotto::presets::Ladder130);
PROGRAM_MODEL(sotto::presets::Ladder160);
PROGRAM_MODEL(sotto::presets::Ladder190);
PROGRAM_MODEL(sotto::presets::Ladder200);
