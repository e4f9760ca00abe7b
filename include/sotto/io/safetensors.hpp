// Safetensors: named arrays behind a flat JSON header (github.com/huggingface/safetensors,
// "Format"). The reader is strict: whatever the format forbids is refused with a sentence, so that
// a damaged file is never half understood.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/order.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/core/texts.hpp>
#include <sotto/io/detail/flat_json.hpp>
#include <sotto/io/durable_file.hpp>

namespace sotto::detail::inline SOTTO_ABI {

/// Bytes an element; 0 for a type that the format does not have.
inline SOTTO_COLD std::size_t safetensors_size(std::string_view dtype) {
  constexpr std::pair<std::string_view, std::size_t> sizes[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"U16", 2}, {"I16", 2}, {"F16", 2},
      {"BF16", 2}, {"U32", 4}, {"I32", 4}, {"F32", 4},     {"U64", 8},     {"I64", 8}, {"F64", 8}};
  for (auto const& [name, size] : sizes)
    if (name == dtype) return size;
  return 0;
}

/// The number of bytes of a tensor, if it is one that memory could hold.
inline SOTTO_COLD std::optional<std::size_t> safetensors_bytes(std::string_view dtype,
                                                               std::vector<std::int64_t> const& shape) {
  std::size_t bytes = safetensors_size(dtype);
  for (const std::int64_t extent : shape) {
    std::size_t product;
    if (extent < 0 || __builtin_mul_overflow(bytes, static_cast<std::size_t>(extent), &product)) return {};
    bytes = product;
  }
  return bytes;
}

/// IEEE 754 binary16.
inline float float_of_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16, exponent = half >> 10 & 31u,
                      fraction = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: fraction · 2^-24, exactly
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | fraction << 13);
}

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

static_assert(std::endian::native == std::endian::little, "sotto: safetensors and npy need a little-endian machine");

/// A safetensors file, read into memory as a whole. Moves, never copies.
class Safetensors {
 public:
  /// One array. bytes live as long as the Safetensors it came from, moved or not, and may lie at any
  /// alignment.
  struct Tensor {
    std::string name, dtype;  ///< dtype as the format writes it: F32, F64, I64, U16, …
    std::vector<std::int64_t> shape;
    std::span<std::byte const> bytes;
  };

  /// Reads and checks the file. Error(file) with one sentence if it is missing, cut short or breaks
  /// the format.
  SOTTO_COLD static Safetensors open(std::filesystem::path const& path) { return Safetensors(path, read_file(path)); }

  Safetensors(Safetensors&&) = default;
  Safetensors& operator=(Safetensors&&) = default;

  /// All arrays, in the order of their bytes.
  std::vector<Tensor> const& tensors() const& noexcept { return tensors_; }
  void tensors() const&& = delete;  // the array would outlive its file
  Texts const& metadata() const& noexcept { return metadata_; }
  void metadata() const&& = delete;
  bool contains(std::string_view name) const { return position(name) < tensors_.size(); }
  /// The array of that name. Error(file) if there is none.
  Tensor const& at(std::string_view name) const& { return find(name); }
  void at(std::string_view name) const&& = delete;

  /// The numbers of an array, in order, as float. Error(file) if there is none, or if it is of an
  /// 8-bit float type.
  std::vector<float> floats(std::string_view name) const { return numbers<float>(name); }
  /// The same as double.
  std::vector<double> doubles(std::string_view name) const { return numbers<double>(name); }
  /// The same as integers. Error(file) if it holds floating-point numbers, or one that does not
  /// fit.
  std::vector<std::int64_t> ints(std::string_view name) const { return numbers<std::int64_t>(name); }

 private:
  Safetensors(std::filesystem::path path, std::vector<std::byte> bytes)
      : path_(std::move(path)), bytes_(std::move(bytes)) {
    parse();
  }

  [[noreturn]] void fail(std::initializer_list<Piece> sentence) const { throw_error(ErrorCode::file, sentence, path_); }

