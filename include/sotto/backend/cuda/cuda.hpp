// The backend for NVIDIA GPUs as a plain C++ program sees it. Its bodies are in cuda.cuh, compiled by nvcc: once into
// the target sotto::cuda, and once for each attention, row loss or map of a program's own (sotto_add_kernels).
#pragma once

#include <cstdint>
#include <span>

#include <sotto/backend/backend.hpp>
#include <sotto/backend/cuda/memory.hpp>
#include <sotto/core/bf16.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/frontend/log_mel.hpp>
#include <sotto/nn/parameters.hpp>

namespace sotto::cuda::inline SOTTO_API {

/// A head's width as kernels are compiled for it: the next multiple of 16.
SOTTO_ALWAYS_INLINE constexpr int tile_width(int head_width) { return (head_width + 15) / 16 * 16; }
/// A head's width as activations carry it.
SOTTO_ALWAYS_INLINE constexpr int padded_width(int head_width) { return (head_width + 7) / 8 * 8; }

/// Softmax attention by a policy over packed sequences. W: tile_width().
template <class Policy, int W, class Storage> struct AttentionOperations {
  using E = OnDevice<Storage>;
  using R = OnDevice<float>;
  static void forward(Context& context, int heads, int head_width, Matrix<E const> query_key_value,
                      Array<R const> table, Matrix<E const> gates, Matrix<E> out, Matrix<R> log_sum);
  static void backward(Context& context, int heads, int head_width, Matrix<E const> query_key_value,
                       Array<R const> table, Matrix<E const> gates, Matrix<E const> out, Matrix<E const> d_out,
                       Matrix<R const> log_sum, Matrix<E> d_query_key_value, Array<R> d_table, Matrix<E> d_gates);
};
/// What a policy with learned numbers or gates needs beside it.
template <class Policy, class Storage> struct TableOperations {
  using E = OnDevice<Storage>;
  using R = OnDevice<float>;
  static void prepare(Context& context, int heads, Array<R const> parameters, Array<R const> table);
  static void collect(Context& context, int heads, Array<R const> d_table, Array<R> d_parameters);
  /// weight [gates, head width], bias [gates], constant [heads].
  static void gates(Context& context, Matrix<E const> x, Matrix<R const> weight, Array<R const> bias,
                    Array<R const> constant, Matrix<E> gates);
  static void gates_back(Context& context, Matrix<E const> x, Matrix<R const> weight, Array<R const> bias,
                         Array<R const> constant, Matrix<E const> d_gates, Matrix<E> dx, Matrix<R> d_weight,
                         Array<R> d_bias, Array<R> d_constant);
};
/// Log-mel energies as frontend::LogMel has them.
struct LogMelShape {
  int bands, stack;
  frontend::Normalisation normalisation;
};
/// A user's element-wise function.
template <class Functor, class Storage> struct MapOperations {
  using E = OnDevice<Storage>;
  static void forward(Context& context, Array<E const> x, Array<E> y);
  static void backward(Context& context, Array<E const> x, Array<E const> dy, Array<E> dx);
};
/// A user's loss, a sum over rows and columns.
template <class Functor, class Storage> struct RowLossOperations {
  using E = OnDevice<Storage>;
  static void apply(Context& context, Matrix<E> predicted, Matrix<E const> wanted, OnDevice<int> const* rows,
                    double weight, OnDevice<int> const* count, OnDevice<double>& loss);
};

}  // namespace sotto::cuda::inline SOTTO_API

