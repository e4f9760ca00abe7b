// All of sotto that needs neither audio files nor JSON nor xtensor.
#pragma once

#include <sotto/attention/full.hpp>
#include <sotto/attention/relative_bias.hpp>
#include <sotto/attention/windowed.hpp>
#include <sotto/augment/spec_augment.hpp>
#include <sotto/backend/cpu/cpu.hpp>
#include <sotto/backend/cpu/precision.hpp>
#include <sotto/budget/cost.hpp>
#include <sotto/data/source.hpp>
#include <sotto/data/synthetic.hpp>
#include <sotto/encoder/models.hpp>
#include <sotto/encoder/presets.hpp>
#include <sotto/encoder/spec.hpp>
#include <sotto/train/pretrainer.hpp>
