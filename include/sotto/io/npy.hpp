// NumPy's .npy files, version 1.0 (NEP 1): one dense array of float32, int32 or int64.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/io/durable_file.hpp>

namespace sotto::detail::inline SOTTO_ABI {

template <class Element> constexpr std::string_view npy_descr() {
  static_assert(
      std::is_same_v<Element, float> || std::is_same_v<Element, std::int32_t> || std::is_same_v<Element, std::int64_t>,
      "sotto: an npy array holds float, std::int32_t or std::int64_t");
  static_assert(std::endian::native == std::endian::little, "sotto: npy needs a little-endian machine");
  if constexpr (std::is_same_v<Element, float>)
    return "<f4";
  else
    return sizeof(Element) == 4 ? "<i4" : "<i8";
}

/// The number of elements, if it fits.
inline std::optional<std::size_t> npy_elements(std::vector<std::int64_t> const& shape) {
  std::size_t elements = 1;
  for (const std::int64_t extent : shape)
    if (extent < 0 || __builtin_mul_overflow(elements, static_cast<std::size_t>(extent), &elements)) return {};
  return elements;
}

/// The header's dictionary: the three keys that NEP 1 prescribes, in any order.
struct NpyHeader {
  std::string descr;
  bool fortran = false;
  std::vector<std::int64_t> shape;

  /// Nothing if text is not such a dictionary.
  static std::optional<NpyHeader> parse(std::string_view text) {
    NpyHeader header;
    int seen = 0;
    const auto blanks = [&] {
      while (!text.empty() && (text.front() == ' ' || text.front() == '\n')) text.remove_prefix(1);
    };
    const auto accept = [&](std::string_view token) {
      blanks();
      if (!text.starts_with(token)) return false;
      text.remove_prefix(token.size());
      return true;
    };
    const auto quoted = [&]() -> std::optional<std::string> {
      blanks();
      if (text.empty() || (text.front() != '\'' && text.front() != '"')) return {};
      const auto end = text.find(text.front(), 1);
      if (end == text.npos) return {};
      std::string result(text.substr(1, end - 1));
      text.remove_prefix(end + 1);
      return result;
    };
    if (!accept("{")) return {};
    while (!accept("}")) {
      const auto key = quoted();
      if (!key || !accept(":")) return {};
      const int bit = *key == "descr" ? 1 : *key == "fortran_order" ? 2 : *key == "shape" ? 4 : 0;
      if (bit == 0 || (seen & bit)) return {};
      seen |= bit;
      if (bit == 1) {
        const auto value = quoted();
        if (!value) return {};
        header.descr = *value;
      } else if (bit == 2) {
        header.fortran = accept("True");
        if (!header.fortran && !accept("False")) return {};
      } else {
        if (!accept("(")) return {};
        while (!accept(")")) {
          blanks();
          std::int64_t extent = 0;
          std::size_t digits = 0;
          for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9'; ++digits)
            if (digits == 18 || (extent = 10 * extent + (text[digits] - '0')) < 0) return {};
          if (digits == 0) return {};
          text.remove_prefix(digits);
          header.shape.push_back(extent);
          if (!accept(",") && !(blanks(), text.starts_with(")"))) return {};
        }
      }
      if (!accept(",") && !(blanks(), text.starts_with("}"))) return {};
    }
    blanks();
    if (seen != 7 || !text.empty()) return {};
    return header;
  }
};

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

/// An array as an .npy file holds it: values in C order.
template <class Element> struct NpyArray {
  std::vector<std::int64_t> shape;
  std::vector<Element> values;
};

/// Writes values, in C order, whole or not at all. Element: float, std::int32_t or std::int64_t.
/// Error(usage) if shape does not fit values, Error(file) if the file cannot be written.
template <class Element>
void write_npy(std::filesystem::path const& path, std::vector<std::int64_t> const& shape,
               std::span<Element const> values) {
  if (detail::npy_elements(shape) != values.size())
    throw_error(ErrorCode::usage, {"an array cannot be saved: its shape does not fit its values."}, path);
  std::string header =
      "{'descr': '" + std::string(detail::npy_descr<Element>()) + "', 'fortran_order': False, 'shape': (";
  for (const std::int64_t extent : shape) header += std::to_string(extent) + ", ";
  if (shape.size() > 1) header.resize(header.size() - 2);
  header += "), }";
  // magic, version and length are ten bytes; the data begin at a multiple of 64, after a line feed
  header.resize((header.size() + 10 + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  header += '\n';
  if (header.size() > 65535) throw_error(ErrorCode::usage, {"an array cannot be saved: it has too many axes."}, path);
  std::string preamble = "\x93NUMPY";
  preamble += {'\1', '\0', static_cast<char>(header.size() & 255), static_cast<char>(header.size() >> 8)};
  DurableFile file(path);
  file.write(preamble + header);
  file.write(std::as_bytes(values));
  file.commit();
}

/// Reads an array. Error(file) if the file is missing, damaged, in Fortran order or of another type
/// than Element.
template <class Element> NpyArray<Element> read_npy(std::filesystem::path const& path) {
  const std::vector<std::byte> bytes = read_file(path);
  const auto fail = [&](std::initializer_list<Piece> sentence) { throw_error(ErrorCode::file, sentence, path); };
  if (bytes.size() < 10 || std::memcmp(bytes.data(), "\x93NUMPY", 6) != 0) fail({"it is no npy file."});
  if (bytes[6] != std::byte{1}) fail({"it is of an npy version other than 1.0; save it again with numpy.save."});
  const std::size_t length = std::to_integer<std::size_t>(bytes[8]) | std::to_integer<std::size_t>(bytes[9]) << 8;
  if (length > bytes.size() - 10) fail({"it is cut short inside its header."});
  const auto header = detail::NpyHeader::parse({reinterpret_cast<char const*>(bytes.data()) + 10, length});
  if (!header) fail({"its header is damaged."});
  if (header->descr != detail::npy_descr<Element>())
    fail({"it holds ", header->descr, " where ", detail::npy_descr<Element>(), " is wanted."});
  if (header->fortran) fail({"it is in Fortran order; save numpy.ascontiguousarray of it."});
  const auto elements = detail::npy_elements(header->shape);
  const std::size_t present = bytes.size() - 10 - length;
  if (!elements || present % sizeof(Element) != 0 || *elements != present / sizeof(Element))
    fail({"it has ", present, " bytes of data, which its shape does not fit: it is cut short or damaged."});
  NpyArray<Element> array{header->shape, std::vector<Element>(*elements)};
  if (present > 0) std::memcpy(array.values.data(), bytes.data() + 10 + length, present);
  return array;
}

}  // namespace sotto::inline SOTTO_ABI
