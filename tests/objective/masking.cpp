#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include <sotto/io/safetensors.hpp>
#include <sotto/objective/masking.hpp>

using namespace sotto;

TEST_CASE("masks hide the part of an utterance that fairseq's hide, to four standard errors") {
  char const* const shared = std::getenv("SOTTO_SHARED");
  if (shared == nullptr) {
    MESSAGE("SKIPPED: no shared material");
    return;
  }
  const auto rows =
      Safetensors::open(std::filesystem::path(shared) / "parity/mask_statistics.safetensors").doubles("f64.rows");
  REQUIRE(rows.size() == 15 * 5);
  SpanMasker masker;
  std::vector<int> masked;
  constexpr int draws = 20000;
  for (std::size_t row = 0; row < 15; ++row) {
    const double* const r = rows.data() + 5 * row;
    const int frames = static_cast<int>(r[0]);
    const MaskOptions options{static_cast<float>(r[1]), static_cast<int>(r[2]), 2};
    double mean = 0;
    for (int i = 0; i < draws; ++i) {
      masked.clear();
      masker.draw(options, frames, Random(row, Purpose::mask, 0, static_cast<std::uint64_t>(i)), 0, masked);
      mean += static_cast<double>(masked.size()) / frames / draws;
    }
    CAPTURE(frames);
    CAPTURE(r[1]);
    CAPTURE(r[2]);
    CHECK(std::abs(mean - r[3]) < 4 * std::sqrt(2.) * r[4] / std::sqrt(draws));
  }
}

TEST_CASE("masks are spans: the last frame is never hidden, rows ascend, and no utterance is hidden whole") {
  SpanMasker masker;
  for (int frames = 0; frames < 60; ++frames)
    for (std::uint64_t item = 0; item < 40; ++item) {
      std::vector<int> masked;
      masker.draw({}, frames, Random(1, Purpose::mask, 3, item), 100, masked);
      CHECK(static_cast<int>(masked.size()) < std::max(frames, 1));
      for (std::size_t i = 0; i < masked.size(); ++i) {
        CHECK(masked[i] >= 100);
        CHECK(masked[i] < 100 + frames - 1);
        if (i > 0) CHECK(masked[i] > masked[i - 1]);
      }
      if (frames >= 2) CHECK(!masked.empty());
      std::vector<int> again;
      masker.draw({}, frames, Random(1, Purpose::mask, 3, item), 100, again);
      CHECK(masked == again);
    }
}

TEST_CASE("long utterances are hidden as the expectation says") {
  SpanMasker masker;
  for (const MaskOptions options : {MaskOptions{.8f, 10, 2}, MaskOptions{.65f, 10, 2}, MaskOptions{.7f, 5, 2}}) {
    double mean = 0;
    for (std::uint64_t item = 0; item < 200; ++item) {
      std::vector<int> masked;
      masker.draw(options, 3000, Random(2, Purpose::mask, 0, item), 0, masked);
      mean += static_cast<double>(masked.size()) / 3000 / 200;
    }
    CHECK(mean == doctest::Approx(expected_masked(options)).epsilon(.01));
  }
}
