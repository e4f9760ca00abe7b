// Where a test's kernels run: on the host, in an order that the test chooses, or on a device, if there is one.
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <sotto/cuda.hpp>

#ifdef HOST_CUDA_VARIANT
#include <host_cuda/engine.hpp>

namespace sotto::test {

inline constexpr std::string_view variant = HOST_CUDA_VARIANT;
using host_cuda::Order;

inline bool has_device() { return true; }

/// Sets how the host executes kernels while it lives.
class Execution {
 public:
  explicit Execution(Order order, std::uint64_t seed = 1) {
    host_cuda::options.threads = host_cuda::options.blocks = order;
    host_cuda::options.seed = seed;
  }
  Execution(Execution const&) = delete;
  Execution& operator=(Execution const&) = delete;
  ~Execution() { host_cuda::options = before_; }

  static void limit_memory(std::size_t bytes) { host_cuda::options.memory = bytes; }
  static void limit_devices(int devices) { host_cuda::options.devices = devices; }

 private:
  host_cuda::Options before_ = host_cuda::options;
};

}  // namespace sotto::test
#else

namespace sotto::test {

inline constexpr std::string_view variant = "device";
enum class Order { forward, reverse, random };

inline bool has_device() {
  try {
    MESSAGE("on " << std::string(cuda::device_facts(0).name));
    return true;
  } catch (Error const& error) {
    MESSAGE("SKIPPED: " << std::string(error.what()));
    return false;
  }
}
/// A device executes as it likes.
class Execution {
 public:
  explicit Execution(Order, std::uint64_t = 1) {}
};

}  // namespace sotto::test
#endif
