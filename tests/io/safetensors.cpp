#include <sotto/io/safetensors.hpp>

#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include <doctest/doctest.h>

namespace {

namespace fs = std::filesystem;
using sotto::Error;
using sotto::Safetensors;
using sotto::SafetensorsWriter;

struct Directory {
  fs::path path = fs::temp_directory_path() / ("sotto_safetensors_" + std::to_string(::getpid()));
  Directory() { fs::create_directories(path); }
  ~Directory() { fs::remove_all(path); }
  fs::path operator/(char const* name) const { return path / name; }
};

std::string contents(fs::path const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
fs::path put(fs::path const& path, std::string const& text) {
  std::ofstream(path, std::ios::binary) << text;
  return path;
}
std::string framed(std::string const& header, std::string const& body = {}) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<char const*>(&length), 8) + header + body;
}
/// The sentence that open() complains with; empty if it does not.
std::string complaint(fs::path const& path) {
  try {
    Safetensors::open(path);
    return {};
  } catch (Error const& error) {
    CHECK(error.code() == sotto::ErrorCode::file);
    CHECK(error.path() == path);
    return error.what();
  }
}
bool mentions(std::string const& text, char const* word) { return text.find(word) != text.npos; }

}  // namespace

TEST_CASE("what is written is read back: names, shapes, types, values and metadata") {
  const Directory directory;
  const std::vector<float> weights{1.5f, -2, 3e-30f, 4, 5, 6};
  const std::vector<double> moments{1. / 3};
  const std::vector<std::int64_t> steps{-7, std::int64_t{1} << 62};
  const std::vector<std::uint16_t> labels{0, 65535, 3};
  SafetensorsWriter writer;
  writer.add("labels", {3}, std::span(labels));
  writer.add("encoder.weight \"q\"\n\x01 ü", {2, 3}, std::span(weights));
  writer.add("moments", {}, std::span(moments));
  writer.add("steps", {2, 1}, std::span(steps));
  writer.add("nothing", {0, 4}, std::span<float const>());
  writer.set_metadata("spec", "{\"width\": 192}\t\\");
  writer.write(directory / "a.safetensors");

  const auto file = Safetensors::open(directory / "a.safetensors");
  CHECK(file.tensors().size() == 5);
  CHECK(*file.metadata().find("spec") == "{\"width\": 192}\t\\");
  CHECK(file.floats("encoder.weight \"q\"\n\x01 ü") == weights);
  CHECK(file.at("encoder.weight \"q\"\n\x01 ü").shape == std::vector<std::int64_t>{2, 3});
  CHECK(file.doubles("moments") == moments);
  CHECK(file.ints("steps") == steps);
  CHECK(file.ints("labels") == std::vector<std::int64_t>{0, 65535, 3});
  CHECK(file.floats("labels") == std::vector<float>{0, 65535, 3});
  CHECK(file.floats("nothing").empty());
  CHECK(file.contains("steps"));
  CHECK_FALSE(file.contains("step"));

  auto first = Safetensors::open(directory / "a.safetensors");
  const Safetensors moved(std::move(first));
  CHECK(moved.at("labels").bytes.size() == 6);
  CHECK(moved.floats("labels").size() == 3);
}

TEST_CASE("wide arrays come first and all lie aligned, whatever the order they were added in") {
  const Directory directory;
  const std::vector<std::uint16_t> labels(3);
  const std::vector<float> values(5);
  const std::vector<double> moments(1);
  SafetensorsWriter writer;
  writer.add("a", {3}, std::span(labels));
  writer.add("b", {5}, std::span(values));
  writer.add("c", {1}, std::span(moments));
  writer.write(directory / "a");
  const std::string bytes = contents(directory / "a");
  std::uint64_t length;
  std::memcpy(&length, bytes.data(), 8);
  CHECK(length % 8 == 0);
  const auto file = Safetensors::open(directory / "a");
  CHECK(file.tensors()[0].name == "c");
  CHECK(file.tensors()[1].name == "b");
  CHECK(file.tensors()[2].name == "a");
}

