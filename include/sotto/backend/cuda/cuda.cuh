// Bodies of the Cuda backend, for nvcc: the door's operations over cuBLASLt and sotto's own kernels.
#pragma once

#include <algorithm>
#include <new>

#include <sotto/backend/cuda/attention.cuh>
#include <sotto/backend/cuda/attention_mma.cuh>
#include <sotto/backend/cuda/context.cuh>
#include <sotto/backend/cuda/convolution.cuh>
#include <sotto/backend/cuda/cuda.hpp>
#include <sotto/backend/cuda/elements.cuh>
#include <sotto/backend/cuda/log_mel.cuh>
#include <sotto/backend/cuda/loss.cuh>
#include <sotto/backend/cuda/memory.cuh>
#include <sotto/backend/cuda/norms.cuh>
#include <sotto/backend/cuda/optimizer.cuh>
#include <sotto/backend/cuda/rows.cuh>
#include <sotto/backend/cuda/tables.cuh>

namespace sotto::cuda::inline SOTTO_ABI {

constexpr std::size_t size(int n) { return static_cast<std::size_t>(n); }
/// Blocks of a kernel whose warps own a row each.
constexpr Grid by_row(int rows) { return {blocks_for(size(rows), row_warps), 32 * row_warps}; }

template <class T> bool dense(Matrix<T> m) { return m.stride == m.columns; }
template <class... T> bool aligned(T const*... p) { return ((reinterpret_cast<std::uintptr_t>(p) % 16 == 0) && ...); }

/// Column sums of a block's rows are added up in order.
template <class Sum>
void add_up(Context& context, float const* partial, unsigned blocks, int columns, Sum* sums_a, Sum* sums_b) {
  context.run(add_partials<Sum>, {{blocks_for(size(columns), 32), sums_b == nullptr ? 1u : 2u}, 256}, partial,
              static_cast<int>(blocks), columns, sums_a, sums_b);
}

template <class F, class T> void run_map(Context& context, T const* x, T* y, std::size_t n) {
  if (n > 0) context.run(map_one<F, T>, {blocks_for(n, 256 * Pack<T>::size), 256}, x, y, n, aligned(x, y));
}
template <class F, class T> void run_map(Context& context, T const* a, T const* b, T* y, std::size_t n) {
  if (n > 0) context.run(map_two<F, T>, {blocks_for(n, 256 * Pack<T>::size), 256}, a, b, y, n, aligned(a, b, y));
}

/// A weight's gradient in padded extents, added to the unpadded one.
template <class = void>
__global__ void __launch_bounds__(256)
    add_unpadded(float const* padded, LinearShape shape, bool bias, Matrix<float> to) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= static_cast<std::size_t>(to.rows) * static_cast<std::size_t>(to.columns)) return;
  const int row = static_cast<int>(i) / to.columns;
  to.row(row)[static_cast<int>(i) % to.columns] += padded[padded_place(shape, bias, i)];
}

}  // namespace sotto::cuda::inline SOTTO_ABI

