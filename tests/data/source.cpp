#include <doctest/doctest.h>

#include <sotto/data/source.hpp>
#include <string>
#include <vector>

namespace {

struct Bare {  // no optional member, and types of its own
  int size() const { return 3; }
  int samples(int i) const { return 100 * (i + 1); }
  void read(int i, long first, std::span<float> out) const {
    for (std::size_t k = 0; k < out.size(); ++k)
      out[k] = static_cast<float>(i) + static_cast<float>(first + static_cast<long>(k)) / 1024;
  }
};
struct Named : Bare {
  std::string_view speaker(std::size_t i) const { return i == 0 ? "ann" : "bob"; }
  std::string split(std::size_t) const = delete;
  char const* label(std::size_t) const { return "yes"; }
};
struct Longer : Bare {
  int samples(int i) const { return 100 * (i + 1) + (i == 2 ? 1 : 0); }
};

static_assert(sotto::DataSource<Bare> && sotto::DataSource<sotto::AnySource>);
static_assert(!sotto::DataSource<std::vector<float>>);

}  // namespace

TEST_CASE("a source without speakers, splits and labels has empty ones") {
  Bare const bare;
  CHECK(sotto::speaker_of(bare, 0) == "");
  CHECK(sotto::split_of(bare, 0) == "");
  CHECK(sotto::label_of(bare, 0) == "");
  CHECK(sotto::name_of(bare, 0) == "");
  CHECK(sotto::speaker_of(Named{}, 1) == "bob");
  CHECK(sotto::label_of(Named{}, 1) == "yes");
}

TEST_CASE("a fingerprint changes with a length, a speaker and the count, and with nothing else") {
  CHECK(sotto::fingerprint_of(Bare{}) == sotto::fingerprint_of(Bare{}));
  CHECK(sotto::fingerprint_of(Bare{}) != sotto::fingerprint_of(Longer{}));
  CHECK(sotto::fingerprint_of(Bare{}) != sotto::fingerprint_of(Named{}));
  CHECK(sotto::fingerprint_of(sotto::AnySource(Bare{})) == sotto::fingerprint_of(Bare{}));
}

TEST_CASE("two callables make a source") {
  auto const zeros = sotto::source(
      4, [](std::size_t i) { return 1000 * (i + 1); },
      [](std::size_t i, std::int64_t first, std::span<float> out) {
        for (auto& x : out) x = static_cast<float>(i) + static_cast<float>(first);
      });
  static_assert(sotto::DataSource<decltype(zeros)>);
  CHECK(zeros.size() == 4);
  CHECK(zeros.samples(3) == 4000);
  std::vector<float> out(2);
  zeros.read(1, 5, out);
  CHECK(out == std::vector<float>{6, 6});
}

TEST_CASE("any source behind one type reads the same, owned or borrowed") {
  Named const named;
  for (auto const& any :
       {sotto::AnySource(named), sotto::AnySource::borrow(named), sotto::AnySource(std::make_shared<Named const>())}) {
    CHECK(any.size() == 3);
    CHECK(any.samples(2) == 300);
    CHECK(any.speaker(0) == "ann");
    CHECK(any.label(0) == "yes");
    std::vector<float> out(3), expected(3);
    any.read(2, 7, out);
    named.read(2, 7, expected);
    CHECK(out == expected);
  }
}
