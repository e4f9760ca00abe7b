// A corpus on disk: a folder of audio files or a manifest, decoded as needed and kept within a
// memory limit.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/data/audio_file.hpp>
#include <sotto/data/detail/sample_cache.hpp>
#include <sotto/data/manifest.hpp>
#include <sotto/data/resample.hpp>
#include <sotto/data/source.hpp>

namespace sotto::inline SOTTO_ABI {

struct CorpusOptions {
  std::size_t memory = std::size_t{2} << 30;  ///< bytes of decoded audio kept: 2 GiB hold 18 hours
};

/// A file or utterance that a corpus leaves out, and why.
struct Skipped {
  std::filesystem::path path;
  std::string reason;
};

/// Speech from files: mono, 16 kHz, 16 bits. A data source whose reads are thread-safe. Opening
/// reads headers only; audio is decoded when first read, or all at once by preload(). Each
/// utterance is decoded by itself, from a freshly opened file, so that its samples depend neither
/// on the memory limit nor on the order of reads (a lossy decoder's output depends on where it
/// started). Copies share everything.
class Corpus {
 public:
  static constexpr int rate = 16000;             ///< Hz
  static constexpr std::int64_t shortest = 400;  ///< samples of one 25 ms window: shorter utterances are skipped

  /// Every audio file below a folder, sorted by path; an utterance a file. The speaker is the name
  /// of the file's own folder, unknown for files at the top. Hidden files are ignored; files that
  /// are no audio, damaged or too short are listed by skipped(). Throws Error(data) if nothing is
  /// left, Error(file) if there is no such folder.
  static Corpus scan(std::filesystem::path const& folder, CorpusOptions options = {}) {
    std::error_code error;
    if (!std::filesystem::is_directory(folder, error))
      throw_error(
          ErrorCode::file,
          {std::filesystem::exists(folder, error) ? "this is no folder; name a folder of audio files or a manifest"
                                                  : "there is no such folder"},
          folder);
    auto state = std::make_shared<State>();
    auto const paths = audio_below(folder);
    for (auto const& path : paths) {
      Utterance u;
      u.path = path;
      auto const relative = path.lexically_relative(folder);
      u.id = relative.generic_string();
      u.speaker = relative.parent_path().filename().string();
      u.whole = true;
      try {
        state->add(std::move(u));
      } catch (Error const& bad) {
        state->skipped.push_back({path, sentence(bad)});
      }
    }
    if (paths.empty())
      throw_error(ErrorCode::data, {"no audio file (wav, flac, ogg, opus, mp3 …) lies in this folder or below it"},
                  folder);
    state->refuse_empty(folder);
    return Corpus(std::move(state), options);
  }

  /// The utterances of a manifest (see read_manifest()), in its order. Throws Error, naming the
  /// line, if a file is missing, is no audio or ends before its utterance does. Too short
  /// utterances are listed by skipped().
  static Corpus read(std::filesystem::path const& manifest, CorpusOptions options = {}) {
    auto state = std::make_shared<State>();
    for (auto& u : read_manifest(manifest)) {
      int const line = u.line;
      try {
        state->add(std::move(u));
      } catch (Error const& bad) {
        throw_error(bad.code(), {"line ", line, ": ", bad.what()}, manifest);
      }
    }
    state->refuse_empty(manifest);
    return Corpus(std::move(state), options);
  }

  /// What users name: a manifest, a folder with a manifest.tsv in it, or a folder of audio files.
  static Corpus open(std::filesystem::path const& path, CorpusOptions options = {}) {
    std::error_code error;
    if (!std::filesystem::exists(path, error))
      throw_error(ErrorCode::file, {"there is no such folder or manifest"}, path);
    if (std::filesystem::is_directory(path, error)) {
      auto const manifest = path / "manifest.tsv";
      return std::filesystem::exists(manifest, error) ? read(manifest, options) : scan(path, options);
    }
    if (is_audio(path)) throw_error(ErrorCode::usage, {"this is one audio file; name its folder, or a manifest"}, path);
    return read(path, options);
  }

  std::size_t size() const { return state_->utterances.size(); }
  /// At 16 kHz.
  std::int64_t samples(std::size_t i) const { return at(i).samples; }
  std::string_view speaker(std::size_t i) const { return at(i).speaker; }
  std::string_view split(std::size_t i) const { return at(i).split; }
  std::string_view label(std::size_t i) const { return at(i).label; }
  std::string_view name(std::size_t i) const { return at(i).id; }
  std::string_view phones(std::size_t i) const { return at(i).phones; }
  std::string_view transcript(std::size_t i) const { return at(i).transcript; }
  Utterance const& utterance(std::size_t i) const { return at(i); }
  /// Of all utterances together, at 16 kHz.
  std::int64_t total_samples() const { return state_->total; }
  std::vector<Skipped> const& skipped() const { return state_->skipped; }
  /// Bytes of decoded audio in memory.
  std::size_t cached_bytes() const { return state_->cache->bytes(); }

