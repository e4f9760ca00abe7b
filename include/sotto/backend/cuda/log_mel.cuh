// Log-mel features of a whole batch on a GPU: what frontend::LogMel computes on a host, from its filterbank's numbers.
#pragma once

#include <math.h>

#include <cmath>
#include <cstddef>
#include <vector>

#include <sotto/backend/cuda/device.cuh>
#include <sotto/frontend/log_mel.hpp>

namespace sotto::cuda::inline SOTTO_ABI {

inline constexpr int mel_frame = 400, mel_hop = 160, mel_samples = 512, mel_bins = 256;
static_assert(mel_frame == frontend::Filterbank::frame_samples && mel_hop == frontend::Filterbank::hop);
static_assert(mel_samples == frontend::detail::PowerSpectrum::samples && mel_bins == mel_samples / 2);

/// What a plan points to, to be copied to the device.
struct LogMelTables {
  std::vector<float> numbers;  ///< window [400], e^(-2 pi i k / 512) [512, 2], weights of the bands one after another
  std::vector<int> ranges;     ///< [bands, 3]: a band's first bin, its bins, where its weights begin among all weights
};
/// options: as the extractor's filterbank has them.
inline SOTTO_COLD LogMelTables log_mel_tables(frontend::FilterbankOptions const& options) {
  constexpr double pi = 3.14159265358979323846;
  LogMelTables tables;
  for (int i = 0; i < mel_frame; ++i) {
    const double cosine = std::cos(2 * pi * i / (mel_frame - 1));
    const double shape =
        options.window == frontend::Window::povey ? std::pow(.5 - .5 * cosine, .85) : .54 - .46 * cosine;
    tables.numbers.push_back(static_cast<float>(options.scale * shape));
  }
  for (int k = 0; k < mel_samples; ++k) {
    tables.numbers.push_back(static_cast<float>(std::cos(2 * pi * k / mel_samples)));
    tables.numbers.push_back(static_cast<float>(-std::sin(2 * pi * k / mel_samples)));
  }
  const std::size_t first_weight = tables.numbers.size();
  for (int wanted = 0; wanted < options.bands; ++wanted) {
    int first = 0, count = 0;
    const auto begin = static_cast<int>(tables.numbers.size() - first_weight);
    frontend::detail::MelScale::each_weight(options.bands, [&](int bin, int band, double weight) {
      if (band != wanted) return;
      if (count++ == 0) first = bin;
      tables.numbers.push_back(static_cast<float>(weight));
    });
    tables.ranges.insert(tables.ranges.end(), {first, count, begin});
  }
  return tables;
}

/// LogMelTables in the device's memory, and the shape of a row: `stack` frames of `bands` energies.
struct LogMelPlan {
  float const* numbers;
  int const* ranges;
  int bands, stack;
  SOTTO_HOST_DEVICE constexpr int features() const { return bands * stack; }

  __device__ __forceinline__ float const* window() const { return numbers; }
  __device__ __forceinline__ float const* turns() const { return numbers + mel_frame; }
  __device__ __forceinline__ float const* weights() const { return numbers + mel_frame + 2 * mel_samples; }
};
/// Sequences' 16 kHz samples in [-1, 1], those of sequence s at [sample_offsets[s], sample_offsets[s + 1]), and the
/// rows that they give, [offsets[s], offsets[s + 1]): LogMel::frames of so many samples. rows: of the whole range, tail
/// included.
struct LogMelBatch {
  float const* samples;
  int const *sample_offsets, *offsets;  ///< [sequences + 1]
  int sequences, rows;
};

/// The sequence that a row is of; -1 after the last.
__device__ __forceinline__ int sequence_of(LogMelBatch const& batch, int row) {
  if (row >= batch.offsets[batch.sequences]) return -1;
  int first = 0, last = batch.sequences - 1;
  while (first < last) {
    const int middle = (first + last) / 2;
    if (batch.offsets[middle + 1] > row) {
      last = middle;
    } else {
      first = middle + 1;
    }
  }
  return first;
}
/// 1 / deviation, or 0 where a band is as good as constant.
__device__ __forceinline__ float mel_factor(double deviation) {
  return deviation > 1e-5 ? static_cast<float>(1 / deviation) : 0.f;
}

/// One pass, radix 4, decimation in frequency, of the transform of 256 complex numbers by a warp.
template <int Span> __device__ __forceinline__ void mel_pass(float* z, float const* turns, int lane) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int butterfly = lane + 32 * half, j = butterfly % Span;
    float* const a = z + 2 * (butterfly / Span * 4 * Span + j);
    float *const b = a + 2 * Span, *const c = b + 2 * Span, *const d = c + 2 * Span;
    const float s0r = a[0] + c[0], s0i = a[1] + c[1], d0r = a[0] - c[0], d0i = a[1] - c[1];
    const float s1r = b[0] + d[0], s1i = b[1] + d[1], d1r = b[0] - d[0], d1i = b[1] - d[1];
    const auto turn = [&](float* to, float re, float im, int k) {
      float const* const w = turns + 4 * k;  // e^(-2 pi i k / 256)
      to[0] = re * w[0] - im * w[1];
      to[1] = re * w[1] + im * w[0];
    };
    a[0] = s0r + s1r;
    a[1] = s0i + s1i;
    turn(b, d0r + d1i, d0i - d1r, j * (64 / Span));
    turn(c, s0r - s1r, s0i - s1i, 2 * j * (64 / Span));
    turn(d, d0r - d1i, d0i + d1r, 3 * j * (64 / Span));
  }
  __syncwarp();
}

