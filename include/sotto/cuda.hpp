// Training on NVIDIA GPUs: Pretrainer<Model, Cuda<bf16>>, in a plain C++ file. Link to sotto::cuda.
#pragma once

#include <sotto/backend/cuda/cuda.hpp>
#include <sotto/train/device_engine.hpp>
