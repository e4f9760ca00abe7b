// The door: everything a backend gives. Sizes are run-time, so that its arithmetic is compiled once; layers, whose
// widths are in the type, are written against it once.
#pragma once

#include <concepts>
#include <cstddef>

#include <sotto/attention/full.hpp>
#include <sotto/core/arena.hpp>
#include <sotto/core/views.hpp>
#include <sotto/nn/linear.hpp>
#include <sotto/nn/noise.hpp>
#include <sotto/nn/position.hpp>
#include <sotto/objective/objective.hpp>

namespace sotto::detail::inline SOTTO_ABI {
struct AnyTerm {  // a row loss, for the concept alone
  template <class T> static SOTTO_HOST_DEVICE T term(T const& predicted, T const& wanted) { return predicted - wanted; }
};
struct AnyMap {
  template <class T> static SOTTO_HOST_DEVICE T apply(T const& x) { return x; }
};
}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

// clang-format off

/// What numbers are made of. Element: activations. Master: parameters, gradients, statistics. Index: row numbers. Sum: losses.
/// Count: a batch's number of rows, or where it stands. replays: whether the operations of a step are recorded once and
/// repeated for every batch; layers then may not branch on what differs from step to step.
/// Prepared, PreparedConvolution: weights as products read them; carved once, prepared once an optimiser step.
template <class B> concept Elements = requires(B& b, Arena& arena, LinearShape shape, ConvolutionShape convolution,
    typename B::Master const* master, typename B::Master* gradient, typename B::Prepared& to, typename B::PreparedConvolution& to_convolution,
    Array<typename B::Master const> table) {
  typename B::Element; typename B::Master; typename B::Index; typename B::Sum; typename B::Count; typename B::Prepared;
  { B::replays } -> std::convertible_to<bool>;
  typename B::PreparedConvolution;
  { B::carve_linear(arena, shape) } -> std::same_as<typename B::Prepared>;
  { B::carve_convolution(arena, convolution) } -> std::same_as<typename B::PreparedConvolution>;
  { B::carve_table(arena, 1) } -> std::same_as<Array<typename B::Master const>>;
  b.prepare_linear(shape, master, master, to);                            // weight [out, in], bias [out]
  b.prepare_directions(shape, master, to);                                // rows of unit length, no bias
  b.prepare_convolution(convolution, master, master, master, to_convolution);   // v [width, channels, taps], g [taps], bias [width]
  b.template prepare_table<attention::Full>(1, table, table);             // entry i := parameter source(i)
  b.finish_directions(Matrix<typename B::Master const>{}, Matrix<typename B::Master>{});  // weight; gradient by unit rows -> by rows
  b.finish_convolution(convolution, master, master, gradient, gradient);  // v, g; gradient by g v / |v| -> by v, by g
};

/// y = x w^T + b and its backward; weight gradients are added to.
template <class B, class E = typename B::Element, class R = typename B::Master>
concept Products = requires(B& b, Matrix<E> y, Matrix<E const> x, typename B::Prepared const& w, Matrix<R> dw, Array<R> db) {
  b.product(x, w, y);
  b.product_gelu(x, w, y, y);            // before, y = gelu(before)
  b.product_add(x, w, x, y);             // + residual
  b.product_back(x, w, y);               // dx = dy w
  b.product_back_add(x, w, y);           // dx += dy w
  b.product_back_gelu(x, w, x, y);       // dx = (dy w) gelu'(before)
  b.weight_gradient(x, x, w, dw, db);    // dw += dy^T x, db += column sums; db may be empty
};

/// Grouped "same" convolutions over the sequences of a lane.
template <class B, class E = typename B::Element, class R = typename B::Master>
concept Convolutions = requires(B& b, Lane<typename B::Index> const& lane, Matrix<E> y, Matrix<E const> x, typename B::PreparedConvolution const& w, R* gradient) {
  b.convolution(lane, x, w, y);
  b.convolution_back(lane, x, w, y);
  b.convolution_gradient(lane, x, x, w, gradient, gradient);    // dy, x; += by effective weight, += by bias
};

