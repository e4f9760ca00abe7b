#include <doctest/doctest.h>

#include <cmath>
#include <complex>
#include <map>
#include <numbers>
#include <set>
#include <sotto/data/synthetic.hpp>
#include <string>

using sotto::SyntheticSpeech;

namespace {
std::vector<float> whole(SyntheticSpeech const& speech, std::size_t i) {
  std::vector<float> x(static_cast<std::size_t>(speech.samples(i)));
  speech.read(i, 0, x);
  return x;
}
double power_at(std::span<float const> x, double hertz) {
  std::complex<double> sum = 0;
  for (std::size_t k = 0; k < x.size(); ++k)
    sum += std::polar(x[k] * (1 - std::cos(2 * std::numbers::pi * double(k) / double(x.size()))),
                      -2 * std::numbers::pi * hertz * double(k) / 16000);
  return std::norm(sum);
}
}  // namespace

TEST_CASE("synthetic speech is a function of its options") {
  SyntheticSpeech const a({.utterances = 12}), b({.utterances = 12}), more({.utterances = 20}),
      other({.utterances = 12, .seed = 1});
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(whole(a, i) == whole(b, i));
    CHECK(whole(a, i) == whole(more, i));
    CHECK(whole(a, i) != whole(other, i));
  }
}

// The sums were made by g++ 12 at -O3 -march=native; what another compiler or instruction set makes
// must agree.
TEST_CASE("synthetic speech is the same on every machine") {
  SyntheticSpeech const speech({.utterances = 3});
  double sum = 0, weighted = 0;
  auto const x = whole(speech, 2);
  for (std::size_t k = 0; k < x.size(); ++k) {
    sum += std::abs(x[k]);
    weighted += x[k] * static_cast<double>(k % 97);
  }
  CHECK(speech.samples(2) == 30721);
  CHECK(sum == doctest::Approx(899.911129).epsilon(1e-6));
  CHECK(weighted == doctest::Approx(386.79204).epsilon(1e-5));
}

TEST_CASE("synthetic samples lie within [-1, 1] and parts of an utterance equal the whole") {
  SyntheticSpeech const speech;
  CHECK(speech.size() == 200);
  float peak = 0;
  for (std::size_t i = 0; i < speech.size(); ++i) {
    CHECK(speech.samples(i) >= 16000);
    CHECK(speech.samples(i) <= 48000);
    for (float x : whole(speech, i)) peak = std::max(peak, std::abs(x));
  }
  CHECK(peak > .1f);
  CHECK(peak < .9f);  // nothing was clipped
  auto const x = whole(speech, 3);
  std::vector<float> part(500);
  speech.read(3, 1234, part);
  CHECK(std::equal(part.begin(), part.end(), x.begin() + 1234));
}

TEST_CASE("phones fill each utterance without gaps and all of them occur") {
  SyntheticSpeech const speech;
  std::set<int> said;
  for (std::size_t i = 0; i < speech.size(); ++i) {
    std::int64_t position = 0;
    for (auto const& phone : speech.phones(i)) {
      REQUIRE(phone.first_sample == position);
      REQUIRE(phone.samples > 0);
      position += phone.samples;
      said.insert(phone.phone);
    }
    CHECK(position == speech.samples(i));
  }
  CHECK(static_cast<int>(said.size()) == SyntheticSpeech::phone_count());
}

TEST_CASE("an utterance says its label") {
  SyntheticSpeech const speech;
  for (std::size_t i = 0; i < speech.size(); ++i) {
    std::string said;
    for (auto const& phone : speech.phones(i)) said += std::string(SyntheticSpeech::phone_name(phone.phone)) + "-";
    CHECK(said.find(std::string(speech.label(i)) + "-") != std::string::npos);
  }
}

TEST_CASE("each split has speakers of its own") {
  SyntheticSpeech const speech;
  std::map<std::string, std::string> split;
  for (std::size_t i = 0; i < speech.size(); ++i) {
    auto const [entry, fresh] = split.try_emplace(std::string(speech.speaker(i)), speech.split(i));
    CHECK(entry->second == speech.split(i));
  }
  CHECK(split.size() == 8);
  std::map<std::string, int> count;
  for (auto const& [speaker, name] : split) ++count[name];
  CHECK(count["train"] == 6);
  CHECK(count["val"] == 1);
  CHECK(count["test"] == 1);
}

TEST_CASE("vowels have their formants, fricatives their hiss, and stops their silence") {
  SyntheticSpeech const speech;
  // Mean power of the middle of every phone of a kind, low (200-900 Hz) against high (4-7 kHz).
  auto const balance = [&](std::string_view name) {
    double low = 0, high = 0;
    for (std::size_t i = 0; i < 80; ++i) {
      auto const x = whole(speech, i);
      for (auto const& phone : speech.phones(i)) {
        if (SyntheticSpeech::phone_name(phone.phone) != name || phone.samples < 800) continue;
        auto const middle =
            std::span(x).subspan(static_cast<std::size_t>(phone.first_sample + phone.samples / 2 - 200), 400);
        for (int f = 200; f < 900; f += 40) low += power_at(middle, f);
        for (int f = 4000; f < 7000; f += 160) high += power_at(middle, f);
      }
    }
    return 10 * std::log10(low / high);
  };
  CHECK(balance("aa") > 20);
  CHECK(balance("uw") > 20);
  CHECK(balance("s") < -10);
  // F2 of iy lies above 1.8 kHz, that of uw below 1.1 kHz.
  auto const second = [&](std::string_view name) {
    double front = 0, back = 0;
    for (std::size_t i = 0; i < 80; ++i) {
      auto const x = whole(speech, i);
      for (auto const& phone : speech.phones(i)) {
        if (SyntheticSpeech::phone_name(phone.phone) != name || phone.samples < 1100) continue;
        auto const middle = std::span(x).subspan(static_cast<std::size_t>(phone.first_sample + phone.samples / 2), 500);
        for (int f = 1850; f < 2800; f += 40) front += power_at(middle, f);
        for (int f = 700; f < 1150; f += 40) back += power_at(middle, f);
      }
    }
    return front > back;
  };
  CHECK(second("iy"));
  CHECK_FALSE(second("uw"));
}

TEST_CASE("impossible options of the synthesiser are refused in a sentence") {
  CHECK_THROWS_AS(SyntheticSpeech({.speakers = 0}), sotto::Error);
  CHECK_THROWS_AS(SyntheticSpeech({.shortest = 3, .longest = 1}), sotto::Error);
  CHECK_THROWS_AS(SyntheticSpeech({.shortest = 0, .longest = 1}), sotto::Error);
}
