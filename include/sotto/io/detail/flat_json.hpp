// The JSON that a safetensors header needs: objects of strings, whole numbers and arrays of them
// (RFC 8259), strictly.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/parallel.hpp>

namespace sotto::detail::inline SOTTO_ABI {

/// Whether text is UTF-8: no stray or overlong bytes, no surrogates, nothing past U+10FFFF (RFC
/// 3629).
inline SOTTO_COLD bool valid_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t k) { return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0u; };
    const unsigned lead = byte(0);
    const int more = lead < 0x80                   ? 0
                     : lead >= 0xC2 && lead < 0xE0 ? 1
                     : lead >= 0xE0 && lead < 0xF0 ? 2
                     : lead >= 0xF0 && lead < 0xF5 ? 3
                                                   : -1;
    if (more < 0) return false;
    for (int k = 1; k <= more; ++k)
      if ((byte(static_cast<std::size_t>(k)) & 0xC0) != 0x80) return false;
    const unsigned second = byte(1);
    if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second >= 0xA0) || (lead == 0xF0 && second < 0x90) ||
        (lead == 0xF4 && second >= 0x90))
      return false;
    i += static_cast<std::size_t>(more) + 1;
  }
  return true;
}

inline SOTTO_COLD void append_json_string(std::string& out, std::string_view text) {
  constexpr char hex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += hex[c >> 4];
      out += hex[c & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

/// Reads one value after another, as the caller expects them; anything else is an Error(file).
class FlatJson {
 public:
  FlatJson(std::string_view text, std::filesystem::path const& path) : text_(text), path_(path) {
    if (!valid_utf8(text)) fail({"text that is no UTF-8"});
  }

  /// entry(key) is called for each key and must read its value.
  SOTTO_COLD void object(FunctionRef<void(std::string_view)> entry) {
    expect('{');
    if (accept('}')) return;
    do {
      std::string key = string();
      expect(':');
      entry(key);
    } while (accept(','));
    expect('}');
  }
  /// element() is called at each element and must read it.
  SOTTO_COLD void array(FunctionRef<void()> element) {
    expect('[');
    if (accept(']')) return;
    do element();
    while (accept(','));
    expect(']');
  }
  /// A whole number in [0, 2^63).
  SOTTO_COLD std::uint64_t integer() {
    skip_blanks();
    const std::size_t first = at_;
    std::uint64_t value = 0;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
      const auto digit = static_cast<std::uint64_t>(text_[at_++] - '0');
      if (value > (INT64_MAX - digit) / 10) fail({"a number past 63 bits"});
      value = 10 * value + digit;
    }
    if (at_ == first || (text_[first] == '0' && at_ != first + 1)) fail({"no whole number where one is due"});
    return value;
  }
  SOTTO_COLD std::string string() {
    expect('"');
    std::string result;
    for (;;) {
      const char c = take();
      if (c == '"') return result;
      if (static_cast<unsigned char>(c) < 0x20) fail({"a bare control character in a string"});
      if (c != '\\') {
        result += c;
        continue;
      }
      switch (const char escape = take()) {
        case '"':
        case '\\':
        case '/':
          result += escape;
          break;
        case 'b':
          result += '\b';
          break;
        case 'f':
          result += '\f';
          break;
        case 'n':
          result += '\n';
          break;
        case 'r':
          result += '\r';
          break;
        case 't':
          result += '\t';
          break;
        case 'u':
          append_code_point(result);
          break;
        default:
          fail({"an unknown escape in a string"});
      }
    }
  }
  /// Nothing but blanks may follow.
  SOTTO_COLD void end() {
    skip_blanks();
    if (at_ != text_.size()) fail({"something after the closing brace"});
  }

 private:
  [[noreturn]] void fail(std::initializer_list<Piece> what) const {
    throw_error(ErrorCode::file, {"its header is no valid JSON: ", joined(what), " at byte ", at_, "."}, path_);
  }
  SOTTO_COLD char take() {
    if (at_ == text_.size()) fail({"a sudden end"});
    return text_[at_++];
  }
  SOTTO_COLD void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
      ++at_;
  }
  SOTTO_COLD bool accept(char c) {
    skip_blanks();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail({"no '", c, "' where one is due"});
  }
  SOTTO_COLD unsigned hex4() {
    unsigned value = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = take();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) fail({"an escape without four hexadecimal digits"});
      value = 16 * value + static_cast<unsigned>(digit);
    }
    return value;
  }
  SOTTO_COLD void append_code_point(std::string& out) {
    unsigned code = hex4();
    if (code >= 0xD800 && code < 0xE000) {  // the first of a surrogate pair, or an error
      if (code >= 0xDC00 || take() != '\\' || take() != 'u') fail({"half a surrogate pair"});
      const unsigned low = hex4();
      if (low < 0xDC00 || low >= 0xE000) fail({"half a surrogate pair"});
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    const auto byte = [&](unsigned value) { out += static_cast<char>(value); };
    if (code < 0x80) {
      byte(code);
    } else if (code < 0x800) {
      byte(0xC0 | code >> 6), byte(0x80 | (code & 63));
    } else if (code < 0x10000) {
      byte(0xE0 | code >> 12), byte(0x80 | (code >> 6 & 63)), byte(0x80 | (code & 63));
    } else {
      byte(0xF0 | code >> 18), byte(0x80 | (code >> 12 & 63)), byte(0x80 | (code >> 6 & 63)), byte(0x80 | (code & 63));
    }
  }

  std::string_view text_;
  std::filesystem::path const& path_;
  std::size_t at_ = 0;
};

}  // namespace sotto::detail::inline SOTTO_ABI
