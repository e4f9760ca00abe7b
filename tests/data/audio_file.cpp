#include <sotto/data/audio_file.hpp>

#include <limits>

#include "temporary.hpp"

using sotto::AudioFile;

namespace {

std::vector<float> whole(std::filesystem::path const& path) {
  AudioFile file(path);
  std::vector<float> x(static_cast<std::size_t>(file.frames()));
  file.read(0, x);
  return x;
}
std::string refusal(std::filesystem::path const& path) {
  return message_of<sotto::Error>([&] { whole(path); });
}
double error_against(std::vector<float> const& x, std::vector<float> const& y) {
  double difference = 0, power = 0;
  for (std::size_t k = 0; k < std::min(x.size(), y.size()); ++k) {
    difference += (x[k] - y[k]) * (x[k] - y[k]);
    power += x[k] * x[k];
  }
  return std::sqrt(difference / power);
}
void cut(std::filesystem::path const& path, double share) {
  auto const size = std::filesystem::file_size(path);
  std::filesystem::resize_file(path, static_cast<std::uintmax_t>(share * double(size)));
}

}  // namespace

TEST_CASE("every format that can be written is read back") {
  TemporaryFolder folder;
  auto const x = sine(440, 16000, 16000);
  struct {
    char const* name;
    int format;
    double error;
  } const formats[] = {
      {"a.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 1e-4},   {"b.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_24, 1e-6},
      {"c.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, 0},       {"d.wav", SF_FORMAT_WAV | SF_FORMAT_DOUBLE, 0},
      {"e.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_U8, .02},    {"f.wav", SF_FORMAT_WAV | SF_FORMAT_ULAW, .05},
      {"g.wav", SF_FORMAT_WAVEX | SF_FORMAT_PCM_16, 1e-4}, {"h.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 1e-4},
      {"i.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_24, 1e-6}, {"j.aiff", SF_FORMAT_AIFF | SF_FORMAT_PCM_16, 1e-4},
      {"k.au", SF_FORMAT_AU | SF_FORMAT_PCM_16, 1e-4},     {"l.caf", SF_FORMAT_CAF | SF_FORMAT_PCM_16, 1e-4},
      {"m.w64", SF_FORMAT_W64 | SF_FORMAT_PCM_16, 1e-4},   {"n.rf64", SF_FORMAT_RF64 | SF_FORMAT_PCM_16, 1e-4},
      {"o.sph", SF_FORMAT_NIST | SF_FORMAT_PCM_16, 1e-4},  {"p.ogg", SF_FORMAT_OGG | SF_FORMAT_VORBIS, .1},
      {"q.opus", SF_FORMAT_OGG | SF_FORMAT_OPUS, .1},
  };
  for (auto const& f : formats) {
    CAPTURE(f.name);
    AudioFile const file(folder.audio(f.name, f.format, 16000, 1, x));
    CHECK(file.rate() == 16000);
    CHECK(file.channels() == 1);
    CHECK(file.frames() == 16000);
    CHECK(error_against(x, whole(file.path())) <= f.error);
  }
}

TEST_CASE("channels are averaged and ranges equal the whole") {
  TemporaryFolder folder;
  auto const left = sine(440, 8000, 9000), right = sine(700, 8000, 9000, .3);
  std::vector<float> both, mean;
  for (std::size_t k = 0; k < left.size(); ++k) {
    both.insert(both.end(), {left[k], right[k]});
    mean.push_back((left[k] + right[k]) / 2);
  }
  auto const path = folder.audio("s.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_24, 8000, 2, both);
  AudioFile file(path);
  CHECK(file.rate() == 8000);
  CHECK(file.channels() == 2);
  auto const x = whole(path);
  CHECK(error_against(mean, x) < 1e-5);
  std::vector<float> part(5000);
  for (std::int64_t first : {4000, 0, 100, 3999}) {
    file.read(first, part);
    CHECK(std::equal(part.begin(), part.end(), x.begin() + first));
  }
}

TEST_CASE("what is no audio is said to be none") {
  TemporaryFolder folder;
  CHECK(mentions(refusal(folder.path() / "none.wav"), "there is no such file"));
  CHECK(mentions(refusal(folder.path()), "this is a folder"));
  CHECK(mentions(refusal(folder.text("empty.wav", "")), "the file is empty"));
  CHECK(mentions(refusal(folder.text("text.wav", "It was a dark and stormy night.\n")), "no audio file"));
  CHECK(mentions(refusal(folder.text("text.flac", std::string(5000, 'a'))), "no audio file"));
  CHECK(mentions(refusal(folder.text("head.wav", "RIFF")), "no audio file"));
}

TEST_CASE("a truncated file says where its audio stops") {
  TemporaryFolder folder;
  auto const x = sine(440, 16000, 48000);
  auto const wav = folder.audio("a.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 16000, 1, x);
  cut(wav, .5);
  auto message = refusal(wav);
  CHECK_MESSAGE(mentions(message, "truncated"), message);
  CHECK_MESSAGE(mentions(message, "sample 23989 (1.499 s)"), message);
  std::vector<float> noise(48000);
  for (std::size_t k = 0; k < noise.size(); ++k) noise[k] = float((k * 7919 + k * k * 31) % 2000) / 2000 - .5f;
  auto const flac = folder.audio("b.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 16000, 1, noise);
  cut(flac, .5);
  message = refusal(flac);
  CHECK_MESSAGE(mentions(message, "decoding stopped at sample"), message);
  CHECK_MESSAGE(mentions(message, "of 48000 (3.000 s)"), message);
}

TEST_CASE("a WAV file whose writer could not go back to fill in its length is read") {
  TemporaryFolder folder;
  auto const path = folder.audio("a.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 16000, 1, sine(440, 16000, 16000));
  for (auto const& unknown : {std::string(4, '\xff'), std::string("\x24\xf0\xff\x7f", 4)}) {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(4);
    file << unknown;
    file.seekp(40);
    file << std::string(4, '\xff');
    file.close();
    CHECK(AudioFile(path).frames() == 16000);
  }
}

TEST_CASE("samples that are no numbers are an error that says where, and loud ones are clipped") {
  TemporaryFolder folder;
  auto x = sine(440, 16000, 16000, 1.2);
  auto const write = [&] { return folder.audio("f.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, 16000, 1, x); };
  for (float y : whole(write())) REQUIRE(std::abs(y) <= 1);
  x[8000] = std::numeric_limits<float>::quiet_NaN();
  auto message = refusal(write());
  CHECK_MESSAGE(mentions(message, "f.wav: sample 8000 (0.500 s) is not a number"), message);
  x[8000] = -std::numeric_limits<float>::infinity();
  message = refusal(write());
  CHECK_MESSAGE(mentions(message, "sample 8000 (0.500 s) is infinite"), message);
  x[8000] = 12000;
  message = refusal(write());
  CHECK_MESSAGE(mentions(message, "scale the file"), message);
}
