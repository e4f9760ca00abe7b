// A fake of cuBLASLt for host execution of CUDA. Types and signatures are NVIDIA's, from <cublasLt.h>; what is promised
// is what the documentation of cuBLAS says in "Using the cuBLASLt API", and the comments of that header. Where those
// list a combination as supported it is computed; else it is refused, as the library would or with a report. Reads of
// A, B and C and writes of D are seen by the address sanitizer, so a wrong size that got past the checks is found.
#include <cublasLt.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "internal.hpp"

// The race checker sees no single access here: what a product writes is told to it by mark_written, in whole columns.
#define UNSEEN __attribute__((no_sanitize("thread")))
// Only our own packed buffers are touched: checks would undo the vectorisation of where nearly all the time goes.
#define UNCHECKED __attribute__((no_sanitize("address", "thread", "undefined"), noinline))

struct cublasLtContext {
  bool open = true;  // read by each call, so that the address sanitizer finds a handle that was destroyed
};

namespace {

using host_cuda::report;

cublasStatus_t refuse(std::string const& why) {
  report("cuBLASLt: " + why);
  return CUBLAS_STATUS_INVALID_VALUE;
}

// What descriptors hold. The width of each field is the one that the header documents.

/// Of "cublasLtMatmulDescAttributes_t", all that a plan depends on.
struct Operation {
  std::int32_t compute = CUBLAS_COMPUTE_32F, scale = CUDA_R_32F, pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  std::int32_t a_turned = CUBLAS_OP_N, b_turned = CUBLAS_OP_N, c_turned = CUBLAS_OP_N;
  std::int32_t fill = CUBLAS_FILL_MODE_FULL, bias_type = -1, aux_type = -1;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  std::int64_t aux_stride = 0;
  bool operator==(Operation const&) const = default;
};
/// Of "cublasLtMatrixLayoutAttribute_t".
struct Layout {
  std::uint32_t type = CUDA_R_32F;
  std::int32_t order = CUBLASLT_ORDER_COL, batches = 1;
  std::uint64_t rows = 0, columns = 0;
  std::int64_t stride = 0, batch_stride = 0;
  bool operator==(Layout const&) const = default;
};
/// Of "cublasLtMatmulPreferenceAttributes_t". How to search is of no consequence here.
struct Preferences {
  std::uint32_t search = CUBLASLT_SEARCH_BEST_FIT, reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint64_t workspace = 0;
  std::uint32_t a_alignment = 256, b_alignment = 256, c_alignment = 256, d_alignment = 256;
};

struct OperationDescriptor : cublasLtMatmulDescOpaque_t {
  Operation operation;
  void *bias = nullptr, *aux = nullptr;  // may change from call to call
};
struct LayoutDescriptor : cublasLtMatrixLayoutOpaque_t {
  Layout layout;
};
struct PreferenceDescriptor : cublasLtMatmulPreferenceOpaque_t {
  Preferences preferences;
};

template <class Field> cublasStatus_t assign(Field& field, void const* value, std::size_t bytes) {
  if (value == nullptr) return refuse("an attribute is set from a null pointer");
  if (bytes != sizeof field)
    return refuse("an attribute is set with " + std::to_string(bytes) + " bytes, and has " +
                  std::to_string(sizeof field));
  std::memcpy(&field, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t unknown(char const* of, int attribute) {
  return refuse("attribute " + std::to_string(attribute) + " of " + of + " is unknown to the fake");
}

cublasStatus_t set(OperationDescriptor& d, cublasLtMatmulDescAttributes_t attribute, void const* value,
                   std::size_t bytes) {
  Operation& o = d.operation;
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
      return assign(o.compute, value, bytes);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
      return assign(o.scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
      return assign(o.pointer_mode, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return assign(o.a_turned, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return assign(o.b_turned, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSC:
      return assign(o.c_turned, value, bytes);
    case CUBLASLT_MATMUL_DESC_FILL_MODE:
      return assign(o.fill, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return assign(o.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return assign(o.bias_type, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return assign(d.bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE:
      return assign(o.aux_type, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
      return assign(o.aux_stride, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
      return assign(d.aux, value, bytes);
    default:
      return unknown("an operation", attribute);
  }
}
cublasStatus_t set(Layout& l, cublasLtMatrixLayoutAttribute_t attribute, void const* value, std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
      return assign(l.type, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return assign(l.order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
      return assign(l.rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
      return assign(l.columns, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD:
      return assign(l.stride, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return assign(l.batches, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return assign(l.batch_stride, value, bytes);
    default:
      return unknown("a layout", attribute);
  }
}
cublasStatus_t set(Preferences& p, cublasLtMatmulPreferenceAttributes_t attribute, void const* value,
                   std::size_t bytes) {
  const auto align = [&](std::uint32_t& field) {
    std::uint32_t asked = 0;
    const cublasStatus_t status = assign(asked, value, bytes);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (!std::has_single_bit(asked)) return refuse("an alignment of " + std::to_string(asked) + " bytes is preferred");
    field = asked;
    return CUBLAS_STATUS_SUCCESS;
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_SEARCH_MODE:
      return assign(p.search, value, bytes);
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return assign(p.workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return assign(p.reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return align(p.a_alignment);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return align(p.b_alignment);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return align(p.c_alignment);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return align(p.d_alignment);
    default:
      return unknown("a preference", attribute);
  }
}

// What is supported.

std::size_t bytes_of(std::uint32_t type) { return type == CUDA_R_16BF ? 2 : 4; }
/// From the first element to the last: the gap behind the last column need not exist.
std::size_t bytes_of(std::uint64_t rows, std::uint64_t columns, std::int64_t stride, std::uint32_t type) {
  return ((columns - 1) * static_cast<std::uint64_t>(stride) + rows) * bytes_of(type);
}
std::size_t bytes_of(Layout const& l) { return bytes_of(l.rows, l.columns, l.stride, l.type); }

/// What an epilogue does, in this order; see "cublasLtEpilogue_t".
struct Epilogue {
  bool adds_bias = false, stores_aux = false, gelu = false, slope = false;
  bool sums_d = false, sums_a = false, sums_b = false;  ///< into the bias: its gradient

  bool uses_aux() const { return stores_aux || slope; }
  bool uses_gradient() const { return sums_d || sums_a || sums_b; }
  bool uses_bias() const { return adds_bias || uses_gradient(); }
};
std::optional<Epilogue> epilogue_of(std::uint32_t value) {
  switch (value) {
    case CUBLASLT_EPILOGUE_DEFAULT:
      return Epilogue{};
    case CUBLASLT_EPILOGUE_BIAS:
      return Epilogue{.adds_bias = true};
    case CUBLASLT_EPILOGUE_GELU:
      return Epilogue{.gelu = true};
    case CUBLASLT_EPILOGUE_GELU_BIAS:
      return Epilogue{.adds_bias = true, .gelu = true};
    case CUBLASLT_EPILOGUE_GELU_AUX:
      return Epilogue{.stores_aux = true, .gelu = true};
    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
      return Epilogue{.adds_bias = true, .stores_aux = true, .gelu = true};
    case CUBLASLT_EPILOGUE_DGELU:
      return Epilogue{.slope = true};
    case CUBLASLT_EPILOGUE_DGELU_BGRAD:
      return Epilogue{.slope = true, .sums_d = true};
    case CUBLASLT_EPILOGUE_BGRADA:
      return Epilogue{.sums_a = true};
    case CUBLASLT_EPILOGUE_BGRADB:
      return Epilogue{.sums_b = true};
    default:
      return std::nullopt;
  }
}

/// D [m, n] = op(A) [m, k] op(B) [k, n] …, all column-major.
struct Problem {
  Operation operation;
  Layout a, b, c, d;
  bool operator==(Problem const&) const = default;

  bool a_turned() const { return operation.a_turned == CUBLAS_OP_T; }
  bool b_turned() const { return operation.b_turned == CUBLAS_OP_T; }
  std::uint64_t m() const { return a_turned() ? a.columns : a.rows; }
  std::uint64_t n() const { return b_turned() ? b.rows : b.columns; }
  std::uint64_t k() const { return a_turned() ? a.rows : a.columns; }
  std::uint32_t bias_type() const {
    return operation.bias_type == -1 ? d.type : static_cast<std::uint32_t>(operation.bias_type);
  }
  std::uint64_t bias_length(Epilogue const& e) const { return e.sums_b ? n() : m(); }
};

/// "Must be large enough so that matrix memory locations are not overlapping": CUBLASLT_MATRIX_LAYOUT_LD. And
/// CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD "must be divisible by 8 and be no less than the number of rows".
bool consistent(Problem const& p, Epilogue const& epilogue) {
  for (Layout const* l : {&p.a, &p.b, &p.c, &p.d})
    if (l->rows == 0 || l->columns == 0 || l->stride < 0 || static_cast<std::uint64_t>(l->stride) < l->rows)
      return false;
  if ((p.b_turned() ? p.b.columns : p.b.rows) != p.k()) return false;
  for (Layout const* l : {&p.c, &p.d})
    if (l->rows != p.m() || l->columns != p.n()) return false;
  const std::int64_t aux = p.operation.aux_stride;
  return !epilogue.uses_aux() || (aux > 0 && aux % 8 == 0 && static_cast<std::uint64_t>(aux) >= p.m());
}
/// The table of types in "cublasLtMatmul()", of which these rows are ours. C and D "must have the same data type".
bool supports_types(Problem const& p) {
  const std::int32_t compute = p.operation.compute;
  if (p.operation.scale != CUDA_R_32F || p.a.type != p.b.type || p.c.type != p.d.type) return false;
  if (p.a.type == CUDA_R_32F)
    return p.d.type == CUDA_R_32F && (compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_FAST_TF32);
  return p.a.type == CUDA_R_16BF && compute == CUBLAS_COMPUTE_32F &&
         (p.d.type == CUDA_R_16BF || p.d.type == CUDA_R_32F);
}
/// GELU with an output of 32 bits is listed for some types only, and depends on the version: we never ask for it.
bool supports_epilogue(Problem const& p, Epilogue const& e) {
  if ((e.gelu || e.slope) && p.d.type != CUDA_R_16BF) return false;
  if (e.uses_aux() && p.operation.aux_type != -1 && static_cast<std::uint32_t>(p.operation.aux_type) != p.d.type)
    return false;
  if (!e.uses_bias() || p.bias_type() == p.d.type) return true;
  return (e.sums_a || e.sums_b) && p.bias_type() == CUDA_R_32F;
}
bool supports_form(Problem const& p) {
  Operation const& o = p.operation;
  const auto turns = [](std::int32_t t) { return t == CUBLAS_OP_N || t == CUBLAS_OP_T; };
  if (!turns(o.a_turned) || !turns(o.b_turned) || o.c_turned != CUBLAS_OP_N || o.fill != CUBLAS_FILL_MODE_FULL ||
      o.pointer_mode != CUBLASLT_POINTER_MODE_HOST)
    return false;
  // "Usually only values that can be expressed as int32_t are supported": CUBLASLT_MATRIX_LAYOUT_ROWS.
  constexpr std::uint64_t most = std::numeric_limits<std::int32_t>::max();
  for (Layout const* l : {&p.a, &p.b, &p.c, &p.d})
    if (l->order != CUBLASLT_ORDER_COL || l->batches != 1 || l->rows > most || l->columns > most) return false;
  return true;
}
cublasStatus_t judge(Problem const& p) {
  const std::optional<Epilogue> epilogue = epilogue_of(p.operation.epilogue);
  if (!supports_form(p) || !epilogue) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!consistent(p, *epilogue)) return CUBLAS_STATUS_INVALID_VALUE;
  return supports_types(p) && supports_epilogue(p, *epilogue) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

// Plans.

/// Where no access is wider.
constexpr std::size_t widest = 16;
std::size_t alignment_of(void const* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  return address == 0 ? widest : std::min<std::size_t>(widest, address & (~address + 1));
}

/// What the heuristic was asked and approved of. Its algorithms are good for this and nothing else. They hold no
/// pointer, so plans are of the program and not of a handle, and are never forgotten.
struct Plan {
  Problem problem;
  Preferences preferences;
  /// "Routines that don't dereference this pointer, like cublasLtMatmulAlgoGetHeuristic() depend on its value to
  /// determine expected pointer alignment": CUBLASLT_MATMUL_DESC_BIAS_POINTER.
  std::size_t bias_alignment;
};
std::vector<Plan> plans;
constexpr std::uint64_t algorithm_mark = 0x50f7706c74616c67;

/// All compute the same. The first needs no workspace, the second all that was allowed.
cublasLtMatmulHeuristicResult_t candidate(std::uint64_t plan, int number) {
  cublasLtMatmulHeuristicResult_t result{};
  result.algo.data[0] = algorithm_mark;
  result.algo.data[1] = plan;
  result.algo.data[2] = number == 0 ? 0 : plans[plan].preferences.workspace;
  result.workspaceSize = result.algo.data[2];
  result.state = CUBLAS_STATUS_SUCCESS;
  result.wavesCount = 1;
  return result;
}
Plan const* plan_of(cublasLtMatmulAlgo_t const* algorithm, Problem const& p) {
  if (algorithm == nullptr || algorithm->data[0] != algorithm_mark || algorithm->data[1] >= plans.size())
    return nullptr;
  Plan const& plan = plans[algorithm->data[1]];
  return plan.problem == p ? &plan : nullptr;
}

// Numbers.

UNSEEN float widened(std::uint16_t x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16); }
/// To the nearest, ties to even.
UNSEEN std::uint16_t narrowed(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return 0x7fff;
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
/// To the nearest of ten bits of mantissa, ties away from zero, as cvt.rna.tf32.f32 does.
UNSEEN float tf32(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return (bits & 0x7f800000) == 0x7f800000 ? x : std::bit_cast<float>((bits + 0x1000) & 0xffffe000);
}
constexpr float gelu_scale = 0.7978845608f, gelu_cubic = 0.044715f;  // √(2/π)
UNSEEN float gelu(float x) { return 0.5f * x * (1 + std::tanh(gelu_scale * (x + gelu_cubic * x * x * x))); }
UNSEEN float gelu_slope(float x) {
  const float t = std::tanh(gelu_scale * (x + gelu_cubic * x * x * x));
  return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * gelu_scale * (1 + 3 * gelu_cubic * x * x);
}

UNSEEN void read(float* to, void const* from, std::uint32_t type, std::size_t offset, std::size_t count) {
  if (type == CUDA_R_32F) {
    float const* const x = static_cast<float const*>(from) + offset;
    for (std::size_t i = 0; i < count; ++i) to[i] = x[i];
  } else {
    std::uint16_t const* const x = static_cast<std::uint16_t const*>(from) + offset;
    for (std::size_t i = 0; i < count; ++i) to[i] = widened(x[i]);
  }
}
UNSEEN void write(void* to, float const* from, std::uint32_t type, std::size_t offset, std::size_t count) {
  if (type == CUDA_R_32F) {
    float* const y = static_cast<float*>(to) + offset;
    for (std::size_t i = 0; i < count; ++i) y[i] = from[i];
  } else {
    std::uint16_t* const y = static_cast<std::uint16_t*>(to) + offset;
    for (std::size_t i = 0; i < count; ++i) y[i] = narrowed(from[i]);
  }
  host_cuda::mark_written(static_cast<char*>(to) + offset * bytes_of(type), count * bytes_of(type));
}

// The product itself: op(A) is packed in panels of 2 · lanes rows and op(B) in panels of 4 columns, as floats and with
// the panel's elements of one k side by side. Each element of D is the sum over k from first to last, whatever the
// shape and the width of vectors.
#ifdef __AVX__
constexpr std::size_t lanes = 8;
#else
constexpr std::size_t lanes = 4;
#endif
constexpr std::size_t a_panel = 2 * lanes, b_panel = 4;
using Lanes [[gnu::vector_size(sizeof(float) * lanes)]] = float;
using UnalignedLanes [[gnu::vector_size(sizeof(float) * lanes), gnu::aligned(sizeof(float)), gnu::may_alias]] = float;

std::size_t rounded_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

/// A matrix of which vectors of `inner` elements are multiplied: element p of vector v lies at v · across + p · along.
struct Source {
  void const* data;
  std::uint32_t type;
  std::size_t vectors, inner, across, along;
  bool to_tf32;
};
template <class T, std::size_t panel> UNSEEN void pack_panels(Source const& s, float* to) {
  T const* const from = static_cast<T const*>(s.data);
  for (std::size_t first = 0; first < s.vectors; first += panel) {
    const std::size_t present = s.vectors - first < panel ? s.vectors - first : panel;
    for (std::size_t p = 0; p < s.inner; ++p, to += panel) {
      T const* const x = from + first * s.across + p * s.along;
      for (std::size_t v = 0; v < present; ++v) {
        if constexpr (sizeof(T) == 2)
          to[v] = widened(x[v * s.across]);
        else
          to[v] = s.to_tf32 ? tf32(x[v * s.across]) : x[v * s.across];
      }
      for (std::size_t v = present; v < panel; ++v) to[v] = 0;
    }
  }
}
template <std::size_t panel> std::unique_ptr<float[]> pack(Source const& s) {
  auto packed = std::make_unique_for_overwrite<float[]>(rounded_up(s.vectors, panel) * s.inner);
  if (s.type == CUDA_R_32F)
    pack_panels<float, panel>(s, packed.get());
  else
    pack_panels<std::uint16_t, panel>(s, packed.get());
  return packed;
}
UNCHECKED void multiply_panels(float const* a, float const* b, std::size_t inner, float* to, std::size_t stride) {
  Lanes sums[b_panel][2] = {};
  for (std::size_t p = 0; p < inner; ++p, a += a_panel, b += b_panel) {
    const Lanes low = *reinterpret_cast<UnalignedLanes const*>(a),
                high = *reinterpret_cast<UnalignedLanes const*>(a + lanes);
    for (std::size_t j = 0; j < b_panel; ++j) {
      sums[j][0] += low * b[j];
      sums[j][1] += high * b[j];
    }
  }
  for (std::size_t j = 0; j < b_panel; ++j)
    for (std::size_t half = 0; half < 2; ++half)
      *reinterpret_cast<UnalignedLanes*>(to + j * stride + half * lanes) = sums[j][half];
}
/// The sum of each vector, from first to last.
template <std::size_t panel>
UNCHECKED void sum_panels(float const* packed, std::size_t vectors, std::size_t inner, float* to) {
  for (std::size_t v = 0; v < vectors; ++v) {
    float const* const x = packed + v / panel * panel * inner + v % panel;
    float sum = 0;
    for (std::size_t p = 0; p < inner; ++p) sum += x[p * panel];
    to[v] = sum;
  }
}

/// A product as it is enqueued: all that the call said, so that descriptors may be destroyed at once.
struct Product {
  Problem problem;
  Epilogue epilogue;
  float alpha, beta;
  void const *a, *b, *c;
  void *d, *bias, *aux;

  Source source(Layout const& l, void const* data, bool inner_first, std::size_t vectors) const {
    const auto stride = static_cast<std::size_t>(l.stride);
    return {data,
            l.type,
            vectors,
            problem.k(),
            inner_first ? stride : 1,
            inner_first ? 1 : stride,
            problem.operation.compute == CUBLAS_COMPUTE_32F_FAST_TF32};
  }
  void operator()() const {
    const std::size_t m = problem.m(), n = problem.n(), k = problem.k(), stride = rounded_up(m, a_panel);
    const auto packed_a = pack<a_panel>(source(problem.a, a, problem.a_turned(), m));
    const auto packed_b = pack<b_panel>(source(problem.b, b, !problem.b_turned(), n));
    const auto sums = std::make_unique_for_overwrite<float[]>(stride * rounded_up(n, b_panel));
    for (std::size_t i = 0; i < m; i += a_panel)
      for (std::size_t j = 0; j < n; j += b_panel)
        multiply_panels(packed_a.get() + i * k, packed_b.get() + j * k, k, sums.get() + j * stride + i, stride);
    finish(sums.get(), stride);
    const auto vector = std::make_unique_for_overwrite<float[]>(problem.bias_length(epilogue));
    if (epilogue.sums_a) sum_panels<a_panel>(packed_a.get(), m, k, vector.get());
    if (epilogue.sums_b) sum_panels<b_panel>(packed_b.get(), n, k, vector.get());
    if (epilogue.sums_a || epilogue.sums_b)
      write(bias, vector.get(), problem.bias_type(), 0, problem.bias_length(epilogue));
    count();
  }

  /// From sums to D, column after column. GELU is taken of what is not yet rounded to aux.
  UNSEEN void finish(float* sums, std::size_t stride) const {
    const std::size_t m = problem.m();
    const auto buffers = std::make_unique_for_overwrite<float[]>(2 * m);
    float *const vector = buffers.get(), *const other = vector + m;
    if (epilogue.adds_bias) read(vector, bias, problem.bias_type(), 0, m);
    if (epilogue.sums_d) std::memset(vector, 0, m * sizeof(float));
    const auto aux_stride = static_cast<std::size_t>(problem.operation.aux_stride);
    for (std::size_t j = 0; j < problem.n(); ++j) {
      float* const x = sums + j * stride;
      for (std::size_t i = 0; i < m; ++i) x[i] *= alpha;
      if (beta != 0) {
        read(other, c, problem.c.type, j * static_cast<std::size_t>(problem.c.stride), m);
        for (std::size_t i = 0; i < m; ++i) x[i] += beta * other[i];
      }
      if (epilogue.adds_bias)
        for (std::size_t i = 0; i < m; ++i) x[i] += vector[i];
      if (epilogue.stores_aux) write(aux, x, problem.d.type, j * aux_stride, m);
      if (epilogue.gelu)
        for (std::size_t i = 0; i < m; ++i) x[i] = gelu(x[i]);
      if (epilogue.slope) {
        read(other, aux, problem.d.type, j * aux_stride, m);
        for (std::size_t i = 0; i < m; ++i) x[i] *= gelu_slope(other[i]);
      }
      if (epilogue.sums_d)
        for (std::size_t i = 0; i < m; ++i) vector[i] += x[i];
      write(d, x, problem.d.type, j * static_cast<std::size_t>(problem.d.stride), m);
    }
    if (epilogue.sums_d) write(bias, vector, problem.bias_type(), 0, m);
  }

  /// Each matrix once, as if caches held everything.
  void count() const {
    const std::uint64_t m = problem.m(), n = problem.n(), in = bytes_of(problem.a.type),
                        product = m * n * bytes_of(problem.d.type),
                        vector = problem.bias_length(epilogue) * bytes_of(problem.bias_type());
    host_cuda::count_product((m + n) * problem.k() * in + (beta != 0 ? product : 0) + (epilogue.slope ? product : 0) +
                                 (epilogue.adds_bias ? vector : 0),
                             product + (epilogue.stores_aux ? product : 0) + (epilogue.uses_gradient() ? vector : 0));
  }
};

// What a call must bring.

struct Region {
  char const* name;
  void const* begin;
  std::size_t bytes, alignment;
  bool written;
};
bool overlap(Region const& x, Region const& y) {
  const auto p = reinterpret_cast<std::uintptr_t>(x.begin), q = reinterpret_cast<std::uintptr_t>(y.begin);
  return p < q + y.bytes && q < p + x.bytes;
}
/// C is not read where beta is zero, and may then be anything.
std::vector<Region> regions_of(Product const& p, Plan const& plan, void const* workspace, std::size_t bytes) {
  Problem const& q = p.problem;
  Preferences const& prefer = plan.preferences;
  std::vector<Region> all{{"A", p.a, bytes_of(q.a), prefer.a_alignment, false},
                          {"B", p.b, bytes_of(q.b), prefer.b_alignment, false},
                          {"D", p.d, bytes_of(q.d), prefer.d_alignment, true}};
  if (p.beta != 0) all.push_back({"C", p.c, bytes_of(q.c), prefer.c_alignment, false});
  if (p.epilogue.uses_bias())
    all.push_back({"the bias", p.bias, q.bias_length(p.epilogue) * bytes_of(q.bias_type()),
                   std::max(plan.bias_alignment, bytes_of(q.bias_type())), p.epilogue.uses_gradient()});
  if (p.epilogue.uses_aux())
    all.push_back({"the auxiliary matrix", p.aux, bytes_of(q.m(), q.n(), q.operation.aux_stride, q.d.type), widest,
                   p.epilogue.stores_aux});
  if (bytes > 0) all.push_back({"the workspace", workspace, bytes, widest, true});
  return all;
}
/// "Both in-place matrix multiplication (C == D and Cdesc == Ddesc) and out-of-place matrix multiplication (C != D …)":
/// "cublasLtMatmul()".
cublasStatus_t check_regions(Product const& p, std::vector<Region> const& regions) {
  for (Region const& r : regions) {
    if (!host_cuda::is_device_pointer(r.begin, r.bytes))
      return refuse(std::string(r.name) + " is not " + std::to_string(r.bytes) + " bytes of device memory");
    if (reinterpret_cast<std::uintptr_t>(r.begin) % r.alignment != 0)
      return refuse(std::string(r.name) + " is not aligned to the " + std::to_string(r.alignment) +
                    " bytes that the algorithm was chosen for");
  }
  const bool in_place = p.c == p.d && p.problem.c == p.problem.d;
  for (std::size_t i = 0; i < regions.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      Region const &x = regions[i], &y = regions[j];
      if (!(x.written || y.written) || !overlap(x, y)) continue;
      if (in_place && x.begin == p.d && y.begin == p.d && x.bytes == y.bytes && x.name[0] == 'C') continue;
      return refuse(std::string(x.name) + " and " + y.name + " overlap, and one of them is written");
    }
  return CUBLAS_STATUS_SUCCESS;
}
/// "Scalar Parameters": by default alpha and beta are read on the host, when the call is made.
bool read_scalar(void const* p, float& value) {
  if (p == nullptr || host_cuda::is_device_pointer(p, sizeof value)) return false;
  std::memcpy(&value, p, sizeof value);
  return true;
}

bool open(cublasLtHandle_t handle) { return handle != nullptr && handle->open; }
OperationDescriptor& of(cublasLtMatmulDesc_t d) { return *static_cast<OperationDescriptor*>(d); }
Layout& of(cublasLtMatrixLayout_t l) { return static_cast<LayoutDescriptor*>(l)->layout; }
Preferences& of(cublasLtMatmulPreference_t p) { return static_cast<PreferenceDescriptor*>(p)->preferences; }

}  // namespace

extern "C" {

/// As where the runtime cannot start, without a device.
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (host_cuda::options.devices == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  if (!open(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d, cublasComputeType_t compute, cudaDataType_t scale) {
  auto* const made = new OperationDescriptor{};
  made->operation.compute = compute;
  made->operation.scale = scale;
  *d = made;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
  delete static_cast<OperationDescriptor*>(d);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t attribute,
                                              void const* value, std::size_t bytes) {
  return d == nullptr ? refuse("there is no operation to describe") : set(of(d), attribute, value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* l, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t stride) {
  auto* const made = new LayoutDescriptor{};
  made->layout.type = type;
  made->layout.rows = rows;
  made->layout.columns = columns;
  made->layout.stride = stride;
  *l = made;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
  delete static_cast<LayoutDescriptor*>(l);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t attribute,
                                                void const* value, std::size_t bytes) {
  return l == nullptr ? refuse("there is no layout to describe") : set(of(l), attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* p) {
  *p = new PreferenceDescriptor{};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
  delete static_cast<PreferenceDescriptor*>(p);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, void const* value,
                                                    std::size_t bytes) {
  return p == nullptr ? refuse("there is no preference to describe") : set(of(p), attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t out, cublasLtMatmulPreference_t preference,
                                              int asked, cublasLtMatmulHeuristicResult_t results[], int* found) {
  if (!open(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (found != nullptr) *found = 0;
  if (d == nullptr || a == nullptr || b == nullptr || c == nullptr || out == nullptr || preference == nullptr ||
      results == nullptr || found == nullptr || asked < 1)
    return refuse("the heuristic is asked for an algorithm with something missing");
  const Problem problem{of(d).operation, of(a), of(b), of(c), of(out)};
  const cublasStatus_t status = judge(problem);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  plans.push_back({problem, of(preference), alignment_of(of(d).bias)});
  *found = std::min(asked, 2);
  for (int i = 0; i < *found; ++i) results[i] = candidate(plans.size() - 1, i);
  return CUBLAS_STATUS_SUCCESS;
}

/// On the null stream enqueue() reports.
cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t d, void const* alpha, void const* a,
                              cublasLtMatrixLayout_t a_layout, void const* b, cublasLtMatrixLayout_t b_layout,
                              void const* beta, void const* c, cublasLtMatrixLayout_t c_layout, void* out,
                              cublasLtMatrixLayout_t d_layout, cublasLtMatmulAlgo_t const* algorithm, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
  if (!open(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (d == nullptr || a_layout == nullptr || b_layout == nullptr || c_layout == nullptr || d_layout == nullptr)
    return refuse("a product lacks a descriptor");
  Product product{{of(d).operation, of(a_layout), of(b_layout), of(c_layout), of(d_layout)},
                  {},
                  0,
                  0,
                  a,
                  b,
                  c,
                  out,
                  of(d).bias,
                  of(d).aux};
  Plan const* const plan = plan_of(algorithm, product.problem);
  if (plan == nullptr) return refuse("the algorithm is not one that the heuristic gave for this product");
  if (workspace_bytes < algorithm->data[2])
    return refuse("the workspace has " + std::to_string(workspace_bytes) + " bytes, and the algorithm needs " +
                  std::to_string(algorithm->data[2]));
  if (!read_scalar(alpha, product.alpha) || !read_scalar(beta, product.beta))
    return refuse("alpha and beta must be in the host's memory");
  product.epilogue = *epilogue_of(product.problem.operation.epilogue);
  if ((product.epilogue.sums_a || product.epilogue.sums_b) && product.alpha != 1)
    return refuse("whether alpha scales a bias gradient is not documented: it must be one");
  const cublasStatus_t status = check_regions(product, regions_of(product, *plan, workspace, workspace_bytes));
  if (status == CUBLAS_STATUS_SUCCESS) host_cuda::enqueue(stream, product);
  return status;
}

char const* cublasLtGetStatusName(cublasStatus_t status) {
#define NAME(Status) \
  case Status:       \
    return #Status
  switch (status) {
    NAME(CUBLAS_STATUS_SUCCESS);
    NAME(CUBLAS_STATUS_NOT_INITIALIZED);
    NAME(CUBLAS_STATUS_ALLOC_FAILED);
    NAME(CUBLAS_STATUS_INVALID_VALUE);
    NAME(CUBLAS_STATUS_ARCH_MISMATCH);
    NAME(CUBLAS_STATUS_MAPPING_ERROR);
    NAME(CUBLAS_STATUS_EXECUTION_FAILED);
    NAME(CUBLAS_STATUS_INTERNAL_ERROR);
    NAME(CUBLAS_STATUS_NOT_SUPPORTED);
    NAME(CUBLAS_STATUS_LICENSE_ERROR);
  }
#undef NAME
  return "CUBLAS_STATUS_UNKNOWN";
}
char const* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "no error";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "the library is not initialized";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "an invalid value, or values that contradict each other";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "a combination that is not supported";
    default:
      return cublasLtGetStatusName(status);
  }
}
std::size_t cublasLtGetVersion() { return CUBLAS_VERSION; }

}  // extern "C"
