// cuBLASLt for the host engine: it refuses what NVIDIA's documentation does not list, reports what would be undefined,
// and multiplies when the stream runs. Types and signatures are those of NVIDIA's header.
#include <cublasLt.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <string>
#include <utility>

#include "internal.hpp"
#include "product.hpp"
#include "product_rules.hpp"

namespace {

using namespace host_cuda;

struct Pointers {
  void *vector = nullptr, *before = nullptr;
};
struct Operation {
  Description description;
  Pointers pointers{};
};
struct Preference {
  std::uint64_t workspace = 0;
  std::uint32_t alignment_a = 256, alignment_b = 256, alignment_c = 256, alignment_d = 256;
};
/// What an algorithm was found for: it is good for that alone.
struct Plan {
  Description description;
  Layout a, b, c, d;
  Preference preference;
  std::uintptr_t vector_alignment = 0;
  std::size_t workspace = 0;
};
std::deque<Plan> plans;
constexpr std::uint64_t algorithm_mark = 0x686f73745f6c7421;
constexpr int most_algorithms = 2;  // more than one, so that a choice among them is exercised
constexpr std::size_t workspace_wanted = std::size_t{64} << 10;

// Opaque types are NVIDIA's, their contents ours.
Operation& of(cublasLtMatmulDesc_t d) { return *reinterpret_cast<Operation*>(d); }
Layout& of(cublasLtMatrixLayout_t l) { return *reinterpret_cast<Layout*>(l); }
Preference& of(cublasLtMatmulPreference_t p) { return *reinterpret_cast<Preference*>(p); }

/// What cuBLASLt would not notice, or not survive.
cublasStatus_t misuse(std::string why) {
  report("cublasLtMatmul: " + why);
  return invalid(std::move(why));
}

template <class T> cublasStatus_t take(T& field, int attribute, void const* value, std::size_t bytes) {
  if (value == nullptr || bytes != sizeof(T))
    return invalid("attribute " + std::to_string(attribute) + " has " + std::to_string(sizeof(T)) + " bytes, not " +
                   std::to_string(bytes));
  std::memcpy(&field, value, sizeof(T));
  return CUBLAS_STATUS_SUCCESS;
}
/// An attribute that may only have its default.
template <class T> cublasStatus_t take_only(T only, int attribute, void const* value, std::size_t bytes) {
  T given{};
  if (const auto status = take(given, attribute, value, bytes); status != CUBLAS_STATUS_SUCCESS) return status;
  return given == only ? CUBLAS_STATUS_SUCCESS
                       : unsupported("attribute " + std::to_string(attribute) + " is at its default only");
}
cublasStatus_t unknown_attribute(int attribute) {
  return unsupported("attribute " + std::to_string(attribute) + " is not known here");
}

std::uintptr_t address(void const* p) { return reinterpret_cast<std::uintptr_t>(p); }
/// The greatest power of two, up to 16, that a pointer is a multiple of: what vector loads care for.
std::uintptr_t alignment_of(void const* p) {
  return p == nullptr ? 16 : std::min(address(p) & (~address(p) + 1), std::uintptr_t{16});
}

Matrices matrices(Layout const& l, void const* p) {
  return {{static_cast<char*>(const_cast<void*>(p)), l.type == CUDA_R_16BF},
          static_cast<std::int64_t>(l.rows),
          static_cast<std::int64_t>(l.columns),
          l.leading,
          l.step};
}
bool on_device(Matrices const& m, std::int64_t batches) {
  return host_cuda::is_device_pointer(m.numbers.begin, m.extent(batches));
}
bool overlap(Matrices const& x, Matrices const& y, std::int64_t batches) {
  return x.numbers.begin < y.numbers.begin + y.extent(batches) && y.numbers.begin < x.numbers.begin + x.extent(batches);
}
void mark_written(Matrices const& m, std::int64_t batches) {
  for (std::int64_t batch = 0; batch < batches; ++batch)
    for (std::int64_t column = 0; column < m.columns; ++column)
      host_cuda::mark_written(m.of(batch).from(column * m.leading).begin,
                              static_cast<std::size_t>(m.rows) * m.numbers.size_of_one());
}

Product product_of(Operation const& o, Plan const& plan, float alpha, float beta, void const* a, void const* b,
                   void const* c, void* y) {
  Description const& d = o.description;
  Product p;
  p.a = matrices(plan.a, a);
  p.b = matrices(plan.b, b);
  p.c = matrices(plan.c, c);
  p.d = matrices(plan.d, y);
  p.transpose_a = d.transpose_a != CUBLAS_OP_N;
  p.transpose_b = d.transpose_b != CUBLAS_OP_N;
  p.tf32 = d.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  p.alpha = alpha;
  p.beta = beta;
  p.batches = plan.d.batches;
  p.inner = p.transpose_a ? p.a.rows : p.a.columns;
  p.adds_bias = has_bias(d.epilogue);
  p.vector = {static_cast<char*>(o.pointers.vector), plan.d.type == CUDA_R_16BF};
  p.before = p.d;
  p.before.numbers.begin = static_cast<char*>(o.pointers.before);
  p.before.leading = d.before_leading;
  p.before.step = d.before_step;
  p.keeps_before = is_gelu(d.epilogue) && has_before(d.epilogue);
  if (is_gelu(d.epilogue)) p.activation = Product::Activation::gelu;
  if (is_gelu_slope(d.epilogue)) p.activation = Product::Activation::gelu_slope;
  if (d.epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD) p.gradient = Product::Gradient::rows_of_d;
  if (d.epilogue == CUBLASLT_EPILOGUE_BGRADA) p.gradient = Product::Gradient::rows_of_a;
  if (d.epilogue == CUBLASLT_EPILOGUE_BGRADB) p.gradient = Product::Gradient::columns_of_b;
  return p;
}
std::int64_t vector_length(Product const& p) {
  return p.gradient == Product::Gradient::columns_of_b ? p.d.columns : p.d.rows;
}

/// Whether every pointer is what the plan was made for, and lies where a GPU may go.
cublasStatus_t check_pointers(Product const& p, Plan const& plan) {
  struct Operand {
    char const* name;
    Matrices const& m;
    std::uint32_t alignment;
  };
  const Operand operands[] = {{"A", p.a, plan.preference.alignment_a},
                              {"B", p.b, plan.preference.alignment_b},
                              {"D", p.d, plan.preference.alignment_d},
                              {"C", p.c, plan.preference.alignment_c}};
  for (auto const& [name, m, alignment] : operands) {
    if (&m == &p.c && p.beta == 0) continue;  // not read
    if (!on_device(m, p.batches)) return misuse(std::string(name) + " is not wholly in one block of device memory");
    if (address(m.numbers.begin) % alignment != 0)
      return misuse(std::string(name) + " is not at a multiple of the " + std::to_string(alignment) +
                    " bytes that its algorithm was found for");
  }
  if (overlap(p.d, p.a, p.batches) || overlap(p.d, p.b, p.batches)) return misuse("D overlaps A or B");
  if (p.beta != 0 && overlap(p.d, p.c, p.batches) && (p.c.numbers.begin != p.d.numbers.begin || plan.c != plan.d))
    return misuse("C overlaps D and is not D");
  if (has_vector(plan.description.epilogue)) {
    const auto bytes = static_cast<std::size_t>(vector_length(p)) * p.vector.size_of_one();
    if (!host_cuda::is_device_pointer(p.vector.begin, bytes)) return misuse("the bias is not in device memory");
    if (alignment_of(p.vector.begin) < plan.vector_alignment)
      return misuse("the bias is less aligned than the one that the algorithm was found for");
  }
  if (has_before(plan.description.epilogue)) {
    if (!on_device(p.before, p.batches)) return misuse("the auxiliary matrix is not in device memory");
    if (address(p.before.numbers.begin) % 16 != 0) return misuse("the auxiliary matrix is at no multiple of 16 bytes");
  }
  return CUBLAS_STATUS_SUCCESS;
}

void run(Product const& p, bool has_vector, bool has_before) {
  multiply(p);
  mark_written(p.d, p.batches);
  const auto vector_bytes =
      has_vector ? static_cast<std::uint64_t>(vector_length(p)) * p.vector.size_of_one() : std::uint64_t{0};
  const auto before_bytes = has_before ? p.before.bytes(p.batches) : std::uint64_t{0};
  std::uint64_t read = p.a.bytes(p.batches) + p.b.bytes(p.batches), written = p.d.bytes(p.batches);
  if (p.beta != 0) read += p.c.bytes(p.batches);
  (p.gradient == Product::Gradient::none ? read : written) += vector_bytes;
  (p.keeps_before ? written : read) += before_bytes;
  if (p.gradient != Product::Gradient::none) host_cuda::mark_written(p.vector.begin, vector_bytes);
  if (p.keeps_before) mark_written(p.before, p.batches);
  host_cuda::count_product(read, written);
}

}  // namespace

