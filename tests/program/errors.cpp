// What users do wrong, and the one sentence and exit code that each of it gives.
#include "program.hpp"

namespace {

/// One sentence on standard error, begun by the program's name.
void check_sentence(Finished const& run, std::string const& part) {
  CAPTURE(run.err);
  CHECK(run.err.starts_with("sotto: "));
  CHECK(run.err.find(part) != std::string::npos);
  CHECK(std::count(run.err.begin(), run.err.end(), '\n') == 1);
}

}  // namespace

TEST_CASE("a command line that cannot be read is a usage error") {
  for (std::vector<std::string> const& arguments :
       {std::vector<std::string>{},
        {"train"},
        {"pretrain", "--model", "tiny"},
        {"info", "--tiny"},
        {"probe", "--data", "x", "--features", "logmel", "--threads", "-1"}}) {
    const auto run = finish(arguments);
    CHECK(run.code == 2);
    check_sentence(run, "--help");
    CHECK(run.out.empty());
  }
}

TEST_CASE("help explains every command, its exit codes and an example") {
  const auto all = finish({"--help"});
  CHECK(all.code == 0);
  for (auto const* word : {"pretrain", "probe", "info", "demo", "Exit codes", "5 diverged"})
    CHECK(all.out.find(word) != std::string::npos);
  for (auto const* command : {"pretrain", "probe", "info", "demo"}) {
    const auto one = finish({command, "--help"});
    CHECK(one.code == 0);
    CHECK(one.out.find(std::string("sotto ") + command) != std::string::npos);
  }
  CHECK(finish({"--version"}).code == 0);
}

TEST_CASE("an unknown model is a usage error that lists the models") {
  const Workplace place;
  const auto run = finish({"pretrain", "--model", "huge", "--data", corpus().string(), "--budget", "1e13flop", "--out",
                           (place.path / "run").string()});
  CHECK(run.code == 2);
  check_sentence(run, "there is no model 'huge'; there are tiny, slim");
  CHECK_FALSE(fs::exists(place.path / "run"));
  CHECK(finish({"info", "huge"}).code == 2);
}

TEST_CASE(
    "a GPU that cannot be used is a device error before anything is read, and one that cannot be named a usage error") {
  const Workplace place;
  for (auto const* device : {"cuda", "cuda:0"}) {
    auto arguments = pretrain(place.path / "run", "1e13flop");
    arguments.insert(arguments.end(), {"--device", device});
    const auto run = finish(arguments);
    if (run.code == 0) continue;  // there is one, and the program was built for it
    CHECK(run.code == 6);
    CHECK(run.err.find(run.err.find("without CUDA") != std::string::npos ? "-DSOTTO_CUDA=ON" : "install a driver") !=
          std::string::npos);
    CHECK_FALSE(fs::exists(place.path / "run"));
  }
  for (auto const* device : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", ""}) {
    auto arguments = pretrain(place.path / "run", "1e13flop");
    arguments.insert(arguments.end(), {"--device", device});
    const auto run = finish(arguments);
    CHECK(run.code == 2);
    check_sentence(run, "--device is cpu, cuda or cuda:N");
  }
  const auto sheet = finish({"info", "slim", "--device", "t4"});
  CHECK(sheet.code == 2);
  check_sentence(sheet, "h100, a100, rtx4090, l4");
}

TEST_CASE("a budget that cannot be read is a usage error that shows how") {
  const Workplace place;
  for (auto const* budget : {"much", "1e13", "10min", "-5updates", "1.5updates", "1e30flop"}) {
    const auto run = finish(pretrain(place.path / "run", budget));
    CHECK(run.code == 2);
    check_sentence(run, "write 1e13flop, 200updates, 2h-audio or 10min-wall");
  }
}

TEST_CASE("a budget that pays for no step says what a step costs") {
  const Workplace place;
  const auto run = finish(pretrain(place.path / "run", "1e6flop"));
  CHECK(run.code == 2);
  check_sentence(run, "cost");
}

TEST_CASE("data that are missing, empty or no audio are a data error that names them") {
  const Workplace place;
  const auto try_data = [&](fs::path const& data) {
    return finish({"pretrain", "--model", "tiny", "--data", data.string(), "--budget", "2updates", "--out",
                   (place.path / "run").string()});
  };
  auto run = try_data(place.path / "nowhere");
  CHECK(run.code == 4);
  check_sentence(run, "nowhere");

  fs::create_directories(place.path / "empty");
  run = try_data(place.path / "empty");
  CHECK(run.code == 4);
  check_sentence(run, "no audio file");

  fs::create_directories(place.path / "text");
  std::ofstream(place.path / "text" / "letter.wav") << "Dear all, this is no audio.\n";
  run = try_data(place.path / "text");
  CHECK(run.code == 4);
  check_sentence(run, "letter.wav");

  std::ofstream(place.path / "manifest.tsv") << "path\tsamples\nmissing.wav\t16000\n";
  run = try_data(place.path / "manifest.tsv");
  CHECK(run.code == 4);
  check_sentence(run, "missing.wav");

  fs::create_directories(place.path / "short");
  write_wav(place.path / "short" / "blip.wav", std::vector<float>(1600, .1f));
  run = try_data(place.path / "short");
  CHECK(run.code == 4);
  check_sentence(run, "");

  run = finish({"probe", "--data", (place.path / "nowhere.tsv").string(), "--features", "logmel"});
  CHECK(run.code == 4);
  check_sentence(run, "nowhere.tsv");
}