namespace sotto::inline SOTTO_API {

template <class S> Cuda<S>::Cuda(int device, bool tf32, bool tune) {
  const cuda::DeviceFacts facts = cuda::device_facts(device);
  if (facts.major < 8)
    throw_error(ErrorCode::device, {facts.name, " has compute capability ", facts.major, ".", facts.minor,
                                    ", and training on a GPU needs 8.0 or newer: train on the CPU"});
  context_ = new cuda::Context(tf32, tune);
}
template <class S> Cuda<S>::~Cuda() { delete context_; }
template <class S> void Cuda<S>::wait() { cuda::check(cudaStreamSynchronize(context_->stream), "waiting for the GPU"); }
template <class S> void Cuda<S>::copy_to_device(std::byte* to, void const* from, std::size_t bytes) {
  cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, context_->stream), "copying to the GPU");
  wait();
}
template <class S> void Cuda<S>::copy_to_host(void* to, std::byte const* from, std::size_t bytes) {
  cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, context_->stream), "copying from the GPU");
  wait();
}
template <class S> void Cuda<S>::copy_on_device(std::byte* to, std::byte const* from, std::size_t bytes) {
  cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, context_->stream), "copying on the GPU");
}
template <class S> void Cuda<S>::convert(Array<R const> features, Array<E> x) {
  context_->run(cuda::convert<S>, {cuda::blocks_for(x.size, 1024), 256}, cuda::raw(features.begin), cuda::raw(x.begin),
                x.size);
}
template <class S>
void Cuda<S>::log_mel(cuda::LogMelShape const& shape, Array<R const> samples, Index const* sample_offsets,
                      Index const* offsets, int sequences, int rows, R const* mean, R const* deviation, E* x) {
  cuda::Context& c = *context_;
  if (c.mel_bands != shape.bands) {
    const cuda::LogMelTables tables = cuda::log_mel_tables({.bands = shape.bands});
    c.mel_bands = shape.bands;
    c.mel_numbers = cuda::DeviceMemory(tables.numbers.size() * sizeof(float));
    c.mel_ranges = cuda::DeviceMemory(tables.ranges.size() * sizeof(int));
    copy_to_device(c.mel_numbers.begin(), tables.numbers.data(), c.mel_numbers.size());
    copy_to_device(c.mel_ranges.begin(), tables.ranges.data(), c.mel_ranges.size());
  }
  const cuda::LogMelPlan plan{reinterpret_cast<float const*>(c.mel_numbers.begin()),
                              reinterpret_cast<int const*>(c.mel_ranges.begin()), shape.bands, shape.stack};
  const cuda::LogMelBatch batch{cuda::raw(samples.begin), cuda::raw(sample_offsets), cuda::raw(offsets), sequences,
                                rows};
  cuda::log_mel<S>(plan, batch, shape.normalisation, cuda::raw(mean), cuda::raw(deviation), cuda::raw(x),
                   c.template scratch<float>(cuda::log_mel_scratch(plan, rows, sequences)), c.stream);
}
template <class S> void Cuda<S>::clear_counts(Array<Index> counts) {
  cuda::check(cudaMemsetAsync(counts.begin, 0, counts.size * sizeof(int), context_->stream), "clearing");
}
template <class S> std::size_t Cuda<S>::tile_bytes(int rows, int sequences) {
  return cuda::size(cuda::most_tiles(rows, sequences)) * sizeof(cuda::Tile);
}
template <class S>
void Cuda<S>::begin_step(Lane<Index> const& lane, cuda::StepInput const* input, cuda::StepOutput* output,
                         std::byte* tiles) {
  cuda::Context& c = *context_;
  auto* const at = reinterpret_cast<cuda::Tile*>(tiles);
  c.input = input;
  c.output = output;
  c.tiles = at;
  c.rows = lane.rows;
  c.sequences = lane.sequences;
  c.offsets = cuda::raw(lane.offsets);
  c.tile_count = cuda::most_tiles(lane.rows, lane.sequences);
  c.written_biases.clear();
  c.run(cuda::plan_tiles<>, {cuda::blocks_for(cuda::size(c.tile_count), 128), 128}, c.offsets, c.sequences, c.rows, at,
        c.tile_count);
  c.run(cuda::clear_output<>, {1, 32}, output);
}
template <class S> cuda::Recording Cuda<S>::record(FunctionRef<void()> f) {
  cuda::check(cudaStreamBeginCapture(context_->stream, cudaStreamCaptureModeThreadLocal), "recording a step");
  context_->recording = true;
  try {
    f();
  } catch (...) {
    cudaGraph_t broken = nullptr;
    cudaStreamEndCapture(context_->stream, &broken);
    if (broken != nullptr) cudaGraphDestroy(broken);
    context_->recording = false;
    throw;
  }
  return context_->end_recording();
}
template <class S> void Cuda<S>::replay(cuda::Recording const& recording) { context_->replay(recording); }

