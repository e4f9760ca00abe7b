// The fake cuBLASLt: what it computes, what it refuses, and what it reports.
#include <doctest/doctest.h>

#include <cublasLt.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <cuda_runtime.h>
#include <sotto/core/bf16.hpp>

#include "product.hpp"

namespace {

/// One product as a test writes it: column-major matrices on the device, and everything that may be changed about it.
struct Trial {
  std::int64_t m = 19, n = 11, k = 37, batches = 1;
  bool transpose_a = false, transpose_b = false;
  cudaDataType in = CUDA_R_32F, c = CUDA_R_32F, out = CUDA_R_32F, scale = CUDA_R_32F;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT, alignment = 256;
  std::int32_t vector_type = -1;
  std::int64_t leading_d = 24, leading_before = 24;
  float alpha = 1, beta = 0;
};

class Device {
 public:
  Device() {
    REQUIRE(cublasLtCreate(&handle) == CUBLAS_STATUS_SUCCESS);
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  }
  Device(Device const&) = delete;
  Device& operator=(Device const&) = delete;
  ~Device() {
    cudaStreamSynchronize(stream);
    for (void* const p : blocks_) cudaFree(p);
    cudaStreamDestroy(stream);
    cublasLtDestroy(handle);
  }
  char* bytes(std::size_t n) {
    void* p = nullptr;
    REQUIRE(cudaMalloc(&p, n) == cudaSuccess);
    blocks_.push_back(p);
    return static_cast<char*>(p);
  }
  cublasLtHandle_t handle = nullptr;
  cudaStream_t stream = nullptr;

