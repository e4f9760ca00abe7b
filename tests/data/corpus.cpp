#include <sotto/data/corpus.hpp>

#include <cstdlib>
#include <map>
#include <mutex>
#include <sotto/core/philox.hpp>
#include <thread>

#include "temporary.hpp"

using sotto::Corpus;
using sotto::Error;
using sotto::ErrorCode;

static_assert(sotto::DataSource<Corpus>);

namespace {

constexpr int wav16 = SF_FORMAT_WAV | SF_FORMAT_PCM_16;

std::vector<float> whole(Corpus const& corpus, std::size_t i) {
  std::vector<float> x(static_cast<std::size_t>(corpus.samples(i)));
  corpus.read(i, 0, x);
  return x;
}
template <class F> ErrorCode code_of(F&& f) {
  try {
    f();
  } catch (Error const& error) {
    return error.code();
  }
  return ErrorCode::internal;
}

// Two lossy files of several utterances each, a stereo file at another rate, and FLAC: what a cache
// must get right.
void fill(TemporaryFolder const& folder) {
  std::string manifest = "path\tsamples\tstart\tspeaker\tsplit\tlabel\n";
  for (int f = 0; f < 2; ++f) {
    std::vector<float> speech;
    for (int u = 0; u < 6; ++u) {
      auto const count = static_cast<std::size_t>(9000 + 700 * u + 1111 * f);
      manifest += "joined" + std::to_string(f) + ".opus\t" + std::to_string(count) + "\t" +
                  std::to_string(speech.size()) + "\ts" + std::to_string(f) + "\ttrain\tw" + std::to_string(u) + "\n";
      auto const tone = sine(200 + 90 * u, 16000, count);
      speech.insert(speech.end(), tone.begin(), tone.end());
      speech.resize(speech.size() + 800);
    }
    folder.audio("joined" + std::to_string(f) + ".opus", SF_FORMAT_OGG | SF_FORMAT_OPUS, 16000, 1, speech);
  }
  folder.audio("stereo.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_24, 8000, 2, sine(300, 8000, 16000));
  manifest += "stereo.wav\t8000\t0\tb\tval\t\nstereo.wav\t7999\t8001\tb\tval\t\n";
  folder.audio("c.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 16000, 1, sine(400, 16000, 12345));
  manifest += "c.flac\t12345\t0\tc\ttest\t\n";
  folder.text("manifest.tsv", manifest);
}

}  // namespace

TEST_CASE("a folder is scanned deeply, in the order of paths, with folders as speakers") {
  TemporaryFolder folder;
  folder.audio("bob/b.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 16000, 1, sine(300, 16000, 5000));
  folder.audio("bob/day 1/a.WAV", wav16, 8000, 2, sine(300, 8000, 8000));
  folder.audio("top.ogg", SF_FORMAT_OGG | SF_FORMAT_VORBIS, 44100, 1, sine(300, 44100, 44100));
  folder.audio("ann/z.wav", wav16, 16000, 1, sine(300, 16000, 3000));
  folder.text("ann/notes.txt", "not audio");
  folder.text("ann/._z.wav", "a Macintosh's shadow");
  std::filesystem::create_directory_symlink(folder.path(), folder.path() / "bob/up");
  auto const corpus = Corpus::scan(folder.path());
  REQUIRE(corpus.size() == 4);
  CHECK(corpus.name(0) == "ann/z.wav");
  CHECK(corpus.name(1) == "bob/b.flac");
  CHECK(corpus.name(2) == "bob/day 1/a.WAV");
  CHECK(corpus.name(3) == "top.ogg");
  CHECK(corpus.speaker(0) == "ann");
  CHECK(corpus.speaker(2) == "day 1");
  CHECK(corpus.speaker(3) == "");
  CHECK(corpus.samples(0) == 3000);
  CHECK(corpus.samples(2) == 8000);  // 4000 frames of two channels, at 16 kHz
  CHECK(corpus.samples(3) == 16000);
  CHECK(corpus.total_samples() == 32000);
  CHECK(corpus.skipped().empty());
  CHECK(whole(corpus, 3).size() == 16000);
}

TEST_CASE("a scan skips what it cannot use and says why") {
  TemporaryFolder folder;
  folder.audio("good.wav", wav16, 16000, 1, sine(300, 16000, 400));
  folder.audio("short.wav", wav16, 16000, 1, sine(300, 16000, 399));
  auto const cut = folder.audio("cut.wav", wav16, 16000, 1, sine(300, 16000, 4000));
  std::filesystem::resize_file(cut, 1000);
  folder.text("empty.flac", "");
  folder.text("text.wav", "I am a text.");
  folder.audio("void.wav", wav16, 16000, 1, {});
  auto const corpus = Corpus::scan(folder.path());
  REQUIRE(corpus.size() == 1);
  CHECK(corpus.name(0) == "good.wav");
  std::map<std::string, std::string> reasons;
  for (auto const& [path, reason] : corpus.skipped()) reasons[path.filename().string()] = reason;
  CHECK(reasons.size() == 5);
  CHECK(mentions(reasons["short.wav"], "has 399 samples"));
  CHECK(mentions(reasons["cut.wav"], "truncated"));
  CHECK(reasons["empty.flac"] == "the file is empty (0 bytes)");
  CHECK(mentions(reasons["text.wav"], "no audio file"));
  CHECK(mentions(reasons["void.wav"], "holds no samples"));
}

TEST_CASE("nothing to train on is an error that names the folder and the first reason") {
  TemporaryFolder folder;
  auto const scan = [&] { Corpus::open(folder.path()); };
  CHECK(mentions(message_of<Error>(scan), "no audio file"));
  CHECK(code_of(scan) == ErrorCode::data);
  folder.audio("blip.wav", wav16, 16000, 1, sine(300, 16000, 300));
  CHECK(mentions(message_of<Error>(scan), "blip.wav' has 300 samples"));
  CHECK(message_of<Error>(scan).starts_with(folder.path().string()));
  CHECK(code_of([&] { Corpus::open(folder.path() / "none"); }) == ErrorCode::file);
  CHECK(code_of([&] { Corpus::open(folder.path() / "blip.wav"); }) == ErrorCode::usage);
}

TEST_CASE("a manifest's bad audio is an error that names line and file") {
  TemporaryFolder folder;
  folder.audio("a.wav", wav16, 16000, 1, sine(300, 16000, 16000));
  folder.text("t.wav", "I am a text.");
  auto const refusal = [&](std::string const& rows) {
    auto const path = folder.text("manifest.tsv", rows);
    return message_of<Error>([&] { Corpus::open(folder.path()); });
  };
  auto const header = std::string("path\tsamples\tstart\n");
  auto message = refusal(header + "a.wav\t16000\t\nb.wav\t16000\t\n");
  CHECK_MESSAGE(mentions(message, "line 3: "), message);
  CHECK_MESSAGE(mentions(message, "b.wav: there is no such file"), message);
  CHECK(mentions(refusal(header + "t.wav\t16000\t\n"), "t.wav: this is no audio file"));
  CHECK(mentions(refusal(header + "a.wav\t16001\t0\n"), "16001 samples from 0 on, the file ends at 16000"));
  CHECK(mentions(refusal(header + "a.wav\t9000\t7001\n"), "9000 samples from 7001 on, the file ends at 16000"));
  CHECK(mentions(refusal(header + "a.wav\t9000\t9223372036854775807\n"), "the file ends at 16000"));
  CHECK(mentions(refusal(header + "a.wav\t300\t0\n"), "300 samples"));
  CHECK(mentions(refusal(".\na.wav\t15999\n"), "says 15999 samples, the file has 16000"));
  CHECK(refusal(".\na.wav\t16000\n").empty());
}

TEST_CASE("a fairseq manifest counts the file's own frames, the corpus 16 kHz samples") {
  TemporaryFolder folder;
  folder.audio("a.wav", wav16, 8000, 1, sine(300, 8000, 8001));
  auto const corpus = Corpus::read(folder.text("train.tsv", folder.path().string() + "\na.wav\t8001\n"));
  CHECK(corpus.samples(0) == 16002);
  CHECK(whole(corpus, 0).size() == 16002);
}

TEST_CASE("a 16-bit file comes back exactly, and a stereo 8 kHz one as its mean at 16 kHz") {
  TemporaryFolder folder;
  auto const tone = sine(300, 16000, 16000);
  folder.audio("a.wav", wav16, 16000, 1, tone);
  auto const slow = sine(300, 8000, 8000);
  std::vector<float> both;
  for (float x : slow) both.insert(both.end(), {x, x / 2});
  folder.audio("b.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_24, 8000, 2, both);
  auto const corpus = Corpus::scan(folder.path());
  std::vector<float> exact(16000);
  sotto::AudioFile(folder.path() / "a.wav").read(0, exact);
  CHECK(whole(corpus, 0) == exact);
  auto const x = whole(corpus, 1);
  REQUIRE(x.size() == 16000);
  for (std::size_t k = 400; k < 15600; ++k) REQUIRE(std::abs(x[k] - .75f * tone[k]) < 2e-4f);
}

TEST_CASE("reading outside an utterance is refused") {
  TemporaryFolder folder;
  folder.audio("a.wav", wav16, 16000, 1, sine(300, 16000, 1000));
  auto const corpus = Corpus::scan(folder.path());
  std::vector<float> x(500);
  CHECK_NOTHROW(corpus.read(0, 500, x));
  CHECK_THROWS_AS(corpus.read(0, 501, x), Error);
  CHECK_THROWS_AS(corpus.read(0, -1, x), Error);
}

TEST_CASE("samples do not depend on the memory limit, on preloading or on the order of reads") {
  TemporaryFolder folder;
  fill(folder);
  sotto::ThreadPool pool(2);
  auto const all = Corpus::open(folder.path());
  std::int64_t seen = 0, total = 0;
  all.preload(pool, [&](std::int64_t done, std::int64_t of) {
    seen = done;
    total = of;
  });
  CHECK(seen == all.total_samples());
  CHECK(total == all.total_samples());
  CHECK(all.cached_bytes() == static_cast<std::size_t>(2 * all.total_samples()));
  for (std::size_t memory : {std::size_t{0}, std::size_t{30000}, std::size_t{100000}}) {
    auto const little = Corpus::open(folder.path(), {.memory = memory});
    little.preload(pool);
    CHECK(little.cached_bytes() <= memory);
    for (int round = 0; round < 2; ++round)
      for (std::size_t i = little.size(); i-- > 0;) {
        REQUIRE(whole(little, i) == whole(all, i));
        REQUIRE(little.cached_bytes() <= memory);
      }
  }
  auto const lazy = Corpus::open(folder.path());
  for (std::size_t k = 0; k < lazy.size(); ++k)
    REQUIRE(whole(lazy, k * 7 % lazy.size()) == whole(all, k * 7 % lazy.size()));
}

TEST_CASE("an utterance's part of a lossy file is where the manifest says") {
  TemporaryFolder folder;
  fill(folder);
  auto const corpus = Corpus::open(folder.path());
  for (std::size_t u = 0; u < 6; ++u) {
    auto const x = whole(corpus, u);
    auto const tone = sine(200 + 90 * static_cast<double>(u), 16000, x.size());
    double same = 0, a = 0, b = 0;
    for (std::size_t k = 0; k < x.size(); ++k) {
      same += x[k] * tone[k];
      a += x[k] * x[k];
      b += tone[k] * tone[k];
    }
    CHECK(same / std::sqrt(a * b) > .97);
  }
}

TEST_CASE("many threads read the same as one, while utterances are evicted") {
  TemporaryFolder folder;
  fill(folder);
  auto const all = Corpus::open(folder.path());
  std::vector<std::vector<float>> expected;
  for (std::size_t i = 0; i < all.size(); ++i) expected.push_back(whole(all, i));
  auto const little = Corpus::open(folder.path(), {.memory = 60000});
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 6; ++t)
    threads.emplace_back([&, t] {
      sotto::Random random(1, sotto::Purpose::user, t);
      std::vector<float> part;
      for (int n = 0; n < 150; ++n) {
        std::size_t const i = random.below(static_cast<std::uint32_t>(little.size()));
        auto const first = random.below(static_cast<std::uint32_t>(little.samples(i)));
        part.resize(random.below(static_cast<std::uint32_t>(little.samples(i)) - first) + 1);
        little.read(i, first, part);
        if (!std::equal(part.begin(), part.end(), expected[i].begin() + first)) ++wrong;
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(little.cached_bytes() <= 60000);
}

TEST_CASE("a file that turns out damaged while preloading is an error that names it") {
  TemporaryFolder folder;
  auto bad = sine(300, 16000, 16000);
  folder.audio("a.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, 16000, 1, bad);
  bad[123] = std::nanf("");
  folder.audio("b.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, 16000, 1, bad);
  auto const corpus = Corpus::scan(folder.path());
  sotto::ThreadPool pool(2);
  auto const message = message_of<Error>([&] { corpus.preload(pool); });
  CHECK_MESSAGE(mentions(message, "b.wav: sample 123 (0.008 s) is not a number"), message);
  CHECK_THROWS_AS(whole(corpus, 1), Error);
}

TEST_CASE("preloading stops when its progress throws") {
  TemporaryFolder folder;
  fill(folder);
  auto const corpus = Corpus::open(folder.path());
  sotto::ThreadPool pool(1);
  struct Stop {};
  CHECK_THROWS_AS(corpus.preload(pool, [](std::int64_t, std::int64_t) { throw Stop{}; }), Stop);
}

TEST_CASE("a fingerprint survives moving the folder and notices a changed corpus") {
  TemporaryFolder one, two;
  for (auto* folder : {&one, &two}) {
    folder->audio("ann/a.wav", wav16, 16000, 1, sine(300, 16000, 1000));
    folder->audio("bob/b.wav", wav16, 16000, 1, sine(300, 16000, 2000));
  }
  auto const before = Corpus::scan(one.path()).fingerprint();
  CHECK(Corpus::scan(two.path()).fingerprint() == before);
  two.audio("bob/b.wav", wav16, 16000, 1, sine(300, 16000, 2001));
  CHECK(Corpus::scan(two.path()).fingerprint() != before);
  std::filesystem::rename(one.path() / "bob/b.wav", one.path() / "bob/c.wav");
  CHECK(Corpus::scan(one.path()).fingerprint() != before);
}

TEST_CASE(
    "the shared speech opens whole, and its utterances decode to the lengths that its manifest "
    "says") {
  char const* const shared = std::getenv("SOTTO_SHARED");
  if (shared == nullptr) {
    MESSAGE("SKIPPED: SOTTO_SHARED is not set");
    return;
  }
  auto const corpus = Corpus::open(std::filesystem::path(shared) / "data");
  REQUIRE(corpus.size() == 9200);
  CHECK(corpus.skipped().empty());
  auto const written = sotto::read_manifest(std::filesystem::path(shared) / "data/manifest.tsv");
  for (std::size_t i = 0; i < corpus.size(); ++i) REQUIRE(corpus.samples(i) == written[i].samples);
  // Decoding is slow: one file a source.
  std::map<std::filesystem::path, std::filesystem::path> first;
  for (std::size_t i = 0; i < corpus.size(); ++i) {
    auto const& path = corpus.utterance(i).path;
    if (first.try_emplace(path.parent_path(), path).first->second != path) continue;
    double power = 0;
    for (float x : whole(corpus, i)) power += x * x;
    REQUIRE(power / static_cast<double>(corpus.samples(i)) > 1e-7);
  }
  CHECK(first.size() == 4);
}