template <class S>
void Cuda<S>::plan_update(std::span<ParameterEntry const> table, R* values, R const* gradients, R* first, R* second) {
  cuda::Context& c = *context_;
  float* const begin = cuda::raw(values);
  std::vector<cuda::UpdateChunk> chunks;
  for (auto const& entry : table) {
    cuda::WeightCopy const* copy = nullptr;  // the layer that the parameter belongs to
    for (auto const& each : c.copies)
      if (each.from <= begin + entry.offset && begin + entry.offset < each.from + each.size()) copy = &each;
    for (std::size_t done = 0; done < entry.size; done += cuda::update_chunk) {
      cuda::UpdateChunk chunk{};
      chunk.begin = entry.offset + done;
      chunk.size = static_cast<int>(std::min<std::size_t>(cuda::update_chunk, entry.size - done));
      chunk.trained = entry.info.trained;
      chunk.decays = entry.info.decay;
      if (copy != nullptr) {
        chunk.copy = copy->to;
        chunk.copy_from = static_cast<std::size_t>(begin + chunk.begin - copy->from);
        chunk.shape = copy->shape;
        chunk.bias = copy->bias;
      }
      chunks.push_back(chunk);
    }
  }
  const std::size_t bytes = chunks.size() * sizeof(cuda::UpdateChunk);
  if (c.chunks.size() != bytes) c.chunks = cuda::DeviceMemory(bytes);  // recordings know where they stand
  copy_to_device(c.chunks.begin(), chunks.data(), bytes);
  c.update = {reinterpret_cast<cuda::UpdateChunk const*>(c.chunks.begin()),
              static_cast<int>(chunks.size()),
              begin,
              cuda::raw(gradients),
              cuda::raw(first),
              cuda::raw(second),
              count(table)};
}
template <class S> void Cuda<S>::copy_weights() {
  context_->run(cuda::copy_weights<S>, {static_cast<unsigned>(context_->update.count), 256}, context_->update);
}
template <class S> void Cuda<S>::update() {
  cuda::Context& c = *context_;
  auto* const sums = c.scratch<double>(cuda::norm_blocks);
  c.run(cuda::square_sums<>, {cuda::norm_blocks, 256}, c.update.gradients, c.update.size, sums);
  c.run(cuda::judge_step<>, {1, 32}, sums, cuda::norm_blocks, c.input, c.output);
  c.run(cuda::adamw<S>, {static_cast<unsigned>(c.update.count), 256}, c.update, c.input, c.output);
}

template <class S> void Cuda<S>::prepare_linear(LinearShape shape, R const* weight, R const* bias, Prepared& to) {
  to.biased = bias != nullptr;
  auto& copies = context_->copies;
  void* const target = to.weight;
  if (std::any_of(copies.begin(), copies.end(), [&](cuda::WeightCopy const& c) { return c.to == target; })) return;
  copies.push_back({cuda::raw(weight), to.weight, shape, false});
  // What padding holds is never written again.
  const std::size_t weights = cuda::size(shape.padded_out()) * cuda::size(shape.padded_in());
  cuda::check(cudaMemsetAsync(to.weight, 0, weights * sizeof(S), context_->stream), "clearing");
  if (bias == nullptr) return;
  copies.push_back({cuda::raw(bias), to.bias, shape, true});
  cuda::check(cudaMemsetAsync(to.bias, 0, cuda::size(shape.padded_out()) * sizeof(S), context_->stream), "clearing");
}
template <class S> void Cuda<S>::prepare_directions(LinearShape shape, R const* weight, Prepared& to) {
  to.biased = false;
  context_->run(cuda::unit_rows<S>, cuda::by_row(shape.out), cuda::raw(weight), shape.out, shape.in,
                cuda::raw(to.weight));
}
template <class S> void Cuda<S>::finish_directions(Matrix<R const> weight, Matrix<R> gradient) {
  context_->run(cuda::unit_rows_back<>, cuda::by_row(weight.rows), cuda::raw(weight), cuda::raw(gradient));
}
template <class S>
void Cuda<S>::prepare_convolution(ConvolutionShape shape, R const* v, R const* g, R const* bias,
                                  PreparedConvolution& to) {
  cuda::prepare_convolution<S>(shape, cuda::raw(v), cuda::raw(g), cuda::raw(bias), cuda::raw(to.forward),
                               cuda::raw(to.back), cuda::raw(to.bias),
                               context_->template scratch<float>(cuda::prepare_scratch(shape)), context_->stream);
}
template <class S> void Cuda<S>::finish_convolution(ConvolutionShape shape, R const* v, R const* g, R* dv, R* dg) {
  cuda::finish_convolution(shape, cuda::raw(v), cuda::raw(g), cuda::raw(dv), cuda::raw(dg),
                           context_->template scratch<float>(cuda::prepare_scratch(shape)), context_->stream);
}

namespace detail {

/// y = x w^T and what follows.
template <class S>
bool multiply(cuda::Context& c, Matrix<S const> x, S const* weight, int out, int in, Matrix<S> y,
              cuda::Epilogue const& epilogue) {
  return c.products.template multiply<S, S>({x.rows, out, in, y.stride}, {x.begin, x.stride}, {weight, in, true},
                                            y.begin, epilogue, c.stream, !c.recording);
}
/// dx = dy w and what follows.
template <class S>
bool multiply_back(cuda::Context& c, Matrix<S const> dy, S const* weight, int out, int in, Matrix<S> dx,
                   cuda::Epilogue const& epilogue) {
  return c.products.template multiply<S, S>({dy.rows, in, out, dx.stride}, {dy.begin, dy.stride}, {weight, in},
                                            dx.begin, epilogue, c.stream, !c.recording);
}
inline void expect_kernel(bool there) {
  if (!there) throw_error(ErrorCode::device, {"cuBLASLt has no kernel for a product on this GPU"});
}
/// Whether cuBLASLt's GELU epilogues take it: bf16, and aux rows at multiples of 16 bytes.
template <class S> bool gelu_in_epilogue(Matrix<S const> before) {
  return sizeof(S) == 2 && before.stride % 8 == 0 && reinterpret_cast<std::uintptr_t>(before.begin) % 16 == 0;
}
/// GELU between a block's products, where it is not in an epilogue: for bf16 in the same form as there.
template <class S> using BlockGelu = std::conditional_t<sizeof(S) == 2, cuda::TanhGelu, cuda::Gelu>;
template <class S> using BlockGeluSlope = std::conditional_t<sizeof(S) == 2, cuda::TanhGeluSlope, cuda::GeluSlope>;

}  // namespace detail

