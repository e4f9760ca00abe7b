// A small formant synthesiser: speech with known speakers, words and phones for tests and examples
// without files.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/philox.hpp>
#include <sotto/data/source.hpp>

namespace sotto::inline SOTTO_ABI {

struct SyntheticOptions {
  int speakers = 8;
  int utterances = 200;
  int words = 10;       ///< each utterance says one of so many words over and over, with other phones between
  double shortest = 1;  ///< seconds of the shortest utterance
  double longest = 3;   ///< and of the longest
  std::uint64_t seed = 0;
};

}  // namespace sotto::inline SOTTO_ABI

namespace sotto::detail::inline SOTTO_ABI {

/// What the synthesiser knows of a phone: three formants in Hz (of a man's voice), how loud voice
/// and noise are, where the noise lies and how long the phone lasts.
struct PhoneRecipe {
  std::string_view name;
  std::array<int, 3> formants;
  double voice, noise;
  int noise_centre, noise_width;  // Hz
  int shortest, longest;          // ms
  bool stop;                      // closed for its first half, then a burst
};

/// Vowels: the men's means of Peterson & Barney (1952), table II.
inline constexpr std::array<PhoneRecipe, 21> phone_recipes{{
    {"sil", {500, 1500, 2500}, 0, 0, 4000, 4000, 60, 160, false},
    {"iy", {270, 2290, 3010}, 1, 0, 4000, 4000, 70, 160, false},
    {"ih", {390, 1990, 2550}, 1, 0, 4000, 4000, 60, 120, false},
    {"eh", {530, 1840, 2480}, 1, 0, 4000, 4000, 70, 150, false},
    {"ae", {660, 1720, 2410}, 1, 0, 4000, 4000, 90, 180, false},
    {"aa", {730, 1090, 2440}, 1, 0, 4000, 4000, 90, 180, false},
    {"ao", {570, 840, 2410}, 1, 0, 4000, 4000, 90, 180, false},
    {"uh", {440, 1020, 2240}, 1, 0, 4000, 4000, 60, 120, false},
    {"uw", {300, 870, 2240}, 1, 0, 4000, 4000, 70, 160, false},
    {"ah", {640, 1190, 2390}, 1, 0, 4000, 4000, 60, 130, false},
    {"er", {490, 1350, 1690}, 1, 0, 4000, 4000, 80, 160, false},
    {"m", {250, 1000, 2200}, .5, 0, 4000, 4000, 50, 100, false},
    {"n", {250, 1450, 2500}, .5, 0, 4000, 4000, 50, 100, false},
    {"l", {360, 1100, 2600}, .7, 0, 4000, 4000, 50, 90, false},
    {"s", {400, 1700, 2600}, 0, .5, 5600, 1500, 80, 150, false},
    {"sh", {400, 1800, 2600}, 0, .6, 2900, 1100, 80, 150, false},
    {"f", {400, 1300, 2400}, 0, .15, 6500, 4000, 70, 130, false},
    {"z", {300, 1700, 2600}, .4, .3, 5600, 1500, 60, 110, false},
    {"p", {400, 900, 2300}, 0, .5, 900, 900, 60, 110, true},
    {"t", {400, 1750, 2600}, 0, .6, 4200, 2200, 60, 110, true},
    {"k", {400, 1900, 2400}, 0, .6, 2000, 800, 60, 110, true},
}};

/// A second-order resonator (Klatt 1980, section I.A): gain 1 at 0 Hz. In double precision, so that
/// contracting a multiply and an add, as some instruction sets do, changes samples far below one
/// part in a million.
class Resonator {
 public:
  void tune(double centre, double width) {
    constexpr double pi = 3.14159265358979323846, rate = 16000;
    double const radius = std::exp(-pi * width / rate);
    c_ = -radius * radius;
    b_ = 2 * radius * std::cos(2 * pi * centre / rate);
    a_ = 1 - b_ - c_;
  }
  double operator()(double x) {
    double const y = a_ * x + b_ * past_[0] + c_ * past_[1];
    past_ = {y, past_[0]};
    return y;
  }
  /// What scales white noise of deviation 1 to an output of about that deviation.
  double noise_gain(double width) const { return 1 / (a_ * std::sqrt(16000 / (6.2831853 * width))); }

