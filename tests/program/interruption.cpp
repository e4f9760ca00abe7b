// serial: it kills the program at times that it measured.
// Runs that are killed or stopped, and go on as if nothing had happened.
#include <random>

#include "program.hpp"

namespace {

double seconds_since(std::chrono::steady_clock::time_point then) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - then).count();
}

bool half_written(fs::path const& run) {
  std::error_code error;
  for (auto const& entry : fs::directory_iterator(run, error))
    if (entry.path().filename().string().find(".tmp") != std::string::npos) return true;
  return false;
}

}  // namespace

TEST_CASE("a run that is killed again and again ends with the very numbers of an uninterrupted one") {
  const Workplace place;
  const fs::path whole = place.path / "whole", killed = place.path / "killed";
  const auto start = std::chrono::steady_clock::now();
  REQUIRE(finish(pretrain(whole, "40updates", {"--save-every", "0"})).code == 0);
  const double seconds = seconds_since(start);

  // Long enough to begin, too short to end; saving takes much of a step, so that kills fall into saves too.
  std::mt19937 random(7);  // NOLINT: the same times in every run
  std::uniform_real_distribution<double> life(.03 * seconds, .3 * seconds);
  int kills = 0, in_a_save = 0;
  std::string last_kill;
  for (int attempt = 0;; ++attempt) {
    REQUIRE(attempt < 60);
    std::vector<std::string> more{"--save-every", "0"};
    if (fs::exists(killed / "checkpoint.safetensors")) more.emplace_back("--resume");
    Running run(pretrain(killed, "40updates", more));
    const auto begun = std::chrono::steady_clock::now();
    const double limit = attempt < 14 ? life(random) : 1e9;
    while (!run.ended() && seconds_since(begun) < limit) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (run.ended()) {
      CHECK(run.wait() == 0);
      break;
    }
    run.signal(SIGKILL);
    CHECK(run.wait() == -SIGKILL);
    ++kills;
    in_a_save += half_written(killed) ? 1 : 0;
  }
  MESSAGE("killed " << kills << " times, " << in_a_save << " of them while saving");
  CHECK(kills >= 3);
  CHECK(tensors(killed) == tensors(whole));
  CHECK_FALSE(half_written(killed));
}

TEST_CASE("a kill in the middle of a save leaves the checkpoint before it") {
  const Workplace place;
  const fs::path whole = place.path / "whole", killed = place.path / "killed";
  REQUIRE(finish(pretrain(whole, "5updates")).code == 0);
  bool caught = false;
  for (int attempt = 0; attempt < 20 && !caught; ++attempt) {
    fs::remove_all(killed);
    Running run(pretrain(killed, "5updates", {"--save-every", "0"}));
    // the second save: the first is in place
    while (!run.ended() && !fs::exists(killed / "checkpoint.safetensors")) std::this_thread::yield();
    while (!run.ended() && !half_written(killed)) std::this_thread::yield();
    run.signal(SIGKILL);
    caught = run.wait() == -SIGKILL && half_written(killed);
  }
  REQUIRE(caught);
  REQUIRE(finish(pretrain(killed, "5updates", {"--save-every", "0", "--resume"})).code == 0);
  CHECK(tensors(killed) == tensors(whole));
}

TEST_CASE("Ctrl-C and SIGTERM finish the step, save, and say how to go on; going on ends where the run would have") {
  const Workplace place;
  for (const int signal : {SIGINT, SIGTERM}) {
    const fs::path out = place.path / std::to_string(signal);
    Running run(pretrain(out, "60updates"));
    REQUIRE(run.says("step 3"));
    run.signal(signal);
    CHECK(run.wait() == 3);
    CHECK(run.err().empty());
    CHECK(run.out().find("stopped") != std::string::npos);
    CHECK(run.out().find("--resume") != std::string::npos);
    REQUIRE(fs::exists(out / "checkpoint.safetensors"));
    const auto rest = finish(pretrain(out, "60updates", {"--resume", "--json"}));
    CHECK(rest.code == 0);
    const auto end = Json::parse(last_line(rest.out));
    REQUIRE(end);
    CHECK(end->at("step") == "60");
    if (signal == SIGTERM) continue;
    const auto whole = finish(pretrain(place.path / "whole", "60updates", {"--json"}));
    const auto wanted = Json::parse(last_line(whole.out));
    REQUIRE(wanted);
    for (auto const* name : {"flops", "loss", "heldout_loss", "masked_accuracy"})
      CHECK(end->at(name) == wanted->at(name));
  }
}

TEST_CASE("a second Ctrl-C ends at once") {
  const Workplace place;
  Running run(pretrain(place.path / "run", "100000updates", {"--batch-rows", "6000"}));  // steps of seconds
  REQUIRE(run.says("price"));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  run.signal(SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  run.signal(SIGINT);
  const auto asked = std::chrono::steady_clock::now();
  CHECK(run.wait() == 3);
  CHECK(seconds_since(asked) < 1);
}

TEST_CASE("the same slots give the same bits on one thread and on two") {
  const Workplace place;
  auto two_threads = pretrain(place.path / "two", "4updates");
  *(std::find(two_threads.begin(), two_threads.end(), "--threads") + 1) = "2";
  REQUIRE(finish(pretrain(place.path / "one", "4updates")).code == 0);
  REQUIRE(finish(two_threads).code == 0);
  CHECK(tensors(place.path / "one") == tensors(place.path / "two"));
}