  /// Of count, names, speakers, splits and lengths; the place of the folder does not matter.
  std::uint64_t fingerprint() const {
    Fingerprint hash;
    hash.add(static_cast<std::uint64_t>(size()));
    for (auto const& u : state_->utterances) {
      hash.add(u.id);
      hash.add(u.speaker);
      hash.add(u.split);
      hash.add(static_cast<std::uint64_t>(u.start));
      hash.add(static_cast<std::uint64_t>(u.samples));
    }
    return hash.value();
  }

  /// Samples [first, first + out.size()) of utterance i. Throws Error(data) if its file cannot be
  /// decoded.
  void read(std::size_t i, std::int64_t first, std::span<float> out) const {
    auto const& u = at(i);
    auto const count = static_cast<std::int64_t>(out.size());
    if (first < 0 || count > u.samples || first > u.samples - count)
      throw_error(ErrorCode::usage, {"samples ", first, " to ", first + count, " of utterance '", u.id,
                                     "' were asked for, which has ", u.samples});
    auto samples = state_->cache->find(i);
    if (!samples) {
      samples = state_->decode(i);
      state_->cache->insert(i, samples);
    }
    std::int16_t const* const from = samples->data() + first;
    for (std::size_t k = 0; k < out.size(); ++k) out[k] = static_cast<float>(from[k]) * (1.f / 32768);
  }

  /// Decodes what fits in memory, in parallel; no other preload may run. progress(done, total) is
  /// told after every minute or so of audio how many samples of those to decode are done, by one
  /// thread at a time; throw from it to stop. Throws Error(data) naming the first file that cannot
  /// be decoded.
  void preload(Executor& executor, FunctionRef<void(std::int64_t, std::int64_t)> progress) const {
    constexpr std::int64_t minute = 60 * rate;
    std::vector<std::size_t> first_of_task;  // tasks are runs of utterances, so that one long file keeps all threads
    std::size_t const budget = state_->memory / sizeof(std::int16_t);
    std::int64_t total = 0, in_task = minute;
    std::size_t end = 0;
    for (; end < size() && static_cast<std::size_t>(total + samples(end)) <= budget; ++end) {
      if (in_task >= minute) {
        first_of_task.push_back(end);
        in_task = 0;
      }
      in_task += samples(end);
      total += samples(end);
    }
    first_of_task.push_back(end);
    std::mutex mutex;
    std::atomic<bool> failed{false};
    std::int64_t done = 0;
    executor.run(static_cast<int>(first_of_task.size()) - 1, [&](int task) {
      if (failed) return;
      try {
        std::int64_t decoded = 0;
        auto const last = first_of_task[static_cast<std::size_t>(task) + 1];
        for (auto i = first_of_task[static_cast<std::size_t>(task)]; i < last && !failed; ++i) {
          if (!state_->cache->find(i)) state_->cache->insert(i, state_->decode(i));
          decoded += samples(i);
        }
        std::lock_guard lock(mutex);
        done += decoded;
        progress(done, total);
      } catch (...) {
        failed = true;
        throw;
      }
    });
  }
  void preload(Executor& executor) const {
    preload(executor, [](std::int64_t, std::int64_t) {});
  }

 private:
  struct File {
    std::filesystem::path path;
    int rate;
    std::int64_t frames;
  };

  struct State {
    std::vector<Utterance> utterances;
    std::vector<std::size_t> file_of;  // [utterances]
    std::vector<File> files;
    std::unordered_map<std::string, std::size_t> known;  // path -> file; emptied when the corpus is complete
    std::vector<Skipped> skipped;
    std::unique_ptr<detail::SampleCache> cache;
    std::size_t memory = 0;
    std::int64_t total = 0;