 private:
  double a_ = 1, b_ = 0, c_ = 0;
  std::array<double, 2> past_{};
};

/// The shape of one glottal period, x in [0, 1): derivative of the flow x²(1 - x/open) while open
/// (Klatt & Klatt 1990).
inline double glottal_pulse(double x) {
  constexpr double open = .6;
  return x < open ? 2 * x - 3 * x * x / open : 0;
}

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

/// Synthetic speech in memory (64 kB a second): a data source whose samples are a function of the
/// options alone, equal to about 1e-6 across compilers and instruction sets. Speakers differ in
/// pitch and vocal tract; the last is `test`, the one before `val`, the others `train`. label() is
/// the word the utterance repeats. Copies share the audio.
class SyntheticSpeech {
 public:
  /// One phone of an utterance: an index for phone_name(), and where it lies.
  struct Phone {
    int phone;
    std::int64_t first_sample, samples;
  };

  /// Synthesises everything, at some hundreds of times real time. Throws Error(usage) for options
  /// that cannot be.
  explicit SyntheticSpeech(SyntheticOptions options = {}) {
    if (options.speakers < 1 || options.utterances < 1 || options.words < 1)
      throw_error(ErrorCode::usage, {"synthetic speech needs at least one speaker, one utterance and one word"});
    if (!(options.shortest >= .1 && options.longest >= options.shortest && options.longest <= 600))
      throw_error(ErrorCode::usage, {"synthetic utterances last from 0.1 to 600 seconds, the shortest no longer than "
                                     "the longest"});
    auto state = std::make_shared<State>();
    state->options = options;
    state->utterances.resize(static_cast<std::size_t>(options.utterances));
    for (int s = 0; s < options.speakers; ++s) state->speakers.push_back("synthetic" + std::to_string(s));
    for (int w = 0; w < options.words; ++w) state->words.push_back(make_word(options.seed, w));
    for (std::size_t i = 0; i < state->utterances.size(); ++i) synthesise(*state, i);
    state_ = std::move(state);
  }

  std::size_t size() const { return state_->utterances.size(); }
  std::int64_t samples(std::size_t i) const { return static_cast<std::int64_t>(state_->utterances[i].samples.size()); }
  void read(std::size_t i, std::int64_t first, std::span<float> out) const {
    std::copy_n(state_->utterances[i].samples.begin() + first, out.size(), out.begin());
  }
  std::string_view speaker(std::size_t i) const { return state_->speakers[speaker_index(*state_, i)]; }
  std::string_view split(std::size_t i) const {
    auto const speakers = state_->speakers.size(), speaker = speaker_index(*state_, i);
    if (speakers < 3 || speaker + 2 < speakers) return "train";
    return speaker + 1 == speakers ? "test" : "val";
  }
  /// The word's phones, joined by hyphens.
  std::string_view label(std::size_t i) const { return state_->words[word_index(*state_, i)].name; }
  /// In order and without gaps.
  std::span<Phone const> phones(std::size_t i) const { return state_->utterances[i].phones; }

  static constexpr int phone_count() { return static_cast<int>(detail::phone_recipes.size()); }
  static constexpr std::string_view phone_name(int phone) {
    return detail::phone_recipes[static_cast<std::size_t>(phone)].name;
  }

 private:
  struct Word {
    std::vector<int> phones;
    std::string name;
  };
  struct Spoken {
    std::vector<float> samples;
    std::vector<Phone> phones;
  };
  struct State {
    SyntheticOptions options;
    std::vector<std::string> speakers;
    std::vector<Word> words;
    std::vector<Spoken> utterances;
  };
  // What Random's cursor tells apart under Purpose::synthetic.
  enum Cursor : std::uint32_t { word_cursor, speaker_cursor, phone_cursor, sound_cursor };
  static constexpr int vowels = 10, first_consonant = 11;

  static std::size_t speaker_index(State const& state, std::size_t i) { return i % state.speakers.size(); }
  static std::size_t word_index(State const& state, std::size_t i) {
    return i / state.speakers.size() % state.words.size();
  }
  static int draw_vowel(Random& random) { return 1 + static_cast<int>(random.below(vowels)); }
  static int draw_consonant(Random& random) {
    return first_consonant +
           static_cast<int>(random.below(static_cast<std::uint32_t>(phone_count() - first_consonant)));
  }

  // Two syllables of consonant and vowel.
  static Word make_word(std::uint64_t seed, int number) {
    Random random(seed, Purpose::synthetic, word_cursor, static_cast<std::uint64_t>(number));
    Word word;
    for (int syllable = 0; syllable < 2; ++syllable) {
      word.phones.push_back(draw_consonant(random));
      word.phones.push_back(draw_vowel(random));
    }
    for (int phone : word.phones) {
      if (!word.name.empty()) word.name += '-';
      word.name += phone_name(phone);
    }
    return word;
  }

