// A run on disk: one safetensors file, written whole or not at all.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/io/safetensors.hpp>
#include <sotto/nn/parameters.hpp>

namespace sotto::inline SOTTO_ABI {

/// A checkpoint of another spec, field by field.
class SpecMismatch : public Error {
 public:
  struct Field {
    std::string name, wanted, found;
  };
  SOTTO_COLD SpecMismatch(std::filesystem::path path, std::vector<Field> fields)
      : Error(ErrorCode::checkpoint, sentence(fields), std::move(path)), fields_(std::move(fields)) {}
  std::vector<Field> const& fields() const { return fields_; }

 private:
  SOTTO_COLD static std::string sentence(std::vector<Field> const& fields) {
    std::string text = "the checkpoint is of another model:";
    for (auto const& field : fields)
      text += joined({" ", field.name, " is ", field.found, " there and ", field.wanted, " here;"});
    text.back() = '.';
    return joined({text, " Use the model it was made with, or another directory"});
  }
  std::vector<Field> fields_;
};

/// Named texts and tensors of a run. Parameters stand under their own names, [extents] fp32.
class Checkpoint {
 public:
  static constexpr char const* file_name = "checkpoint.safetensors";
  static constexpr char const* format = "sotto 1";

  /// `path`: the file, or the directory that holds it.
  SOTTO_COLD static Checkpoint open(std::filesystem::path path) {
    if (std::filesystem::is_directory(path)) path /= file_name;
    Checkpoint checkpoint(Safetensors::open(path));
    checkpoint.path_ = path;
    std::string const* const found = checkpoint.texts().find("format");
    if (found == nullptr || !found->starts_with("sotto "))
      throw_error(ErrorCode::checkpoint, {"this safetensors file is not a checkpoint of sotto"}, path);
    if (*found != format)
      throw_error(ErrorCode::checkpoint,
                  {"this checkpoint has format '", *found, "' and this sotto reads '", format,
                   "'; use the version that wrote it"},
                  path);
    return checkpoint;
  }

  std::filesystem::path const& path() const { return path_; }
  Texts const& texts() const { return file_.metadata(); }
  SOTTO_COLD std::string const& text(std::string const& name) const {
    std::string const* const found = texts().find(name);
    if (found == nullptr)
      throw_error(ErrorCode::checkpoint, {"the checkpoint does not say '", name, "': it is damaged"}, path_);
    return *found;
  }
  /// Texts whose names begin with the prefix, without it.
  SOTTO_COLD Texts section(std::string const& prefix) const {
    Texts found;
    for (auto const& [name, value] : texts())
      if (name.starts_with(prefix)) found.set(std::string_view(name).substr(prefix.size()), value);
    return found;
  }

  /// Throws SpecMismatch if the checkpoint is not of these fields.
  SOTTO_COLD void expect(Texts const& fields) const {
    std::vector<SpecMismatch::Field> wrong;
    for (auto const& [name, wanted] : fields) {
      std::string const* const found = texts().find(joined({"spec.", name}));
      if (found == nullptr || *found != wanted) wrong.push_back({name, wanted, found == nullptr ? "unknown" : *found});
    }
    if (!wrong.empty()) throw SpecMismatch(path_, std::move(wrong));
  }
  SOTTO_COLD bool matches(Texts const& fields) const {
    for (auto const& [name, wanted] : fields) {
      std::string const* const found = texts().find(joined({"spec.", name}));
      if (found == nullptr || *found != wanted) return false;
    }
    return true;
  }

  /// Error(file) if a save of so many bytes, beside the one that it replaces, does not fit on the disk. Makes the
  /// directory if needed.
  SOTTO_COLD static void expect_room(std::filesystem::path const& directory, std::size_t bytes) {
    make(directory);
    std::error_code error;
    const auto room = std::filesystem::space(directory, error).available;
    const std::size_t needed = (std::filesystem::exists(directory / file_name, error) ? 1 : 2) * bytes;
    if (!error && room < needed)
      throw_error(ErrorCode::file,
                  {"checkpoints need ", (needed >> 20) + 1, " MiB of disk and ", room >> 20,
                   " MiB are free; free some space, or choose another directory"},
                  directory);
  }

  /// All parameters of the table, into a flat buffer. Error(checkpoint) if some number is not finite.
  SOTTO_COLD void read(std::span<ParameterEntry const> table, float* values) const {
    for (auto const& entry : table) {
      const std::span<float> numbers(values + entry.offset, entry.size);
      read(entry.name(), numbers);
      for (const float x : numbers)
        if (!std::isfinite(x))
          throw_error(ErrorCode::checkpoint,
                      {"tensor '", entry.name(), "' holds numbers that are not finite; use an earlier checkpoint"},
                      path_);
    }
  }
  /// One tensor, of as many numbers.
  SOTTO_COLD void read(std::string const& name, std::span<float> to) const {
    const auto values = file_.floats(name);
    if (values.size() != to.size())
      throw_error(ErrorCode::checkpoint,
                  {"tensor '", name, "' has ", values.size(), " numbers where ", to.size(), " belong"}, path_);
    std::copy(values.begin(), values.end(), to.begin());
  }
  std::vector<float> floats(std::string const& name) const { return file_.floats(name); }
  std::vector<double> doubles(std::string const& name) const { return file_.doubles(name); }

  /// What a save needs; the spans must live until write().
  class Writer {
   public:
    SOTTO_COLD void texts(std::string_view prefix, Texts const& all) {
      for (auto const& [name, value] : all) file_.set_metadata(joined({prefix, name}), value);
    }
    SOTTO_COLD void parameters(std::span<ParameterEntry const> table, float const* values) {
      for (auto const& entry : table) {
        std::vector<std::int64_t> shape;
        for (int i = 0; i < entry.rank(); ++i) shape.push_back(entry.info.extents[static_cast<std::size_t>(i)]);
        file_.add(entry.name(), shape, std::span<float const>(values + entry.offset, entry.size));
      }
    }
    SOTTO_COLD void tensor(std::string const& name, std::span<float const> values) {
      file_.add(name, {static_cast<std::int64_t>(values.size())}, values);
    }
    SOTTO_COLD void tensor(std::string const& name, std::span<double const> values) {
      file_.add(name, {static_cast<std::int64_t>(values.size())}, values);
    }
    /// Replaces the checkpoint in the directory, atomically; makes the directory if needed.
    SOTTO_COLD std::filesystem::path write(std::filesystem::path const& directory) {
      make(directory);
      file_.set_metadata("format", format);
      const auto path = directory / file_name;
      file_.write(path);
      return path;
    }

   private:
    SafetensorsWriter file_;
  };

 private:
  SOTTO_COLD static void make(std::filesystem::path const& directory) {
    std::error_code error;
    std::filesystem::create_directories(directory, error);
    if (error) throw_error(ErrorCode::file, {"cannot make this directory: ", error.message()}, directory);
  }
  explicit Checkpoint(Safetensors file) : file_(std::move(file)) {}
  Safetensors file_;
  std::filesystem::path path_;
};

}  // namespace sotto::inline SOTTO_ABI