  SOTTO_COLD void parse() {
    const std::span<std::byte const> all(bytes_);
    if (all.size() < 8) fail({"it is cut short: a safetensors file begins with eight bytes of header length."});
    std::uint64_t length;
    std::memcpy(&length, all.data(), 8);
    if (length > 100'000'000) fail({"it is no safetensors file: its header claims ", length, " bytes."});
    if (length > all.size() - 8)
      fail({"it is cut short: its header has ", length, " bytes, but only ", all.size() - 8, " are there."});
    const auto header = all.subspan(8, static_cast<std::size_t>(length));
    const auto body = all.subspan(8 + static_cast<std::size_t>(length));

    std::vector<std::int64_t> offsets;  // of each tensor two: begin and end
    detail::FlatJson json({reinterpret_cast<char const*>(header.data()), header.size()}, path_);
    bool described = false;
    json.object([&](std::string_view key) {
      if (key == "__metadata__") {
        if (std::exchange(described, true)) fail({"its header says \"__metadata__\" twice."});
        json.object([&](std::string_view name) {
          const std::string value = json.string();
          if (metadata_.find(name) != nullptr) fail({"its metadata says \"", name, "\" twice."});
          metadata_.set(name, value);
        });
        return;
      }
      Tensor tensor;
      int seen = 0;
      json.object([&](std::string_view field) {
        const int bit = field == "dtype" ? 1 : field == "shape" ? 2 : field == "data_offsets" ? 4 : 0;
        if (bit == 0 || (seen & bit))
          fail({"tensor \"", key, "\" has an unknown or repeated field \"", field, "\" in the header."});
        seen |= bit;
        if (bit == 1) {
          tensor.dtype = json.string();
        } else if (bit == 2) {
          json.array([&] { tensor.shape.push_back(static_cast<std::int64_t>(json.integer())); });
        } else {
          json.array([&] { offsets.push_back(static_cast<std::int64_t>(json.integer())); });
          if (offsets.size() != 2 * tensors_.size() + 2)
            fail({"tensor \"", key, "\" needs two data offsets, begin and end."});
        }
      });
      if (seen != 7) fail({"tensor \"", key, "\" lacks its dtype, shape or data_offsets in the header."});
      tensor.name = key;
      tensors_.push_back(std::move(tensor));
    });
    json.end();

    // Every byte belongs to exactly one tensor: sorted, they must lie side by side. An empty one
    // goes before another that begins where it lies.
    std::vector<int> order(tensors_.size());
    std::iota(order.begin(), order.end(), 0);
    const auto begin_of = [&](int i) { return static_cast<std::uint64_t>(offsets[2 * static_cast<std::size_t>(i)]); };
    const auto end_of = [&](int i) { return static_cast<std::uint64_t>(offsets[2 * static_cast<std::size_t>(i) + 1]); };
    sort_indices(order, [&](int a, int b) {
      return begin_of(a) != begin_of(b) ? begin_of(a) < begin_of(b)
             : end_of(a) != end_of(b)   ? end_of(a) < end_of(b)
                                        : a < b;
    });
    std::vector<Tensor> sorted;
    std::uint64_t next = 0;
    for (const int i : order) {
      Tensor& tensor = tensors_[static_cast<std::size_t>(i)];
      const std::uint64_t begin = begin_of(i), end = end_of(i);
      const std::string what = joined({"tensor \"", tensor.name, "\" "});
      if (detail::safetensors_size(tensor.dtype) == 0) fail({what, "is of unknown type \"", tensor.dtype, "\"."});
      if (end < begin) fail({what, "ends before it begins."});
      if (end > body.size())
        fail({what, "ends at byte ", end, " of the data, but only ", body.size(),
              " bytes are there: the file is cut short or damaged."});
      const auto bytes = detail::safetensors_bytes(tensor.dtype, tensor.shape);
      if (!bytes || *bytes != end - begin) fail({what, "has offsets that do not agree with its shape and type."});
      if (begin != next) fail({what, begin < next ? "overlaps another." : "leaves a hole before it."});
      next = end;
      tensor.bytes = body.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
      sorted.push_back(std::move(tensor));
    }
    tensors_ = std::move(sorted);
    if (next != body.size()) fail({"it has ", body.size() - next, " bytes that belong to no tensor: it is damaged."});
    for (std::size_t i = 0; i < tensors_.size(); ++i)
      if (position(tensors_[i].name) != i) fail({"it holds tensor \"", tensors_[i].name, "\" twice."});
  }

