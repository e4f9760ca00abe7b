// Other sample rates, by libsamplerate.
#pragma once

#include <samplerate.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>

namespace sotto::inline SOTTO_ABI {

/// Samples that `samples` at rate `from` become at rate `to`: samples * to / from, rounded up.
inline std::int64_t resampled_length(std::int64_t samples, int from, int to) {
  auto const whole = samples / from, rest = samples % from;  // samples * to may not fit
  return whole * to + (rest * to + from - 1) / from;
}

/// Resamples a whole buffer, `from` and `to` in Hz; [resampled_length(input.size(), from, to)].
/// Silence is assumed beyond both ends. Band-limited interpolation over a windowed sinc
/// (libsamplerate's best: 144 dB signal to noise, 96 % of the band), since half the band of
/// telephone speech is what a worse filter would lose. The ratio must be within 1/256 and 256, or
/// Error(data) is thrown.
inline std::vector<float> resample(std::span<float const> input, int from, int to) {
  if (from < 1 || to < 1) throw_error(ErrorCode::data, {"a sample rate must be positive"});
  if (from == to) return {input.begin(), input.end()};
  double const ratio = static_cast<double>(to) / from;
  if (src_is_valid_ratio(ratio) == 0)
    throw_error(ErrorCode::data,
                {"audio at ", from, " Hz cannot be resampled to ", to, " Hz; convert it with another program"});
  std::vector<float> output(
      static_cast<std::size_t>(resampled_length(static_cast<std::int64_t>(input.size()), from, to)));
  if (output.empty()) return output;
  SRC_DATA job{};
  job.data_in = input.data();
  job.data_out = output.data();
  job.input_frames = static_cast<long>(input.size());
  job.output_frames = static_cast<long>(output.size());
  job.src_ratio = ratio;
  if (int const error = src_simple(&job, SRC_SINC_BEST_QUALITY, 1))
    throw_error(ErrorCode::data, {"resampling failed: ", src_strerror(error)});
  // The converter may end a sample early: that one is beyond the last input sample and stays
  // silent.
  std::fill(output.begin() + job.output_frames_gen, output.end(), 0.f);
  return output;
}

}  // namespace sotto::inline SOTTO_ABI