 private:
  std::vector<void*> blocks_;
};

/// Descriptors and memory of a trial, made and destroyed together.
class Setup {
 public:
  Setup(Device& device, Trial const& trial) : t(trial), device_(device) {
    REQUIRE(cublasLtMatmulDescCreate(&operation, t.compute, t.scale) == CUBLAS_STATUS_SUCCESS);
    a_leading = (t.transpose_a ? t.k : t.m) + 3;
    b_leading = (t.transpose_b ? t.n : t.k) + 2;
    a_host = numbers((a_leading * (t.transpose_a ? t.m : t.k)) * t.batches, 1, t.in);
    b_host = numbers((b_leading * (t.transpose_b ? t.k : t.n)) * t.batches, 2, t.in);
    c_host = numbers(t.leading_d * t.n * t.batches, 3, t.c);
    before_host = numbers(t.leading_before * t.n, 4, t.out);
    vector_host = numbers(std::max(t.m, t.n), 5, t.out);
    a = upload(a_host, t.in);
    b = upload(b_host, t.in);
    c = upload(c_host, t.c);
    before = upload(before_host, t.out);
    vector = upload(vector_host, t.out);
    d = device.bytes(c_host.size() * size(t.out));
    workspace = device.bytes(workspace_bytes);
    set(CUBLASLT_MATMUL_DESC_TRANSA, std::int32_t{t.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N});
    set(CUBLASLT_MATMUL_DESC_TRANSB, std::int32_t{t.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N});
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, t.epilogue);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(vector));
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, t.vector_type);
    if ((t.epilogue & 128) != 0) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<void*>(before));
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, t.leading_before);
    }
    a_layout = layout(t.in, t.transpose_a ? t.k : t.m, t.transpose_a ? t.m : t.k, a_leading);
    b_layout = layout(t.in, t.transpose_b ? t.n : t.k, t.transpose_b ? t.k : t.n, b_leading);
    c_layout = layout(t.c, t.m, t.n, t.leading_d);
    d_layout = layout(t.out, t.m, t.n, t.leading_d);
  }
  Setup(Setup const&) = delete;
  Setup& operator=(Setup const&) = delete;
  ~Setup() {
    cublasLtMatmulDescDestroy(operation);
    for (cublasLtMatrixLayout_t const l : {a_layout, b_layout, c_layout, d_layout}) cublasLtMatrixLayoutDestroy(l);
  }

  template <class V> void set(cublasLtMatmulDescAttributes_t attribute, V value) {
    REQUIRE(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof value) == CUBLAS_STATUS_SUCCESS);
  }
  cublasStatus_t plan() {
    cublasLtMatmulPreference_t preference;
    REQUIRE(cublasLtMatmulPreferenceCreate(&preference) == CUBLAS_STATUS_SUCCESS);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      REQUIRE(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value) ==
              CUBLAS_STATUS_SUCCESS);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_bytes});
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      prefer(attribute, t.alignment);
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(device_.handle, operation, a_layout, b_layout,
                                                                 c_layout, d_layout, preference, 1, &result, &found);
    CHECK(found == (status == CUBLAS_STATUS_SUCCESS ? 1 : 0));
    algorithm = result.algo;
    cublasLtMatmulPreferenceDestroy(preference);
    return status;
  }
  cublasStatus_t multiply() {
    return cublasLtMatmul(device_.handle, operation, &t.alpha, a, a_layout, b, b_layout, &t.beta, c, c_layout, d,
                          d_layout, &algorithm, workspace, workspace_bytes, device_.stream);
  }
  std::vector<float> read(char const* from, std::size_t n, cudaDataType type) const {
    std::vector<char> bytes(n * size(type));
    REQUIRE(cudaMemcpyAsync(bytes.data(), from, bytes.size(), cudaMemcpyDeviceToHost, device_.stream) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(device_.stream) == cudaSuccess);
    const host_cuda::Numbers view{bytes.data(), type == CUDA_R_16BF};
    std::vector<float> x(n);
    for (std::size_t i = 0; i < n; ++i) x[i] = view.get(static_cast<std::int64_t>(i));
    return x;
  }

  static std::size_t size(cudaDataType type) { return type == CUDA_R_16BF ? 2 : 4; }
  /// Numbers that a type holds exactly, so that only the product rounds.
  static std::vector<float> numbers(std::int64_t n, int seed, cudaDataType type) {
    std::vector<float> x(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double u = std::sin(static_cast<double>(i + 1) * 12.9898 + seed) * .9;
      x[i] = static_cast<float>(u);
      if (type == CUDA_R_16BF) x[i] = static_cast<float>(sotto::bf16::of(x[i]));
    }
    return x;
  }

  Trial t;
  static constexpr std::size_t workspace_bytes = 64 << 10;
  std::int64_t a_leading = 0, b_leading = 0;
  std::vector<float> a_host, b_host, c_host, before_host, vector_host;
  char *a = nullptr, *b = nullptr, *c = nullptr, *d = nullptr, *before = nullptr, *vector = nullptr,
       *workspace = nullptr;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a_layout = nullptr, b_layout = nullptr, c_layout = nullptr, d_layout = nullptr;
  cublasLtMatmulAlgo_t algorithm{};

 private:
  char* upload(std::vector<float> const& x, cudaDataType type) {
    char* const to = device_.bytes(x.size() * size(type));
    std::vector<char> bytes(x.size() * size(type));
    const host_cuda::Numbers view{bytes.data(), type == CUDA_R_16BF};
    for (std::size_t i = 0; i < x.size(); ++i) view.set(static_cast<std::int64_t>(i), x[i]);
    REQUIRE(cudaMemcpyAsync(to, bytes.data(), bytes.size(), cudaMemcpyHostToDevice, device_.stream) == cudaSuccess);
    return to;
  }
  cublasLtMatrixLayout_t layout(cudaDataType type, std::int64_t rows, std::int64_t columns, std::int64_t leading) {
    cublasLtMatrixLayout_t l;
    REQUIRE(cublasLtMatrixLayoutCreate(&l, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns),
                                       leading) == CUBLAS_STATUS_SUCCESS);
    const auto batches = static_cast<std::int32_t>(t.batches);
    const std::int64_t step = leading * columns;
    REQUIRE(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batches, sizeof batches) ==
            CUBLAS_STATUS_SUCCESS);
    REQUIRE(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof step) ==
            CUBLAS_STATUS_SUCCESS);
    return l;
  }
  Device& device_;
};

