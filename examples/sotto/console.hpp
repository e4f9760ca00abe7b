// The program's manners: what it prints, how it hears signals, how it fails.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "commands.hpp"

namespace program {

/// snprintf into a string.
template <class... Values> std::string text(char const* format, Values... values) {
  std::array<char, 512> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, values...);
  return buffer.data();
}

/// Prints a line on standard output. Throws Error(file) if it cannot be written.
void print(std::string_view line = {});
/// Throws Error(file) if something that was printed could not be written.
void check_output();

/// One JSON object, a line of output.
class JsonLine {
 public:
  JsonLine& add(std::string_view name, double value);  ///< not finite: null
  JsonLine& add(std::string_view name, std::uint64_t value);
  JsonLine& add(std::string_view name, int value) { return raw(name, std::to_string(value)); }
  JsonLine& add(std::string_view name, bool value) { return raw(name, value ? "true" : "false"); }
  JsonLine& add(std::string_view name, std::string_view value) { return raw(name, quoted(value)); }
  JsonLine& add(std::string_view name, std::string const& value) { return add(name, std::string_view(value)); }
  JsonLine& add(std::string_view name, char const* value) { return add(name, std::string_view(value)); }
  JsonLine& add(std::string_view name, std::optional<double> value) {
    return value ? add(name, *value) : raw(name, "null");
  }
  /// A value that is JSON already.
  JsonLine& raw(std::string_view name, std::string_view json);
  std::string str() const { return "{" + body_ + "}"; }

  static std::string quoted(std::string_view text);

 private:
  std::string body_;
};

/// SIGINT and SIGTERM, while it lives, ask the token to stop; a second one ends the program at once with
/// stopped_by_signal. Make it before any thread: those made later leave the signals to it.
class SignalWatch {
 public:
  /// graceful false: the first signal ends the program already.
  explicit SignalWatch(bool graceful);
  SignalWatch(SignalWatch const&) = delete;
  SignalWatch& operator=(SignalWatch const&) = delete;
  ~SignalWatch();
  std::stop_token token() const;
  void request_stop();

 private:
  struct State;
  State* state_;
};

/// Thrown to leave before training began, because a signal asked for it.
struct StoppedEarly {};

/// Thrown where training diverged, with the reason, when all else has been printed.
struct Diverged {
  std::string reason;
};

/// Runs a command; every failure becomes a sentence on standard error and an exit code.
int guarded(int (*command)(void const*), void const* request) noexcept;
template <class Request, int (*Command)(Request const&)> int guarded(Request const& request) noexcept {
  return guarded([](void const* r) { return Command(*static_cast<Request const*>(r)); }, &request);
}
/// Makes standard streams safe to use, whatever the caller closed; a closed pipe becomes an error to report.
void prepare_streams();

/// "1.50 million", "310 MiB".
std::string count_text(double count);
std::string bytes_text(double bytes);

}  // namespace program
