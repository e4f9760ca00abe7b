#include "model_bodies.hpp"

PROGRAM_MODEL(sotto::presets::Ladder30);
PROGRAM_MODEL(sotto::presets::Ladder50);
PROGRAM_MODEL(sotto::presets::Ladder60);
PROGRAM_MODEL(sotto::presets::Ladder70);
PROGRAM_MODEL(sotto::presets::Ladder90);
