// Parameters: one flat buffer, one struct, one visitor, one table. A module's parameters are a struct of leaves; what a
// leaf is, the store says: views of values, gradients or moments, or nothing but extents for counting.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <sotto/core/error.hpp>
#include <sotto/core/philox.hpp>
#include <sotto/core/views.hpp>

namespace sotto::detail::inline SOTTO_ABI {

/// The name, with the layer in the place of {}.
inline SOTTO_COLD std::string layer_name(std::string_view name, int layer) {
  const auto at = name.find("{}");
  return at == name.npos ? std::string(name) : joined({name.substr(0, at), layer, name.substr(at + 2)});
}

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_API {

/// How a parameter begins.
struct Initialiser {
  enum class Kind {
    zeros,
    ones,
    normal,    ///< mean 0, standard deviation `scale`
    uniform,   ///< in [-scale, scale)
    unit,      ///< uniform in [0, 1): fairseq's mask and label embeddings
    tap_norms  ///< weight norm's g: the norm of each tap of the parameter before it, so that g v / |v| = v at first
  };
  Kind kind = Kind::zeros;
  float scale = 0;
};

/// What one parameter is. `{}` in the name stands for the layer.
struct ParameterInfo {
  std::string_view name;       ///< Hugging Face's, where it has one
  std::array<int, 3> extents;  ///< 0 beyond the rank
  Initialiser initialiser;
  bool decay = false;   ///< whether weight decay applies
  int layer = -1;       ///< replaces {} in the name; -1: none
  bool trained = true;  ///< false: a constant that inference needs
};

/// One row of the parameter table.
struct ParameterEntry {
  ParameterInfo info;
  std::size_t offset, size;

  SOTTO_ALWAYS_INLINE constexpr int rank() const { return info.extents[2] > 0 ? 3 : info.extents[1] > 0 ? 2 : 1; }
  SOTTO_ALWAYS_INLINE std::string name() const { return detail::layer_name(info.name, info.layer); }
};

/// Views of a flat buffer of E.
template <class E> struct Values {
  template <int Out, int In> using Weight = sotto::Weight<E, Out, In>;
  template <int N> using Vector = sotto::Vector<E, N>;
};

/// Nothing but sizes, for counting in constant expressions.
struct Extents {
  template <int Out, int In> struct Weight { static constexpr std::size_t size = static_cast<std::size_t>(Out) * In; };
  template <int N> struct Vector { static constexpr std::size_t size = static_cast<std::size_t>(N); };
};

}  // namespace sotto::inline SOTTO_API

namespace sotto::detail::inline SOTTO_API {

template <template <class> class Parameters> consteval std::size_t count_entries() {
  std::size_t n = 0;
  Parameters<Extents> extents{};
  Parameters<Extents>::visit([&](ParameterInfo const&, auto&) { ++n; }, extents);
  return n;
}

}  // namespace sotto::detail::inline SOTTO_API

namespace sotto::inline SOTTO_API {

/// The table of a struct of leaves, made by its visitor: `visit(f, structs...)` calls
/// `f(ParameterInfo const&, leaf...)` once a parameter, in the order of the flat buffer.
template <template <class> class Parameters> struct ParameterTable {
  static constexpr std::size_t entries = detail::count_entries<Parameters>();

  static constexpr std::array<ParameterEntry, entries> make() {
    std::array<ParameterEntry, entries> table{};
    std::size_t n = 0, at = 0;
    Parameters<Extents> extents{};
    Parameters<Extents>::visit(
        [&](ParameterInfo const& info, auto& leaf) {
          constexpr std::size_t size = std::remove_cvref_t<decltype(leaf)>::size;
          table[n++] = {info, at, size};
          at += size;
        },
        extents);
    return table;
  }
  /// Views of a flat buffer, in visiting order.
  template <class E> SOTTO_COLD static Parameters<Values<E>> carve(E* flat) {
    Parameters<Values<E>> views{};
    std::size_t at = 0;
    Parameters<Values<E>>::visit(
        [&](ParameterInfo const&, auto& leaf) {
          leaf.begin = flat + at;
          at += std::remove_cvref_t<decltype(leaf)>::size;
        },
        views);
    return views;
  }
};

/// Numbers in a table, trained or not.
SOTTO_ALWAYS_INLINE constexpr std::size_t count(std::span<ParameterEntry const> table) {
  return table.empty() ? 0 : table.back().offset + table.back().size;
}

}  // namespace sotto::inline SOTTO_API

namespace sotto::inline SOTTO_ABI {

/// Fills a flat buffer as the table says. A parameter's numbers depend on the seed and its place in the table only.
template <class E> SOTTO_COLD void initialise(std::span<ParameterEntry const> table, E* values, std::uint64_t seed) {
  for (std::size_t i = 0; i < table.size(); ++i) {
    const auto& [info, offset, size] = table[i];
    Random random(seed, Purpose::initialise, 0, i);
    E* const to = values + offset;
    const double scale = static_cast<double>(info.initialiser.scale);
    switch (info.initialiser.kind) {
      case Initialiser::Kind::zeros:
        for (std::size_t k = 0; k < size; ++k) to[k] = E(0);
        break;
      case Initialiser::Kind::ones:
        for (std::size_t k = 0; k < size; ++k) to[k] = E(1);
        break;
      case Initialiser::Kind::normal:
        for (std::size_t k = 0; k < size; ++k) to[k] = E(scale * random.normal());
        break;
      case Initialiser::Kind::uniform:
        for (std::size_t k = 0; k < size; ++k) to[k] = E(scale * (2 * random.uniform() - 1));
        break;
      case Initialiser::Kind::unit:
        for (std::size_t k = 0; k < size; ++k) to[k] = E(random.uniform());
        break;
      case Initialiser::Kind::tap_norms: {
        using std::sqrt;
        const auto& before = table[i - 1];
        E const* const v = values + before.offset;
        for (std::size_t k = 0; k < size; ++k) {
          E sum(0);
          for (std::size_t j = k; j < before.size; j += size) sum += v[j] * v[j];
          to[k] = sqrt(sum);
        }
        break;
      }
    }
  }
}

}  // namespace sotto::inline SOTTO_ABI