TEST_CASE("half and bfloat16 arrays are read as floats") {
  const Directory directory;
  const std::vector<std::uint16_t> halves{0x3C00, 0xC000, 0x0001, 0x8000, 0x7BFF, 0x7C00};
  const std::vector<std::uint16_t> brains{0x3F80, 0xC000};
  SafetensorsWriter writer;
  writer.add("h", "F16", {6}, std::as_bytes(std::span(halves)));
  writer.add("b", "BF16", {2}, std::as_bytes(std::span(brains)));
  writer.write(directory / "a");
  const auto file = Safetensors::open(directory / "a");
  CHECK(file.floats("h") == std::vector<float>{1, -2, 0x1p-24f, -0.f, 65504, std::numeric_limits<float>::infinity()});
  CHECK(file.floats("b") == std::vector<float>{1, -2});
}

TEST_CASE("asking for what is not there names it and the file") {
  const Directory directory;
  const std::vector<float> values{1.5f};
  SafetensorsWriter writer;
  writer.add("present", {1}, std::span(values));
  writer.write(directory / "a");
  const auto file = Safetensors::open(directory / "a");
  CHECK_THROWS_WITH_AS(file.at("absent"), ((directory / "a").string() + ": it holds no tensor \"absent\".").c_str(),
                       Error);
  CHECK_THROWS_AS(file.ints("present"), Error);
  CHECK(mentions(complaint(directory / "b"), "no such file"));
  CHECK(mentions(complaint(directory.path), "cannot be read"));
}

