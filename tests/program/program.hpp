// Runs the built program as a user does, on a corpus of synthetic speech in files.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sndfile.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sotto/data/synthetic.hpp>

namespace fs = std::filesystem;

/// A directory of this process's own, removed at its end.
struct Workplace {
  Workplace() {
    std::string name = (fs::temp_directory_path() / "sotto-program-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  Workplace(Workplace const&) = delete;
  Workplace& operator=(Workplace const&) = delete;
  ~Workplace() {
    std::error_code error;
    fs::remove_all(path, error);
  }
  fs::path path;
};

inline std::string contents(fs::path const& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void write_wav(fs::path const& path, std::vector<float> const& samples) {
  SF_INFO info{};
  info.samplerate = 16000;
  info.channels = 1;
  info.format = SF_FORMAT_WAV | SF_FORMAT_PCM_16;
  SNDFILE* const file = sf_open(path.c_str(), SFM_WRITE, &info);
  REQUIRE(file != nullptr);
  REQUIRE(sf_writef_float(file, samples.data(), static_cast<sf_count_t>(samples.size())) ==
          static_cast<sf_count_t>(samples.size()));
  sf_close(file);
}

/// Six speakers who say five words, with a manifest.tsv that names splits and labels.
inline fs::path write_corpus(fs::path const& folder) {
  const sotto::SyntheticSpeech speech(
      {.speakers = 6, .utterances = 60, .words = 5, .shortest = .6, .longest = 1.2, .seed = 3});
  std::ofstream manifest;
  fs::create_directories(folder);
  manifest.open(folder / "manifest.tsv");
  manifest << "path\tsamples\tspeaker\tsplit\tlabel\n";
  std::vector<float> samples;
  for (std::size_t i = 0; i < speech.size(); ++i) {
    const fs::path name = fs::path(std::string(speech.speaker(i))) / ("u" + std::to_string(i) + ".wav");
    fs::create_directories((folder / name).parent_path());
    samples.resize(static_cast<std::size_t>(speech.samples(i)));
    speech.read(i, 0, samples);
    write_wav(folder / name, samples);
    manifest << name.string() << '\t' << samples.size() << '\t' << speech.speaker(i) << '\t' << speech.split(i) << '\t'
             << speech.label(i) << '\n';
  }
  return folder;
}

/// The corpus that all tests of a binary share.
inline fs::path const& corpus() {
  static const Workplace place;
  static const fs::path folder = write_corpus(place.path / "speech");
  return folder;
}

/// The program, started; its output goes to files.
class Running {
 public:
  /// Standard output goes to `output` if given, else to a file.
  explicit Running(std::vector<std::string> arguments, char const* output = nullptr) {
    char const* const program = std::getenv("SOTTO_PROGRAM");
    REQUIRE_MESSAGE(program != nullptr, "SOTTO_PROGRAM names the built program");
    arguments.insert(arguments.begin(), program);
    std::vector<char*> words;
    for (auto& argument : arguments) words.push_back(argument.data());
    words.push_back(nullptr);
    const fs::path out = output != nullptr ? fs::path(output) : out_path(), err = err_path();
    pid_ = fork();
    if (pid_ == 0) {
      const int to = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
      const int errors = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
      dup2(to, 1);
      dup2(errors, 2);
      execv(words[0], words.data());
      _exit(127);
    }
    REQUIRE(pid_ > 0);
  }
  Running(Running const&) = delete;
  Running& operator=(Running const&) = delete;
  ~Running() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      wait();
    }
  }
  void signal(int number) const { kill(pid_, number); }
  bool ended() {
    int status = 0;
    if (pid_ > 0 && waitpid(pid_, &status, WNOHANG) == pid_) note(status);
    return pid_ < 0;
  }
  /// The exit code, or minus the signal that ended it.
  int wait() {
    int status = 0;
    if (pid_ > 0 && waitpid(pid_, &status, 0) == pid_) note(status);
    return code_;
  }
  std::string out() const { return contents(out_path()); }
  std::string err() const { return contents(err_path()); }
  /// Waits until standard output holds the text; false if the program ended, or a minute passed, before it did.
  bool says(std::string const& text) {
    for (int i = 0; i < 6000; ++i) {
      const bool over = ended();
      if (out().find(text) != std::string::npos) return true;
      if (over) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

 private:
  void note(int status) {
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    pid_ = -1;
  }
  fs::path out_path() const { return place_.path / "out"; }
  fs::path err_path() const { return place_.path / "err"; }

  Workplace place_;
  pid_t pid_ = -1;
  int code_ = 0;
};

struct Finished {
  int code;
  std::string out, err;
};
inline Finished finish(std::vector<std::string> arguments, char const* output = nullptr) {
  Running running(std::move(arguments), output);
  const int code = running.wait();
  return {code, output != nullptr ? std::string() : running.out(), running.err()};
}

/// `sotto pretrain` of a tiny model on the corpus: steps of a second of speech.
inline std::vector<std::string> pretrain(fs::path const& out, std::string const& budget,
                                         std::vector<std::string> const& more = {}) {
  std::vector<std::string> arguments{"pretrain",
                                     "--model",
                                     "tiny",
                                     "--data",
                                     corpus().string(),
                                     "--budget",
                                     budget,
                                     "--out",
                                     out.string(),
                                     "--batch-rows",
                                     "60",
                                     "--lane-rows",
                                     "60",
                                     "--slots",
                                     "2",
                                     "--threads",
                                     "1",
                                     "--held-out-every",
                                     "0.25",
                                     "--held-out-rows",
                                     "100"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

inline std::string last_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const auto at = text.rfind('\n');
  return at == std::string::npos ? text : text.substr(at + 1);
}

/// The members of a JSON object, each value as it stands there; nullopt if the text is no JSON object.
class Json {
 public:
  using Members = std::map<std::string, std::string>;
  static std::optional<Members> parse(std::string const& text) {
    Json json{text};
    Members members;
    if (!json.object(&members) || json.at_ != text.size()) return std::nullopt;
    return members;
  }

 private:
  explicit Json(std::string const& text) : text_(text) {}
  void space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool take(char c) {
    space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool string(std::string* value = nullptr) {
    if (!take('"')) return false;
    for (; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (static_cast<unsigned char>(text_[at_]) < 0x20) return false;
      if (text_[at_] == '\\') ++at_;
      if (value != nullptr && at_ < text_.size()) *value += text_[at_];
    }
    return take('"');
  }
  bool value() {
    space();
    if (at_ >= text_.size()) return false;
    if (text_[at_] == '{') return object(nullptr);
    if (text_[at_] == '"') return string();
    if (take('[')) {
      if (take(']')) return true;
      do
        if (!value()) return false;
      while (take(','));
      return take(']');
    }
    for (std::string const word : {"true", "false", "null"})
      if (text_.compare(at_, word.size(), word) == 0) {
        at_ += word.size();
        return true;
      }
    char* end = nullptr;
    static_cast<void>(std::strtod(text_.c_str() + at_, &end));
    const auto length = static_cast<std::size_t>(end - text_.c_str()) - at_;
    at_ += length;
    return length > 0;
  }
  bool object(Members* members) {
    if (!take('{')) return false;
    if (take('}')) return true;
    do {
      std::string name;
      if (!string(&name) || !take(':')) return false;
      space();
      const std::size_t begin = at_;
      if (!value()) return false;
      if (members != nullptr) (*members)[name] = text_.substr(begin, at_ - begin);
    } while (take(','));
    return take('}');
  }

  std::string const& text_;
  std::size_t at_ = 0;
};

/// All numbers of a checkpoint, as bytes: the file without its header, whose texts tell how long the run took.
inline std::string tensors(fs::path const& run) {
  const std::string file = contents(run / "checkpoint.safetensors");
  REQUIRE(file.size() > 8);
  std::size_t header = 0;
  for (std::size_t i = 8; i-- > 0;) header = header << 8 | static_cast<unsigned char>(file[i]);
  REQUIRE(file.size() > 8 + header);
  return file.substr(8 + header);
}