inline constexpr int mel_warps = 4;

/// out [rows, stack * bands]: log-mel energies, normalised by mean and deviation [bands] unless null; zeros after the
/// last sequence. A warp a frame.
template <class T>
__global__ void __launch_bounds__(32 * mel_warps)
    mel_energies(LogMelPlan plan, LogMelBatch batch, float const* mean, float const* deviation, T* out) {
  struct Storage {
    struct {
      float z[mel_samples];  // samples; then [256, 2] complex numbers
      float power[mel_bins];
    } of_warp[mel_warps];
  };
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int frame = static_cast<int>(blockIdx.x) * mel_warps + warp, row = frame / plan.stack;
  if (row >= batch.rows) return;
  auto& own = shared<Storage>().of_warp[warp];
  T* const to = out + static_cast<std::ptrdiff_t>(frame) * plan.bands;
  const int sequence = sequence_of(batch, row);
  if (sequence < 0) {
    for (int band = lane; band < plan.bands; band += 32) to[band] = from_float<T>(0.f);
    return;
  }
  float const* const x = batch.samples + batch.sample_offsets[sequence] +
                         static_cast<std::ptrdiff_t>(frame - batch.offsets[sequence] * plan.stack) * mel_hop;
  double sum = 0;  // in double, so that a constant frame is exactly zero
  for (int i = lane; i < mel_frame; i += 32) sum += static_cast<double>(x[i]);
  const auto offset = static_cast<float>(warp_sum(sum) / mel_frame);
  for (int i = lane; i < mel_samples; i += 32)
    own.z[i] = i < mel_frame ? plan.window()[i] * ((x[i] - offset) - .97f * (x[i > 0 ? i - 1 : 0] - offset)) : 0.f;
  __syncwarp();
  float const* const turns = plan.turns();
  mel_pass<64>(own.z, turns, lane);
  mel_pass<16>(own.z, turns, lane);
  mel_pass<4>(own.z, turns, lane);
  mel_pass<1>(own.z, turns, lane);
  const auto z = [&](int k) { return own.z + 2 * ((k & 3) << 6 | (k & 12) << 2 | (k & 48) >> 2 | k >> 6); };
  if (lane == 0) {
    const float sum_of_samples = z(0)[0] + z(0)[1];
    own.power[0] = sum_of_samples * sum_of_samples;
  }
  for (int k = lane + 1; k <= mel_bins / 2; k += 32) {
    // X[k], X[256 - k] = E +- W^k O with E, O the even and odd parts of Z
    float const *const a = z(k), *const b = z(mel_bins - k), *const w = turns + 2 * k;
    const float even_re = .5f * (a[0] + b[0]), even_im = .5f * (a[1] - b[1]);
    const float odd_re = .5f * (a[1] + b[1]), odd_im = .5f * (b[0] - a[0]);
    const float turned_re = odd_re * w[0] - odd_im * w[1], turned_im = odd_re * w[1] + odd_im * w[0];
    const float sum_re = even_re + turned_re, sum_im = even_im + turned_im;
    const float difference_re = even_re - turned_re, difference_im = even_im - turned_im;
    own.power[mel_bins - k] = difference_re * difference_re + difference_im * difference_im;
    own.power[k] = sum_re * sum_re + sum_im * sum_im;
  }
  __syncwarp();
  for (int band = lane; band < plan.bands; band += 32) {
    int const* const range = plan.ranges + 3 * band;
    float const *const power = own.power + range[0], *const weights = plan.weights() + range[2];
    float energy = 0;
    for (int k = 0; k < range[1]; ++k) energy += weights[k] * power[k];
    energy = logf(fmaxf(energy, 0x1p-23f));
    if (mean != nullptr) energy = (energy - mean[band]) * mel_factor(static_cast<double>(deviation[band]));
    to[band] = from_float<T>(energy);
  }
}