/// Element (i, j) of op(A) op(B) of one matrix of the batch, in double.
double sum_of(Setup const& s, std::int64_t batch, std::int64_t i, std::int64_t j) {
  double sum = 0;
  Trial const& t = s.t;
  const std::int64_t a0 = batch * s.a_leading * (t.transpose_a ? t.m : t.k),
                     b0 = batch * s.b_leading * (t.transpose_b ? t.k : t.n);
  for (std::int64_t k = 0; k < t.k; ++k) {
    const auto a = static_cast<std::size_t>(a0 + (t.transpose_a ? i * s.a_leading + k : k * s.a_leading + i));
    const auto b = static_cast<std::size_t>(b0 + (t.transpose_b ? k * s.b_leading + j : j * s.b_leading + k));
    sum += static_cast<double>(s.a_host[a]) * static_cast<double>(s.b_host[b]);
  }
  return sum;
}
/// Within what rounding to the type may cost.
void check_near(float x, double expected, cudaDataType type) {
  CHECK(std::abs(static_cast<double>(x) - expected) <= (type == CUDA_R_16BF ? 5e-3 : 2e-6) * (1 + std::abs(expected)));
}
double gelu_of(double x) { return .5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + .044715 * x * x * x))); }

void check_product(Trial const& trial) {
  Device device;
  Setup s(device, trial);
  Trial const& t = s.t;
  REQUIRE(s.plan() == CUBLAS_STATUS_SUCCESS);
  REQUIRE(s.multiply() == CUBLAS_STATUS_SUCCESS);
  const auto d = s.read(s.d, s.c_host.size(), t.out);
  const auto vector = s.read(s.vector, s.vector_host.size(), t.out);
  const auto before = s.read(s.before, s.before_host.size(), t.out);
  std::vector<double> row_sums(static_cast<std::size_t>(t.m));
  for (std::int64_t batch = 0; batch < t.batches; ++batch)
    for (std::int64_t j = 0; j < t.n; ++j)
      for (std::int64_t i = 0; i < t.m; ++i) {
        const auto at = static_cast<std::size_t>((batch * t.n + j) * t.leading_d + i),
                   aux = static_cast<std::size_t>(j * t.leading_before + i);
        double x = static_cast<double>(t.alpha) * sum_of(s, batch, i, j);
        if (t.beta != 0) x += static_cast<double>(t.beta) * static_cast<double>(s.c_host[at]);
        if ((t.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0)
          x += static_cast<double>(s.vector_host[static_cast<std::size_t>(i)]);
        if ((t.epilogue & CUBLASLT_EPILOGUE_GELU) != 0) {
          if ((t.epilogue & 128) != 0) check_near(before[aux], x, t.out);
          x = gelu_of(x);
        } else if ((t.epilogue & 64) != 0) {
          const auto z = static_cast<double>(s.before_host[aux]);
          x *= (gelu_of(z + 1e-4) - gelu_of(z - 1e-4)) / 2e-4;
        }
        row_sums[static_cast<std::size_t>(i)] += x;
        check_near(d[at], x, t.out);
      }
  if (t.epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD)
    for (std::size_t i = 0; i < row_sums.size(); ++i) check_near(vector[i], row_sums[i], t.out);
  if (t.epilogue == CUBLASLT_EPILOGUE_BGRADB)
    for (std::int64_t j = 0; j < t.n; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < t.k; ++k)
        sum += static_cast<double>(
            s.b_host[static_cast<std::size_t>(t.transpose_b ? k * s.b_leading + j : j * s.b_leading + k)]);
      check_near(vector[static_cast<std::size_t>(j)], sum, t.out);
    }
  if (t.epilogue == CUBLASLT_EPILOGUE_BGRADA)
    for (std::int64_t i = 0; i < t.m; ++i) {
      double sum = 0;
      for (std::int64_t k = 0; k < t.k; ++k)
        sum += static_cast<double>(
            s.a_host[static_cast<std::size_t>(t.transpose_a ? i * s.a_leading + k : k * s.a_leading + i)]);
      check_near(vector[static_cast<std::size_t>(i)], sum, t.out);
    }
}

cublasStatus_t planned(Trial const& trial) {
  Device device;
  return Setup(device, trial).plan();
}
Trial narrow(std::uint32_t epilogue) {
  Trial t;
  t.in = t.c = t.out = CUDA_R_16BF;
  t.epilogue = epilogue;
  return t;
}

}  // namespace

