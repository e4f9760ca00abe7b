// A run's progress on a terminal, redrawn in place, or as plain lines where output goes to a file.
#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/study/format.hpp>
#include <sotto/train/step.hpp>

namespace sotto::progress::detail::inline SOTTO_ABI {

template <class... Values> std::string print(char const* format, Values... values) {
  std::array<char, 160> text{};
  std::snprintf(text.data(), text.size(), format, values...);
  return text.data();
}

/// Columns that UTF-8 text takes: continuation bytes take none.
inline int columns(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace sotto::progress::detail::inline SOTTO_ABI

namespace sotto::progress::inline SOTTO_ABI {

/// One line that says where a run is; what matters least is left out first where `width` columns are
/// too few.
inline std::string step_text(Step const& step, std::optional<HeldOut> const& held_out, int width) {
  struct Part {
    std::string text;
    int importance;
  };
  std::vector<Part> parts{{detail::print("%5.1f %%", 100 * step.fraction), 10},
                          {detail::print("step %llu", static_cast<unsigned long long>(step.step)), 6},
                          {detail::print("loss %.3f", step.loss), 9}};
  if (held_out) parts.push_back({detail::print("held-out %.3f", held_out->loss), 7});
  parts.push_back({detail::print("accuracy %.1f %%", 100 * step.masked_accuracy), 5});
  parts.push_back({detail::print("rate %.1e", step.learning_rate), 1});
  parts.push_back({detail::print("gradient %.2f", step.gradient_norm), 2});
  parts.push_back({detail::print("%.0f × real time", step.times_real_time), 3});
  parts.push_back({detail::print("%.1f GFLOP/s", step.gflops), 4});
  if (step.fraction < 1) parts.push_back({format_duration(step.left_seconds) + " left", 8});
  for (;;) {
    std::string line;
    for (auto const& part : parts) line += (line.empty() ? "" : "  ") + part.text;
    if (parts.size() == 1 || detail::columns(line) <= width) return line;
    parts.erase(std::min_element(parts.begin(), parts.end(),
                                 [](Part const& a, Part const& b) { return a.importance < b.importance; }));
  }
}

/// Draws a run's progress on a file: on a terminal one line redrawn in place, elsewhere a line every
/// 2 % of the budget or 10 s. Nothing is printed but by the calls. Not thread-safe.
class Terminal {
 public:
  /// `to` must outlive the object. columns 0: as wide as the terminal.
  explicit Terminal(std::FILE* to, int columns = 0) : to_(to), columns_(columns), live_(is_terminal(to)) {}
  Terminal(Terminal const&) = delete;
  Terminal& operator=(Terminal const&) = delete;
  ~Terminal() { close(); }

  /// Whether lines are redrawn in place.
  bool live() const { return live_; }

  /// A line that stays, above the progress line.
  void say(std::string_view sentence) {
    wipe();
    std::fprintf(to_, "%.*s\n", static_cast<int>(sentence.size()), sentence.data());
    if (!line_.empty()) draw(line_);
    std::fflush(to_);
  }

  /// A phase before training: done from 0 to 1.
  void phase(std::string_view name, double done) {
    const std::string head(name);
    if (head != phase_) {
      phase_ = head;
      phase_began_ = Clock::now();
      if (!live_ && done < 1) say(head + " ...");
    }
    if (done >= 1) {
      line_.clear();
      say(head + ": " + format_duration(seconds_since(phase_began_)));
      phase_.clear();
    } else if (live_ && due()) {
      draw(done > 0 ? head + detail::print(" %3.0f %%", 100 * done) : head + " ...");
      std::fflush(to_);
    }
  }

  /// A step was done. Loss, accuracy and speed are shown as means since the line before.
  void step(Step const& step) {
    sum_.loss += step.loss;
    sum_.masked_accuracy += step.masked_accuracy;
    sum_.gflops += step.gflops * step.step_seconds;
    sum_.audio_seconds += step.times_real_time * step.step_seconds;
    sum_.step_seconds += step.step_seconds;
    ++summed_;
    if (step.held_out) held_out_ = step.held_out;
    if (step.warning != warning_) {
      warning_ = step.warning;
      if (!warning_.empty()) say("warning at step " + std::to_string(step.step) + ": " + warning_);
    }
    const bool last = step.fraction >= 1;
    if (live_ ? !due() && !last
              : !last && !first_ && step.fraction < shown_fraction_ + .02 && step.seconds < shown_seconds_ + 10)
      return;
    Step shown = step;
    shown.loss = sum_.loss / summed_;
    shown.masked_accuracy = sum_.masked_accuracy / summed_;
    shown.gflops = sum_.gflops / sum_.step_seconds;
    shown.times_real_time = sum_.audio_seconds / sum_.step_seconds;
    sum_ = {};
    summed_ = 0;
    first_ = false;
    shown_fraction_ = step.fraction;
    shown_seconds_ = step.seconds;
    if (live_) {
      draw(step_text(shown, held_out_, width() - 1));
      std::fflush(to_);
    } else {
      say(step_text(shown, held_out_, 1000));
    }
  }

  /// Leaves the progress line where it is; what is printed next begins a line of its own.
  void close() {
    if (!line_.empty()) {
      std::fputc('\n', to_);
      std::fflush(to_);
    }
    line_.clear();
  }

  /// Columns of the terminal, or 80.
  int width() const {
    if (columns_ > 0) return columns_;
    winsize size{};
    if (ioctl(fileno(to_), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    return 80;
  }

 private:
  using Clock = std::chrono::steady_clock;

  static bool is_terminal(std::FILE* to) {
    char const* const kind = std::getenv("TERM");
    return isatty(fileno(to)) != 0 && kind != nullptr && std::string_view(kind) != "dumb";
  }
  static double seconds_since(Clock::time_point then) {
    return std::chrono::duration<double>(Clock::now() - then).count();
  }
  bool due() {
    if (!line_.empty() && seconds_since(drawn_) < .1) return false;
    drawn_ = Clock::now();
    return true;
  }
  void wipe() {
    if (live_ && !line_.empty()) std::fputs("\r\x1b[K", to_);
  }
  void draw(std::string const& line) {
    line_ = line;
    std::fprintf(to_, "\r%s\x1b[K", line.c_str());
  }

  std::FILE* to_;
  int columns_;
  bool live_, first_ = true;
  std::string line_, phase_, warning_;
  Clock::time_point drawn_{}, phase_began_{};
  std::optional<HeldOut> held_out_;
  Step sum_{};
  int summed_ = 0;
  double shown_fraction_ = 0, shown_seconds_ = 0;
};

}  // namespace sotto::progress::inline SOTTO_ABI
