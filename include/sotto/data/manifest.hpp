// Manifests: which utterances a corpus has and what is known of each. Ours, and fairseq's.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>

namespace sotto::inline SOTTO_ABI {

/// One utterance: where its audio is and what is known of it. Unknown texts are empty.
struct Utterance {
  std::filesystem::path path;  ///< audio file, which may hold other utterances too
  std::string id;              ///< unique name; the path as written in the manifest if it gives none
  std::string speaker, split, label, transcript, phones, licence;
  std::int64_t samples = 0;  ///< length at 16 kHz; in a fairseq manifest, the file's own frames
  std::int64_t start = 0;    ///< first sample in the file, at 16 kHz
  int line = 0;              ///< of the manifest; 0 if there is none
  bool whole = false;        ///< the utterance is the whole file: a fairseq manifest, or a scanned folder
};

}  // namespace sotto::inline SOTTO_ABI

namespace sotto::detail::inline SOTTO_ABI {

/// Takes the first line off text; a carriage return before its end is dropped.
inline std::string_view take_line(std::string_view& text) {
  auto const end = text.find('\n');
  std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

inline void split_fields(std::string_view line, std::vector<std::string_view>& fields) {
  fields.clear();
  for (;;) {
    auto const tab = line.find('\t');
    fields.push_back(line.substr(0, tab));
    if (tab == std::string_view::npos) return;
    line.remove_prefix(tab + 1);
  }
}

[[noreturn]] inline void refuse_line(std::filesystem::path const& manifest, int line, std::string const& why) {
  throw_error(ErrorCode::data, {"line ", line, ": ", why}, manifest);
}

inline std::int64_t read_count(std::string_view text, char const* column, std::filesystem::path const& manifest,
                               int line) {
  std::int64_t number = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0)
    refuse_line(manifest, line,
                std::string("'") + std::string(text) + "' in column " + column +
                    " is not a whole number of samples; write digits only");
  return number;
}

inline std::string read_text(std::filesystem::path const& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error))
    throw_error(ErrorCode::file, {"there is no such manifest; check the path"}, path);
  if (std::filesystem::is_directory(path, error))
    throw_error(ErrorCode::file, {"this is a folder, where a manifest file was expected"}, path);
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (!in) throw_error(ErrorCode::file, {"the manifest cannot be read; check its permissions"}, path);
  if (text.find('\0') != std::string::npos)
    throw_error(ErrorCode::data, {"this is a binary file, where a tab-separated manifest was expected"}, path);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);  // a byte order mark
  return text;
}

/// fairseq's: the root folder, then `path<TAB>samples` a line (examples/wav2vec/wav2vec_manifest.py
/// writes it).
inline std::vector<Utterance> parse_fairseq_manifest(std::string_view text, std::string_view root,
                                                     std::filesystem::path const& manifest) {
  auto const folder = manifest.parent_path() / std::filesystem::path(root);
  std::vector<Utterance> utterances;
  std::vector<std::string_view> fields;
  for (int line = 2; !text.empty(); ++line) {
    auto const row = take_line(text);
    if (row.empty()) continue;
    split_fields(row, fields);
    if (fields.size() != 2)
      refuse_line(manifest, line,
                  "expected a path, a tab and a number of samples, since the first line names a "
                  "folder; found " +
                      std::to_string(fields.size()) + " fields");
    Utterance u;
    u.path = folder / std::filesystem::path(fields[0]);
    u.id = fields[0];
    if (u.split == "dev" || u.split == "valid" || u.split == "validation") u.split = "val";
    u.samples = read_count(fields[1], "samples", manifest, line);
    u.line = line;
    u.whole = true;
    utterances.push_back(std::move(u));
  }
  return utterances;
}

/// Ours: a header line names the columns.
inline std::vector<Utterance> parse_table_manifest(std::string_view text, std::string_view header,
                                                   std::filesystem::path const& manifest) {
  struct Column {
    char const* name;
    std::string Utterance::*text;
    int index = -1;
  };
  std::array<Column, 7> columns{{{"utt", &Utterance::id},
                                 {"speaker", &Utterance::speaker},
                                 {"split", &Utterance::split},
                                 {"label", &Utterance::label},
                                 {"transcript", &Utterance::transcript},
                                 {"phones", &Utterance::phones},
                                 {"licence", &Utterance::licence}}};
  int path = -1, samples = -1, start = -1;
  std::vector<std::string_view> fields;
  split_fields(header, fields);
  auto const width = fields.size();
  for (std::size_t i = 0; i < width; ++i) {
    auto const take = [&](int& index, std::string_view name) {
      if (fields[i] != name) return;
      if (index >= 0) refuse_line(manifest, 1, "two columns are named " + std::string(name) + "; rename one");
      index = static_cast<int>(i);
    };
    take(path, "path");
    take(samples, "samples");
    take(start, "start");
    for (auto& column : columns) take(column.index, column.name);
  }
  for (auto [index, name] : {std::pair(path, "path"), std::pair(samples, "samples")})
    if (index < 0)
      refuse_line(manifest, 1,
                  std::string("no column is named ") + name +
                      "; the first line must name the columns, path and samples among them, "
                      "separated by tabs");
  std::vector<Utterance> utterances;
  for (int line = 2; !text.empty(); ++line) {
    auto const row = take_line(text);
    if (row.empty()) continue;
    split_fields(row, fields);
    if (fields.size() != width)
      refuse_line(manifest, line,
                  "found " + std::to_string(fields.size()) + " fields where the header names " + std::to_string(width));
    auto const field = [&](int index) { return fields[static_cast<std::size_t>(index)]; };
    Utterance u;
    if (field(path).empty()) refuse_line(manifest, line, "the path is empty");
    u.path = manifest.parent_path() / std::filesystem::path(field(path));
    for (auto const& column : columns)
      if (column.index >= 0) u.*column.text = field(column.index);
    if (u.split == "dev" || u.split == "valid" || u.split == "validation") u.split = "val";
    u.samples = read_count(field(samples), "samples", manifest, line);
    if (start >= 0 && !field(start).empty()) u.start = read_count(field(start), "start", manifest, line);
    if (u.id.empty()) u.id = field(path);
    u.line = line;
    utterances.push_back(std::move(u));
  }
  return utterances;
}

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

/// Reads a manifest, ours or fairseq's. Ours is tab separated and its first line names the columns:
/// `path` and `samples` are needed; `start`, `utt`, `speaker`, `split`, `label`, `transcript`,
/// `phones` and `licence` are used; others are ignored; paths are relative to the manifest's
/// folder. fairseq's first line is a root folder (relative to the manifest's folder if not
/// absolute), each further line `path<TAB>samples`. Lines may end in CR LF. Throws Error(file) if
/// it cannot be read and Error(data), with the line, if it cannot be understood or is empty. That
/// the audio exists is checked by Corpus.
inline std::vector<Utterance> read_manifest(std::filesystem::path const& path) {
  std::string const text = detail::read_text(path);
  std::string_view rest = text;
  auto const header = detail::take_line(rest);
  if (header.empty()) throw_error(ErrorCode::data, {"the manifest is empty: its first line names no columns"}, path);
  // A header has at least two columns, and a folder's name holds no tab.
  bool const ours = header.find('\t') != std::string_view::npos || header == "path" || header == "samples";
  auto utterances =
      ours ? detail::parse_table_manifest(rest, header, path) : detail::parse_fairseq_manifest(rest, header, path);
  if (utterances.empty()) throw_error(ErrorCode::data, {"the manifest names no utterance after its first line"}, path);
  return utterances;
}

}  // namespace sotto::inline SOTTO_ABI
