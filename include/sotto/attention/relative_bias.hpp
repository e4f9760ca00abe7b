// A learned bias by the distance of query and key, in T5's buckets; gated as in WavLM.
#pragma once

#include <sotto/attention/policy.hpp>

namespace sotto::attention::detail::inline SOTTO_API {
SOTTO_ALWAYS_INLINE constexpr float square_root(float x) {  // <cmath>'s is no constant expression in C++20
  float root = x > 1 ? x : 1;
  for (int i = 0; i < 64; ++i) root = (root + x / root) / 2;
  return root;
}
}  // namespace sotto::attention::detail::inline SOTTO_API

namespace sotto::attention::inline SOTTO_API {

/// Adds bias[bucket(key - query), head] to each score. Half of the buckets are for keys after the
/// query; within a half, distances below Buckets / 4 have one each, the others are spaced
/// logarithmically up to Distance and clamped (T5, arXiv 1910.10683; WavLM's numbers, arXiv
/// 2110.13900). Learned: [Buckets, heads], as Hugging Face's rel_attn_embed.weight. Gated: the bias
/// is multiplied, for each query and head, by WavLM's gate a (b c - 1) + 2, where a and b are
/// sigmoids of sums of four numbers linear in the head's slice of the block's input and c is
/// learned. Shared: the first block's biases serve all blocks.
template <int Buckets = 320, int Distance = 800, bool Gated = false, bool Shared = false>
struct RelativeBias : Softmax {
  static_assert(Buckets >= 4 && Buckets % 4 == 0, "sotto: a relative bias needs a multiple of 4 buckets");
  static_assert(Distance > Buckets / 4, "sotto: a relative bias must reach farther than a quarter of its buckets");

  static constexpr int reads = 1;
  static constexpr bool shared = Shared;
  static constexpr int gates = Gated ? 8 : 0;
  static constexpr int parameters(int heads) { return Buckets * heads; }
  /// [heads, distances -Distance ... Distance]: no logarithm in a kernel's inner loop.
  static constexpr int table(int heads) { return heads * distances; }
  /// Xavier normal.
  static constexpr float deviation(int heads) { return detail::square_root(2.0f / float(Buckets + heads)); }

  /// The bucket of key - query, in 0 ... Buckets - 1.
  static SOTTO_HOST_DEVICE int bucket(int offset) {
    constexpr int half = Buckets / 2, exact = half / 2;
    const int side = offset > 0 ? half : 0, distance = offset < 0 ? -offset : offset;
    if (distance < exact) return side + distance;
    const double octaves = ::log(double(distance) / exact) / ::log(double(Distance) / exact);
    const int far = exact + static_cast<int>(octaves * (half - exact));
    return side + (far < half - 1 ? far : half - 1);
  }
  static SOTTO_HOST_DEVICE int source(int entry, int heads) {
    return bucket(entry % distances - Distance) * heads + entry / distances;
  }

  template <class T, class Table>
  static SOTTO_HOST_DEVICE T score(T const& score, Pair at, Table const& table, T const& gate) {
    int offset = at.key - at.query;
    offset = offset < -Distance ? -Distance : offset > Distance ? Distance : offset;
    const T bias = table(at.head * distances + Distance + offset);
    if constexpr (Gated) {
      return score + gate * bias;
    } else {
      return score + bias;
    }
  }

  template <class T, class Raw>
  requires Gated static SOTTO_HOST_DEVICE T gate(Raw const& raw, T const& constant) {
    const T a = sigmoid(T(raw(0) + raw(1) + raw(2) + raw(3))), b = sigmoid(T(raw(4) + raw(5) + raw(6) + raw(7)));
    return a * (b * constant - T(1)) + T(2);
  }

 private:
  static constexpr int distances = 2 * Distance + 1;
  template <class T> static SOTTO_HOST_DEVICE T sigmoid(T const& x) { return T(1) / (T(1) + exp(-x)); }
};

/// WavLM's attention: biases in the first block, gates in each.
using WavLmBias = RelativeBias<320, 800, true, true>;

}  // namespace sotto::attention::inline SOTTO_API
