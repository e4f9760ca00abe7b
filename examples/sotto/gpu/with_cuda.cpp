// Training on a GPU: this program was built with sotto::cuda.
#include <sotto/cuda.hpp>
#include <sotto/encoder/models.hpp>

#include "../models.hpp"
#include "../train_body.hpp"

namespace program {

RunEnd train_on_gpu(PretrainRequest const& request, sotto::AnySource source, RunWatch const& watch) {
  return sotto::presets::All::visit(request.model, [&]<class S>() {
    return request.precision == sotto::Precision::fp32
               ? train_on<S, sotto::Cuda<float>>(request, std::move(source), watch)
               : train_on<S, sotto::Cuda<sotto::bf16>>(request, std::move(source), watch);
  });
}

std::string expect_gpu(int number) { return sotto::cuda::device_facts(number).name; }

}  // namespace program