template <class S> void Cuda<S>::product(Matrix<E const> x, Prepared const& w, Matrix<E> y) {
  using Kind = cuda::Epilogue::Kind;
  detail::expect_kernel(detail::multiply(*context_, cuda::raw(x), static_cast<S const*>(cuda::raw(w.weight)),
                                         w.shape.padded_out(), w.shape.padded_in(), cuda::raw(y),
                                         {w.biased ? Kind::bias : Kind::none, w.biased ? w.bias : nullptr}));
}
template <class S> void Cuda<S>::product_gelu(Matrix<E const> x, Prepared const& w, Matrix<E> before, Matrix<E> y) {
  if (w.biased && detail::gelu_in_epilogue<S>(cuda::raw(before)) &&
      detail::multiply(*context_, cuda::raw(x), static_cast<S const*>(cuda::raw(w.weight)), w.shape.padded_out(),
                       w.shape.padded_in(), cuda::raw(y),
                       {cuda::Epilogue::Kind::bias_gelu, w.bias, before.begin, before.stride}))
    return;
  product(x, w, before);
  cuda::run_map<detail::BlockGelu<S>>(*context_, static_cast<S const*>(cuda::raw(before.begin)), cuda::raw(y.begin),
                                      cuda::size(y.rows) * cuda::size(y.columns));
}
template <class S>
void Cuda<S>::product_add(Matrix<E const> x, Prepared const& w, Matrix<E const> residual, Matrix<E> y) {
  using Kind = cuda::Epilogue::Kind;
  detail::expect_kernel(detail::multiply(*context_, cuda::raw(x), static_cast<S const*>(cuda::raw(w.weight)),
                                         w.shape.padded_out(), w.shape.padded_in(), cuda::raw(y),
                                         {w.biased ? Kind::bias : Kind::none,
                                          w.biased ? w.bias : nullptr,
                                          nullptr,
                                          0,
                                          {residual.begin, residual.stride}}));
}
template <class S> void Cuda<S>::product_back(Matrix<E const> dy, Prepared const& w, Matrix<E> dx) {
  detail::expect_kernel(detail::multiply_back(*context_, cuda::raw(dy), static_cast<S const*>(cuda::raw(w.weight)),
                                              w.shape.padded_out(), w.shape.padded_in(), cuda::raw(dx), {}));
}
template <class S> void Cuda<S>::product_back_add(Matrix<E const> dy, Prepared const& w, Matrix<E> dx) {
  detail::expect_kernel(detail::multiply_back(
      *context_, cuda::raw(dy), static_cast<S const*>(cuda::raw(w.weight)), w.shape.padded_out(), w.shape.padded_in(),
      cuda::raw(dx), {cuda::Epilogue::Kind::none, nullptr, nullptr, 0, {dx.begin, dx.stride}}));
}
template <class S>
void Cuda<S>::product_back_gelu(Matrix<E const> dy, Prepared const& w, Matrix<E const> before, Matrix<E> dx) {
  if (detail::gelu_in_epilogue<S>(cuda::raw(before)) &&
      detail::multiply_back(*context_, cuda::raw(dy), static_cast<S const*>(cuda::raw(w.weight)), w.shape.padded_out(),
                            w.shape.padded_in(), cuda::raw(dx),
                            {cuda::Epilogue::Kind::gelu_slope, nullptr, before.begin, before.stride}))
    return;
  product_back(dy, w, dx);
  cuda::run_map<detail::BlockGeluSlope<S>>(*context_, cuda::raw(before.begin),
                                           static_cast<S const*>(cuda::raw(dx.begin)), cuda::raw(dx.begin),
                                           cuda::size(dx.rows) * cuda::size(dx.columns));
}
template <class S>
void Cuda<S>::weight_gradient(Matrix<E const> dy, Matrix<E const> x, Prepared const& w, Matrix<R> dw, Array<R> db) {
  using cuda::size;
  cuda::Context& c = *context_;
  LinearShape const& s = w.shape;
  const int out = s.padded_out(), in = s.padded_in();
  const unsigned blocks = cuda::blocks_for(size(dy.rows), cuda::partial_rows);
  // Scratch: a padded gradient of weight and bias, then partial sums.
  const std::size_t weights = s.padded() ? size(out) * size(in) : 0, biases = s.padded() ? (size(out) + 3) / 4 * 4 : 0;
  auto* const padded =
      c.template scratch<float>((weights + 3) / 4 * 4 + biases + (db.begin != nullptr ? size(out) * blocks : 0));
  float* const padded_bias = padded + (weights + 3) / 4 * 4;
  float* const partial = padded_bias + biases;
  float* const to = s.padded() ? padded : cuda::raw(dw.begin);
  cuda::Epilogue epilogue{};
  if (!s.padded()) epilogue.added = {to, dw.stride};
  // cuBLASLt writes a bias's gradient and cannot add to it: the first product of a step that has it may.
  const bool first = db.begin != nullptr && !s.padded() && cuda::aligned(cuda::raw(db.begin)) &&
                     std::find(c.written_biases.begin(), c.written_biases.end(), db.begin) == c.written_biases.end();
  if (first) {
    epilogue.kind = cuda::Epilogue::Kind::row_sums_of_a;
    epilogue.vector = db.begin;
  }
  const auto multiply = [&] {
    return c.products.template multiply<S, float>({out, in, dy.rows, s.padded() ? in : dw.stride},
                                                  {dy.begin, dy.stride, true}, {x.begin, x.stride}, to, epilogue,
                                                  c.stream, !c.recording);
  };
  bool summed = multiply() && first;
  if (!summed && first) {  // not on this GPU
    epilogue.kind = cuda::Epilogue::Kind::none;
    epilogue.vector = nullptr;
    detail::expect_kernel(multiply());
  }
  if (db.begin != nullptr) c.written_biases.push_back(db.begin);
  if (db.begin != nullptr && !summed) {
    float* const sums = s.padded() ? padded_bias : cuda::raw(db.begin);
    if (s.padded()) cuda::check(cudaMemsetAsync(sums, 0, size(out) * sizeof(float), c.stream), "clearing");
    const Matrix<S const> rows = cuda::raw(dy);
    c.run(cuda::sum_rows<S, false>, {blocks, 256},
          Matrix<S>{const_cast<S*>(rows.begin), rows.rows, rows.columns, rows.stride}, nullptr, dy.rows, partial);
    cuda::add_up<float>(c, partial, blocks, out, sums, nullptr);
  }
  if (!s.padded()) return;
  const std::size_t n = size(dw.rows) * size(dw.columns);
  c.run(cuda::add_unpadded<>, {cuda::blocks_for(n, 256), 256}, padded, s, false, cuda::raw(dw));
  if (db.begin != nullptr)
    c.run(cuda::add_unpadded<>, {cuda::blocks_for(size(s.out), 256), 256}, padded_bias, s, true,
          Matrix<float>{cuda::raw(db.begin), s.out, 1, 1});
}

