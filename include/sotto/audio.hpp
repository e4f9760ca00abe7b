// Speech from files: what needs libsndfile and libsamplerate.
#pragma once

#include <sotto/data/audio_file.hpp>
#include <sotto/data/corpus.hpp>
#include <sotto/data/resample.hpp>