TEST_CASE("products are sums, whatever is transposed, of fp32 and of bf16") {
  for (const bool ta : {false, true})
    for (const bool tb : {false, true})
      for (const cudaDataType in : {CUDA_R_32F, CUDA_R_16BF})
        for (const cudaDataType out : {CUDA_R_32F, CUDA_R_16BF}) {
          if (in == CUDA_R_32F && out == CUDA_R_16BF) continue;
          Trial t;
          t.transpose_a = ta;
          t.transpose_b = tb;
          t.in = in;
          t.c = t.out = out;
          t.alpha = .75f;
          t.beta = -.5f;
          check_product(t);
        }
}

TEST_CASE("products of a batch, and with every epilogue") {
  Trial batch;
  batch.batches = 3;
  batch.beta = 1;
  check_product(batch);
  Trial bias;
  bias.epilogue = CUBLASLT_EPILOGUE_BIAS;
  check_product(bias);
  for (const std::uint32_t e : {CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_GELU, CUBLASLT_EPILOGUE_GELU_AUX,
                                CUBLASLT_EPILOGUE_GELU_BIAS, CUBLASLT_EPILOGUE_GELU_AUX_BIAS, CUBLASLT_EPILOGUE_DGELU,
                                CUBLASLT_EPILOGUE_DGELU_BGRAD, CUBLASLT_EPILOGUE_BGRADA, CUBLASLT_EPILOGUE_BGRADB})
    check_product(narrow(e));
}

TEST_CASE("TF32 sees ten bits of mantissa, ties to even") {
  CHECK(host_cuda::to_tf32(1.f + 0x1p-10f) == 1.f + 0x1p-10f);
  CHECK(host_cuda::to_tf32(1.f + 0x1p-11f) == 1.f);
  CHECK(host_cuda::to_tf32(1.f + 0x1.8p-10f) == 1.f + 0x1p-9f);
  CHECK(host_cuda::to_tf32(-INFINITY) == -INFINITY);
  CHECK(std::isnan(host_cuda::to_tf32(NAN)));
}

TEST_CASE("what NVIDIA's tables do not list is refused") {
  const auto refused = [](std::function<void(Trial&)> const& change, cublasStatus_t status) {
    Trial t = narrow(CUBLASLT_EPILOGUE_DEFAULT);
    change(t);
    CHECK(planned(t) == status);
  };
  constexpr auto unsupported = CUBLAS_STATUS_NOT_SUPPORTED, invalid = CUBLAS_STATUS_INVALID_VALUE;
  refused([](Trial&) {}, CUBLAS_STATUS_SUCCESS);
  refused([](Trial& t) { t.compute = CUBLAS_COMPUTE_32F_FAST_TF32; }, unsupported);  // of bf16
  refused([](Trial& t) { t.compute = CUBLAS_COMPUTE_16F; }, unsupported);
  refused([](Trial& t) { t.scale = CUDA_R_64F; }, unsupported);
  refused([](Trial& t) { t.in = CUDA_R_32F; }, unsupported);  // fp32 times fp32 into bf16
  refused([](Trial& t) { t.c = CUDA_R_32F; }, unsupported);   // C of another type than D
  refused([](Trial& t) { t.epilogue = CUBLASLT_EPILOGUE_RELU; }, unsupported);
  refused(
      [](Trial& t) {
        t.epilogue = CUBLASLT_EPILOGUE_BIAS;
        t.vector_type = CUDA_R_32F;
      },
      unsupported);
  refused(
      [](Trial& t) {
        t.epilogue = CUBLASLT_EPILOGUE_GELU_BIAS;
        t.c = t.out = CUDA_R_32F;
      },
      unsupported);
  refused(
      [](Trial& t) {
        t.epilogue = CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
        t.leading_before = 23;
      },
      invalid);
  refused(
      [](Trial& t) {
        t.epilogue = CUBLASLT_EPILOGUE_DGELU;
        t.leading_before = 16;  // D has 19 rows
      },
      invalid);
  refused([](Trial& t) { t.leading_d = 18; }, invalid);
  CHECK(std::string(cublasLtGetStatusString(invalid)).find("leading dimension") != std::string::npos);

  cublasLtMatmulDesc_t operation;
  REQUIRE(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS);
  const std::int64_t wide = CUBLAS_OP_T;
  CHECK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &wide, sizeof wide) == invalid);
  cublasLtMatmulDescDestroy(operation);
}

