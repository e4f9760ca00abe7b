// The kernels of the Cuda backend, for nvcc: what sotto::cuda and sotto_add_kernels() compile.
#pragma once

#include <sotto/backend/cuda/cuda.cuh>
