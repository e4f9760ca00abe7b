// What a training step on a GPU cannot be faster than: for each operation its FLOPs over the peak rate, or its bytes
// over the memory's bandwidth, whichever takes longer. A bound, never a measurement.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include <sotto/budget/cost.hpp>
#include <sotto/core/error.hpp>

namespace sotto::inline SOTTO_ABI {

/// A GPU by its data sheet: dense rates, without sparsity.
struct DeviceSheet {
  std::string_view name, title;
  double tensor_flops;  ///< bf16 with fp32 accumulation, a second
  double float_flops;   ///< fp32, without tensor cores
  double bandwidth;     ///< bytes a second
};
/// NVIDIA's data sheets of these products.
inline constexpr std::array<DeviceSheet, 4> device_sheets{{{"h100", "H100 SXM", 989e12, 67e12, 3.35e12},
                                                           {"a100", "A100 80 GB SXM", 312e12, 19.5e12, 2.039e12},
                                                           {"rtx4090", "GeForce RTX 4090", 165.2e12, 82.6e12, 1.008e12},
                                                           {"l4", "L4", 121e12, 30.3e12, .3e12}}};
/// Error(usage) for a name that is not in the list.
inline SOTTO_COLD DeviceSheet const& device_sheet(std::string_view name) {
  std::string names;
  for (auto const& sheet : device_sheets) {
    if (sheet.name == name) return sheet;
    names += joined({names.empty() ? "" : ", ", sheet.name});
  }
  throw_error(ErrorCode::usage, {"there is no data sheet of a device '", name, "': ", names});
}

/// Operations of one kind in a step: of all layers together, where layers have them.
struct DeviceOperation {
  std::string_view name;
  int launches;  ///< kernels, products, copies and fills
  double flops;  ///< executed: on tensor cores where `tensor`
  double bytes;  ///< read and written, each once an operation
  bool tensor;
  bool layer;  ///< part of every layer

  double seconds(DeviceSheet const& sheet) const {
    return std::max(flops / (tensor ? sheet.tensor_flops : sheet.float_flops), bytes / sheet.bandwidth);
  }
};

/// The operations of a training step of Cuda<bf16> on `rows` rows in sequences of `length`, without dropout.
template <class Model> SOTTO_COLD std::vector<DeviceOperation> device_operations(int rows, int length) {
  using Sound = detail::sound<Model>;
  using Block = typename EncoderOf<Sound>::BlockConfig;
  constexpr double element = 2, d = Block::width, inner = Block::attention_width, hidden = Block::feed_forward;
  constexpr int depth = Sound::shape.depth;
  constexpr bool pre = Block::pre_norm, tables = Sound::Attention::table(Block::heads) > 0;
  const double r = rows;
  std::vector<DeviceOperation> list;
  const auto layers = [&](std::string_view name, int launches, double flops, double bytes, bool tensor) {
    list.push_back({name, depth * launches, depth * flops, depth * bytes, tensor, true});
  };
  const auto once = [&](std::string_view name, int launches, double flops, double bytes, bool tensor) {
    list.push_back({name, launches, flops, bytes, tensor, false});
  };
  /// A product of [rows, in] and a weight, reading and writing `extra` numbers a row beside input and output.
  const auto product = [&](double in, double out, double extra) {
    return element * (r * (in + out + extra) + in * out);
  };
  const auto weight_gradient = [&](double in, double out) { return element * r * (in + out) + 2 * 4 * in * out; };

  layers("queries, keys and values", 1, 2 * r * d * 3 * inner, product(d, 3 * inner, 0), true);
  const double pairs =
      r / length * static_cast<double>(attention_pairs(Sound::Attention::span, length));  // inside the span
  layers("attention", 1, 4 * pairs * inner, element * r * 4 * inner + 4 * r * Block::heads, true);
  layers("projection", 1, 2 * r * inner * d, product(inner, d, d), true);
  layers("feed-forward, first half, with GELU", 1, 2 * r * d * hidden, product(d, hidden, hidden), true);
  layers("feed-forward, second half", 1, 2 * r * hidden * d, product(hidden, d, d), true);
  layers("norms", 2, 2 * 8 * r * d, 2 * (element * 2 * r * d + 8 * r), false);
  layers("norms, backward", 4, 2 * 12 * r * d, 2 * (element * (pre ? 4 : 3) * r * d + 8 * r), false);
  layers("weight gradients", 4, 2 * r * (4 * inner * d + 2 * hidden * d),
         weight_gradient(d, 3 * inner) + weight_gradient(inner, d) + 2 * weight_gradient(d, hidden), true);
  layers("feed-forward, backward, with GELU's slope", 2, 4 * r * d * hidden,
         product(d, hidden, hidden) + product(hidden, d, pre ? 0 : d), true);
  layers("projection, queries, keys and values, backward", 2, 2 * r * 4 * inner * d,
         product(d, inner, 0) + product(3 * inner, d, pre ? 0 : d), true);
  layers("attention, backward", tables ? 7 : 2, 14 * pairs * inner, element * r * 12 * inner + 16 * r * Block::heads,
         true);

  using Position = typename Sound::Position;
  const double position = 2 * r * static_cast<double>(PositionLayer<Position, Block::width>::multiply_adds_per_frame());
  once("positions", 0, 3 * position, position > 0 ? element * r * d * 20 : element * 2 * r * d, position > 0);
  once("features and input projection", 0, 4 * r * d * Sound::Frontend::features,
       4 * r * Sound::Frontend::features + 3 * element * r * (Sound::Frontend::features + d), true);
  once("heads and loss", 0,
       2. * static_cast<double>(
                Sound::Objective::template Head<Sound, typename Cost<Sound>::Pricing>::training_multiply_adds(
                    rows, 0, typename Sound::Objective::Options{})),
       element * r * 10 * d, true);
  const auto numbers = static_cast<double>(parameter_count<Sound>);
  once("gradients cleared, norm, AdamW and working copies", 4, 15 * numbers, numbers * (4 + 4 + 7 * 4 + element),
       false);
  return list;
}

}  // namespace sotto::inline SOTTO_ABI
