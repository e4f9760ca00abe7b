// A folder that vanishes with the test, and audio files to fill it with.
#pragma once

#include <doctest/doctest.h>
#include <sndfile.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numbers>
#include <string>
#include <string_view>
#include <vector>

class TemporaryFolder {
 public:
  TemporaryFolder() {
    static std::atomic<int> count{0};
    path_ = std::filesystem::temp_directory_path() /
            ("sotto-test-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  TemporaryFolder(TemporaryFolder const&) = delete;
  TemporaryFolder& operator=(TemporaryFolder const&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path const& path() const { return path_; }

  std::filesystem::path text(std::string const& name, std::string_view content) const {
    auto const file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << content;
    return file;
  }
  /// interleaved: [frames, channels].
  std::filesystem::path audio(std::string const& name, int format, int rate, int channels,
                              std::vector<float> const& interleaved) const {
    auto const file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    SF_INFO info{};
    info.format = format;
    info.samplerate = rate;
    info.channels = channels;
    SNDFILE* out = sf_open(file.c_str(), SFM_WRITE, &info);
    REQUIRE_MESSAGE(out != nullptr, name << ": " << sf_strerror(nullptr));
    auto const frames = static_cast<sf_count_t>(interleaved.size()) / channels;
    // Small writes: libsndfile 1.2.0's Vorbis encoder overflows the stack on large ones.
    for (sf_count_t done = 0; done < frames; done += 1024)
      REQUIRE(sf_writef_float(out, interleaved.data() + done * channels, std::min<sf_count_t>(1024, frames - done)) >
              0);
    sf_close(out);
    return file;
  }

 private:
  std::filesystem::path path_;
};

inline std::vector<float> sine(double hertz, int rate, std::size_t frames, double level = .5) {
  std::vector<float> samples(frames);
  for (std::size_t i = 0; i < frames; ++i)
    samples[i] = static_cast<float>(level * std::sin(2 * std::numbers::pi * hertz * static_cast<double>(i) / rate));
  return samples;
}

/// Message of the Error that f throws; "" if it throws none.
template <class E, class F> std::string message_of(F&& f) {
  try {
    f();
  } catch (E const& error) {
    return error.what();
  }
  return {};
}

inline bool mentions(std::string const& text, std::string_view part) { return text.find(part) != std::string::npos; }
