// What the parts of host_cuda know of each other.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace host_cuda {

/// Where the engine is: what the race checker orders accesses by.
struct Clock {
  std::uint32_t launch = 0, block = 0, thread = 0;
  std::uint32_t barriers = 0;                ///< that the block has passed
  std::uint32_t warp_barriers[32] = {};      ///< that each of its warps has passed
  std::uint32_t fences = 0;                  ///< in this launch so far
  std::vector<std::uint32_t> block_fence{};  ///< the last of each block
};
extern Clock now;
/// Whether this thread of the host is executing device code: others are none of the checker's business.
extern thread_local bool in_kernel;

/// Runs a kernel to its end. False: it could not come there.
bool execute(Kernel const& kernel, void const* function, void** arguments, dim3 grid, dim3 block, std::size_t shared);
/// A random number of the engine's, by options.seed.
std::uint64_t random_number();

/// Runs when the stream does, also inside a graph.
void enqueue(cudaStream_t stream, std::function<void()> work);
/// Whether the whole range lies in one block of device memory.
bool is_device_pointer(void const* p, std::size_t bytes);

// The race checker, where it is linked in; weak and absent otherwise.
enum class Memory { created, written, gone };
__attribute__((weak)) void note_memory(void const* p, std::size_t bytes, Memory what, bool global);
__attribute__((weak)) void count_launch(char const* kernel);
__attribute__((weak)) void check_access(void const* p, std::size_t bytes, bool write, void const* pc);
__attribute__((weak)) void count_bytes(std::uint64_t read, std::uint64_t written);

/// Traffic of a matrix product.
void count_product(std::uint64_t bytes_read, std::uint64_t bytes_written);
/// These bytes are defined now.
void mark_written(void* p, std::size_t bytes);

}  // namespace host_cuda