TEST_CASE("a place that cannot be written is a file error before anything is trained") {
  const Workplace place;
  std::ofstream(place.path / "file") << "no directory";
  const auto run = finish(pretrain(place.path / "file" / "run", "2updates"));
  CHECK(run.code == 4);
  check_sentence(run, "--out");
  if (geteuid() != 0) {
    fs::create_directories(place.path / "locked");
    fs::permissions(place.path / "locked", fs::perms::owner_read | fs::perms::owner_exec);
    const auto locked = finish(pretrain(place.path / "locked", "2updates"));
    CHECK(locked.code == 4);
    check_sentence(locked, "--out");
  }
}

TEST_CASE("output that nobody can receive is a file error, not silence") {
  if (fs::exists("/dev/full")) {
    CHECK(finish({"info"}, "/dev/full").code == 4);
    CHECK(finish({"--help"}, "/dev/full").code == 4);
    const Workplace place;
    const auto run = finish(pretrain(place.path / "run", "2updates", {"--json"}), "/dev/full");
    CHECK(run.code == 4);
    check_sentence(run, "standard output cannot be written");
  }
}

TEST_CASE("checkpoints are neither overwritten nor made up, and one of another model or run is refused") {
  const Workplace place;
  const fs::path out = place.path / "run";
  auto run = finish(pretrain(out, "3updates", {"--resume"}));
  CHECK(run.code == 2);
  check_sentence(run, "there is no checkpoint to go on from");

  REQUIRE(finish(pretrain(out, "3updates")).code == 0);
  const std::string before = contents(out / "checkpoint.safetensors");
  run = finish(pretrain(out, "3updates"));
  CHECK(run.code == 2);
  check_sentence(run, "go on with --resume");

  auto other = pretrain(out, "3updates", {"--resume"});
  other[2] = "ladder-30";
  run = finish(other);
  CHECK(run.code == 4);
  check_sentence(run, "feed_forward is 768 there and 320 here");

  run = finish(pretrain(out, "3updates", {"--resume", "--learning-rate", "0.5"}));
  CHECK(run.code == 4);
  check_sentence(run, "--learning-rate was");

  fs::create_directories(place.path / "damaged");
  std::ofstream(place.path / "damaged" / "checkpoint.safetensors") << before.substr(0, before.size() / 2);
  run = finish({"probe", "--data", corpus().string(), "--features", (place.path / "damaged").string()});
  CHECK(run.code == 4);
  check_sentence(run, "checkpoint.safetensors");
  CHECK(contents(out / "checkpoint.safetensors") == before);
}

TEST_CASE("a run that diverges says so, with a code of its own") {
  const Workplace place;
  const auto run = finish(
      pretrain(place.path / "run", "200updates", {"--learning-rate", "1e6", "--warmup", "0", "--clip", "0", "--json"}));
  CHECK(run.code == 5);
  check_sentence(run, "--learning-rate");
  const auto last = Json::parse(last_line(run.out));
  REQUIRE(last);
  CHECK(last->at("outcome") == "\"diverged\"");
}

TEST_CASE("numbers that cannot be are refused by the name of their option") {
  const Workplace place;
  for (auto const& [option, value] : {std::pair("--dropout", "nan"),
                                      {"--warmup", "-1"},
                                      {"--clip", "nan"},
                                      {"--weight-decay", "-1000"},
                                      {"--held-out-every", "1e-300"},
                                      {"--held-out-speakers", "nan"},
                                      {"--mask-length", "2147483647"},
                                      {"--mask-probability", "1e9"},
                                      {"--seed", "-1"},
                                      {"--seed", "18446744073709551616"},
                                      {"--learning-rate", "inf"}}) {
    const auto run = finish(pretrain(place.path / "run", "3updates", {option, value}));
    CHECK(run.code == 2);
    check_sentence(run, option);  // which captures what was said
  }
  CHECK_FALSE(fs::exists(place.path / "run" / "checkpoint.safetensors"));
}

TEST_CASE("a command that does not exist is named") {
  check_sentence(finish({"train"}), "there is no command 'train'");
}

TEST_CASE("with --json the last line has an outcome, whatever happened") {
  const Workplace place;
  const auto run = finish(pretrain(place.path / "run", "1000flop", {"--json"}));
  CHECK(run.code == 2);
  const auto last = Json::parse(last_line(run.out));
  REQUIRE(last);
  CHECK(last->at("outcome") == "\"failed\"");
  CHECK(last->at("step") == "null");
}

TEST_CASE("a directory belongs to one run at a time, and a refused second one takes nothing from the first") {
  const Workplace place;
  Running first(pretrain(place.path / "run", "2000updates"));
  REQUIRE(first.says("step"));
  const auto second = finish(pretrain(place.path / "run", "3updates"));
  CHECK(second.code == 4);
  check_sentence(second, "another run is writing into this directory");
}

TEST_CASE("where nobody can be held out, no held-out loss is printed") {
  const Workplace place;
  const sotto::SyntheticSpeech speech({.speakers = 1, .utterances = 1});
  std::vector<float> samples;
  for (std::size_t i = 0; samples.size() < 100000; ++i) {
    std::vector<float> part(static_cast<std::size_t>(speech.samples(0)));
    speech.read(0, 0, part);
    samples.insert(samples.end(), part.begin(), part.end());
  }
  fs::create_directories(place.path / "one");
  write_wav(place.path / "one" / "a.wav", samples);
  for (const bool json : {true, false}) {
    auto arguments = pretrain(place.path / (json ? "a" : "b"), "3updates", {"--batch-rows", "800"});
    *std::find(arguments.begin(), arguments.end(), corpus().string()) = (place.path / "one").string();
    if (json) arguments.push_back("--json");
    const auto run = finish(arguments);
    CAPTURE(run.err);
    REQUIRE(run.code == 0);
    if (json)
      CHECK(Json::parse(last_line(run.out))->at("heldout_loss") == "null");
    else
      CHECK(run.out.find("held out nothing") != std::string::npos);
  }
}