    // Reads the header of the utterance's file, unless another utterance already did.
    void add(Utterance u) {
      auto const [entry, fresh] = known.try_emplace(u.path.string(), files.size());
      if (fresh) {
        try {
          AudioFile const file(u.path);
          if (file.frames() == 0) throw_error(ErrorCode::data, {"the file holds no samples"}, u.path);
          files.push_back({u.path, file.rate(), file.frames()});
        } catch (...) {
          known.erase(entry);
          throw;
        }
      }
      auto const& file = files[entry->second];
      auto const length = resampled_length(file.frames, file.rate, rate);
      if (u.whole) {
        bool const promised = u.line > 0;
        if (promised && u.samples != file.frames && u.samples != length)
          throw_error(
              ErrorCode::data,
              {"the manifest says ", u.samples, " samples, the file has ", file.frames, "; write the manifest anew"},
              u.path);
        u.samples = length;
      } else if (u.samples > length || u.start > length - u.samples) {
        throw_error(ErrorCode::data,
                    {"the manifest says ", u.samples, " samples from ", u.start, " on, the file ends at ", length,
                     "; write the manifest anew"},
                    u.path);
      }
      if (u.samples < shortest) {
        skipped.push_back({u.path, "'" + u.id + "' has " + std::to_string(u.samples) + " samples at 16 kHz; " +
                                       std::to_string(shortest) + " make the shortest utterance"});
        return;
      }
      total += u.samples;
      file_of.push_back(entry->second);
      utterances.push_back(std::move(u));
    }

    void refuse_empty(std::filesystem::path const& where) const {
      if (!utterances.empty()) return;
      auto const& first = skipped.front();
      throw_error(ErrorCode::data,
                  {"none of its ", skipped.size(), " files or utterances can be used; ", "the first, ",
                   first.path.string(), ": ", first.reason},
                  where);
    }

    detail::SampleCache::Handle decode(std::size_t i) const {
      auto const& u = utterances[i];
      auto const& file = files[file_of[i]];
      std::vector<float> samples;
      if (file.rate == rate) {
        samples.resize(static_cast<std::size_t>(u.samples));
        AudioFile(file.path).read(u.start, samples);
      } else {
        auto const first = u.start * file.rate / rate;
        auto const count =
            u.whole ? file.frames : std::min(resampled_length(u.samples, rate, file.rate), file.frames - first);
        std::vector<float> original(static_cast<std::size_t>(count));
        AudioFile(file.path).read(first, original);
        samples = resample(original, file.rate, rate);
        samples.resize(static_cast<std::size_t>(u.samples));  // a cut at another rate may end a sample early or late
      }
      auto kept = std::make_shared<std::vector<std::int16_t>>(samples.size());
      for (std::size_t k = 0; k < samples.size(); ++k)
        (*kept)[k] = static_cast<std::int16_t>(std::clamp(std::lrint(samples[k] * 32768.f), -32768L, 32767L));
      return kept;
    }
  };

  Corpus(std::shared_ptr<State> state, CorpusOptions options) {
    state->known = {};
    state->memory = options.memory;
    state->cache = std::make_unique<detail::SampleCache>(state->utterances.size(), options.memory);
    state_ = std::move(state);
  }

  Utterance const& at(std::size_t i) const { return state_->utterances[i]; }

  static bool is_audio(std::filesystem::path const& path) {
    static constexpr std::array<std::string_view, 17> extensions{".wav", ".wave", ".flac", ".ogg",  ".oga", ".opus",
                                                                 ".mp3", ".aif",  ".aiff", ".aifc", ".au",  ".snd",
                                                                 ".caf", ".w64",  ".rf64", ".sph",  ".nist"};
    std::string extension = path.extension().string();
    for (char& c : extension)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return std::find(extensions.begin(), extensions.end(), extension) != extensions.end();
  }

  // Follows links to folders, each folder once: a link may lead back up.
  static std::vector<std::filesystem::path> audio_below(std::filesystem::path const& folder) {
    namespace fs = std::filesystem;
    std::vector<fs::path> found;
    std::error_code error;
    std::set<fs::path> visited{fs::canonical(folder, error)};
    fs::recursive_directory_iterator it(
        folder, fs::directory_options::follow_directory_symlink | fs::directory_options::skip_permission_denied, error);
    if (error) throw_error(ErrorCode::file, {"the folder cannot be read (", error.message(), ")"}, folder);
    for (; it != fs::recursive_directory_iterator(); it.increment(error)) {
      bool const hidden = it->path().filename().string().starts_with('.');
      if (it->is_directory(error)) {
        if (hidden || !visited.insert(fs::canonical(it->path(), error)).second) it.disable_recursion_pending();
      } else if (!hidden && is_audio(it->path())) {
        found.push_back(it->path());
      }
    }
    if (error) throw_error(ErrorCode::file, {"a folder below cannot be read (", error.message(), ")"}, folder);
    std::sort(found.begin(), found.end());
    return found;
  }

  // What an error says, without the path that Skipped already names.
  static std::string sentence(Error const& error) {
    std::string const prefix = error.path().string() + ": ";
    std::string text = error.what();
    return text.starts_with(prefix) ? text.substr(prefix.size()) : text;
  }

  std::shared_ptr<State const> state_;
};

}  // namespace sotto::inline SOTTO_ABI
