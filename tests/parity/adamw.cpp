#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <sotto/backend/cpu/optimizer.hpp>

using namespace sotto;

namespace {

// The float64 tensors of a fixture by name. The header is flat, so that two finds read it: what
// io/safetensors promises is tested there, and this test should not fail with it.
struct Fixture {
  std::string bytes;
  std::vector<double> tensor(std::string const& name) const {
    std::uint64_t header = 0;
    std::copy_n(bytes.data(), 8, reinterpret_cast<char*>(&header));
    const auto entry = bytes.find("\"" + name + "\":");
    const auto offsets = bytes.find("\"data_offsets\":[", entry) + 16;
    char* end = nullptr;
    const auto first = std::strtoull(bytes.c_str() + offsets, &end, 10);
    const auto last = std::strtoull(end + 1, nullptr, 10);
    std::vector<double> out((last - first) / sizeof(double));
    std::copy_n(bytes.data() + 8 + header + first, last - first, reinterpret_cast<char*>(out.data()));
    return out;
  }
};

bool read(Fixture& fixture) {
  char const* shared = std::getenv("SOTTO_SHARED");
  if (shared) {
    std::ifstream file(std::filesystem::path(shared) / "parity" / "adamw.safetensors", std::ios::binary);
    if (file) {
      fixture.bytes.assign(std::istreambuf_iterator<char>(file), {});
      return true;
    }
  }
  MESSAGE("SKIPPED: the parity fixtures are not beside the checkout");
  return false;
}

constexpr std::size_t numbers = 33, steps = 50;
constexpr double rate = 0.003, beta1 = 0.9, beta2 = 0.98, epsilon = 1e-6, decay = 0.01;

// fairseq's place of epsilon: before the correction of the root.
double inside(int step) { return epsilon / std::sqrt(1 - std::pow(beta2, step)); }

}  // namespace

TEST_CASE("AdamW in double follows PyTorch's trajectory, and fairseq's with its epsilon, to 1e-12") {
  Fixture fixture;
  if (!read(fixture)) return;
  const auto gradients = fixture.tensor("f64.gradients");
  for (bool fairseq : {false, true}) {
    const auto wanted = fixture.tensor(fairseq ? "f64.trajectory_eps_inside" : "f64.trajectory");
    REQUIRE(wanted.size() == steps * numbers);
    auto p = fixture.tensor("f64.start");
    std::vector<double> m(numbers), v(numbers);
    double worst = 0;
    for (std::size_t t = 0; t < steps; ++t) {
      const int step = static_cast<int>(t) + 1;
      const cpu::AdamwFactors<double> factors({rate, beta1, beta2, fairseq ? inside(step) : epsilon, decay, step});
      for (std::size_t i = 0; i < numbers; ++i) {
        cpu::adamw_update(factors, gradients[t * numbers + i], p[i], m[i], v[i], [](double x) { return std::sqrt(x); });
        worst = std::max(worst, std::abs(p[i] - wanted[t * numbers + i]));
      }
    }
    INFO("worst difference ", worst);
    CHECK(worst < 1e-12);
  }
}

TEST_CASE("AdamW in float follows PyTorch's trajectory to 1e-6") {
  Fixture fixture;
  if (!read(fixture)) return;
  const auto gradients = fixture.tensor("f64.gradients"), start = fixture.tensor("f64.start"),
             wanted = fixture.tensor("f64.trajectory");
  std::vector<float> p(start.begin(), start.end()), m(numbers), v(numbers);
  double worst = 0;
  for (std::size_t t = 0; t < steps; ++t) {
    const std::vector<float> g(gradients.begin() + static_cast<std::ptrdiff_t>(t * numbers),
                               gradients.begin() + static_cast<std::ptrdiff_t>((t + 1) * numbers));
    cpu::adamw({p.data(), numbers}, {g.data(), numbers}, {m.data(), numbers}, {v.data(), numbers},
               {rate, beta1, beta2, epsilon, decay, static_cast<int>(t) + 1});
    for (std::size_t i = 0; i < numbers; ++i)
      worst = std::max(worst, std::abs(static_cast<double>(p[i]) - wanted[t * numbers + i]));
  }
  INFO("worst difference ", worst);
  CHECK(worst < 1e-6);
}
