#include <cstdlib>
#include <sotto/data/manifest.hpp>

#include "temporary.hpp"

using sotto::read_manifest;

namespace {
std::string refusal(std::filesystem::path const& path) {
  return message_of<sotto::Error>([&] { read_manifest(path); });
}
}  // namespace

TEST_CASE("columns are found by name, in any order, and unknown ones are ignored") {
  TemporaryFolder folder;
  auto const path = folder.text("m.tsv",
                                "mood\tsamples\tspeaker\tpath\tstart\tlabel\n"
                                "glad\t16000\tann\ta b/x.wav\t320\tyes\n"
                                "\t500\t\ty.wav\t\t\n");
  auto const u = read_manifest(path);
  REQUIRE(u.size() == 2);
  CHECK(u[0].path == folder.path() / "a b/x.wav");
  CHECK(u[0].samples == 16000);
  CHECK(u[0].start == 320);
  CHECK(u[0].speaker == "ann");
  CHECK(u[0].label == "yes");
  CHECK(u[0].id == "a b/x.wav");
  CHECK(u[0].line == 2);
  CHECK(u[1].start == 0);
  CHECK(u[1].speaker == "");
}

TEST_CASE("lines may end in CR LF, the last may not end, and a byte order mark is no column name") {
  TemporaryFolder folder;
  auto const u = read_manifest(folder.text("m.tsv", "\xEF\xBB\xBFpath\tsamples\r\nx.wav\t16000\r\n\r\ny.wav\t99"));
  REQUIRE(u.size() == 2);
  CHECK(u[0].samples == 16000);
  CHECK(u[1].samples == 99);
}

TEST_CASE("a fairseq manifest's paths are relative to its root") {
  TemporaryFolder folder;
  auto const absolute = read_manifest(folder.text("a.tsv", "/corpora/train\n1/x.flac\t225360\n2/y.flac\t1\n"));
  REQUIRE(absolute.size() == 2);
  CHECK(absolute[0].path == "/corpora/train/1/x.flac");
  CHECK(absolute[0].samples == 225360);
  CHECK(absolute[0].whole);
  auto const relative = read_manifest(folder.text("b.tsv", "train\r\nx.flac\t5\r\n"));
  CHECK(relative[0].path == folder.path() / "train/x.flac");
}

TEST_CASE("what is wrong with a manifest is said with its file and line") {
  TemporaryFolder folder;
  struct {
    char const* content;
    char const* complaint;
  } const cases[] = {
      {"", "empty"},
      {"path\tsamples\n", "names no utterance"},
      {"path\tspeaker\nx.wav\tann\n", "line 1: no column is named samples"},
      {"file\tsamples\nx.wav\t5\n", "line 1: no column is named path"},
      {"path\n x.wav\n", "line 1: no column is named samples"},
      {"path\tsamples\tpath\nx\t1\ty\n", "line 1: two columns are named path"},
      {"path\tsamples\nx.wav\t16000\ny.wav\n", "line 3: found 1 fields where the header names 2"},
      {"path\tsamples\nx.wav\t16000\tann\n", "line 2: found 3 fields"},
      {"path\tsamples\nx.wav\tmany\n", "line 2: 'many' in column samples"},
      {"path\tsamples\nx.wav\t-5\n", "line 2: '-5'"},
      {"path\tsamples\nx.wav\t1.5\n", "line 2: '1.5'"},
      {"path\tsamples\nx.wav\t99999999999999999999\n", "line 2: '99999999999999999999'"},
      {"path\tsamples\nx.wav\t\n", "line 2: ''"},
      {"path\tsamples\n\t5\n", "line 2: the path is empty"},
      {"path\tsamples\tstart\nx.wav\t5\t1e3\n", "line 2: '1e3' in column start"},
      {"/root\nx.wav\n", "line 2: expected a path, a tab"},
      {"/root\nx.wav\t5s\n", "line 2: '5s'"},
  };
  for (auto const& c : cases) {
    auto const path = folder.text("m.tsv", c.content);
    auto const message = refusal(path);
    CHECK_MESSAGE(mentions(message, c.complaint), message);
    CHECK(message.starts_with(path.string()));
  }
  CHECK(mentions(refusal(folder.path() / "none.tsv"), "there is no such manifest"));
  CHECK(mentions(refusal(folder.path()), "this is a folder"));
  CHECK(mentions(refusal(folder.text("b.tsv", std::string_view("RIFF\0\0\tx", 8))), "binary file"));
}

TEST_CASE("the shared manifest is read whole") {
  char const* const shared = std::getenv("SOTTO_SHARED");
  if (shared == nullptr) {
    MESSAGE("SKIPPED: SOTTO_SHARED is not set");
    return;
  }
  auto const u = read_manifest(std::filesystem::path(shared) / "data/manifest.tsv");
  CHECK(u.size() == 9200);
  CHECK(u[1].id == "backward_00000001_NO_02");
  CHECK(u[1].start == 16800);
  CHECK(u[1].licence == "CC-BY-4.0");
}
