// The stream of a backend: plain C++ knows a context by name alone.
#include <sotto/backend/cuda/context.cuh>

namespace sotto::bench {

cudaStream_t stream_of(cuda::Context& context) { return context.stream; }

}  // namespace sotto::bench