  // Silence, then word and filler in turn until the utterance is full. All draws are whole numbers:
  // a comparison of rounded ones could go either way on another machine and change everything
  // after.
  static std::vector<Phone> make_phones(State const& state, std::size_t i) {
    auto const& options = state.options;
    Random random(options.seed, Purpose::synthetic, phone_cursor, i);
    auto const shortest = static_cast<std::int64_t>(options.shortest * 16000);
    auto const longest = static_cast<std::int64_t>(options.longest * 16000);
    std::int64_t const total = shortest + random.below(static_cast<std::uint32_t>(longest - shortest + 1));
    std::vector<Phone> phones;
    std::int64_t position = 0;
    auto const say = [&](int phone) {
      auto const& recipe = detail::phone_recipes[static_cast<std::size_t>(phone)];
      std::int64_t const wanted =
          16 * (recipe.shortest + random.below(static_cast<std::uint32_t>(recipe.longest - recipe.shortest + 1)));
      auto const given = std::min(wanted, total - position);
      if (given > 0) phones.push_back({phone, position, given});
      position += given;
    };
    say(0);
    while (position < total) {
      for (int phone : state.words[word_index(state, i)].phones) say(phone);
      if (random.below(3) == 0) {
        say(0);
      } else {
        say(draw_consonant(random));
        say(draw_vowel(random));
      }
    }
    return phones;
  }

  static void synthesise(State& state, std::size_t i) {
    auto& spoken = state.utterances[i];
    spoken.phones = make_phones(state, i);
    spoken.samples.resize(static_cast<std::size_t>(spoken.phones.back().first_sample + spoken.phones.back().samples));

    Random voice(state.options.seed, Purpose::synthetic, speaker_cursor, speaker_index(state, i));
    auto const pitch = static_cast<std::int64_t>(90'000 + voice.below(150'000));  // mHz
    double const tract = .88 + voice.below(1000) * 3.2e-4;                        // formants times this
    double const breath = .002 + voice.below(1000) * 6e-6;

    Random random(state.options.seed, Purpose::synthetic, sound_cursor, i);
    std::array<detail::Resonator, 3> cascade;
    detail::Resonator hiss;
    std::array<double, 3> formants{500, 1500, 2500};
    double voicing = 0, noise = 0;
    std::uint32_t phase = 0;  // a whole number, so that every machine closes the glottis at the same sample
    std::int64_t mhz = pitch, goal = pitch;
    for (auto const& phone : spoken.phones) {
      auto const& recipe = detail::phone_recipes[static_cast<std::size_t>(phone.phone)];
      goal = pitch * (850 + random.below(300)) / 1000;
      hiss.tune(recipe.noise_centre, recipe.noise_width);
      double const hiss_gain = hiss.noise_gain(recipe.noise_width);
      float* const out = spoken.samples.data() + phone.first_sample;
      for (std::int64_t k = 0; k < phone.samples; ++k) {
        if (k % 40 == 0) {  // every 2.5 ms formants and pitch glide towards the phone's own
          for (std::size_t f = 0; f < 3; ++f) {
            formants[f] += .12 * (recipe.formants[f] * tract - formants[f]);
            cascade[f].tune(formants[f], 60. + 40. * static_cast<double>(f));
          }
          mhz += (goal - mhz) / 16;
        }
        bool const closed = recipe.stop && 2 * k < phone.samples;
        double const fading = recipe.stop ? 1 - static_cast<double>(k) / static_cast<double>(phone.samples) : .5;
        voicing += .01 * (recipe.voice - voicing);
        noise += .03 * ((closed ? 0 : recipe.noise * 2 * fading) - noise);
        phase += static_cast<std::uint32_t>((static_cast<std::uint64_t>(mhz) << 32) / 16'000'000u);
        double const white = (static_cast<double>(random.next()) * 0x1p-32 - .5) * 3.4641016;  // deviation 1
        double y = detail::glottal_pulse(phase * 0x1p-32) * voicing + white * breath;
        for (auto& formant : cascade) y = formant(y);
        y = .09 * y + .1 * noise * hiss_gain * hiss(white) + 1e-4 * white;
        out[k] = static_cast<float>(std::clamp(y, -1., 1.));
      }
    }
  }

  std::shared_ptr<State const> state_;
};

}  // namespace sotto::inline SOTTO_ABI
