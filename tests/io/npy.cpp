#include <sotto/io/npy.hpp>

#include <unistd.h>

#include <fstream>

#include <doctest/doctest.h>

namespace {

namespace fs = std::filesystem;
using sotto::Error;

struct Scratch {
  fs::path path = fs::temp_directory_path() / ("sotto_npy_" + std::to_string(::getpid()) + ".npy");
  ~Scratch() { fs::remove(path); }
};

std::string contents(fs::path const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <class Element> void round_trip(std::vector<std::int64_t> const& shape, std::vector<Element> const& values) {
  const Scratch scratch;
  sotto::write_npy<Element>(scratch.path, shape, values);
  const auto array = sotto::read_npy<Element>(scratch.path);
  CHECK(array.shape == shape);
  CHECK(array.values == values);
}

}  // namespace

TEST_CASE("an array is read back with its shape, whatever its number of axes") {
  round_trip<float>({2, 3}, {1, 2, 3, 4, 5, 6.5f});
  round_trip<float>({}, {7});
  round_trip<float>({0, 4}, {});
  round_trip<std::int32_t>({3}, {1, -2, 3});
  round_trip<std::int64_t>({1, 2, 1}, {1, std::int64_t{-1} << 60});
}

TEST_CASE("the header is what numpy.save writes: version 1.0, data at a multiple of 64") {
  const Scratch scratch;
  const std::vector<float> values{1, 2};
  sotto::write_npy<float>(scratch.path, {2}, values);
  const std::string bytes = contents(scratch.path);
  CHECK(bytes.substr(0, 8) == std::string("\x93NUMPY\1\0", 8));
  CHECK(bytes.substr(10).starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, ), }"));
  CHECK((bytes.size() - 8) % 64 == 0);
  CHECK(bytes[bytes.size() - 9] == '\n');
}

TEST_CASE("files that are no such array are refused in a sentence") {
  const Scratch scratch;
  const std::vector<float> values{1, 2};
  sotto::write_npy<float>(scratch.path, {2}, values);
  CHECK_THROWS_WITH_AS(sotto::read_npy<std::int32_t>(scratch.path), doctest::Contains("holds <f4 where <i4"), Error);
  CHECK_THROWS_AS(sotto::write_npy<float>(scratch.path, {3}, values), Error);
  const std::string whole = contents(scratch.path);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    std::ofstream(scratch.path, std::ios::binary) << whole.substr(0, length);
    CHECK_THROWS_AS(sotto::read_npy<float>(scratch.path), Error);
  }
  for (std::size_t bit = 0; bit < 8 * (whole.size() - 8); ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    std::ofstream(scratch.path, std::ios::binary) << flipped;
    try {
      const auto array = sotto::read_npy<float>(scratch.path);
      CHECK(array.values == values);
    } catch (Error const&) {
    }
  }
}
