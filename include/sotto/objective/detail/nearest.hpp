// The centroid nearest to each frame: where k-means spends its time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>
#include <sotto/core/views.hpp>

namespace sotto::detail::inline SOTTO_ABI {

/// |x - c|², in eight sums that run side by side.
template <class Scalar> SOTTO_ALWAYS_INLINE double squared_distance(Scalar const* x, Scalar const* c, int dimensions) {
  Scalar sums[8]{};
  int d = 0;
  for (; d + 8 <= dimensions; d += 8)
    for (int j = 0; j < 8; ++j) sums[j] += (x[d + j] - c[d + j]) * (x[d + j] - c[d + j]);
  for (int j = 0; d + j < dimensions; ++j) sums[j] += (x[d + j] - c[d + j]) * (x[d + j] - c[d + j]);
  return static_cast<double>(((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7])));
}

/// Centroids packed in tiles of two vectors, so that one number of a frame meets many centroids at
/// once. The nearest one has the greatest x·c - |c|²/2, the lowest-numbered of equals.
template <class Scalar> class NearestCentroid {
 public:
  static constexpr int block = 48;  ///< frames that find() takes at most

  SOTTO_COLD void prepare(Matrix<Scalar const> centroids) {
    dimensions_ = centroids.columns;
    tiles_ = (centroids.rows + width - 1) / width;
    const auto stride = static_cast<std::size_t>(dimensions_ + 1) * width;  // a tile's first row is -|c|²/2
    packed_ = std::vector<Scalar>(static_cast<std::size_t>(tiles_) * stride);
    for (int k = 0; k < tiles_ * width; ++k) {
      Scalar* to = packed_.data() + static_cast<std::size_t>(k / width) * stride + k % width;
      if (k >= centroids.rows) {
        *to = std::numeric_limits<Scalar>::lowest();  // no frame is nearest to what is not there
        continue;
      }
      Scalar const* c = centroids.row(k);
      double norm = 0;
      for (int d = 0; d < dimensions_; ++d) {
        norm += static_cast<double>(c[d]) * static_cast<double>(c[d]);
        to[static_cast<std::size_t>(d + 1) * width] = c[d];
      }
      *to = static_cast<Scalar>(-.5 * norm);
    }
  }

  /// labels[i] = the centroid nearest to rows[i], i < count <= block. Each answer depends on its
  /// own row only.
  SOTTO_NOINLINE void find(Scalar const* const* rows, int count, std::uint16_t* labels) const {
    Vec best[block];
    Index index[block];
    for (int i = 0; i < count; ++i) {
      best[i] = Vec{} + std::numeric_limits<Scalar>::lowest();
      index[i] = Index{};
    }
    Index lane{};
    for (int l = 0; l < lanes; ++l) lane[l] = l;
    for (int tile = 0; tile < tiles_; ++tile) {
      Scalar const* panel =
          packed_.data() + static_cast<std::size_t>(tile) * static_cast<std::size_t>(dimensions_ + 1) * width;
      const Index low = lane + static_cast<Whole>(tile * width), high = low + static_cast<Whole>(lanes);
#pragma GCC unroll 1
      for (int first = 0; first < count; first += together) {
        Scalar const* x[together];
        // A short last group repeats its last row: the same arithmetic for every row.
        for (int i = 0; i < together; ++i) x[i] = rows[first + i < count ? first + i : count - 1];
        Vec score[together][2];
        dot(panel, x, score);
        for (int i = 0; i < together && first + i < count; ++i) {
          Vec& b = best[first + i];
          Index& n = index[first + i];
          n = score[i][0] > b ? low : n;
          b = score[i][0] > b ? score[i][0] : b;
          n = score[i][1] > b ? high : n;
          b = score[i][1] > b ? score[i][1] : b;
        }
      }
    }
    for (int i = 0; i < count; ++i) {
      Scalar greatest = best[i][0];
      Whole at = index[i][0];
#pragma GCC unroll 1
      for (int l = 1; l < lanes; ++l)
        if (best[i][l] > greatest || (best[i][l] == greatest && index[i][l] < at)) {
          greatest = best[i][l];
          at = index[i][l];
        }
      labels[i] = static_cast<std::uint16_t>(at);
    }
  }

 private:
  static constexpr int bytes = cpu::lanes * 4, lanes = bytes / static_cast<int>(sizeof(Scalar)), width = 2 * lanes,
                       together = 6;
  using Whole = std::conditional_t<sizeof(Scalar) == 4, std::int32_t, std::int64_t>;
  typedef Scalar Vec __attribute__((vector_size(bytes)));
  typedef Whole Index __attribute__((vector_size(bytes)));

  SOTTO_ALWAYS_INLINE void dot(Scalar const* panel, Scalar const* const* x, Vec (*score)[2]) const {
    const auto load = [](Scalar const* p) {
      Vec v;
      std::memcpy(&v, p, sizeof v);
      return v;
    };
    // Twelve named sums: an array of them would live in memory.
    Vec a0 = load(panel), a1 = load(panel + lanes), b0 = a0, b1 = a1, c0 = a0, c1 = a1, d0 = a0, d1 = a1, e0 = a0,
        e1 = a1, f0 = a0, f1 = a1;
    for (int d = 0; d < dimensions_; ++d) {
      panel += width;
      const Vec low = load(panel), high = load(panel + lanes);
      a0 += x[0][d] * low, a1 += x[0][d] * high;
      b0 += x[1][d] * low, b1 += x[1][d] * high;
      c0 += x[2][d] * low, c1 += x[2][d] * high;
      d0 += x[3][d] * low, d1 += x[3][d] * high;
      e0 += x[4][d] * low, e1 += x[4][d] * high;
      f0 += x[5][d] * low, f1 += x[5][d] * high;
    }
    score[0][0] = a0, score[0][1] = a1, score[1][0] = b0, score[1][1] = b1, score[2][0] = c0, score[2][1] = c1;
    score[3][0] = d0, score[3][1] = d1, score[4][0] = e0, score[4][1] = e1, score[5][0] = f0, score[5][1] = f1;
  }

  int dimensions_ = 0, tiles_ = 0;
  std::vector<Scalar> packed_;  // [tiles, 1 + dimensions, width]
};

