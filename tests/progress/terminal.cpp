#include <sotto/progress/terminal.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstdio>
#include <string>

using namespace sotto;

namespace {

// What was written to a temporary file, so far.
struct Paper {
  std::FILE* file = std::tmpfile();
  ~Paper() { std::fclose(file); }
  std::string text() const {
    std::fflush(file);
    std::rewind(file);
    std::string text;
    std::array<char, 4096> block{};
    for (std::size_t n; (n = std::fread(block.data(), 1, block.size(), file)) > 0;) text.append(block.data(), n);
    return text;
  }
};

Step step_at(std::uint64_t number, std::uint64_t of, double seconds) {
  Step step;
  step.step = number;
  step.fraction = static_cast<double>(number) / static_cast<double>(of);
  step.loss = 4;
  step.seconds = seconds * static_cast<double>(number);
  step.step_seconds = seconds;
  step.gflops = 30;
  step.times_real_time = 500;
  step.left_seconds = 65;
  return step;
}

int lines(std::string const& text) {
  int n = 0;
  for (const char c : text) n += c == '\n';
  return n;
}

}  // namespace

TEST_CASE("where output is no terminal there is a plain line every 2 % of the budget") {
  Paper paper;
  progress::Terminal terminal(paper.file);
  CHECK_FALSE(terminal.live());
  for (std::uint64_t i = 1; i <= 1000; ++i) terminal.step(step_at(i, 1000, .001));
  const std::string text = paper.text();
  CHECK(lines(text) >= 50);
  CHECK(lines(text) <= 52);
  CHECK(text.find('\r') == std::string::npos);
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(text.find("100.0 %") != std::string::npos);
}

TEST_CASE("slow runs are heard of every ten seconds") {
  Paper paper;
  progress::Terminal terminal(paper.file);
  for (std::uint64_t i = 1; i <= 10; ++i) terminal.step(step_at(i, 100000, 5));
  CHECK(lines(paper.text()) == 5);  // the first, then every second one
}

TEST_CASE("a warning is said once when it appears, and again when it comes back") {
  Paper paper;
  progress::Terminal terminal(paper.file);
  for (const bool wrong : {true, true, false, true}) {
    Step step = step_at(1, 100000, .001);
    step.warning = wrong ? "the labels have collapsed" : "";
    terminal.step(step);
  }
  std::string text = paper.text();
  int said = 0;
  for (auto at = text.find("warning"); at != std::string::npos; at = text.find("warning", at + 1)) ++said;
  CHECK(said == 2);
}

TEST_CASE("a line fits its terminal, and what matters most is left out last") {
  Step step = step_at(123, 1000, .1);
  step.loss = 3.25;
  const std::optional<HeldOut> held_out{HeldOut{.loss = 3.5}};
  const std::string whole = progress::step_text(step, held_out, 1000);
  for (auto const* part : {"12.3 %", "step 123", "loss 3.250", "held-out 3.500", "accuracy", "rate", "gradient",
                           "real time", "GFLOP/s", "1 min 05 s left"})
    CHECK(whole.find(part) != std::string::npos);
  for (const int width : {20, 40, 60, 80, 100}) {
    const std::string line = progress::step_text(step, held_out, width);
    CHECK(progress::detail::columns(line) <= width);
    CHECK(line.find("12.3 %") != std::string::npos);
    CHECK(line.find("loss 3.250") != std::string::npos);
  }
}

TEST_CASE("a phase tells its name when it begins and its time when it ends") {
  Paper paper;
  progress::Terminal terminal(paper.file);
  terminal.phase("decoding", 0);
  terminal.phase("decoding", .5);
  terminal.phase("decoding", 1);
  const std::string text = paper.text();
  CHECK(text.starts_with("decoding ...\ndecoding: "));
  CHECK(lines(text) == 2);
}
