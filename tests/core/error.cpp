#include <doctest/doctest.h>

#include <cstdint>
#include <string>

#include <sotto/core/error.hpp>

using namespace sotto;

TEST_CASE("a sentence is joined from texts and numbers of every kind") {
  const std::string text = "frames";
  CHECK(joined({"a ", text, " of ", std::string_view("rows"), ": ", 3, ", ", -4, ", ", std::uint64_t{1} << 63, ", ",
                std::int64_t{-1} << 62, ", ", 2.5, ", ", 1e-9, ", '", 'x', "'"}) ==
        "a frames of rows: 3, -4, 9223372036854775808, -4611686018427387904, 2.5, 1e-09, 'x'");
  CHECK(joined({}).empty());
}

TEST_CASE("an error begins with the file it is about, and knows it") {
  try {
    throw_error(ErrorCode::file, {"it has ", 3, " bytes"}, "/tmp/a.wav");
  } catch (Error const& error) {
    CHECK(std::string(error.what()) == "/tmp/a.wav: it has 3 bytes");
    CHECK(error.path() == "/tmp/a.wav");
    CHECK(error.code() == ErrorCode::file);
  }
  CHECK_THROWS_WITH_AS(throw_error(ErrorCode::usage, {"no"}), "no", Error);
}