template <class S>
void Cuda<S>::convolution(Lane<Index> const&, Matrix<E const> x, PreparedConvolution const& w, Matrix<E> y) {
  cuda::convolution<S>(w.shape, context_->tiles, context_->tile_count, x.rows, cuda::raw(x.begin), cuda::raw(w.forward),
                       cuda::raw(w.bias), cuda::raw(y.begin), context_->stream);
}
template <class S>
void Cuda<S>::convolution_back(Lane<Index> const&, Matrix<E const> dy, PreparedConvolution const& w, Matrix<E> dx) {
  cuda::convolution_back<S>(w.shape, context_->tiles, context_->tile_count, dy.rows, cuda::raw(dy.begin),
                            cuda::raw(w.back), cuda::raw(dx.begin), context_->stream);
}
template <class S>
void Cuda<S>::convolution_gradient(Lane<Index> const&, Matrix<E const> dy, Matrix<E const> x,
                                   PreparedConvolution const& w, R* dw, R* db) {
  cuda::convolution_gradient<S>(
      w.shape, context_->tiles, context_->tile_count, dy.rows, cuda::raw(dy.begin), cuda::raw(x.begin), cuda::raw(dw),
      cuda::raw(db), context_->template scratch<float>(cuda::gradient_scratch<S>(w.shape, dy.rows)), context_->stream);
}