extern "C" {

std::size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
char const* cublasLtGetStatusString(cublasStatus_t status) {
  static std::string text;
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE:
      text = "CUBLAS_STATUS_INVALID_VALUE: " + refusal;
      break;
    case CUBLAS_STATUS_NOT_SUPPORTED:
      text = "CUBLAS_STATUS_NOT_SUPPORTED: " + refusal;
      break;
    default:
      text = "cuBLAS status " + std::to_string(static_cast<int>(status));
  }
  return text.c_str();
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (host_cuda::options.devices == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = reinterpret_cast<cublasLtHandle_t>(new char);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<char*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d, cublasComputeType_t compute, cudaDataType scale) {
  auto* const made = new Operation;
  made->description.compute = compute;
  made->description.scale = scale;
  *d = reinterpret_cast<cublasLtMatmulDesc_t>(made);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
  delete &of(d);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t attribute,
                                              void const* value, std::size_t bytes) {
  auto& [description, pointers] = of(d);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return take(description.transpose_a, attribute, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return take(description.transpose_b, attribute, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return take(description.epilogue, attribute, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return take(pointers.vector, attribute, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return take(description.vector_type, attribute, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
      return take(pointers.before, attribute, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
      return take(description.before_leading, attribute, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE:
      return take(description.before_step, attribute, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE:
      return take(description.before_type, attribute, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSC:
      return take_only<std::int32_t>(CUBLAS_OP_N, attribute, value, bytes);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
      return take_only<std::int32_t>(CUBLASLT_POINTER_MODE_HOST, attribute, value, bytes);
    default:
      return unknown_attribute(attribute);
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* l, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t leading) {
  *l = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, columns, leading});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
  delete &of(l);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t attribute,
                                                void const* value, std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return take(of(l).batches, attribute, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return take(of(l).step, attribute, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return take_only<std::int32_t>(CUBLASLT_ORDER_COL, attribute, value, bytes);
    default:
      return unknown_attribute(attribute);
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* p) {
  *p = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
  delete &of(p);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, void const* value,
                                                    std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return take(of(p).workspace, attribute, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return take(of(p).alignment_a, attribute, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return take(of(p).alignment_b, attribute, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return take(of(p).alignment_c, attribute, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return take(of(p).alignment_d, attribute, value, bytes);
    default:
      return unknown_attribute(attribute);
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t* results, int* found) {
  *found = 0;
  if (asked < 1) return invalid("no algorithm is asked for");
  auto const& [description, pointers] = of(operation);
  if (const auto status = check(description, of(a), of(b), of(c), of(d)); status != CUBLAS_STATUS_SUCCESS)
    return status;
  if (alignment_of(pointers.vector) < of(d).size_of_one()) return unsupported("a bias that is not aligned to its type");
  if (alignment_of(pointers.before) < 16) return unsupported("an auxiliary matrix at no multiple of 16 bytes");
  plans.push_back({description, of(a), of(b), of(c), of(d), of(preference), alignment_of(pointers.vector),
                   std::min<std::size_t>(of(preference).workspace, workspace_wanted)});
  for (int i = 0; i < std::min(asked, most_algorithms); ++i) {
    results[i] = {};
    results[i].algo.data[0] = algorithm_mark;
    results[i].algo.data[1] = plans.size() - 1;
    results[i].workspaceSize = plans.back().workspace;
    results[i].state = CUBLAS_STATUS_SUCCESS;
    results[i].wavesCount = 1;
    ++*found;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, void const* alpha, void const* a,
                              cublasLtMatrixLayout_t a_layout, void const* b, cublasLtMatrixLayout_t b_layout,
                              void const* beta, void const* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, cublasLtMatmulAlgo_t const* algorithm, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
  if (handle == nullptr) return misuse("no handle");
  if (algorithm == nullptr || algorithm->data[0] != algorithm_mark || algorithm->data[1] >= plans.size())
    return misuse("the algorithm is none that cublasLtMatmulAlgoGetHeuristic gave");
  Plan const& plan = plans[algorithm->data[1]];
  if (of(operation).description != plan.description || of(a_layout) != plan.a || of(b_layout) != plan.b ||
      of(c_layout) != plan.c || of(d_layout) != plan.d)
    return misuse("the algorithm was found for another operation or other layouts");
  if (workspace_bytes < plan.workspace) return misuse("the workspace is smaller than the algorithm's");
  if (workspace_bytes > 0 &&
      (!host_cuda::is_device_pointer(workspace, workspace_bytes) || address(workspace) % 16 != 0))
    return misuse("the workspace is not so many bytes of device memory at a multiple of 16");
  if (alpha == nullptr || beta == nullptr) return misuse("no alpha or no beta");
  const Product p =
      product_of(of(operation), plan, *static_cast<float const*>(alpha), *static_cast<float const*>(beta), a, b, c, d);
  if (const auto status = check_pointers(p, plan); status != CUBLAS_STATUS_SUCCESS) return status;
  const std::uint32_t epilogue = plan.description.epilogue;
  host_cuda::enqueue(stream, [p, epilogue, workspace, trampled = plan.workspace] {
    if (trampled > 0) std::memset(workspace, 0xff, trampled);  // whoever keeps something there loses it
    run(p, has_vector(epilogue), has_before(epilogue));
  });
  return CUBLAS_STATUS_SUCCESS;
}
}
