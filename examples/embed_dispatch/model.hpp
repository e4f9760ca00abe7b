// What this program asks of its model: ordinary functions, over types that look the same to every compiler flag.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include <sotto/train/step.hpp>

/// Pretrains on synthetic speech. Throws sotto::Error.
void pretrain(std::uint64_t updates, std::function<void(sotto::Step const&)> const& on_step);

/// The encoder's last layer for samples in [-1, 1], 16 kHz: [frames, width]. Throws sotto::Error before pretrain().
std::vector<float> encode(std::vector<float> const& samples);

/// The instruction set that runs.
std::string_view level();