TEST_CASE("every rule of the format that a file breaks is named in a sentence") {
  const Directory directory;
  const auto says = [&](std::string const& text, char const* word) {
    const std::string sentence = complaint(put(directory / "bad", text));
    CAPTURE(sentence);
    CHECK(mentions(sentence, word));
  };
  const std::string eight(8, 'x');
  says("short", "cut short");
  says(std::string(8, '\xff'), "claims");
  says(std::string("\x40\0\0\0\0\0\0\0{}", 10), "cut short");
  says(framed(""), "JSON");
  says(framed("[]"), "JSON");
  says(framed("{} x"), "after the closing brace");
  says(framed("{}", "junk"), "belong to no tensor");
  says(framed(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})", eight), "JSON");
  says(framed(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],}})", eight), "JSON");
  says(framed(R"({"a":{"dtype":"F32","shape":[02],"data_offsets":[0,8]}})", eight), "whole number");
  says(framed(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", eight), "whole number");
  says(framed(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", eight), "JSON");
  says(framed(R"({"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}})", eight), "63 bits");
  says(framed(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})", eight), "agree");
  says(framed(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", eight), "agree");
  says(framed(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", eight), "ends before");
  says(framed(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}})", eight), "two data offsets");
  says(framed(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})", eight), "only 8 bytes");
  says(framed(R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", eight), "unknown type");
  says(framed(R"({"a":{"dtype":"F32","shape":[2]}})", eight), "lacks");
  says(framed(R"({"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})", eight), "repeated");
  says(framed(R"({"a":{"dtype":"F32","shape":[2],"extra":[2],"data_offsets":[0,8]}})", eight), "unknown");
  says(framed(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", eight), "hole");
  says(
      framed(
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
          "four"),
      "overlaps");
  says(
      framed(
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
          eight),
      "twice");
  says(framed(R"({"__metadata__":{"k":"v","k":"v"}})"), "twice");
  says(framed(R"({"__metadata__":{"k":1}})"), "JSON");
  says(framed(R"({"__metadata__":{},"__metadata__":{}})"), "twice");
  says(framed("{\"__metadata__\":{\"k\":\"\xC3\"}}"), "UTF-8");
  says(framed(R"({"__metadata__":{"k":"\ud800"}})"), "surrogate");
  says(framed(R"({"__metadata__":{"k":"\q"}})"), "escape");
  CHECK(complaint(put(directory / "good", framed(R"( {"__metadata__":{"k":"\ud83d\ude00\u00e9"}}  )"))).empty());
  const auto good = Safetensors::open(directory / "good");
  CHECK(*good.metadata().find("k") == "\xF0\x9F\x98\x80\xC3\xA9");
}

TEST_CASE("no truncation and no flipped bit of a file crashes the reader or is half understood") {
  const Directory directory;
  const std::vector<float> values{1, 2, 3};
  const std::vector<std::uint16_t> labels{1, 2, 3, 4};
  SafetensorsWriter writer;
  writer.add("values", {3}, std::span(values));
  writer.add("labels", {2, 2}, std::span(labels));
  writer.set_metadata("k", "v");
  writer.write(directory / "a");
  const std::string whole = contents(directory / "a");
  for (std::size_t length = 0; length < whole.size(); ++length)
    CHECK_FALSE(complaint(put(directory / "b", whole.substr(0, length))).empty());
  CHECK_FALSE(complaint(put(directory / "b", whole + '\0')).empty());
  const std::size_t header = whole.size() - 20;
  for (std::size_t bit = 0; bit < 8 * header; ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    try {
      const auto file = Safetensors::open(put(directory / "b", flipped));
      for (auto const& tensor : file.tensors()) CHECK(tensor.bytes.size() <= 20);
    } catch (Error const&) {
    }
  }
}

TEST_CASE("a writer refuses what no reader would accept") {
  const std::vector<float> values{1, 2, 3};
  SafetensorsWriter writer;
  writer.add("a", {3}, std::span(values));
  CHECK_THROWS_AS(writer.add("a", {3}, std::span(values)), Error);
  CHECK_THROWS_AS(writer.add("b", {2}, std::span(values)), Error);
  CHECK_THROWS_AS(writer.add("b", {-3}, std::span(values)), Error);
  CHECK_THROWS_AS(writer.add("b", "F33", {3}, std::as_bytes(std::span(values))), Error);
  CHECK_THROWS_AS(writer.add("__metadata__", {3}, std::span(values)), Error);
  CHECK_THROWS_AS(writer.add("\xff", {3}, std::span(values)), Error);
  CHECK_THROWS_AS(writer.set_metadata("k", "\xff"), Error);
}

TEST_CASE("a write that fails leaves the old file and no temporary") {
  const Directory directory;
  const std::vector<float> small{1}, big(1 << 16);
  SafetensorsWriter good, bad;
  good.add("a", {1}, std::span(small));
  bad.add("a", {1 << 16}, std::span(big));
  good.write(directory / "a");
  const std::string before = contents(directory / "a");

  rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{4096, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &limit);
  CHECK_THROWS_AS(bad.write(directory / "a"), Error);
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);

  CHECK(contents(directory / "a") == before);
  CHECK(std::distance(fs::directory_iterator(directory.path), {}) == 1);
  bad.write(directory / "a");
  CHECK(Safetensors::open(directory / "a").floats("a") == big);
  CHECK(std::distance(fs::directory_iterator(directory.path), {}) == 1);
  CHECK_THROWS_WITH_AS(good.write(directory / "no" / "such"), doctest::Contains("its directory does not exist"), Error);
}

TEST_CASE("a link planted at the temporary's name is not followed") {
  const Directory directory;
  const fs::path planted = directory / ("x.tmp" + std::to_string(::getpid()) + ".0").c_str();
  fs::create_symlink("/dev/full", planted);
  const std::vector<float> values{1};
  SafetensorsWriter writer;
  writer.add("a", {1}, std::span(values));
  writer.write(directory / "x");
  CHECK(Safetensors::open(directory / "x").contains("a"));
  CHECK(fs::is_symlink(planted));
}
