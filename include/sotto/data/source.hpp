// What a corpus must offer, so that a program can train on speech that lives anywhere.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>

namespace sotto::inline SOTTO_ABI {

/// Speech as numbered utterances of 16 kHz mono samples.
///   size()                  how many utterances
///   samples(i)              how many samples utterance i has
///   read(i, first, out)     fills `out` with samples [first, first + out.size()) of utterance i,
///   each in [-1, 1];
///                           called by several threads at once
/// A source may also have `speaker(i)`, `split(i)` ("train", "val" or "test"), `label(i)`,
/// `name(i)`, all convertible to string_view and empty where unknown, and `fingerprint()`: see
/// speaker_of() and its neighbours.
template <class S>
concept DataSource = requires(S const& source, std::size_t i, std::int64_t first, std::span<float> out) {
  { source.size() } -> std::convertible_to<std::size_t>;
  { source.samples(i) } -> std::convertible_to<std::int64_t>;
  source.read(i, first, out);
};

/// Who speaks utterance i; "" if the source does not know. The view lives as long as the source.
template <DataSource S> std::string_view speaker_of(S const& source, std::size_t i) {
  if constexpr (requires { std::string_view(source.speaker(i)); }) return source.speaker(i);
  return {};
}

/// "train", "val", "test", or "" if the source does not say.
template <DataSource S> std::string_view split_of(S const& source, std::size_t i) {
  if constexpr (requires { std::string_view(source.split(i)); }) return source.split(i);
  return {};
}

/// The word, or other class, that a probe tells from the rest; "" if none.
template <DataSource S> std::string_view label_of(S const& source, std::size_t i) {
  if constexpr (requires { std::string_view(source.label(i)); }) return source.label(i);
  return {};
}

/// What to call utterance i in a message; "" if the source has no names.
template <DataSource S> std::string_view name_of(S const& source, std::size_t i) {
  if constexpr (requires { std::string_view(source.name(i)); }) return source.name(i);
  return {};
}

/// FNV-1a, 64 bits, over numbers and texts: tells one corpus from another, and resists no attack.
class Fingerprint {
 public:
  void add(std::uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8) byte(static_cast<unsigned char>(number >> shift));
  }
  /// The length goes in too, so that "a", "bc" and "ab", "c" differ.
  void add(std::string_view text) {
    add(static_cast<std::uint64_t>(text.size()));
    for (char c : text) byte(static_cast<unsigned char>(c));
  }
  std::uint64_t value() const { return state_; }

 private:
  void byte(unsigned char b) { state_ = (state_ ^ b) * 0x100000001b3ull; }
  std::uint64_t state_ = 0xcbf29ce484222325ull;
};

/// A hash of count, lengths, names, speakers and splits (or the source's own `fingerprint()`): a
/// resumed run refuses a corpus whose fingerprint differs from the one it began with.
template <DataSource S> std::uint64_t fingerprint_of(S const& source) {
  if constexpr (requires {
                  { source.fingerprint() } -> std::convertible_to<std::uint64_t>;
                }) {
    return source.fingerprint();
  } else {
    Fingerprint hash;
    auto const count = static_cast<std::size_t>(source.size());
    hash.add(static_cast<std::uint64_t>(count));
    for (std::size_t i = 0; i < count; ++i) {
      hash.add(static_cast<std::uint64_t>(source.samples(i)));
      hash.add(name_of(source, i));
      hash.add(speaker_of(source, i));
      hash.add(split_of(source, i));
    }
    return hash.value();
  }
}

/// A data source of two callables; made by source().
template <class Length, class Read> class FunctionSource {
 public:
  FunctionSource(std::size_t count, Length length, Read read)
      : count_(count), length_(std::move(length)), read_(std::move(read)) {}
  std::size_t size() const { return count_; }
  std::int64_t samples(std::size_t i) const { return static_cast<std::int64_t>(length_(i)); }
  void read(std::size_t i, std::int64_t first, std::span<float> out) const { read_(i, first, out); }

 private:
  std::size_t count_;
  Length length_;
  Read read_;
};

