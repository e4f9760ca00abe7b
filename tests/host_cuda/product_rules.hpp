// What the fake cuBLASLt multiplies, and what it refuses: everything that NVIDIA's documentation of cublasLtMatmul does
// not list, and what of it this library has no use for.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace host_cuda {

struct Layout {
  cudaDataType type{};
  std::uint64_t rows = 0, columns = 0;
  std::int64_t leading = 0, step = 0;
  std::int32_t batches = 1;
  bool operator==(Layout const&) const = default;

  std::size_t size_of_one() const { return type == CUDA_R_16BF ? 2 : 4; }
};
struct Description {
  cublasComputeType_t compute{};
  cudaDataType scale{};
  std::int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  std::int32_t vector_type = -1, before_type = -1;  ///< -1: D's
  std::int64_t before_leading = 0, before_step = 0;
  bool operator==(Description const&) const = default;
};
inline std::string refusal;  // why the last call was refused: part of cublasLtGetStatusString
inline cublasStatus_t refuse(cublasStatus_t status, std::string why) {
  refusal = std::move(why);
  return status;
}
inline cublasStatus_t unsupported(std::string why) { return refuse(CUBLAS_STATUS_NOT_SUPPORTED, std::move(why)); }
inline cublasStatus_t invalid(std::string why) { return refuse(CUBLAS_STATUS_INVALID_VALUE, std::move(why)); }

// The epilogues, as bits.
inline bool is_gelu(std::uint32_t e) { return (e & CUBLASLT_EPILOGUE_GELU) != 0; }
inline bool is_gelu_slope(std::uint32_t e) { return (e & ~16u) == CUBLASLT_EPILOGUE_DGELU; }
inline bool has_before(std::uint32_t e) { return (e & 128) != 0; }
inline bool has_bias(std::uint32_t e) { return (e & CUBLASLT_EPILOGUE_BIAS) != 0; }
inline bool has_vector(std::uint32_t e) {
  return has_bias(e) || e == CUBLASLT_EPILOGUE_DGELU_BGRAD || e == CUBLASLT_EPILOGUE_BGRADA ||
         e == CUBLASLT_EPILOGUE_BGRADB;
}
inline bool is_known(std::uint32_t e) {
  switch (e) {
    case CUBLASLT_EPILOGUE_DEFAULT:
    case CUBLASLT_EPILOGUE_BIAS:
    case CUBLASLT_EPILOGUE_GELU:
    case CUBLASLT_EPILOGUE_GELU_AUX:
    case CUBLASLT_EPILOGUE_GELU_BIAS:
    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
    case CUBLASLT_EPILOGUE_DGELU:
    case CUBLASLT_EPILOGUE_DGELU_BGRAD:
    case CUBLASLT_EPILOGUE_BGRADA:
    case CUBLASLT_EPILOGUE_BGRADB:
      return true;
    default:
      return false;
  }
}

/// The rows of the tables under "cublasLtMatmul" that this library uses.
inline cublasStatus_t check_types(Description const& d, Layout const& a, Layout const& b, Layout const& c,
                                  Layout const& y) {
  if (d.scale != CUDA_R_32F) return unsupported("alpha and beta are fp32 only");
  if (a.type != b.type) return unsupported("A and B are of one type");
  if (c.type != y.type) return unsupported("C and D are of one type");
  const bool wide = a.type == CUDA_R_32F && y.type == CUDA_R_32F;
  const bool narrow = a.type == CUDA_R_16BF && (y.type == CUDA_R_16BF || y.type == CUDA_R_32F);
  switch (d.compute) {
    case CUBLAS_COMPUTE_32F:
    case CUBLAS_COMPUTE_32F_PEDANTIC:
      if (!wide && !narrow) return unsupported("of these types CUBLAS_COMPUTE_32F multiplies none");
      break;
    case CUBLAS_COMPUTE_32F_FAST_TF32:
      if (!wide) return unsupported("CUBLAS_COMPUTE_32F_FAST_TF32 multiplies fp32 into fp32 only");
      break;
    default:
      return unsupported("this compute type is not known here");
  }
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t check_epilogue(Description const& d, Layout const& y) {
  if (!is_known(d.epilogue)) return unsupported("this epilogue is not known here");
  if ((is_gelu(d.epilogue) || is_gelu_slope(d.epilogue)) && y.type != CUDA_R_16BF)
    return unsupported("GELU epilogues write bf16 here: elsewhere GELU is erf's");
  if (has_vector(d.epilogue) && d.vector_type != -1 && d.vector_type != y.type)
    return unsupported("a bias, and its gradient, is of D's type");
  if (has_vector(d.epilogue) && y.batches > 1) return unsupported("a bias, and its gradient, of a batch");
  if (!has_before(d.epilogue)) return CUBLAS_STATUS_SUCCESS;
  if (d.before_type != -1 && d.before_type != y.type) return unsupported("what GELU is applied to is of D's type");
  if (d.before_leading % 8 != 0 || d.before_leading < static_cast<std::int64_t>(y.rows))
    return invalid("the auxiliary leading dimension is a multiple of 8, no less than D's rows");
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t check_shapes(Description const& d, Layout const& a, Layout const& b, Layout const& c,
                                   Layout const& y) {
  const bool ta = d.transpose_a != CUBLAS_OP_N, tb = d.transpose_b != CUBLAS_OP_N;
  if ((ta ? a.columns : a.rows) != y.rows || (tb ? b.rows : b.columns) != y.columns ||
      (ta ? a.rows : a.columns) != (tb ? b.columns : b.rows) || c.rows != y.rows || c.columns != y.columns)
    return invalid("the shapes of A, B, C and D do not fit together");
  for (Layout const* l : {&a, &b, &c, &y}) {
    if (l->rows == 0 || l->columns == 0) return invalid("a matrix without elements");
    if (l->leading < static_cast<std::int64_t>(l->rows)) return invalid("a leading dimension less than the rows");
    if (l->batches != y.batches) return invalid("batches of different counts");
    if (l->batches < 1) return invalid("a batch of no matrices");
  }
  const auto size = static_cast<std::int64_t>(y.columns - 1) * y.leading + static_cast<std::int64_t>(y.rows);
  if (y.batches > 1 && y.step < size) return invalid("the matrices D of a batch overlap");
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t check(Description const& d, Layout const& a, Layout const& b, Layout const& c, Layout const& y) {
  for (const std::int32_t t : {d.transpose_a, d.transpose_b})
    if (t != CUBLAS_OP_N && t != CUBLAS_OP_T) return unsupported("real matrices are transposed or not");
  if (const auto status = check_types(d, a, b, c, y); status != CUBLAS_STATUS_SUCCESS) return status;
  if (const auto status = check_shapes(d, a, b, c, y); status != CUBLAS_STATUS_SUCCESS) return status;
  return check_epilogue(d, y);
}

}  // namespace host_cuda