  /// The tensor's place; beyond the last if there is none.
  SOTTO_COLD std::size_t position(std::string_view name) const {
    std::size_t i = 0;
    while (i < tensors_.size() && tensors_[i].name != name) ++i;
    return i;
  }
  SOTTO_COLD Tensor const& find(std::string_view name) const {
    const std::size_t i = position(name);
    if (i == tensors_.size()) fail({"it holds no tensor \"", name, "\"."});
    return tensors_[i];
  }

  template <class Stored> static Stored stored(Tensor const& tensor, std::size_t i) {
    Stored bits;
    std::memcpy(&bits, tensor.bytes.data() + i * sizeof(Stored), sizeof(Stored));
    return bits;
  }
  /// Number i, of a type that is asked for once.
  SOTTO_COLD std::int64_t whole(Tensor const& tensor, std::size_t i) const {
    std::string const& dtype = tensor.dtype;
    if (dtype == "I64") return stored<std::int64_t>(tensor, i);
    if (dtype == "I32") return stored<std::int32_t>(tensor, i);
    if (dtype == "I16") return stored<std::int16_t>(tensor, i);
    if (dtype == "I8") return stored<std::int8_t>(tensor, i);
    if (dtype == "U8" || dtype == "BOOL") return stored<std::uint8_t>(tensor, i);
    if (dtype == "U16") return stored<std::uint16_t>(tensor, i);
    if (dtype == "U32") return stored<std::uint32_t>(tensor, i);
    if (dtype != "U64") fail({"tensor \"", tensor.name, "\" holds ", dtype, " where whole numbers are wanted."});
    const auto value = stored<std::uint64_t>(tensor, i);
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      fail({"tensor \"", tensor.name, "\" holds ", value, ", more than 63 bits can."});
    return static_cast<std::int64_t>(value);
  }
  SOTTO_COLD double real(Tensor const& tensor, std::size_t i) const {
    std::string const& dtype = tensor.dtype;
    if (dtype == "F32") return static_cast<double>(stored<float>(tensor, i));
    if (dtype == "F64") return stored<double>(tensor, i);
    if (dtype == "F16") return static_cast<double>(detail::float_of_half(stored<std::uint16_t>(tensor, i)));
    if (dtype == "BF16")
      return static_cast<double>(
          std::bit_cast<float>(static_cast<std::uint32_t>(stored<std::uint16_t>(tensor, i)) << 16));
    if (dtype == "U64") return static_cast<double>(stored<std::uint64_t>(tensor, i));
    if (dtype.starts_with("F"))
      fail({"tensor \"", tensor.name, "\" is of type ", dtype, ", which sotto does not convert; store it as F32."});
    return static_cast<double>(whole(tensor, i));
  }
  template <class To> SOTTO_COLD std::vector<To> numbers(std::string_view name) const {
    Tensor const& tensor = find(name);
    std::vector<To> result(tensor.bytes.size() / detail::safetensors_size(tensor.dtype));
    if (tensor.dtype == (sizeof(To) == 4 ? "F32" : std::is_integral_v<To> ? "I64" : "F64")) {
      if (!result.empty()) std::memcpy(result.data(), tensor.bytes.data(), tensor.bytes.size());
      return result;
    }
    for (std::size_t i = 0; i < result.size(); ++i) {
      if constexpr (std::is_integral_v<To>)
        result[i] = whole(tensor, i);
      else
        result[i] = static_cast<To>(real(tensor, i));
    }
    return result;
  }

  std::filesystem::path path_;
  std::vector<std::byte> bytes_;
  std::vector<Tensor> tensors_;
  Texts metadata_;
};