namespace sotto::inline SOTTO_API {

/// A GPU as a backend: every call enqueues on one stream of its own and returns. Storage: what activations and working
/// weights are kept in, float or bf16; masters, gradients, moments and statistics are fp32. GELU is erf's for float and
/// cuBLASLt's tanh form for bf16, forward and backward alike.
template <class Storage> class Cuda {
 public:
  using Element = OnDevice<Storage>;
  using Master = OnDevice<float>;
  using Index = OnDevice<int>;
  using Sum = OnDevice<double>;
  using Count = OnDevice<int> const*;
  static constexpr bool replays = true;
  using E = Element;
  using R = Master;

  struct Prepared {  ///< [padded out, padded in] and the bias, padded too
    E* weight;
    E* bias;
    LinearShape shape;
    bool biased;
  };
  struct PreparedConvolution {
    E *forward, *back;  ///< panels of the effective weight, see convolution.cuh
    R* bias;
    ConvolutionShape shape;
  };

  static SOTTO_ALWAYS_INLINE constexpr Prepared carve_linear(Arena& arena, LinearShape s) {
    const auto out = static_cast<std::size_t>(s.padded_out()), in = static_cast<std::size_t>(s.padded_in());
    E* const weight = arena.take<E>(out * in);
    return {weight, arena.take<E>(out), s, false};
  }
  static SOTTO_ALWAYS_INLINE constexpr PreparedConvolution carve_convolution(Arena& arena, ConvolutionShape s) {
    const std::size_t panel = static_cast<std::size_t>(s.width) * static_cast<std::size_t>(s.channels() * s.taps);
    E *const forward = arena.take<E>(panel), *const back = arena.take<E>(panel);
    return {forward, back, arena.take<R>(static_cast<std::size_t>(s.width)), s};
  }
  static SOTTO_ALWAYS_INLINE constexpr Array<R const> carve_table(Arena& arena, int entries) {
    return {arena.take<R>(static_cast<std::size_t>(entries)), static_cast<std::size_t>(entries)};
  }

  /// Error(device) where there is no such device, or none of compute capability 8.0. Makes it the calling thread's, and
  /// whoever calls the others sees to that (cuda::use_device). tf32: products of fp32 numbers round them to 10 bits of
  /// mantissa, and use tensor cores. tune: cuBLASLt's proposals are timed and the fastest is taken; runs then differ in
  /// their last bits.
  explicit Cuda(int device = 0, bool tf32 = false, bool tune = false);
  Cuda(Cuda const&) = delete;
  Cuda& operator=(Cuda const&) = delete;
  ~Cuda();
  SOTTO_ALWAYS_INLINE cuda::Context& context() { return *context_; }

  // What surrounds a step.
  /// Waits for everything enqueued. Error(device) if any of it failed.
  void wait();
  void copy_to_device(std::byte* to, void const* from, std::size_t bytes);
  void copy_to_host(void* to, std::byte const* from, std::size_t bytes);
  void copy_on_device(std::byte* to, std::byte const* from, std::size_t bytes);
  /// x := features, in what activations are kept in.
  void convert(Array<R const> features, Array<E> x);
  /// x [rows, bands * stack] := the log-mel energies of sequences of samples; rows after the last sequence are zeros.
  /// mean and deviation [bands]: of the corpus, where the shape asks for them.
  void log_mel(cuda::LogMelShape const& shape, Array<R const> samples, Index const* sample_offsets,
               Index const* offsets, int sequences, int rows, R const* mean, R const* deviation, E* x);
  /// A step begins: where its numbers stand, which rows are whose. tiles: tile_bytes(), the caller's.
  void begin_step(Lane<Index> const& lane, cuda::StepInput const* input, cuda::StepOutput* output, std::byte* tiles);
  void clear_counts(Array<Index> counts);
  static std::size_t tile_bytes(int rows, int sequences);
  /// Records what f enqueues, without doing it. f must have run before, so that its plans and scratch are there.
  cuda::Recording record(FunctionRef<void()> f);
  void replay(cuda::Recording const& recording);

  // The optimiser, over a whole table at once.
  /// Remembers the table and where values, gradients and moments stand; after all weights were prepared once.
  void plan_update(std::span<ParameterEntry const> table, R* values, R const* gradients, R* first, R* second);
  /// The working copies of all linear weights, from the values.
  void copy_weights();
  /// Norm of the gradient, clip, AdamW and the working copies, by the step's input; nothing where the loss or the norm
  /// is no number.
  void update();

  // The door.
  /// Linear weights are copied by copy_weights() and update(): this says where from and to.
  void prepare_linear(LinearShape shape, R const* weight, R const* bias, Prepared& to);
  void prepare_directions(LinearShape shape, R const* weight, Prepared& to);
  void finish_directions(Matrix<R const> weight, Matrix<R> gradient);
  void prepare_convolution(ConvolutionShape shape, R const* v, R const* g, R const* bias, PreparedConvolution& to);
  void finish_convolution(ConvolutionShape shape, R const* v, R const* g, R* dv, R* dg);
  template <class Policy>
  SOTTO_ALWAYS_INLINE void prepare_table(int heads, Array<R const> parameters, Array<R const> table) {
    cuda::TableOperations<Policy, Storage>::prepare(*context_, heads, parameters, table);
  }
  template <class Policy>
  SOTTO_ALWAYS_INLINE void collect_table(int heads, Array<R const> d_table, Array<R> d_parameters) {
    cuda::TableOperations<Policy, Storage>::collect(*context_, heads, d_table, d_parameters);
  }

  void product(Matrix<E const> x, Prepared const& w, Matrix<E> y);
  void product_gelu(Matrix<E const> x, Prepared const& w, Matrix<E> before, Matrix<E> y);
  void product_add(Matrix<E const> x, Prepared const& w, Matrix<E const> residual, Matrix<E> y);
  void product_back(Matrix<E const> dy, Prepared const& w, Matrix<E> dx);
  void product_back_add(Matrix<E const> dy, Prepared const& w, Matrix<E> dx);
  void product_back_gelu(Matrix<E const> dy, Prepared const& w, Matrix<E const> before, Matrix<E> dx);
  void weight_gradient(Matrix<E const> dy, Matrix<E const> x, Prepared const& w, Matrix<R> dw, Array<R> db);

  void convolution(Lane<Index> const& lane, Matrix<E const> x, PreparedConvolution const& w, Matrix<E> y);
  void convolution_back(Lane<Index> const& lane, Matrix<E const> dy, PreparedConvolution const& w, Matrix<E> dx);
  void convolution_gradient(Lane<Index> const& lane, Matrix<E const> dy, Matrix<E const> x,
                            PreparedConvolution const& w, R* dw, R* db);

  void layer_norm(Matrix<E const> x, Array<R const> gain, Array<R const> bias, float epsilon, Matrix<E> y,
                  Matrix<R> statistics);
  void layer_norm_back(Matrix<E const> dy, Matrix<E const> x, Array<R const> gain, Matrix<R const> statistics,
                       Matrix<E> dx, bool accumulate, Array<R> d_gain, Array<R> d_bias);
  void normalise_rows(Matrix<E const> x, Matrix<E> y, Array<R> inverse_norms);
  void normalise_rows_back(Matrix<E const> dy, Matrix<E const> y, Array<R const> inverse_norms, Matrix<E> dx);
  void gelu(Array<E const> x, Array<E> y);
  void gelu_back(Array<E const> before, Array<E const> dy, Array<E> dx);
  template <class Functor> SOTTO_ALWAYS_INLINE void map(Array<E const> x, Array<E> y) {
    cuda::MapOperations<Functor, Storage>::forward(*context_, x, y);
  }
  template <class Functor> SOTTO_ALWAYS_INLINE void map_back(Array<E const> x, Array<E const> dy, Array<E> dx) {
    cuda::MapOperations<Functor, Storage>::backward(*context_, x, dy, dx);
  }
  void sum(Matrix<E const> a, Matrix<E const> b, Matrix<E> y);
  void copy(Array<E const> from, Array<E> to);
  void clear(Array<E> to);
  void clear(Array<R> to) requires(!std::is_same_v<R, E>);
  void gather(Matrix<E const> x, Index const* rows, Matrix<E> y);
  void scatter_add(Matrix<E const> x, Index const* rows, Matrix<E> y);
  void segment_sums(Matrix<E const> x, Index const* rows, Matrix<E> y);
  void fill_rows(Array<R const> value, Index const* rows, int n, Matrix<E> x);
  void fill_rows_back(Matrix<E> d, Index const* rows, int n, Array<R> d_value);
  void column_sums(Matrix<E const> x, Sum* sums);
  void from_sums(Sum const* sums, double factor, Array<R> to);
  void add_sinusoids(Lane<Index> const& lane, Matrix<E const> x, Matrix<E> y);
  void dropout(Lane<Index> const& lane, Noise const& noise, int site, Matrix<E> x);
  void spread(Matrix<E const> x, Sum& measure);
  void skip_forward(int layer, Matrix<E const> x, Matrix<E> y);
  void skip_back(int layer, Matrix<E> d, Matrix<E> bypass);

  template <class Policy, int HeadWidth>
  SOTTO_ALWAYS_INLINE void attention(Lane<Index> const&, int heads, Matrix<E const> query_key_value,
                                     Array<R const> table, Matrix<E const> gates, Matrix<E> out, Matrix<R> log_sum) {
    cuda::AttentionOperations<Policy, cuda::tile_width(HeadWidth), Storage>::forward(
        *context_, heads, HeadWidth, query_key_value, table, gates, out, log_sum);
  }
  template <class Policy, int HeadWidth>
  SOTTO_ALWAYS_INLINE void attention_back(Lane<Index> const&, int heads, Matrix<E const> query_key_value,
                                          Array<R const> table, Matrix<E const> gates, Matrix<E const> out,
                                          Matrix<E const> d_out, Matrix<R const> log_sum, Matrix<E> d_query_key_value,
                                          Array<R> d_table, Matrix<E> d_gates) {
    cuda::AttentionOperations<Policy, cuda::tile_width(HeadWidth), Storage>::backward(
        *context_, heads, HeadWidth, query_key_value, table, gates, out, d_out, log_sum, d_query_key_value, d_table,
        d_gates);
  }
  template <class Policy, class Gate>
  SOTTO_ALWAYS_INLINE void attention_gates(Matrix<E const> x, Gate const& w, Matrix<E> gates) {
    cuda::TableOperations<Policy, Storage>::gates(*context_, x, w.weight, w.bias, w.constant, gates);
  }
  template <class Policy, class Gate, class Gradient>
  SOTTO_ALWAYS_INLINE void attention_gates_back(Matrix<E const> x, Gate const& w, Matrix<E const> d_gates, Matrix<E> dx,
                                                Gradient const& g) {
    cuda::TableOperations<Policy, Storage>::gates_back(*context_, x, w.weight, w.bias, w.constant, d_gates, dx,
                                                       g.weight, g.bias, g.constant);
  }

  void cross_entropy(Matrix<E> scores, Index const* targets, float factor, double weight, Count count, Sum& loss,
                     Measures<Sum>* measures);
  template <class Functor>
  SOTTO_ALWAYS_INLINE void row_loss(Matrix<E> predicted, Matrix<E const> wanted, Index const* rows, double weight,
                                    Count count, Sum& loss) {
    cuda::RowLossOperations<Functor, Storage>::apply(*context_, predicted, wanted, rows, weight, count, loss);
  }

 private:
  cuda::Context* context_;
};

}  // namespace sotto::inline SOTTO_API
