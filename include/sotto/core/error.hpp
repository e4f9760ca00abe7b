// What sotto throws.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>

#include <sotto/config.hpp>

namespace sotto::inline SOTTO_API {

/// What kind of thing went wrong; a program maps it to its exit code.
enum class ErrorCode {
  usage,       ///< an option or argument that cannot be
  data,        ///< audio, a manifest or labels that cannot be used
  file,        ///< a file that cannot be read or written
  checkpoint,  ///< a checkpoint that is damaged or of another spec
  device,      ///< no usable device
  internal     ///< a broken promise of ours
};

/// Every failure of sotto: one sentence that says what is wrong, where, and what to do.
class Error : public std::runtime_error {
 public:
  SOTTO_ALWAYS_INLINE Error(ErrorCode code, std::string const& sentence, std::filesystem::path path = {})
      : std::runtime_error(path.empty() ? sentence : path.string() + ": " + sentence), code_(code),
        path_(std::move(path)) {}
  SOTTO_ALWAYS_INLINE ErrorCode code() const noexcept { return code_; }
  /// The file concerned; empty if none. what() begins with it.
  SOTTO_ALWAYS_INLINE std::filesystem::path const& path() const noexcept { return path_; }

 private:
  ErrorCode code_;
  std::filesystem::path path_;
};

}  // namespace sotto::inline SOTTO_API
