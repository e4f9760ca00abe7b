// Matrix products by cuBLASLt: the one place that knows it. Plans are kept by shape; none is made while a step is
// recorded.
#pragma once

#include <cublasLt.h>

#include <algorithm>
#include <compare>
#include <cstdint>
#include <map>
#include <tuple>

#include <sotto/backend/cuda/device.cuh>
#include <sotto/backend/cuda/memory.hpp>

namespace sotto::cuda::inline SOTTO_ABI {

inline void check(cublasStatus_t status, char const* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw_error(ErrorCode::device, {"cuBLASLt failed while ", what, ": ", cublasLtGetStatusString(status)});
}

template <class T> inline constexpr cudaDataType data_type = CUDA_R_32F;
template <> inline constexpr cudaDataType data_type<bf16> = CUDA_R_16BF;

/// A matrix as it lies in memory, row after row.
struct Operand {
  void const* data;
  std::ptrdiff_t stride;    ///< elements from row to row
  bool transposed = false;  ///< its transpose takes part
};

/// What happens to y [rows, columns] beside y = a b.
struct Epilogue {
  enum class Kind {
    none,
    bias,          ///< y += vector [columns]
    bias_gelu,     ///< before = y + vector, y = gelu(before), in the tanh form
    gelu_slope,    ///< y *= gelu'(before)
    row_sums_of_a  ///< vector [rows] = row sums of a: a bias's gradient
  };
  Kind kind = Kind::none;
  void const* vector = nullptr;
  void const* before = nullptr;
  std::ptrdiff_t before_stride = 0;
  Operand added{};  ///< y += this, which may be y; of y's type
};

/// y [rows, columns] = a [rows, inner] b [inner, columns]. In: of a and b; Out: of y.
struct ProductShape {
  int rows, columns, inner;
  std::ptrdiff_t stride;  ///< of y
};

class Products {
 public:
  /// tune: time what cuBLASLt proposes and take the fastest; else take its first, so that runs have the same bits.
  Products(bool tf32, bool tune) : tf32_(tf32), tune_(tune), workspace_(workspace_bytes) {
    check(cublasLtCreate(&handle_), "starting");
  }
  Products(Products const&) = delete;
  Products& operator=(Products const&) = delete;
  ~Products() {
    for (auto& [key, plan] : plans_) destroy(plan);
    cublasLtDestroy(handle_);
  }

  /// Enqueues the product. may_plan: nothing is being recorded. False, and nothing is enqueued, where cuBLASLt has no
  /// kernel for it.
  template <class In, class Out>
  bool multiply(ProductShape const& shape, Operand a, Operand b, Out* y, Epilogue const& epilogue, cudaStream_t stream,
                bool may_plan) {
    const Key key = key_of<In, Out>(shape, a, b, y, epilogue);
    auto found = plans_.find(key);
    if (found == plans_.end()) {
      if (!may_plan) throw_error(ErrorCode::internal, {"a product was first asked for while a step was recorded"});
      found = plans_.emplace(key, make<In, Out>(shape, a, b, epilogue, key)).first;
      if (tune_ && found->second.candidates > 1) choose(found->second, a, b, y, shape, sizeof(Out), epilogue, stream);
    }
    Plan& plan = found->second;
    if (plan.candidates == 0) return false;
    check(run(plan, plan.algorithms[0], a, b, y, epilogue, stream), "multiplying");
    return true;
  }

 private:
  static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;
  static constexpr int most_candidates = 8;

  /// Everything that a plan depends on.
  struct Key {
    int rows, columns, inner, kind;
    std::ptrdiff_t stride, a_stride, b_stride, added_stride, before_stride;
    bool a_transposed, b_transposed, adds, narrow_in, narrow_out;
    int alignments[6];  ///< of a, b, what is added, y, and the epilogue's vector and matrix
    auto operator<=>(Key const&) const = default;
  };
  struct Plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, added = nullptr, y = nullptr;
    cublasLtMatmulAlgo_t algorithms[most_candidates];
    int candidates = 0;
  };

  static int alignment_of(void const* p) {
    const auto address = reinterpret_cast<std::uintptr_t>(p);
    return address == 0 ? 256 : static_cast<int>(std::min<std::uintptr_t>(256, address & (~address + 1)));
  }
  template <class In, class Out>
  static Key key_of(ProductShape const& s, Operand a, Operand b, Out const* y, Epilogue const& e) {
    return {s.rows,
            s.columns,
            s.inner,
            static_cast<int>(e.kind),
            s.stride,
            a.stride,
            b.stride,
            e.added.stride,
            e.before_stride,
            a.transposed,
            b.transposed,
            e.added.data != nullptr,
            sizeof(In) == 2,
            sizeof(Out) == 2,
            {alignment_of(a.data), alignment_of(b.data), alignment_of(e.added.data != nullptr ? e.added.data : y),
             alignment_of(y), alignment_of(e.vector), alignment_of(e.before)}};
  }

  template <class V> static void set(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t attribute, V value) {
    check(cublasLtMatmulDescSetAttribute(d, attribute, &value, sizeof value), "describing a product");
  }
  /// A row-major [rows, columns] is column-major [columns, rows].
  static cublasLtMatrixLayout_t layout(cudaDataType type, int rows, int columns, std::ptrdiff_t stride) {
    cublasLtMatrixLayout_t l;
    check(cublasLtMatrixLayoutCreate(&l, type, static_cast<std::uint64_t>(columns), static_cast<std::uint64_t>(rows),
                                     stride),
          "describing a matrix");
    return l;
  }