template <class S>
void Cuda<S>::layer_norm(Matrix<E const> x, Array<R const> gain, Array<R const> bias, float epsilon, Matrix<E> y,
                         Matrix<R> statistics) {
  context_->run(cuda::layer_norm<S>, cuda::by_row(x.rows), cuda::raw(x), cuda::raw(gain.begin), cuda::raw(bias.begin),
                epsilon, cuda::raw(y), cuda::raw(statistics.begin),
                cuda::packed(cuda::raw(x)) && cuda::packed(cuda::raw(y)));
}
template <class S>
void Cuda<S>::layer_norm_back(Matrix<E const> dy, Matrix<E const> x, Array<R const> gain, Matrix<R const> statistics,
                              Matrix<E> dx, bool accumulate, Array<R> d_gain, Array<R> d_bias) {
  const unsigned blocks = cuda::blocks_for(cuda::size(x.rows), cuda::partial_rows);
  auto* const partial = context_->template scratch<float>(2 * cuda::size(x.columns) * blocks);
  context_->run(cuda::layer_norm_back<S>, {blocks, 32 * cuda::row_warps}, cuda::raw(dy), cuda::raw(x),
                cuda::raw(gain.begin), cuda::raw(statistics.begin), cuda::raw(dx), accumulate, partial,
                cuda::packed(cuda::raw(dy)) && cuda::packed(cuda::raw(x)) && cuda::packed(cuda::raw(dx)));
  cuda::add_up<float>(*context_, partial, blocks, x.columns, cuda::raw(d_gain.begin), cuda::raw(d_bias.begin));
}
template <class S> void Cuda<S>::normalise_rows(Matrix<E const> x, Matrix<E> y, Array<R> inverse_norms) {
  context_->run(cuda::normalise_rows<S>, cuda::by_row(x.rows), cuda::raw(x), cuda::raw(y),
                cuda::raw(inverse_norms.begin), cuda::packed(cuda::raw(x)) && cuda::packed(cuda::raw(y)));
}
template <class S>
void Cuda<S>::normalise_rows_back(Matrix<E const> dy, Matrix<E const> y, Array<R const> inverse_norms, Matrix<E> dx) {
  context_->run(cuda::normalise_rows_back<S>, cuda::by_row(dy.rows), cuda::raw(dy), cuda::raw(y),
                cuda::raw(inverse_norms.begin), cuda::raw(dx));
}
template <class S> void Cuda<S>::gelu(Array<E const> x, Array<E> y) {
  cuda::run_map<cuda::Gelu>(*context_, cuda::raw(x.begin), cuda::raw(y.begin), y.size);
}
template <class S> void Cuda<S>::gelu_back(Array<E const> before, Array<E const> dy, Array<E> dx) {
  cuda::run_map<cuda::GeluSlope>(*context_, cuda::raw(before.begin), cuda::raw(dy.begin), cuda::raw(dx.begin), dx.size);
}
template <class S> void Cuda<S>::sum(Matrix<E const> a, Matrix<E const> b, Matrix<E> y) {
  if (cuda::dense(a) && cuda::dense(b) && cuda::dense(y))
    cuda::run_map<cuda::Plus>(*context_, cuda::raw(a.begin), cuda::raw(b.begin), cuda::raw(y.begin),
                              cuda::size(y.rows) * cuda::size(y.columns));
  else
    context_->run(cuda::sum_strided<S>, {static_cast<unsigned>(y.rows), 256}, cuda::raw(a), cuda::raw(b), cuda::raw(y));
}
template <class S> void Cuda<S>::copy(Array<E const> from, Array<E> to) {
  copy_on_device(reinterpret_cast<std::byte*>(to.begin), reinterpret_cast<std::byte const*>(from.begin),
                 to.size * sizeof(S));
}
template <class S> void Cuda<S>::clear(Array<E> to) {
  cuda::check(cudaMemsetAsync(to.begin, 0, to.size * sizeof(S), context_->stream), "clearing");
}
template <class S> void Cuda<S>::clear(Array<R> to) requires(!std::is_same_v<R, E>) {
  cuda::check(cudaMemsetAsync(to.begin, 0, to.size * sizeof(float), context_->stream), "clearing");
}
template <class S> void Cuda<S>::gather(Matrix<E const> x, Index const* rows, Matrix<E> y) {
  context_->run(cuda::move_rows<cuda::RowMove::gather, S>, cuda::by_row(y.rows), cuda::raw(x), nullptr, cuda::raw(rows),
                y.rows, cuda::raw(y), cuda::packed(cuda::raw(x)) && cuda::packed(cuda::raw(y)));
}
template <class S> void Cuda<S>::scatter_add(Matrix<E const> x, Index const* rows, Matrix<E> y) {
  context_->run(cuda::move_rows<cuda::RowMove::scatter_add, S>, cuda::by_row(x.rows), cuda::raw(x), nullptr,
                cuda::raw(rows), x.rows, cuda::raw(y), cuda::packed(cuda::raw(y)));
}
template <class S> void Cuda<S>::segment_sums(Matrix<E const> x, Index const* rows, Matrix<E> y) {
  context_->run(cuda::segment_sums<S>, {static_cast<unsigned>(y.rows), 256}, cuda::raw(x), cuda::raw(rows),
                cuda::raw(y));
}
template <class S> void Cuda<S>::fill_rows(Array<R const> value, Index const* rows, int n, Matrix<E> x) {
  if (n > 0)
    context_->run(cuda::move_rows<cuda::RowMove::fill, S>, cuda::by_row(n), Matrix<S const>{}, cuda::raw(value.begin),
                  cuda::raw(rows), n, cuda::raw(x), cuda::packed(cuda::raw(x)));
}
template <class S> void Cuda<S>::fill_rows_back(Matrix<E> d, Index const* rows, int n, Array<R> d_value) {
  if (n == 0) return;
  const unsigned blocks = cuda::blocks_for(cuda::size(n), cuda::partial_rows);
  auto* const partial = context_->template scratch<float>(cuda::size(d.columns) * blocks);
  context_->run(cuda::sum_rows<S, true>, {blocks, 256}, cuda::raw(d), cuda::raw(rows), n, partial);
  cuda::add_up<float>(*context_, partial, blocks, d.columns, cuda::raw(d_value.begin), nullptr);
}
template <class S> void Cuda<S>::column_sums(Matrix<E const> x, Sum* sums) {
  const unsigned blocks = cuda::blocks_for(cuda::size(x.rows), cuda::partial_rows);
  auto* const partial = context_->template scratch<float>(cuda::size(x.columns) * blocks);
  const Matrix<S const> rows = cuda::raw(x);
  context_->run(cuda::sum_rows<S, false>, {blocks, 256},
                Matrix<S>{const_cast<S*>(rows.begin), rows.rows, rows.columns, rows.stride}, nullptr, x.rows, partial);
  cuda::add_up<double>(*context_, partial, blocks, x.columns, cuda::raw(sums), nullptr);
}
template <class S> void Cuda<S>::from_sums(Sum const* sums, double factor, Array<R> to) {
  context_->run(cuda::scale_sums<>, {cuda::blocks_for(to.size, 256), 256}, cuda::raw(sums), factor, cuda::raw(to.begin),
                to.size);
}
template <class S> void Cuda<S>::add_sinusoids(Lane<Index> const& lane, Matrix<E const> x, Matrix<E> y) {
  context_->run(cuda::add_sinusoids<S>, {static_cast<unsigned>(x.rows), 128}, cuda::raw(lane.offsets), lane.sequences,
                cuda::raw(x), cuda::raw(y));
}
template <class S> void Cuda<S>::dropout(Lane<Index> const& lane, Noise const& noise, int site, Matrix<E> x) {
  context_->run(cuda::dropout<S>, {static_cast<unsigned>(x.rows), 128}, cuda::raw(lane.offsets),
                cuda::raw(lane.utterances), cuda::raw(lane.starts), lane.sequences, noise.key, context_->input,
                static_cast<std::uint32_t>(site), noise.dropout, cuda::raw(x));
}
template <class S> void Cuda<S>::spread(Matrix<E const> x, Sum& measure) {
  context_->run(cuda::spread<S>, {1, 256}, cuda::raw(x), context_->input, cuda::raw(&measure));
}
template <class S> void Cuda<S>::skip_forward(int layer, Matrix<E const> x, Matrix<E> y) {
  const std::size_t n = cuda::size(y.rows) * cuda::size(y.columns);
  context_->run(cuda::skip_forward<S>, {cuda::blocks_for(n, 256), 256}, context_->input, layer, cuda::raw(x.begin),
                cuda::raw(y.begin), n);
}
template <class S> void Cuda<S>::skip_back(int layer, Matrix<E> d, Matrix<E> bypass) {
  const std::size_t n = cuda::size(d.rows) * cuda::size(d.columns);
  context_->run(cuda::skip_back<S>, {cuda::blocks_for(n, 256), 256}, context_->input, layer, cuda::raw(d.begin),
                cuda::raw(bypass.begin), n);
}
template <class S>
void Cuda<S>::cross_entropy(Matrix<E> scores, Index const* targets, float factor, double weight, Count count, Sum& loss,
                            Measures<Sum>* measures) {
  auto* const row_losses = context_->template scratch<float>(cuda::size(scores.rows));
  const bool counted = measures != nullptr;
  context_->run(cuda::cross_entropy<S>, cuda::by_row(scores.rows), cuda::raw(scores), cuda::raw(targets), factor,
                weight, cuda::raw(count), row_losses, counted ? cuda::raw(measures->predicted) : nullptr,
                counted ? cuda::raw(measures->correct) : nullptr, counted ? cuda::raw(measures->histogram) : nullptr);
  context_->run(cuda::add_losses<>, {1, 256}, row_losses, scores.rows, weight, cuda::raw(count), cuda::raw(&loss));
}

}  // namespace sotto::inline SOTTO_API

