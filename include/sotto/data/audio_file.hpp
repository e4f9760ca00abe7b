// Audio files of every format that libsndfile reads, as mono samples.
#pragma once

#include <sndfile.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>

namespace sotto::inline SOTTO_ABI {

/// An audio file open for reading: WAV, FLAC, Ogg Vorbis, Ogg Opus, MP3, AIFF … Channels are
/// averaged. One thread at a time. Opening reads the header only.
class AudioFile {
 public:
  /// Throws Error(file) if the file is missing or unreadable, Error(data) if it is empty, no audio
  /// or cut short.
  explicit AudioFile(std::filesystem::path path) : path_(std::move(path)) {
    std::error_code error;
    auto const status = std::filesystem::status(path_, error);
    if (status.type() == std::filesystem::file_type::not_found)
      throw_error(ErrorCode::file, {"there is no such file"}, path_);
    if (status.type() == std::filesystem::file_type::directory)
      throw_error(ErrorCode::file, {"this is a folder, where an audio file was expected"}, path_);
    auto const bytes = std::filesystem::file_size(path_, error);
    if (error) throw_error(ErrorCode::file, {"the file cannot be read (", error.message(), ")"}, path_);
    if (bytes == 0) throw_error(ErrorCode::data, {"the file is empty (0 bytes)"}, path_);
    SF_INFO info{};
    file_.reset(sf_open(path_.c_str(), SFM_READ, &info));
    if (!file_) {
      bool const readable = std::ifstream(path_, std::ios::binary).good();
      if (!readable) throw_error(ErrorCode::file, {"the file cannot be opened; check its permissions"}, path_);
      throw_error(ErrorCode::data, {"this is no audio file that libsndfile can read (", reason(nullptr), ")"}, path_);
    }
    rate_ = info.samplerate;
    channels_ = info.channels;
    frames_ = info.frames;
    constexpr std::int64_t most = std::int64_t{1} << 40;  // libsndfile says "unknown" with its largest number
    if (rate_ < 1 || channels_ < 1 || frames_ < 0 || frames_ > most)
      throw_error(ErrorCode::data,
                  {"the header makes no sense (", rate_, " Hz, ", channels_, " channels, ", frames_,
                   " frames); write the file anew"},
                  path_);
    if ((info.format & SF_FORMAT_TYPEMASK) == SF_FORMAT_WAV) check_riff_length(bytes);
  }

  std::filesystem::path const& path() const { return path_; }
  /// In Hz.
  int rate() const { return rate_; }
  int channels() const { return channels_; }
  /// Samples of one channel.
  std::int64_t frames() const { return frames_; }

  /// Samples [first, first + out.size()) at the file's own rate, channels averaged, within [-1, 1]:
  /// what a float file or a lossy decoder has beyond is clipped. Throws Error(data) if the file
  /// ends before, if a sample is not a number, and if samples are so large that they cannot be
  /// meant to lie within [-1, 1].
  void read(std::int64_t first, std::span<float> out) {
    if (first != position_ && sf_seek(file_.get(), first, SEEK_SET) != first)
      stopped_at(first, sf_error(file_.get()) != 0 ? reason(file_.get()) : "no such position");
    position_ = first;
    constexpr std::size_t block = 4096;
    if (channels_ > 1) interleaved_.resize(block * static_cast<std::size_t>(channels_));
    for (std::size_t done = 0; done < out.size();) {
      auto const wanted = std::min(block, out.size() - done);
      float* const into = channels_ > 1 ? interleaved_.data() : out.data() + done;
      auto const got =
          static_cast<std::size_t>(std::max<sf_count_t>(0, sf_readf_float(file_.get(), into, sf_count_t(wanted))));
      if (channels_ > 1) mix(out.subspan(done, got));
      check(out.subspan(done, got));
      position_ += static_cast<std::int64_t>(got);
      done += got;
      if (got < wanted)
        stopped_at(position_, sf_error(file_.get()) != 0 ? reason(file_.get()) : "truncated or damaged");
    }
  }

 private:
  void mix(std::span<float> out) const {
    auto const channels = static_cast<std::size_t>(channels_);
    float const share = 1.f / static_cast<float>(channels_);
    for (std::size_t i = 0; i < out.size(); ++i) {
      float sum = 0;
      for (std::size_t c = 0; c < channels; ++c) sum += interleaved_[i * channels + c];
      out[i] = sum * share;
    }
  }

  void check(std::span<float> samples) const {
    constexpr float absurd = 16;  // 24 dB over full scale: no mix, but integers stored as floats
    for (std::size_t i = 0; i < samples.size(); ++i) {
      float const x = samples[i];
      if (x >= -1 && x <= 1) continue;
      auto const place = "sample " + at(position_ + static_cast<std::int64_t>(i));
      if (!std::isfinite(x)) throw_error(ErrorCode::data, {place, " is ", x != x ? "not a number" : "infinite"}, path_);
      if (x > absurd || x < -absurd)
        throw_error(ErrorCode::data,
                    {place, " is ", x, ": samples of float files must lie within -1 and 1; scale the file"}, path_);
      samples[i] = x < 0 ? -1.f : 1.f;
    }
  }

  // libsndfile quietly shortens a WAV file whose data end early. Writers that stream leave the
  // length 0 or all ones.
  void check_riff_length(std::uintmax_t bytes) const {
    std::array<unsigned char, 8> head{};
    std::ifstream in(path_, std::ios::binary);
    if (!in.read(reinterpret_cast<char*>(head.data()), head.size())) return;
    if (head[0] != 'R' || head[1] != 'I' || head[2] != 'F' || head[3] != 'F') return;
    std::uintmax_t length = 0;
    for (int i = 3; i >= 0; --i) length = length << 8 | head[static_cast<std::size_t>(4 + i)];
    bool const streamed = length == 0 || length >= 0x7ffff000u;
    constexpr std::uintmax_t slack = 8;  // some writers count the eight bytes before, or a byte of padding after
    if (!streamed && length > bytes + slack - 8)
      throw_error(ErrorCode::data,
                  {"the file is truncated: it has ", bytes, " of ", length + 8, " bytes, and its audio ends at sample ",
                   at(frames_)},
                  path_);
  }

  std::string at(std::int64_t frame) const {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "%lld (%.3f s)", static_cast<long long>(frame),
                  static_cast<double>(frame) / rate_);
    return text.data();
  }
  [[noreturn]] void stopped_at(std::int64_t frame, std::string const& why) const {
    throw_error(ErrorCode::data, {"decoding stopped at sample ", at(frame), " of ", at(frames_), ": ", why}, path_);
  }
  static std::string reason(SNDFILE* file) {
    std::string text = sf_strerror(file);
    while (!text.empty() && (text.back() == '.' || text.back() == '\n')) text.pop_back();
    return text;
  }

  struct Close {
    void operator()(SNDFILE* file) const { sf_close(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<SNDFILE, Close> file_;
  std::vector<float> interleaved_;  // [frames, channels] of one block
  int rate_ = 0, channels_ = 0;
  std::int64_t frames_ = 0, position_ = 0;
};

}  // namespace sotto::inline SOTTO_ABI