inline constexpr int mel_phases = 16;

/// statistics [sequences, 2, bands]: mean of each band over a sequence's frames, and 1 / deviation. Block (sequence,
/// 32 bands) of (32, 16) threads.
template <class = void>
__global__ void __launch_bounds__(32 * mel_phases)
    measure_bands(LogMelPlan plan, LogMelBatch batch, float const* energies, float* statistics) {
  struct Storage {
    double of[mel_phases][32];
  };
  Storage& storage = shared<Storage>();
  const int column = static_cast<int>(threadIdx.x), phase = static_cast<int>(threadIdx.y);
  const int band = static_cast<int>(blockIdx.y) * 32 + column, sequence = static_cast<int>(blockIdx.x);
  const int first = batch.offsets[sequence], frames = (batch.offsets[sequence + 1] - first) * plan.stack;
  if (frames == 0) return;
  const bool real = band < plan.bands;
  float const* const from = energies + static_cast<std::ptrdiff_t>(first) * plan.features() + band;
  const auto over_phases = [&](double mine) {
    storage.of[phase][column] = mine;
    __syncthreads();
    double sum = 0;
    for (int i = 0; i < mel_phases; ++i) sum += storage.of[i][column];
    __syncthreads();
    return sum;
  };
  double sum = 0;
  if (real)
    for (int i = phase; i < frames; i += mel_phases)
      sum += static_cast<double>(from[static_cast<std::ptrdiff_t>(i) * plan.bands]);
  const auto mean = static_cast<float>(over_phases(sum) / frames);
  double squares = 0;
  if (real)
    for (int i = phase; i < frames; i += mel_phases) {
      const auto distance = static_cast<double>(from[static_cast<std::ptrdiff_t>(i) * plan.bands] - mean);
      squares += distance * distance;
    }
  const double variance = over_phases(squares) / frames;
  if (!real || phase != 0) return;
  float* const to = statistics + static_cast<std::ptrdiff_t>(sequence) * 2 * plan.bands;
  to[band] = mean;
  to[plan.bands + band] = mel_factor(sqrt(variance));
}

/// out [rows, stack * bands]: energies, normalised by their sequence's statistics. A block a row.
template <class T>
__global__ void __launch_bounds__(128)
    normalise_bands(LogMelPlan plan, LogMelBatch batch, float const* energies, float const* statistics, T* out) {
  const int row = static_cast<int>(blockIdx.x), sequence = sequence_of(batch, row);
  const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(row) * plan.features();
  float const* const of_sequence = statistics + static_cast<std::ptrdiff_t>(sequence) * 2 * plan.bands;
  for (int i = static_cast<int>(threadIdx.x); i < plan.features(); i += 128) {
    const int band = i % plan.bands;
    out[at + i] =
        from_float<T>(sequence < 0 ? 0.f : (energies[at + i] - of_sequence[band]) * of_sequence[plan.bands + band]);
  }
}

/// Floats that log_mel needs where it normalises by utterance; otherwise none.
constexpr std::size_t log_mel_scratch(LogMelPlan const& plan, int rows, int sequences) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(plan.features()) +
         static_cast<std::size_t>(sequences) * 2 * static_cast<std::size_t>(plan.bands);
}

/// out: [rows, stack * bands]. mean, deviation: [bands], of the corpus where that is what is normalised by. scratch:
/// [log_mel_scratch].
template <class T>
void log_mel(LogMelPlan const& plan, LogMelBatch const& batch, frontend::Normalisation normalisation, float const* mean,
             float const* deviation, T* out, float* scratch, cudaStream_t stream) {
  const auto rows = static_cast<unsigned>(batch.rows);
  const Grid by_frame{(rows * static_cast<unsigned>(plan.stack) + mel_warps - 1) / mel_warps, 32 * mel_warps};
  if (normalisation != frontend::Normalisation::utterance) {
    const bool by_corpus = normalisation == frontend::Normalisation::corpus;
    launch(mel_energies<T>, by_frame, stream, plan, batch, by_corpus ? mean : nullptr, by_corpus ? deviation : nullptr,
           out);
    return;
  }
  float* const statistics = scratch + static_cast<std::ptrdiff_t>(batch.rows) * plan.features();
  launch(mel_energies<float>, by_frame, stream, plan, batch, nullptr, nullptr, scratch);
  launch(measure_bands<>,
         {{static_cast<unsigned>(batch.sequences), static_cast<unsigned>((plan.bands + 31) / 32)}, {32, mel_phases}},
         stream, plan, batch, scratch, statistics);
  launch(normalise_bands<T>, {rows, 128}, stream, plan, batch, scratch, statistics, out);
}

}  // namespace sotto::cuda::inline SOTTO_ABI
