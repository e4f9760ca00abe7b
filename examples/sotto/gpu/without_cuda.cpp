// Training on a GPU is not part of this program.
#include <sotto/core/error.hpp>

#include "../models.hpp"

namespace program {

RunEnd train_on_gpu(PretrainRequest const& request, sotto::AnySource, RunWatch const&) {
  static_cast<void>(expect_gpu(*request.gpu));
  return {};
}

std::string expect_gpu(int) {
  throw sotto::Error(sotto::ErrorCode::device,
                     "this program was built without CUDA: build it with -DSOTTO_CUDA=ON where nvcc is, or leave out "
                     "--device");
}

}  // namespace program