TEST_CASE("a product that a GPU could not do, or would do wrongly, is reported") {
  Device device;
  Trial t = narrow(CUBLASLT_EPILOGUE_GELU_AUX_BIAS);
  t.alignment = 16;
  const auto reported = [&](char const* sentence, std::function<void(Setup&)> const& spoil) {
    Setup s(device, t);
    REQUIRE(s.plan() == CUBLAS_STATUS_SUCCESS);
    spoil(s);
    host_cuda::options.keep_going = true;
    CHECK(s.multiply() == CUBLAS_STATUS_INVALID_VALUE);
    host_cuda::options.keep_going = false;
    CAPTURE(host_cuda::last_report());
    CHECK(host_cuda::last_report().find(sentence) != std::string::npos);
    host_cuda::clear_reports();
  };
  reported("none that cublasLtMatmulAlgoGetHeuristic", [](Setup& s) { s.algorithm = {}; });
  reported("other layouts", [](Setup& s) { std::swap(s.a_layout, s.b_layout); });
  reported("other layouts", [](Setup& s) { s.set(CUBLASLT_MATMUL_DESC_EPILOGUE, std::uint32_t{1}); });
  reported("not at a multiple of the 16 bytes", [](Setup& s) { s.d += 2; });
  reported("A is not wholly in one block of device memory", [](Setup& s) { s.a = reinterpret_cast<char*>(&s); });
  reported("C is not wholly in one block", [](Setup& s) {
    s.t.beta = 1;
    s.c = nullptr;
  });
  reported("workspace", [](Setup& s) { s.workspace = nullptr; });
  reported("D overlaps A or B", [](Setup& s) { s.d = s.a; });
  reported("bias is less aligned",
           [](Setup& s) { s.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(s.vector + 2)); });
  reported("multiple of 16 bytes",
           [](Setup& s) { s.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<void*>(s.before + 2)); });
  reported("auxiliary matrix is not in device memory",
           [](Setup& s) { s.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<void*>(nullptr)); });
}

TEST_CASE("a product runs when its stream does, and again with a graph") {
  Device device;
  Setup s(device, Trial{});
  REQUIRE(s.plan() == CUBLAS_STATUS_SUCCESS);
  REQUIRE(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  REQUIRE(s.multiply() == CUBLAS_STATUS_SUCCESS);
  cudaGraph_t graph;
  REQUIRE(cudaStreamEndCapture(device.stream, &graph) == cudaSuccess);
  cudaGraphExec_t executable;
  REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  cudaGraphDestroy(graph);
  CHECK(std::isnan(s.read(s.d, 1, CUDA_R_32F)[0]));  // captured, not run
  REQUIRE(cudaGraphLaunch(executable, device.stream) == cudaSuccess);
  check_near(s.read(s.d, 1, CUDA_R_32F)[0], sum_of(s, 0, 0, 0), CUDA_R_32F);
  cudaGraphExecDestroy(executable);
}

TEST_CASE("bytes of a product are counted once a matrix") {
  if (std::strcmp(HOST_CUDA_VARIANT, "race") != 0) return;
  Device device;
  Trial t;
  t.beta = 1;
  Setup s(device, t);
  REQUIRE(s.plan() == CUBLAS_STATUS_SUCCESS);
  cudaStreamSynchronize(device.stream);
  host_cuda::reset_traffic();
  REQUIRE(s.multiply() == CUBLAS_STATUS_SUCCESS);
  cudaStreamSynchronize(device.stream);
  int products = 0;
  for (auto const& x : host_cuda::traffic()) {
    if (x.name != "product") continue;
    ++products;
    CHECK(x.launches == 1);
    CHECK(x.bytes_read == 4 * (19 * 37 + 37 * 11 + 19 * 11));
    CHECK(x.bytes_written == 4 * 19 * 11);
  }
  CHECK(products == 1);
}
