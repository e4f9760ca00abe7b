// A user's attention, in one file: queries see their own chunk and the two before it, scores are capped, and each head
// learns how strongly, and how fast it forgets. Nobody writes its derivative.
#pragma once

#include <sotto/attention/policy.hpp>

struct ChunkedCapped : sotto::attention::Softmax {
  static constexpr int chunk = 4;
  static constexpr sotto::attention::Span span{3 * chunk - 1, chunk - 1};
  static constexpr int reads = 2;
  static constexpr int parameters(int heads) { return 2 * heads; }
  static constexpr int table(int heads) { return 2 * heads; }
  static SOTTO_HOST_DEVICE bool visible(sotto::attention::Pair at) {
    const int back = at.query / chunk - at.key / chunk;
    return back >= 0 && back <= 2;
  }
  template <class T, class Table>
  static SOTTO_HOST_DEVICE T score(T const& score, sotto::attention::Pair at, Table const& table) {
    const int distance = at.key < at.query ? at.query - at.key : at.key - at.query;
    return tanh(score) * table(2 * at.head) - table(2 * at.head + 1) * T(.01f * static_cast<float>(distance));
  }
};
