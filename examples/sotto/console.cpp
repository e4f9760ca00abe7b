#include "console.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include <sotto/core/error.hpp>

namespace program {

namespace {

std::atomic<bool> output_failed{false};

void complain(char const* sentence) {
  std::fflush(stdout);
  std::fprintf(stderr, "sotto: %s\n", sentence);
}

}  // namespace

void check_output() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  if (output_failed.exchange(true)) return;  // said once
  throw sotto::Error(sotto::ErrorCode::file,
                     std::string("standard output cannot be written (") + std::strerror(errno) + ")");
}

void print(std::string_view line) {
  std::fprintf(stdout, "%.*s\n", static_cast<int>(line.size()), line.data());
  check_output();
}

JsonLine& JsonLine::raw(std::string_view name, std::string_view json) {
  if (!body_.empty()) body_ += ", ";
  body_ += quoted(name) + ": ";
  body_ += json;
  return *this;
}
JsonLine& JsonLine::add(std::string_view name, double value) {
  return raw(name, std::isfinite(value) ? text("%.9g", value) : "null");
}
JsonLine& JsonLine::add(std::string_view name, std::uint64_t value) { return raw(name, std::to_string(value)); }
std::string JsonLine::quoted(std::string_view text_) {
  std::string quoted = "\"";
  for (const char c : text_) {
    if (c == '"' || c == '\\')
      quoted += {'\\', c};
    else if (static_cast<unsigned char>(c) < 0x20)
      quoted += text("\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
    else
      quoted += c;
  }
  return quoted + '"';
}

// A thread of its own waits for the signals, so that nothing is done inside a handler.
struct SignalWatch::State {
  std::stop_source source;
  sigset_t before{};
  std::atomic<bool> ended{false};
  std::thread thread;
};

SignalWatch::SignalWatch(bool graceful) : state_(new State) {
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGINT);
  sigaddset(&watched, SIGTERM);
  sigaddset(&watched, SIGUSR1);  // ends the watch
  pthread_sigmask(SIG_BLOCK, &watched, &state_->before);
  state_->thread = std::thread([state = state_, watched, graceful] {
    for (int signal = 0;;) {
      if (sigwait(&watched, &signal) != 0 || state->ended) return;
      if (signal == SIGUSR1) continue;
      if (!graceful || state->source.stop_requested()) _exit(stopped_by_signal);
      state->source.request_stop();
    }
  });
}
SignalWatch::~SignalWatch() {
  state_->ended = true;
  pthread_kill(state_->thread.native_handle(), SIGUSR1);
  state_->thread.join();
  pthread_sigmask(SIG_SETMASK, &state_->before, nullptr);
  delete state_;
}
std::stop_token SignalWatch::token() const { return state_->source.get_token(); }
void SignalWatch::request_stop() { state_->source.request_stop(); }

void prepare_streams() {
  // A file opened later must not get the number of a closed stream: what is printed would go into it.
  for (const int stream : {0, 1, 2})
    if (fcntl(stream, F_GETFD) == -1 && errno == EBADF)
      static_cast<void>(open("/dev/null", stream == 2 ? O_WRONLY : O_RDONLY));
  signal(SIGPIPE, SIG_IGN);  // what it would end is a failed write, which has a sentence
  signal(SIGXFSZ, SIG_IGN);
}

namespace {
// The library names its members, the command line its options.
void complain_of(std::string sentence) {
  constexpr std::pair<std::string_view, std::string_view> names[] = {
      {"; raise it, or lower objective.targets", "; raise it"},
      {"objective.mask.probability", "--mask-probability"},
      {"objective.mask.length", "--mask-length"},
      {"optimizer.learning_rate", "--learning-rate"},
      {"optimizer.weight_decay", "--weight-decay"},
      {"optimizer.warmup", "--warmup"},
      {"optimizer.clip", "--clip"},
      {"batch.lane_rows", "--lane-rows"},
      {"batch.rows", "--batch-rows"},
      {"encoder.dropout", "--dropout"},
      {"encoder.layer_drop", "--layer-drop"},
      {"held_out.speakers", "--held-out-speakers"},
      {"held_out.every", "--held-out-every"},
      {"held_out.rows", "--held-out-rows"},
  };
  for (auto const& [member, option] : names)
    for (auto at = sentence.find(member); at != std::string::npos; at = sentence.find(member, at + option.size()))
      sentence.replace(at, member.size(), option);
  complain(sentence.c_str());
}
}  // namespace

int guarded(int (*command)(void const*), void const* request) noexcept {
  try {
    const int code = command(request);
    check_output();
    return code;
  } catch (StoppedEarly const&) {
    complain("stopped before training began; nothing was written");
    return stopped_by_signal;
  } catch (Diverged const& divergence) {
    complain_of(divergence.reason);
    return diverged;
  } catch (sotto::Error const& error) {
    complain_of(error.what());
    switch (error.code()) {
      case sotto::ErrorCode::usage:
        return usage_error;
      case sotto::ErrorCode::data:
      case sotto::ErrorCode::file:
      case sotto::ErrorCode::checkpoint:
        return data_or_file_error;
      case sotto::ErrorCode::device:
        return no_device;
      case sotto::ErrorCode::internal:
        break;
    }
    return internal_error;
  } catch (std::bad_alloc const&) {
    complain("there is not enough memory; use a smaller model, fewer --slots or a smaller --memory");
    return no_device;
  } catch (std::filesystem::filesystem_error const& error) {
    complain((error.path1().string() + ": " + error.code().message()).c_str());
    return data_or_file_error;
  } catch (std::system_error const& error) {
    if (error.code() == std::errc::resource_unavailable_try_again) {
      complain("this machine cannot start so many threads; ask for fewer with --threads");
      return no_device;
    }
    complain(error.what());
    return internal_error;
  } catch (std::exception const& error) {
    complain((std::string("internal error: ") + error.what()).c_str());
  } catch (...) {
    complain("internal error: something unknown was thrown");
  }
  return internal_error;
}

std::string count_text(double count) {
  if (count >= 1e9) return text("%.2f billion", count / 1e9);
  if (count >= 1e6) return text("%.2f million", count / 1e6);
  if (count >= 1e4) return text("%.1f thousand", count / 1e3);
  return text("%.0f", count);
}
std::string bytes_text(double bytes) {
  constexpr double mebi = 1 << 20, gibi = mebi * 1024;
  return bytes >= gibi ? text("%.2f GiB", bytes / gibi) : text("%.0f MiB", bytes / mebi);
}

}  // namespace program