/// Frames laid out for one question: how far are all of them from a given one? Blocks of `block`
/// frames, each [dimensions, block], so that the arithmetic runs over frames.
class FrameBlocks {
 public:
  static constexpr int block = 4 * cpu::lanes;

  SOTTO_COLD FrameBlocks(std::vector<float const*> const& rows, int dimensions)
      : dimensions_(dimensions), blocks_((rows.size() + block - 1) / block) {
    packed_.resize(blocks_ * block * static_cast<std::size_t>(dimensions));
    for (std::size_t i = 0; i < rows.size(); ++i)
      for (std::size_t d = 0; d < static_cast<std::size_t>(dimensions); ++d)
        packed_[(i / block * static_cast<std::size_t>(dimensions) + d) * block + i % block] = rows[i][d];
  }
  std::size_t blocks() const { return blocks_; }
  /// to[i] = squared distance of frame i of block b from x; what is past the last frame has any.
  SOTTO_NOINLINE void distances(std::size_t b, float const* x, float* to) const {
    float const* p = packed_.data() + b * static_cast<std::size_t>(dimensions_) * block;
    cpu::Vec s0{}, s1{}, s2{}, s3{};
    for (int d = 0; d < dimensions_; ++d, p += block) {
      const cpu::Vec at = cpu::splat(x[d]);
      const cpu::Vec d0 = cpu::load(p) - at, d1 = cpu::load(p + cpu::lanes) - at,
                     d2 = cpu::load(p + 2 * cpu::lanes) - at, d3 = cpu::load(p + 3 * cpu::lanes) - at;
      s0 += d0 * d0;
      s1 += d1 * d1;
      s2 += d2 * d2;
      s3 += d3 * d3;
    }
    cpu::store(to, s0);
    cpu::store(to + cpu::lanes, s1);
    cpu::store(to + 2 * cpu::lanes, s2);
    cpu::store(to + 3 * cpu::lanes, s3);
  }

 private:
  int dimensions_;
  std::size_t blocks_;
  std::vector<float> packed_;
};

}  // namespace sotto::detail::inline SOTTO_ABI