template <class B, class E = typename B::Element, class R = typename B::Master>
concept RowOperations = requires(B& b, Lane<typename B::Index> const& lane, Noise const& noise, Matrix<E> y, Matrix<E const> x, Matrix<R> statistics,
    Matrix<R const> s, Array<R const> gain, Array<R> d_gain, Array<E> flat, Array<E const> from, typename B::Index const* rows, int n, typename B::Sum& measure) {
  b.layer_norm(x, gain, gain, 1e-5f, y, statistics);
  b.layer_norm_back(x, x, gain, s, y, true, d_gain, d_gain);    // dy, x, gain, statistics, dx (may be dy unless it accumulates), accumulate, d_gain +=, d_bias +=
  b.normalise_rows(x, y, d_gain);                               // y = x / max(|x|, 1e-8), inverse norms
  b.normalise_rows_back(x, x, gain, y);                         // dy, y, inverse norms, dx; dx may be dy
  b.gelu(from, flat);
  b.gelu_back(from, from, flat);                                // before, dy, dx; dx may be dy
  b.template map<detail::AnyMap>(from, flat);
  b.template map_back<detail::AnyMap>(from, from, flat);        // x, dy, dx
  b.sum(x, x, y);                                               // y = a + b; y may be either
  b.copy(from, flat);
  b.clear(flat);                                                // zeros
  b.gather(x, rows, y);                                         // row i of y = row rows[i] of x
  b.scatter_add(x, rows, y);                                    // row rows[i] of y += row i of x; rows distinct
  b.fill_rows(gain, rows, n, y);
  b.fill_rows_back(y, rows, n, d_gain);                         // d_gain += those rows; they become 0
  b.segment_sums(x, rows, y);                                   // row rows[i] of y += row i of x; rows may repeat
  b.column_sums(x, &measure);                                   // sums[j] += column j, in Sum: batch statistics
  b.from_sums(&measure, 1., d_gain);                            // d_gain[j] = factor * sums[j]
  b.add_sinusoids(lane, x, y);                                  // y = x + sinusoid of the row's place in its sequence
  b.dropout(lane, noise, 0, y);                                 // in place, keyed by (site, utterance, frame, channel)
  b.spread(x, measure);                                         // mean over channels of the deviation over rows
};

template <class B, class E = typename B::Element, class R = typename B::Master>
concept AttentionOperations = requires(B& b, Lane<typename B::Index> const& lane, int heads, Matrix<E> y, Matrix<E const> x, Array<R const> table, Matrix<R> log_sum, Matrix<R const> l, Array<R> d_table) {
  b.template attention<attention::Full, 64>(lane, heads, x, table, x, y, log_sum);                   // query_key_value, table, gates, out, log_sum
  b.template attention_back<attention::Full, 64>(lane, heads, x, table, x, x, x, l, y, d_table, y);  // ..., out, d_out, log_sum, d_query_key_value, d_table +=, d_gates
  b.template collect_table<attention::Full>(heads, table, d_table);                                  // parameter source(i) += entry i
};

/// A backend that replays cannot branch on which layers a step skips: it executes them and passes their input on.
template <class B, class E = typename B::Element>
concept Skips = !B::replays || requires(B& b, Matrix<E> y, Matrix<E const> x) {
  b.skip_forward(0, x, y);    // where the step skips layer 0: y = x
  b.skip_back(0, y, y);       // d, bypass: where the step skips layer 0, bypass = d and d = 0
};

/// Losses turn scores into gradients in place.
template <class B, class E = typename B::Element>
concept Losses = requires(B& b, Matrix<E> scores, Matrix<E const> wanted, typename B::Index const* targets, typename B::Count count, typename B::Sum& loss, Measures<typename B::Sum>* measures) {
  b.cross_entropy(scores, targets, 1.f, 1., count, loss, measures);        // of scores times factor; loss += weight / count * sum over rows
  b.template row_loss<detail::AnyTerm>(scores, wanted, targets, 1., count, loss);   // the same weight; rows whose entry is below 0 are none; nullptr: all are
};

template <class B, class R = typename B::Master>
concept OptimiserOperations = requires(B& b, Array<R> p, Array<R const> g) {
  b.adamw(p, g, p, p, R(1), .9, .98, 1e-6, .01, 1e-3, 1);    // values, gradients, first, second, clip, betas, epsilon, decay, rate, step
  { b.squared_norm(g) } -> std::convertible_to<double>;
  b.add(g, p);                                               // p += g
};

// clang-format on

template <class B>
concept Backend = Elements<B> && Products<B> && Convolutions<B> && RowOperations<B> && AttentionOperations<B> &&
    Skips<B> && Losses<B>;

/// What the host's optimiser is made of.
template <class B>
concept HostBackend = Backend<B> && !B::replays && OptimiserOperations<B>;

}  // namespace sotto::inline SOTTO_ABI
