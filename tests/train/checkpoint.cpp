#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include <sotto/train/checkpoint.hpp>

using namespace sotto;

namespace {

struct Folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / "sotto-checkpoint-test";
  Folder() { std::filesystem::remove_all(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};
constexpr ParameterEntry table[] = {{{"layers.{}.weight", {2, 3}, {}, true, 4}, 0, 6}, {{"bias", {2}, {}}, 6, 2}};

Texts fields(char const* width) {
  Texts texts;
  texts.set("width", width);
  texts.set("depth", "2");
  return texts;
}
std::filesystem::path write(std::filesystem::path const& folder, std::vector<float> const& values) {
  Checkpoint::Writer writer;
  writer.texts("spec.", fields("96"));
  writer.parameters(table, values.data());
  writer.tensor("optimizer.first", std::span<float const>(values));
  const std::vector<double> doubles{1, 1e-300};
  writer.tensor("history", std::span<double const>(doubles));
  return writer.write(folder);
}

}  // namespace

TEST_CASE("a checkpoint gives back its texts and tensors, by the folder's name or the file's") {
  const Folder folder;
  std::vector<float> values(8), read(8);
  std::iota(values.begin(), values.end(), 1.f);
  const auto file = write(folder.path / "below", values);
  for (auto const& path : {file, folder.path / "below"}) {
    const Checkpoint checkpoint = Checkpoint::open(path);
    CHECK(checkpoint.path() == file);
    CHECK(checkpoint.text("spec.width") == "96");
    CHECK(checkpoint.section("spec.").size() == 2);
    checkpoint.read(table, read.data());
    CHECK(read == values);
    CHECK(checkpoint.floats("layers.4.weight").size() == 6);
    CHECK(checkpoint.doubles("history")[1] == 1e-300);
    CHECK(checkpoint.matches(fields("96")));
    CHECK_FALSE(checkpoint.matches(fields("128")));
    checkpoint.expect(fields("96"));
  }
}

TEST_CASE("another spec is told apart field by field") {
  const Folder folder;
  write(folder.path, std::vector<float>(8));
  const Checkpoint checkpoint = Checkpoint::open(folder.path);
  Texts wanted = fields("128");
  wanted.set("norm", "Pre");
  try {
    checkpoint.expect(wanted);
    FAIL("must not match");
  } catch (SpecMismatch const& mismatch) {
    REQUIRE(mismatch.fields().size() == 2);
    CHECK(std::string(mismatch.what()).find("width is 96 there and 128 here") != std::string::npos);
    CHECK(std::string(mismatch.what()).find("norm is unknown there and Pre here") != std::string::npos);
  }
}

TEST_CASE("what is no checkpoint, lacks something or has another size is refused") {
  const Folder folder;
  CHECK_THROWS_AS(Checkpoint::open(folder.path / "nowhere"), Error);
  write(folder.path, std::vector<float>(8));
  const Checkpoint checkpoint = Checkpoint::open(folder.path);
  std::vector<float> wrong(5);
  CHECK_THROWS_WITH_AS(checkpoint.read("bias", wrong), doctest::Contains("has 2 numbers where 5 belong"), Error);
  CHECK_THROWS_WITH_AS(checkpoint.read("gain", wrong), doctest::Contains("no tensor \"gain\""), Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(checkpoint.text("run.steps")), doctest::Contains("run.steps"), Error);
  SafetensorsWriter other;
  other.set_metadata("format", "pt");
  other.write(folder.path / "other.safetensors");
  CHECK_THROWS_WITH_AS(Checkpoint::open(folder.path / "other.safetensors"), doctest::Contains("not a checkpoint"),
                       Error);
  SafetensorsWriter newer;
  newer.set_metadata("format", "sotto 99");
  newer.write(folder.path / "newer.safetensors");
  CHECK_THROWS_WITH_AS(Checkpoint::open(folder.path / "newer.safetensors"), doctest::Contains("sotto 99"), Error);
}

TEST_CASE("a folder that cannot be made is an error with its name") {
  const Folder folder;
  std::ofstream(folder.path) << "a file";
  CHECK_THROWS_WITH_AS(write(folder.path / "below", std::vector<float>(8)), doctest::Contains("sotto-checkpoint-test"),
                       Error);
}
