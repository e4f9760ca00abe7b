// The version of sotto; CMake reads it from here.
#pragma once
#define SOTTO_VERSION_MAJOR 0
#define SOTTO_VERSION_MINOR 1
#define SOTTO_VERSION_PATCH 0
