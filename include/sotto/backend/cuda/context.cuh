// What a Cuda backend holds: a stream, products, scratch, and where a step's numbers stand.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <sotto/backend/cuda/blas.cuh>
#include <sotto/backend/cuda/memory.hpp>
#include <sotto/backend/cuda/optimizer.cuh>
#include <sotto/backend/cuda/tile.cuh>

namespace sotto::cuda::inline SOTTO_API {

struct Context {
  cudaStream_t stream = nullptr;
  Products products;
  bool recording = false;

  // The step.
  StepInput const* input = nullptr;
  StepOutput* output = nullptr;
  Tile const* tiles = nullptr;
  int tile_count = 0, rows = 0, sequences = 0;
  int const* offsets = nullptr;
  std::vector<void const*> written_biases;  ///< gradients of biases that this step's products have written

  // The optimiser.
  std::vector<WeightCopy> copies;
  Update update{};
  DeviceMemory chunks;

  // Log-mel.
  int mel_bands = 0;
  DeviceMemory mel_numbers, mel_ranges;

  /// On the device that is current.
  Context(bool tf32, bool tune) : products(tf32, tune) {
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  }
  Context(Context const&) = delete;
  Context& operator=(Context const&) = delete;
  ~Context() {
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
  }

  /// Memory that one operation may use until the next is enqueued. It grows while nothing is recorded; what it grew
  /// from is kept, since recordings use it.
  template <class T> T* scratch(std::size_t n) {
    const std::size_t bytes = n * sizeof(T);
    if (bytes > scratch_.size()) {
      if (recording) throw_error(ErrorCode::internal, {"scratch was first asked for while a step was recorded"});
      retired_.push_back(std::move(scratch_));
      scratch_ = DeviceMemory(bytes);
    }
    return reinterpret_cast<T*>(scratch_.begin());
  }
  template <class... Parameters, class... Arguments>
  void run(void (*kernel)(Parameters...), Grid grid, Arguments&&... arguments) {
    launch(kernel, grid, stream, std::forward<Arguments>(arguments)...);
  }

  Recording end_recording() {
    cudaGraph_t graph = nullptr;
    recording = false;
    check(cudaStreamEndCapture(stream, &graph), "recording a step");
    Recording made;
    check(cudaGraphGetNodes(graph, nullptr, &made.nodes_), "recording a step");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check(error, "recording a step");
    made.graph_ = executable;
    return made;
  }
  void replay(Recording const& recorded) {
    check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(recorded.graph_), stream), "replaying a step");
  }

 private:
  DeviceMemory scratch_;
  std::vector<DeviceMemory> retired_;
};

}  // namespace sotto::cuda::inline SOTTO_API

namespace sotto::cuda::inline SOTTO_ABI {

/// Device pointers as kernels take them.
template <class T> T* raw(OnDevice<T>* p) { return reinterpret_cast<T*>(p); }
template <class T> T const* raw(OnDevice<T> const* p) { return reinterpret_cast<T const*>(p); }
template <class T> Matrix<T> raw(Matrix<OnDevice<T>> m) { return {raw(m.begin), m.rows, m.columns, m.stride}; }
template <class T> Matrix<T const> raw(Matrix<OnDevice<T> const> m) {
  return {raw(m.begin), m.rows, m.columns, m.stride};
}

constexpr unsigned blocks_for(std::size_t n, std::size_t each) { return static_cast<unsigned>((n + each - 1) / each); }

}  // namespace sotto::cuda::inline SOTTO_ABI
