// What nvcc compiles for a program, compiled for a host: the kernels that the tests of models need.
#include <sotto/attention/relative_bias.hpp>
#include <sotto/attention/windowed.hpp>
#include <sotto/cuda.cuh>

#include "functors.hpp"

using namespace sotto;

#define ATTENTION(Storage, W, ...)                                    \
  template struct cuda::AttentionOperations<__VA_ARGS__, W, Storage>; \
  template struct cuda::TableOperations<__VA_ARGS__, Storage>
#define STORAGE(Storage)                                                   \
  template class sotto::Cuda<Storage>;                                     \
  template struct cuda::MapOperations<SoftSign, Storage>;                  \
  template struct cuda::RowLossOperations<SmoothDistance, Storage>;        \
  ATTENTION(Storage, 16, attention::Full);                                 \
  ATTENTION(Storage, 16, attention::Windowed<9>);                          \
  ATTENTION(Storage, 16, attention::RelativeBias<16, 20>);                 \
  ATTENTION(Storage, 16, attention::RelativeBias<16, 20, true, true>);     \
  template struct cuda::AttentionOperations<attention::Full, 32, Storage>; \
  template struct cuda::AttentionOperations<attention::Full, 48, Storage>

STORAGE(float);
STORAGE(bf16);
