// Losses: scores become their own gradients in place. Sums are taken in a fixed order.
#pragma once

#include <sotto/backend/cuda/rows.cuh>
#include <sotto/core/dual.hpp>

namespace sotto::cuda::inline SOTTO_ABI {

/// Cross-entropy of the softmax of factor * scores; a warp has a row. row_losses [rows]; rows whose target is below 0
/// cost nothing and become zeros. Counts, where wanted: predictions, right ones, and of each class. Four blocks a
/// multiprocessor: ptxas aims for eight by itself, and spills.
template <class T>
__global__ void __launch_bounds__(32 * row_warps, 4)
    cross_entropy(Matrix<T> scores, int const* targets, float factor, float weight, int const* count, float* row_losses,
                  int* predicted, int* correct, int* histogram) {
  const int row = static_cast<int>(blockIdx.x) * row_warps + static_cast<int>(threadIdx.x) / 32,
            lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= scores.rows) return;
  T* const s = scores.row(row);
  const int target = targets[row];
  if (target < 0) {
    for (int c = lane; c < scores.columns; c += 32) s[c] = from_float<T>(0.f);
    if (lane == 0) row_losses[row] = 0.f;
    return;
  }
  float top = -INFINITY;
  int best = 0;
  for (int c = lane; c < scores.columns; c += 32) {
    const float v = to_float(s[c]) * factor;
    if (v > top) {
      top = v;
      best = c;
    }
  }
  for (int distance = 16; distance > 0; distance /= 2) {  // of equal scores, the first
    const float other = __shfl_xor_sync(0xffffffffu, top, distance);
    const int where = __shfl_xor_sync(0xffffffffu, best, distance);
    if (other > top || (other == top && where < best)) {
      top = other;
      best = where;
    }
  }
  float total = 0;
  for (int c = lane; c < scores.columns; c += 32) total += expf(to_float(s[c]) * factor - top);
  total = warp_sum(total);
  const float inverse = fast_divide(1.f, total);
  if (lane == 0) {
    row_losses[row] = top + logf(total) - to_float(s[target]) * factor;
    if (predicted != nullptr) {
      atomicAdd(predicted, 1);
      if (best == target) atomicAdd(correct, 1);
      if (histogram != nullptr) atomicAdd(histogram + best, 1);
    }
  }
  __syncwarp();  // the target's score is read before it is overwritten
  const float scale = fast_divide(weight * factor, static_cast<float>(*count));
  for (int c = lane; c < scores.columns; c += 32)
    s[c] = from_float<T>(scale * (expf(to_float(s[c]) * factor - top) * inverse - (c == target ? 1.f : 0.f)));
}

/// loss += weight / count * the sum of row_losses. One block.
template <class = void>
__global__ void __launch_bounds__(256)
    add_losses(float const* row_losses, int rows, double weight, int const* count, double* loss) {
  double sum = 0;
  for (int row = static_cast<int>(threadIdx.x); row < rows; row += 256) sum += static_cast<double>(row_losses[row]);
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  if (*count > 0) *loss += weight / *count * sum;
}

/// A user's loss of (predicted, wanted), summed over a row's columns; a warp has a row. Rows whose entry in rows is
/// below 0 are none: they cost nothing and become zeros. rows nullptr: all are.
template <class Functor, class T>
__global__ void __launch_bounds__(32 * row_warps) row_loss(Matrix<T> predicted, Matrix<T const> wanted, int const* rows,
                                                           double weight, int const* count, float* row_losses) {
  const int row = static_cast<int>(blockIdx.x) * row_warps + static_cast<int>(threadIdx.x) / 32,
            lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= predicted.rows) return;
  if (rows != nullptr && rows[row] < 0) {
    for (int c = lane; c < predicted.columns; c += 32) predicted.row(row)[c] = from_float<T>(0.f);
    if (lane == 0) row_losses[row] = 0.f;
    return;
  }
  const float scale = fast_divide(static_cast<float>(weight), static_cast<float>(*count));
  float sum = 0;
  for (int c = lane; c < predicted.columns; c += 32) {
    Dual<float, 1> at(to_float(predicted.row(row)[c]));
    at.by[0] = 1.f;
    const auto term = Functor::term(at, Dual<float, 1>(to_float(wanted.row(row)[c])));
    sum += term.value;
    predicted.row(row)[c] = from_float<T>(scale * term.by[0]);
  }
  sum = warp_sum(sum);
  if (lane == 0) row_losses[row] = sum;
}

}  // namespace sotto::cuda::inline SOTTO_ABI
