// AdamW over a whole parameter table in one launch; it also writes the working copies that products read.
#pragma once

#include <sotto/backend/cuda/device.cuh>
#include <sotto/backend/cuda/memory.hpp>
#include <sotto/nn/linear.hpp>

namespace sotto::cuda::inline SOTTO_ABI {

/// A linear layer's weight or bias [out, in] in the flat buffer of values, and where products read it.
struct WeightCopy {
  float const* from;
  void* to;
  LinearShape shape;
  bool bias;

  std::size_t size() const {
    return static_cast<std::size_t>(shape.out) * static_cast<std::size_t>(bias ? 1 : shape.in);
  }
};

/// A piece of one parameter: what one block updates.
struct UpdateChunk {
  std::size_t begin;  ///< in the flat buffers
  int size;
  bool trained, decays;
  void* copy;             ///< of the layer that the piece is of; nullptr: none
  std::size_t copy_from;  ///< the piece's first number, counted from the layer's
  LinearShape shape;
  bool bias;
};
inline constexpr int update_chunk = 2048;

struct Update {
  UpdateChunk const* chunks;
  int count;
  float* values;
  float const* gradients;
  float *first, *second;
  std::size_t size;
};

/// Where number i of a layer's [out, in] stands in the padded copy.
SOTTO_HOST_DEVICE constexpr std::size_t padded_place(LinearShape const& s, bool bias, std::size_t i) {
  const auto in = static_cast<std::size_t>(bias ? 1 : s.in);
  int o = static_cast<int>(i / in), k = static_cast<int>(i % in);
  if (s.out_block > 0) o = o / s.out_block * s.out_padded_block + o % s.out_block;
  if (!bias && s.in_block > 0) k = k / s.in_block * s.in_padded_block + k % s.in_block;
  return static_cast<std::size_t>(o) * static_cast<std::size_t>(bias ? 1 : s.padded_in()) + static_cast<std::size_t>(k);
}

/// Writes the working copies alone.
template <class T> __global__ void __launch_bounds__(256) copy_weights(Update u) {
  const UpdateChunk c = u.chunks[blockIdx.x];
  if (c.copy == nullptr) return;
  for (int i = static_cast<int>(threadIdx.x); i < c.size; i += 256)
    static_cast<T*>(c.copy)[padded_place(c.shape, c.bias, c.copy_from + static_cast<std::size_t>(i))] =
        from_float<T>(u.values[c.begin + static_cast<std::size_t>(i)]);
}

inline constexpr int norm_blocks = 512;

/// Sums of squares of the gradient, one a block, in double.
template <class = void>
__global__ void __launch_bounds__(256) square_sums(float const* gradients, std::size_t size, double* sums) {
  double sum = 0;
  const std::size_t step = static_cast<std::size_t>(gridDim.x) * 256;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * 256 + threadIdx.x; i * 4 < size; i += step) {
    if (i * 4 + 4 <= size) {
      const Pack<float> g = load_pack(gradients + i * 4);
      float part = 0;
      for (int k = 0; k < 4; ++k) part += g.value[k] * g.value[k];
      sum += static_cast<double>(part);
    } else {
      for (std::size_t k = i * 4; k < size; ++k)
        sum += static_cast<double>(gradients[k]) * static_cast<double>(gradients[k]);
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  sums[blockIdx.x] = sum;
}

/// The norm, what it is clipped by, and whether the step is one.
template <class = void>
__global__ void __launch_bounds__(32)
    judge_step(double const* sums, int count, StepInput const* input, StepOutput* output) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += 32) sum += sums[i];
  sum = warp_sum(sum);
  if (threadIdx.x != 0) return;
  const double norm = sqrt(sum);
  output->gradient_norm = norm;
  const double most = static_cast<double>(input->clip);
  output->clip = most > 0 && norm > most ? static_cast<float>(most / (norm + 1e-6)) : 1.f;
  output->rejected = isfinite(norm) && isfinite(output->loss) ? 0 : 1;
  if (input->updates != 0 && output->rejected != 0) output->halted = 1;
}

/// AdamW in PyTorch's form: decoupled decay, epsilon added to the corrected root.
template <class T>
__global__ void __launch_bounds__(256) adamw(Update u, StepInput const* input, StepOutput const* output) {
  if (input->updates == 0 || output->halted != 0) return;
  const UpdateChunk c = u.chunks[blockIdx.x];
  if (!c.trained) return;
  const float clip = output->clip, shrink = c.decays ? input->shrink : 0.f;
  const float beta1 = input->beta1, rest1 = input->rest1, beta2 = input->beta2, rest2 = input->rest2;
  const float rate = input->rate, root = input->root, epsilon = input->epsilon;
  float* const values = u.values + c.begin;
  float const* const gradients = u.gradients + c.begin;
  float *const first = u.first + c.begin, *const second = u.second + c.begin;
  const auto update = [&](float& value, float gradient, float& m, float& v) {
    const float g = clip * gradient;
    m = m * beta1 + g * rest1;
    v = v * beta2 + g * g * rest2;
    value = value - (value * shrink + fast_divide(m * rate, sqrtf(v) * root + epsilon));
  };
  T* const copy = static_cast<T*>(c.copy);
  const bool padded = c.shape.padded();
  const auto copied = [&](int i, float value) {
    const std::size_t at = c.copy_from + static_cast<std::size_t>(i);
    if (copy != nullptr) copy[padded ? padded_place(c.shape, c.bias, at) : at] = from_float<T>(value);
  };
  const auto four_copied = [&](int i, Pack<float> const& p) {
    if (copy != nullptr && !padded && c.copy_from % 4 == 0) {
      Four<T> to;
      for (int k = 0; k < 4; ++k) to.value[k] = from_float<T>(p.value[k]);
      store_four(copy + c.copy_from + static_cast<std::size_t>(i), to);
    } else {
      for (int k = 0; k < 4; ++k) copied(i + k, p.value[k]);
    }
  };
  // Parameters stand side by side: a piece may begin anywhere, and ends where its parameter does.
  if (c.begin % 4 == 0) {
    for (int i = 4 * static_cast<int>(threadIdx.x); i + 4 <= c.size; i += 4 * 256) {
      Pack<float> p = load_pack(values + i), m = load_pack(first + i), v = load_pack(second + i);
      const Pack<float> g = load_pack(gradients + i);
      for (int k = 0; k < 4; ++k) update(p.value[k], g.value[k], m.value[k], v.value[k]);
      store_pack(values + i, p);
      store_pack(first + i, m);
      store_pack(second + i, v);
      four_copied(i, p);
    }
    const int i = c.size / 4 * 4 + static_cast<int>(threadIdx.x);
    if (i < c.size) {
      update(values[i], gradients[i], first[i], second[i]);
      copied(i, values[i]);
    }
  } else {
    for (int i = static_cast<int>(threadIdx.x); i < c.size; i += 256) {
      update(values[i], gradients[i], first[i], second[i]);
      copied(i, values[i]);
    }
  }
}

}  // namespace sotto::cuda::inline SOTTO_ABI
