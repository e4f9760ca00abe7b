// Power spectra of frames of 512 real samples, as many frames at once as a vector has lanes.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>

namespace sotto::frontend::detail::inline SOTTO_ABI {

/// A real transform of 512 samples through a complex one of 256 (even samples real, odd ones
/// imaginary): four passes of radix 4, decimation in frequency, in place, its digit-reversed order
/// undone while the halves are put together. Lane l of every vector belongs to frame l, so that no
/// arithmetic crosses lanes: under a third of the time of FFTW and a quarter of pocketfft's, both given
/// 16 frames at once.
class PowerSpectrum {
 public:
  static constexpr int samples = 512, bins = 256;
  /// 5/2 N log2 N: what a real transform is counted as.
  static constexpr std::uint64_t flops = 5 * 512 * 9 / 2;
  /// A factor of the result, for whoever weighs it to divide by: a power of two, so that no bit changes.
  static constexpr float scale = 4;

  PowerSpectrum() {
    for (int i = 0; i < 256; ++i) {
      const double angle = 2 * 3.14159265358979323846 * i / 512;
      fine_[static_cast<std::size_t>(i)] = {static_cast<float>(std::cos(angle)), static_cast<float>(-std::sin(angle))};
      coarse_[static_cast<std::size_t>(i)] = {static_cast<float>(std::cos(2 * angle)),
                                              static_cast<float>(-std::sin(2 * angle))};
      reversed_[static_cast<std::size_t>(i)] = (i & 3) << 6 | (i & 12) << 2 | (i & 48) >> 2 | i >> 6;
    }
  }

  /// Sample n of all frames.
  cpu::Vec* sample(int n) { return &data_[static_cast<std::size_t>(n)]; }
  /// Destroys the samples; writes scale |X[k]|², k < 256 (the Nyquist bin is not computed), into power[256].
  void compute(cpu::Vec* power) {
    pass<64>();
    pass<16>();
    pass<4>();
    pass<1>();
    const auto z = [&](int k) { return &data_[2 * static_cast<std::size_t>(reversed_[static_cast<std::size_t>(k)])]; };
    // X[0] = Re Z[0] + Im Z[0]; X[k], X[256 - k] = E ± W^k O with E, O the even and odd parts of Z, here doubled
    const cpu::Vec dc = z(0)[0] + z(0)[1];
    power[0] = scale * dc * dc;
    for (int k = 1; k <= 128; ++k) {
      cpu::Vec const *a = z(k), *b = z(256 - k);
      const cpu::Vec even_re = a[0] + b[0], even_im = a[1] - b[1], odd_re = a[1] + b[1], odd_im = b[0] - a[0];
      const auto w = fine_[static_cast<std::size_t>(k)];
      const cpu::Vec turned_re = odd_re * w[0] - odd_im * w[1], turned_im = odd_re * w[1] + odd_im * w[0];
      const cpu::Vec sum_re = even_re + turned_re, sum_im = even_im + turned_im;
      const cpu::Vec difference_re = even_re - turned_re, difference_im = even_im - turned_im;
      power[256 - k] = difference_re * difference_re + difference_im * difference_im;
      power[k] = sum_re * sum_re + sum_im * sum_im;
    }
  }

 private:
  using Twiddle = std::array<float, 2>;

  template <int Span> void pass() {
    for (int base = 0; base < 256; base += 4 * Span)
      for (int j = 0; j < Span; ++j) {
        cpu::Vec* a = &data_[2 * static_cast<std::size_t>(base + j)];
        cpu::Vec *b = a + 2 * Span, *c = b + 2 * Span, *d = c + 2 * Span;
        const cpu::Vec s0r = a[0] + c[0], s0i = a[1] + c[1], d0r = a[0] - c[0], d0i = a[1] - c[1];
        const cpu::Vec s1r = b[0] + d[0], s1i = b[1] + d[1], d1r = b[0] - d[0], d1i = b[1] - d[1];
        a[0] = s0r + s1r;
        a[1] = s0i + s1i;
        turn<Span>(b, d0r + d1i, d0i - d1r, coarse_[static_cast<std::size_t>(j * (64 / Span))]);
        turn<Span>(c, s0r - s1r, s0i - s1i, coarse_[static_cast<std::size_t>(2 * j * (64 / Span))]);
        turn<Span>(d, d0r - d1i, d0i + d1r, coarse_[static_cast<std::size_t>(3 * j * (64 / Span))]);
      }
  }
  template <int Span> SOTTO_ALWAYS_INLINE static void turn(cpu::Vec* to, cpu::Vec re, cpu::Vec im, Twiddle w) {
    if constexpr (Span == 1) {  // by nothing
      to[0] = re;
      to[1] = im;
    } else {
      to[0] = re * w[0] - im * w[1];
      to[1] = re * w[1] + im * w[0];
    }
  }

  std::array<cpu::Vec, samples> data_{};    // complex sample n is [2n], [2n + 1]
  std::array<Twiddle, 256> fine_, coarse_;  // exp(-2πi k / 512), exp(-2πi k / 256)
  std::array<int, 256> reversed_;
};

/// ln x of positive, normal x: 1 ulp of max(1, |ln x|), and 2 ulp of ln x. Through 2 artanh((m - 1) / (m + 1)), m in
/// [√½, √2).
SOTTO_ALWAYS_INLINE cpu::Vec log_of(cpu::Vec x) {
  cpu::VecInt bits;
  std::memcpy(&bits, &x, sizeof bits);
  const cpu::VecInt shifted = bits - 0x3f3504f3;  // the bits of √½
  const cpu::VecInt exponent = shifted >> 23;
  const cpu::VecInt mantissa = (shifted & 0x007fffff) + 0x3f3504f3;
  cpu::Vec m;
  std::memcpy(&m, &mantissa, sizeof m);
  const cpu::Vec s = (m - 1.f) / (m + 1.f), t = s * s;
  cpu::Vec series = t * (1.f / 9) + 1.f / 7;
  series = series * t + 1.f / 5;
  series = series * t + 1.f / 3;
  const cpu::Vec e = __builtin_convertvector(exponent, cpu::Vec);
  // ln 2 in two parts, the first of few enough bits that its products with e are exact
  return e * 0.693145751953125f + (2.f * s + (2.f * s * t * series + e * 1.42860682030941723212e-6f));
}

}  // namespace sotto::frontend::detail::inline SOTTO_ABI