/// A data source of `count` utterances: length(i) tells the samples of utterance i, read(i, first,
/// out) fills `out` from sample `first` on. Both are called by several threads at once.
template <class Length, class Read>
requires std::invocable<Length const&, std::size_t> &&
    std::invocable<Read const&, std::size_t, std::int64_t, std::span<float>>
        FunctionSource<Length, Read> source(std::size_t count, Length length, Read read) {
  return {count, std::move(length), std::move(read)};
}

/// Any data source behind one type, at the price of one virtual call a read. Copies share the
/// source.
class AnySource {
 public:
  /// Keeps a copy of `source` (sotto's own sources are handles: copying one copies no audio).
  template <DataSource S>
  requires(!std::same_as<S, AnySource>) AnySource(S source)  // NOLINT: implicit, so that a trainer takes any source
      : AnySource(std::make_shared<S const>(std::move(source))) {}
  /// Shares ownership.
  template <DataSource S>
  requires(!std::same_as<S, AnySource>) explicit AnySource(std::shared_ptr<S const> source)
      : source_(std::make_shared<Held<S>>(std::move(source))) {}
  /// Refers to `source`, which must outlive every copy of the result.
  template <DataSource S>
  requires(!std::same_as<S, AnySource>) static AnySource borrow(S const& source) {
    return AnySource(std::shared_ptr<S const>(std::shared_ptr<void>(), &source));
  }

  std::size_t size() const { return source_->size(); }
  /// Error(data) if the source says less than 0.
  std::int64_t samples(std::size_t i) const {
    const std::int64_t n = source_->samples(i);
    if (n < 0) throw_error(ErrorCode::data, {"the source says that utterance ", i, " has ", n, " samples"});
    return n;
  }
  void read(std::size_t i, std::int64_t first, std::span<float> out) const { source_->read(i, first, out); }
  /// read(), for who must not learn from damage. Error(data) if some sample is not a number, or far from [-1, 1].
  SOTTO_NOINLINE void read_sound(std::size_t i, std::int64_t first, std::span<float> out) const {
    source_->read(i, first, out);
    unsigned wrong = 0;  // a NaN is not less either
    for (const float x : out) wrong |= std::abs(x) <= loudest ? 0u : 1u;
    if (wrong != 0)
      throw_error(ErrorCode::data, {"utterance ", i, name(i).empty() ? "" : " (", name(i), name(i).empty() ? "" : ")",
                                    " has samples that are not finite, or beyond ", static_cast<double>(loudest),
                                    "; give samples in [-1, 1]"});
  }
  std::string_view speaker(std::size_t i) const { return source_->speaker(i); }
  std::string_view split(std::size_t i) const { return source_->split(i); }
  std::string_view label(std::size_t i) const { return source_->label(i); }
  std::string_view name(std::size_t i) const { return source_->name(i); }
  std::uint64_t fingerprint() const { return source_->fingerprint(); }

 private:
  static constexpr float loudest = 1e3f;  // a float file may exceed 1 a little; 32768 is another unit

  struct Interface {
    virtual ~Interface() = default;
    virtual std::size_t size() const = 0;
    virtual std::int64_t samples(std::size_t i) const = 0;
    virtual void read(std::size_t i, std::int64_t first, std::span<float> out) const = 0;
    virtual std::string_view speaker(std::size_t i) const = 0;
    virtual std::string_view split(std::size_t i) const = 0;
    virtual std::string_view label(std::size_t i) const = 0;
    virtual std::string_view name(std::size_t i) const = 0;
    virtual std::uint64_t fingerprint() const = 0;
  };
  template <class S> struct Held final : Interface {
    explicit Held(std::shared_ptr<S const> held) : source(std::move(held)) {}
    std::size_t size() const override { return static_cast<std::size_t>(source->size()); }
    std::int64_t samples(std::size_t i) const override { return source->samples(i); }
    void read(std::size_t i, std::int64_t first, std::span<float> out) const override { source->read(i, first, out); }
    std::string_view speaker(std::size_t i) const override { return speaker_of(*source, i); }
    std::string_view split(std::size_t i) const override { return split_of(*source, i); }
    std::string_view label(std::size_t i) const override { return label_of(*source, i); }
    std::string_view name(std::size_t i) const override { return name_of(*source, i); }
    std::uint64_t fingerprint() const override { return fingerprint_of(*source); }
    std::shared_ptr<S const> source;
  };
  std::shared_ptr<Interface const> source_;
};

}  // namespace sotto::inline SOTTO_ABI