/// Collects arrays and writes them as one file. It keeps views, not copies: what is added must live
/// until write().
class SafetensorsWriter {
 public:
  /// Error(usage) if the name is taken or no UTF-8, the type unknown, or bytes not as many as shape
  /// and type say.
  SOTTO_COLD void add(std::string name, std::string dtype, std::vector<std::int64_t> shape,
                      std::span<std::byte const> bytes) {
    const auto fail = [&](char const* what) {
      throw_error(ErrorCode::usage, {"tensor \"", name, "\" cannot be saved: ", what});
    };
    if (name == "__metadata__" || !detail::valid_utf8(name)) fail("its name is reserved or no UTF-8.");
    const std::size_t size = detail::safetensors_size(dtype);
    if (size == 0) fail("its type is unknown to the format.");
    if (detail::safetensors_bytes(dtype, shape) != bytes.size()) fail("its shape does not fit its bytes.");
    for (Entry const& entry : entries_)
      if (entry.name == name) fail("another has the same name.");
    entries_.push_back({std::move(name), std::move(dtype), std::move(shape), bytes, size});
  }
  SOTTO_COLD void add(std::string name, std::vector<std::int64_t> shape, std::span<float const> values) {
    add(std::move(name), "F32", std::move(shape), std::as_bytes(values));
  }
  SOTTO_COLD void add(std::string name, std::vector<std::int64_t> shape, std::span<double const> values) {
    add(std::move(name), "F64", std::move(shape), std::as_bytes(values));
  }
  SOTTO_COLD void add(std::string name, std::vector<std::int64_t> shape, std::span<std::int64_t const> values) {
    add(std::move(name), "I64", std::move(shape), std::as_bytes(values));
  }
  SOTTO_COLD void add(std::string name, std::vector<std::int64_t> shape, std::span<std::uint16_t const> values) {
    add(std::move(name), "U16", std::move(shape), std::as_bytes(values));
  }
  /// A later value of a key replaces the earlier. Error(usage) if either is no UTF-8.
  SOTTO_COLD void set_metadata(std::string_view key, std::string_view value) {
    if (!detail::valid_utf8(key) || !detail::valid_utf8(value))
      throw_error(ErrorCode::usage, {"metadata \"", key, "\" cannot be saved: it is no UTF-8."});
    metadata_.set(key, value);
  }

  /// Writes the file whole or not at all (see DurableFile). Equal contents added in equal order
  /// give equal bytes.
  SOTTO_COLD void write(std::filesystem::path const& path) const {
    // Wide elements first, as the format's own writer does: every array is then aligned in the
    // file.
    const auto each = [&](FunctionRef<void(Entry const&)> use) {
      for (const std::size_t element : {8, 4, 2, 1})
        for (Entry const& entry : entries_)
          if (entry.element == element) use(entry);
    };

    std::string header = "{";
    if (!metadata_.empty()) {
      header += "\"__metadata__\":{";
      bool first = true;
      for (auto const& [key, value] : metadata_) {
        if (!std::exchange(first, false)) header += ',';
        detail::append_json_string(header, key);
        header += ':';
        detail::append_json_string(header, value);
      }
      header += '}';
    }
    std::size_t offset = 0;
    each([&](Entry const& entry) {
      if (header.size() > 1) header += ',';
      detail::append_json_string(header, entry.name);
      header += joined({":{\"dtype\":\"", entry.dtype, "\",\"shape\":["});
      for (std::size_t i = 0; i < entry.shape.size(); ++i) header += joined({i > 0 ? "," : "", entry.shape[i]});
      header += joined({"],\"data_offsets\":[", offset, ",", offset + entry.bytes.size(), "]}"});
      offset += entry.bytes.size();
    });
    header += '}';
    header.resize((header.size() + 7) / 8 * 8, ' ');

    DurableFile file(path);
    const std::uint64_t length = header.size();
    file.write(std::as_bytes(std::span(&length, 1)));
    file.write(header);
    each([&](Entry const& entry) { file.write(entry.bytes); });
    file.commit();
  }

 private:
  struct Entry {
    std::string name, dtype;
    std::vector<std::int64_t> shape;
    std::span<std::byte const> bytes;
    std::size_t element;
  };
  std::vector<Entry> entries_;
  Texts metadata_;
};

}  // namespace sotto::inline SOTTO_ABI