namespace sotto::cuda::inline SOTTO_API {

template <class Functor, class Storage>
void MapOperations<Functor, Storage>::forward(Context& context, Array<E const> x, Array<E> y) {
  run_map<Mapped<Functor>>(context, raw(x.begin), raw(y.begin), y.size);
}
template <class Functor, class Storage>
void MapOperations<Functor, Storage>::backward(Context& context, Array<E const> x, Array<E const> dy, Array<E> dx) {
  run_map<MappedSlope<Functor>>(context, raw(x.begin), raw(dy.begin), raw(dx.begin), dx.size);
}
template <class Functor, class Storage>
void RowLossOperations<Functor, Storage>::apply(Context& context, Matrix<E> predicted, Matrix<E const> wanted,
                                                OnDevice<int> const* rows, double weight, OnDevice<int> const* count,
                                                OnDevice<double>& loss) {
  auto* const row_losses = context.scratch<float>(size(predicted.rows));
  context.run(row_loss<Functor, Storage>, by_row(predicted.rows), raw(predicted), raw(wanted), raw(rows), weight,
              raw(count), row_losses);
  context.run(add_losses<>, {1, 256}, row_losses, predicted.rows, weight, raw(count), raw(&loss));
}

template <class Policy, int W, class Storage>
void AttentionOperations<Policy, W, Storage>::forward(Context& context, int heads, int head_width,
                                                      Matrix<E const> query_key_value, Array<R const> table,
                                                      Matrix<E const> gates, Matrix<E> out, Matrix<R> log_sum) {
  const AttentionShape shape{context.tiles, context.tile_count,       query_key_value.rows,
                             heads,         padded_width(head_width), 1.f / sqrtf(static_cast<float>(head_width))};
  AttentionKernels<Policy, W, Storage>::forward(shape, raw(query_key_value.begin), raw(table.begin), raw(gates.begin),
                                                raw(out.begin), raw(log_sum.begin), context.stream);
}
template <class Policy, int W, class Storage>
void AttentionOperations<Policy, W, Storage>::backward(Context& context, int heads, int head_width,
                                                       Matrix<E const> query_key_value, Array<R const> table,
                                                       Matrix<E const> gates, Matrix<E const> out,
                                                       Matrix<E const> d_out, Matrix<R const> log_sum,
                                                       Matrix<E> d_query_key_value, Array<R> d_table,
                                                       Matrix<E> d_gates) {
  const AttentionShape shape{context.tiles, context.tile_count,       query_key_value.rows,
                             heads,         padded_width(head_width), 1.f / sqrtf(static_cast<float>(head_width))};
  const int entries = Policy::reads > 0 ? static_cast<int>(d_table.size) : 0;
  auto* const sums = context.scratch<unsigned long long>(size(entries) + (size(log_sum.rows * heads) + 1) / 2);
  auto* const delta = reinterpret_cast<float*>(sums + entries);
  if (entries > 0) check(cudaMemsetAsync(sums, 0, size(entries) * sizeof *sums, context.stream), "clearing");
  AttentionKernels<Policy, W, Storage>::backward(shape, entries, raw(query_key_value.begin), raw(table.begin),
                                                 raw(gates.begin), raw(out.begin), raw(d_out.begin), raw(log_sum.begin),
                                                 delta, raw(d_query_key_value.begin), raw(d_gates.begin),
                                                 entries > 0 ? sums : nullptr, raw(d_table.begin), context.stream);
}

}  // namespace sotto::cuda::inline SOTTO_API
