// Filterbanks and MFCC against torchaudio's Kaldi compliance.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <sotto/frontend/filterbank.hpp>
#include <sotto/frontend/mfcc.hpp>
#include <sotto/io/safetensors.hpp>

#include <doctest/doctest.h>

namespace {

using sotto::Matrix;
using sotto::frontend::Filterbank;
using sotto::frontend::Mfcc;
using sotto::frontend::Window;

template <class Extractor>
double worst(Extractor&& extractor, int columns, sotto::Safetensors const& file, char const* name, int compared) {
  const auto input = file.floats("input"), expected = file.floats(name);
  const int rows = static_cast<int>(file.at(name).shape[0]);
  REQUIRE(Filterbank::frames(static_cast<std::int64_t>(input.size())) == rows);
  std::vector<float> found(static_cast<std::size_t>(rows * columns));
  extractor.compute(input, Matrix<float>{found.data(), rows, columns, columns});
  double result = 0;
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < compared; ++j)
      result = std::max(result, std::abs(double{found[static_cast<std::size_t>(i * columns + j)]} -
                                         double{expected[static_cast<std::size_t>(i * compared + j)]}));
  return result;
}

}  // namespace

TEST_CASE("filterbanks and MFCC are torchaudio's") {
  char const* shared = std::getenv("SOTTO_SHARED");
  if (!shared) {
    MESSAGE("SKIPPED: SOTTO_SHARED does not say where the parity tensors are");
    return;
  }
  for (int i = 0; i < 3; ++i) {
    const auto file = sotto::Safetensors::open(std::filesystem::path(shared) / "parity" /
                                               ("frontend_" + std::to_string(i) + ".safetensors"));
    const double fbank = worst(Filterbank(), 80, file, "fbank_80", 80);
    const double hamming =
        worst(Filterbank({.bands = 40, .window = Window::hamming}), 40, file, "fbank_40_hamming", 40);
    const double cepstra = worst(Mfcc(), 39, file, "mfcc_13", 13), deltas = worst(Mfcc(), 39, file, "mfcc_39", 39);
    INFO("fbank_80 " << fbank << ", fbank_40_hamming " << hamming << ", mfcc_13 " << cepstra << ", mfcc_39 " << deltas);
    CHECK(fbank < 2e-3);
    CHECK(hamming < 2e-3);
    CHECK(cepstra < 5e-3);
    CHECK(deltas < 5e-3);
    MESSAGE("frontend_" << i << ": fbank_80 " << fbank << ", fbank_40_hamming " << hamming << ", mfcc_39 " << deltas);
  }
}
