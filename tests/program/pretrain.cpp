// What the commands print when all is well.
#include "program.hpp"

TEST_CASE("pretrain --json prints an object a line, and the last has the outcome") {
  const Workplace place;
  const auto run = finish(pretrain(place.path / "run", "6updates", {"--json"}));
  CHECK(run.code == 0);
  CHECK(run.err.empty());
  std::string rest = run.out;
  int lines = 0;
  for (auto end = rest.find('\n'); end != std::string::npos; end = rest.find('\n')) {
    CHECK(Json::parse(rest.substr(0, end)));
    rest.erase(0, end + 1);
    ++lines;
  }
  CHECK(rest.empty());
  CHECK(lines == 8);  // the start, six steps of more than 2 % each, the end
  const auto last = Json::parse(last_line(run.out));
  REQUIRE(last);
  CHECK(last->at("outcome") == "\"budget_spent\"");
  CHECK(last->at("step") == "6");
  for (auto const* name : {"flops", "loss", "heldout_loss", "masked_accuracy"}) {
    REQUIRE(last->count(name) == 1);
    CHECK(std::strtod(last->at(name).c_str(), nullptr) >= 0);
    CHECK(last->at(name) != "null");
  }
  CHECK(last->at("checkpoint") == "\"" + (place.path / "run" / "checkpoint.safetensors").string() + "\"");
  CHECK(fs::exists(place.path / "run" / "checkpoint.safetensors"));
  CHECK(contents(place.path / "run" / "report.html").find("</html>") != std::string::npos);

  SUBCASE("a finished run that is resumed has nothing to do and keeps its numbers") {
    const std::string before = tensors(place.path / "run");
    const auto again = finish(pretrain(place.path / "run", "6updates", {"--json", "--resume"}));
    CHECK(again.code == 0);
    const auto same = Json::parse(last_line(again.out));
    REQUIRE(same);
    CHECK(same->at("step") == "6");
    CHECK(same->at("flops") == last->at("flops"));
  }
  SUBCASE("its features can be probed") {
    const auto probe = finish({"probe", "--task", "words", "--data", (corpus() / "manifest.tsv").string(), "--features",
                               (place.path / "run").string(), "--json"});
    CAPTURE(probe.err);
    CHECK(probe.code == 0);
    const auto found = Json::parse(last_line(probe.out));
    REQUIRE(found);
    const auto number = [&](char const* name) { return std::strtod(found->at(name).c_str(), nullptr); };
    CHECK(number("accuracy") >= number("low"));
    CHECK(number("accuracy") <= number("high"));
    CHECK(number("layer") >= 0);
    CHECK(number("layer") <= 4);
    CHECK(number("classes") == 5);
  }
}

TEST_CASE("a precision is chosen and said, or obeyed, and a run goes on in the one that it began with") {
  const Workplace place;
  const auto precision_of = [](Finished const& run) {
    const auto start = Json::parse(run.out.substr(0, run.out.find('\n')));
    REQUIRE(start);
    return start->at("precision");
  };
  const auto chosen = finish(pretrain(place.path / "chosen", "2updates"));
  CHECK(chosen.code == 0);
  CHECK((chosen.out.find("numbers  fp32: a core multiplies at") != std::string::npos ||
         chosen.out.find("numbers  bf16: a core multiplies at") != std::string::npos));
  for (auto const* precision : {"fp32", "bf16"}) {
    const auto run = finish(pretrain(place.path / precision, "4updates", {"--json", "--precision", precision}));
    CHECK(run.code == 0);
    CHECK(precision_of(run) == "\"" + std::string(precision) + "\"");
    const auto again = finish(pretrain(place.path / precision, "4updates", {"--json", "--resume"}));
    CHECK(again.code == 0);
    CHECK(precision_of(again) == "\"" + std::string(precision) + "\"");
  }
  CHECK(tensors(place.path / "fp32") != tensors(place.path / "bf16"));
  const auto unknown = finish(pretrain(place.path / "unknown", "2updates", {"--precision", "fp16"}));
  CHECK(unknown.code == 2);
}

TEST_CASE("where output is no terminal, progress is plain lines") {
  const Workplace place;
  const auto run = finish(pretrain(place.path / "run", "6updates"));
  CHECK(run.code == 0);
  CHECK(run.out.find('\r') == std::string::npos);
  CHECK(run.out.find('\x1b') == std::string::npos);
  for (auto const* part :
       {"model    tiny: 4 layers of width 192", "speech   60 utterances", "6 speakers", "budget   6 updates",
        "held out", "labelling frames", "step 6", "loss", "gradient", "saved    ", "report   "})
    CHECK_MESSAGE(run.out.find(part) != std::string::npos, part);
}

TEST_CASE("every kind of budget is kept") {
  const Workplace place;
  const auto outcome = [&](std::string const& budget, char const* field) {
    const auto run = finish(pretrain(place.path / budget, budget, {"--json"}));
    CHECK(run.code == 0);
    const auto last = Json::parse(last_line(run.out));
    REQUIRE(last);
    return std::strtod(last->at(field).c_str(), nullptr);
  };
  const double flops = outcome("2e10flop", "flops");
  CHECK(flops <= 2e10);
  CHECK(flops > 1.4e10);
  const double audio = outcome("8s-audio", "audio_seconds");
  CHECK(audio <= 8);
  CHECK(audio > 5);
  CHECK(outcome("4s-wall", "seconds") < 12);
}

TEST_CASE("log-mel and the untrained encoder can be probed, and the same seed gives the same answer") {
  for (auto const* features : {"logmel", "untrained:tiny"}) {
    const std::vector<std::string> probe{"probe", "--data", corpus().string(), "--features", features, "--json"};
    const auto one = finish(probe), two = finish(probe);
    CAPTURE(one.err);
    CHECK(one.code == 0);
    CHECK(one.out == two.out);
    CHECK(Json::parse(last_line(one.out)));
  }
}

TEST_CASE("info prices every model, and one in detail") {
  const auto all = finish({"info", "--json"});
  CHECK(all.code == 0);
  CHECK(std::count(all.out.begin(), all.out.end(), '\n') == 16);
  const auto one = finish({"info", "slim", "--json"});
  const auto slim = Json::parse(last_line(one.out));
  REQUIRE(slim);
  CHECK(slim->at("width") == "384");
  CHECK(slim->at("depth") == "12");
  // 12 x 384 of the paper, with its waveform stack: about 20 GFLOP a second of audio
  CHECK(std::strtod(slim->at("paper_flops_per_audio_second").c_str(), nullptr) > 1e10);
  CHECK(finish({"info", "slim"}).out.find("1e15 FLOP") != std::string::npos);
  const auto bound = finish({"info", "slim", "--device", "h100"});
  CHECK(bound.code == 0);
  CHECK(bound.out.find("no measurement") != std::string::npos);
  CHECK(bound.out.find("attention, backward") != std::string::npos);
}
