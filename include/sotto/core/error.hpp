// What sotto throws.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
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

}  // namespace sotto::inline SOTTO_API

namespace sotto::inline SOTTO_ABI {

/// A piece of a sentence: text, or a number. Lives no longer than the call it is made for.
class Piece {
 public:
  Piece(char const* text) : text_(text) {}         // NOLINT: implicit, like all of these
  Piece(std::string_view text) : text_(text) {}    // NOLINT
  Piece(std::string const& text) : text_(text) {}  // NOLINT
  Piece(char letter) : kind_(Kind::letter), integer_(static_cast<unsigned char>(letter)) {}  // NOLINT
  template <std::integral T>
  Piece(T number)  // NOLINT
      : kind_(std::signed_integral<T> ? Kind::whole : Kind::natural), integer_(static_cast<std::uint64_t>(number)) {}
  Piece(double number) : kind_(Kind::real), real_(number) {}  // NOLINT

  SOTTO_COLD void append_to(std::string& sentence) const {
    char number[40];
    switch (kind_) {
      case Kind::text:
        sentence += text_;
        return;
      case Kind::letter:
        sentence += static_cast<char>(integer_);
        return;
      case Kind::whole:
        std::snprintf(number, sizeof number, "%lld", static_cast<long long>(integer_));
        break;
      case Kind::natural:
        std::snprintf(number, sizeof number, "%llu", static_cast<unsigned long long>(integer_));
        break;
      case Kind::real:
        std::snprintf(number, sizeof number, "%.5g", real_);
        break;
    }
    sentence += number;
  }

 private:
  enum class Kind { text, letter, whole, natural, real } kind_ = Kind::text;
  std::string_view text_{};
  union {
    std::uint64_t integer_ = 0;
    double real_;
  };
};

/// The pieces, one after another. (A chain of + would cost a compiler thirty times as much.)
inline SOTTO_COLD std::string joined(std::initializer_list<Piece> pieces) {
  std::string sentence;
  for (Piece const& piece : pieces) piece.append_to(sentence);
  return sentence;
}

}  // namespace sotto::inline SOTTO_ABI

namespace sotto::detail::inline SOTTO_ABI {

/// The sentence, after the file that it is about.
inline SOTTO_COLD std::string located(std::string const& sentence, std::filesystem::path const& path) {
  return path.empty() ? sentence : joined({path.string(), ": ", sentence});
}

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_API {

/// Every failure of sotto: one sentence that says what is wrong, where, and what to do.
class Error : public std::runtime_error {
 public:
  SOTTO_ALWAYS_INLINE Error(ErrorCode code, std::string const& sentence, std::filesystem::path path = {})
      : std::runtime_error(detail::located(sentence, path)), code_(code), path_(std::move(path)) {}
  SOTTO_ALWAYS_INLINE ErrorCode code() const noexcept { return code_; }
  /// The file concerned; empty if none. what() begins with it.
  SOTTO_ALWAYS_INLINE std::filesystem::path const& path() const noexcept { return path_; }

 private:
  ErrorCode code_;
  std::filesystem::path path_;
};

}  // namespace sotto::inline SOTTO_API

namespace sotto::inline SOTTO_ABI {

/// Throws the Error whose sentence the pieces are.
[[noreturn]] inline SOTTO_COLD void throw_error(ErrorCode code, std::initializer_list<Piece> pieces,
                                                std::filesystem::path const& path = {}) {
  throw Error(code, joined(pieces), path);
}

}  // namespace sotto::inline SOTTO_ABI