  /// cuBLASLt thinks in columns: it computes y^T = b^T a^T, so its A is our b and its B is our a.
  template <class In, class Out>
  Plan make(ProductShape const& s, Operand a, Operand b, Epilogue const& e, Key const& key) {
    Plan plan;
    const bool tf32 = tf32_ && sizeof(In) == 4;
    check(
        cublasLtMatmulDescCreate(&plan.operation, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
        "describing a product");
    set<std::int32_t>(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set<std::int32_t>(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set<std::int32_t>(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(e.kind));
    if (e.kind == Epilogue::Kind::row_sums_of_a)
      set<std::int32_t>(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F);
    if (e.before != nullptr) set<std::int64_t>(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, e.before_stride);
    set_pointers(plan, e);
    plan.a = b.transposed ? layout(data_type<In>, s.columns, s.inner, b.stride)
                          : layout(data_type<In>, s.inner, s.columns, b.stride);
    plan.b = a.transposed ? layout(data_type<In>, s.inner, s.rows, a.stride)
                          : layout(data_type<In>, s.rows, s.inner, a.stride);
    plan.y = layout(data_type<Out>, s.rows, s.columns, s.stride);
    plan.added = layout(data_type<Out>, s.rows, s.columns, e.added.data != nullptr ? e.added.stride : s.stride);

    cublasLtMatmulPreference_t preference;
    check(cublasLtMatmulPreferenceCreate(&preference), "looking for a kernel");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value), "looking for a kernel");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_bytes});
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(key.alignments[1]));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(key.alignments[0]));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<std::uint32_t>(key.alignments[2]));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<std::uint32_t>(key.alignments[3]));
    cublasLtMatmulHeuristicResult_t results[most_candidates];
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_, plan.operation, plan.a, plan.b, plan.added, plan.y, preference,
                                       most_candidates, results, &plan.candidates);
    cublasLtMatmulPreferenceDestroy(preference);
    const int proposed = status == CUBLAS_STATUS_SUCCESS ? plan.candidates : 0;
    plan.candidates = 0;
    for (int i = 0; i < proposed; ++i)
      if (results[i].state == CUBLAS_STATUS_SUCCESS) plan.algorithms[plan.candidates++] = results[i].algo;
    return plan;
  }
  static std::int32_t epilogue_of(Epilogue::Kind kind) {
    switch (kind) {
      case Epilogue::Kind::bias:
        return CUBLASLT_EPILOGUE_BIAS;
      case Epilogue::Kind::bias_gelu:
        return CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
      case Epilogue::Kind::gelu_slope:
        return CUBLASLT_EPILOGUE_DGELU;
      case Epilogue::Kind::row_sums_of_a:
        return CUBLASLT_EPILOGUE_BGRADB;
      case Epilogue::Kind::none:
        break;
    }
    return CUBLASLT_EPILOGUE_DEFAULT;
  }
  static void set_pointers(Plan& plan, Epilogue const& e) {
    if (e.vector != nullptr) set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, e.vector);
    if (e.before != nullptr) set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, e.before);
  }
  cublasStatus_t run(Plan& plan, cublasLtMatmulAlgo_t const& algorithm, Operand a, Operand b, void* y,
                     Epilogue const& e, cudaStream_t stream) {
    set_pointers(plan, e);
    const float one = 1, beta = e.added.data != nullptr ? 1.f : 0.f;
    void const* const added = e.added.data != nullptr ? e.added.data : y;
    return cublasLtMatmul(handle_, plan.operation, &one, b.data, plan.a, a.data, plan.b, &beta, added, plan.added, y,
                          plan.y, &algorithm, workspace_.begin(), workspace_bytes, stream);
  }
  /// Times what cuBLASLt proposes, and puts the fastest first. Writes to a y of its own: the caller's is added to once.
  void choose(Plan& plan, Operand a, Operand b, void const* y, ProductShape const& s, std::size_t element,
              Epilogue const& e, cudaStream_t stream) {
    DeviceMemory target(static_cast<std::size_t>(s.stride) * static_cast<std::size_t>(s.rows) * element);
    Epilogue tried = e;
    if (e.added.data == y) tried.added.data = target.begin();
    cudaEvent_t begun, ended;
    check(cudaEventCreate(&begun), "timing products");
    check(cudaEventCreate(&ended), "timing products");
    float best = -1;
    int fastest = 0;
    for (int i = 0; i < plan.candidates; ++i) {
      // The first run loads the kernel; what was proposed may still refuse.
      if (run(plan, plan.algorithms[i], a, b, target.begin(), tried, stream) != CUBLAS_STATUS_SUCCESS) continue;
      check(cudaEventRecord(begun, stream), "timing products");
      for (int repeat = 0; repeat < 3; ++repeat)
        check(run(plan, plan.algorithms[i], a, b, target.begin(), tried, stream), "timing products");
      check(cudaEventRecord(ended, stream), "timing products");
      check(cudaEventSynchronize(ended), "timing products");
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, begun, ended), "timing products");
      if (best < 0 || milliseconds < best) {
        best = milliseconds;
        fastest = i;
      }
    }
    std::swap(plan.algorithms[0], plan.algorithms[fastest]);
    cudaEventDestroy(begun);
    cudaEventDestroy(ended);
  }
  static void destroy(Plan& plan) {
    cublasLtMatmulDescDestroy(plan.operation);
    for (cublasLtMatrixLayout_t l : {plan.a, plan.b, plan.added, plan.y}) cublasLtMatrixLayoutDestroy(l);
  }

  cublasLtHandle_t handle_ = nullptr;
  bool tf32_, tune_;
  DeviceMemory workspace_;
  std::map<Key, Plan> plans_;
};

}  // namespace sotto::cuda::inline SOTTO_ABI
