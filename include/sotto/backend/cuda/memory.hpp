// Memory of a GPU, and what travels between it and a host. Plain C++: no header of CUDA is needed to include this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <sotto/core/views.hpp>

namespace sotto::cuda::inline SOTTO_API {

struct Context;  // a stream, its cuBLASLt plans and scratch; complete in context.cuh

/// Bytes on the device that is current, at a multiple of 256, as cudaMalloc leaves them. Moves, never copies.
/// Error(device) where there are not so many.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  explicit DeviceMemory(std::size_t bytes);
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;
  ~DeviceMemory();

  SOTTO_ALWAYS_INLINE std::byte* begin() const { return begin_; }
  SOTTO_ALWAYS_INLINE std::size_t size() const { return bytes_; }
  template <class T> SOTTO_ALWAYS_INLINE OnDevice<T>* as() const { return reinterpret_cast<OnDevice<T>*>(begin_); }

 private:
  std::byte* begin_ = nullptr;
  std::size_t bytes_ = 0;
};

/// What a program may want to know of a device.
struct DeviceFacts {
  char name[256];
  int number, major, minor, multiprocessors;
  std::size_t free_bytes, total_bytes;
};
/// Error(device), with what to do about it, where the machine has no such device or no driver.
DeviceFacts device_facts(int number);

/// Makes a device the calling thread's: CUDA has a current one for each. It stays so, since going back to one that was
/// never used would begin to use it. Error(device) where there is no such device.
void use_device(int number);

/// A way from host to device with two slots: a batch is copied while the one before it is trained on.
class Feed {
 public:
  Feed() = default;
  Feed(Context& context, std::size_t bytes);
  SOTTO_ALWAYS_INLINE Feed(Feed&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  Feed& operator=(Feed&& other) noexcept;
  ~Feed();

  /// Host memory for the next batch; waits until its last contents are on the device.
  std::byte* fill();
  /// Begins to copy what was filled in; what is enqueued on the context's stream after this finds it at the result.
  std::byte const* send();
  /// Everything that reads what was sent is enqueued.
  void release();

 private:
  struct State;
  State* state_ = nullptr;
};

/// A way back, with two slots: results are read while the next step runs.
class Results {
 public:
  Results() = default;
  Results(Context& context, std::size_t bytes);
  SOTTO_ALWAYS_INLINE Results(Results&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  Results& operator=(Results&& other) noexcept;
  ~Results();

  /// Enqueues the copy of `from`. At most two may wait to be read.
  void take(std::byte const* from);
  /// The oldest taken, as soon as it is there.
  std::byte const* read();

 private:
  struct State;
  State* state_ = nullptr;
};

/// Operations as they were enqueued, to be enqueued again at once.
class Recording {
 public:
  Recording() = default;
  SOTTO_ALWAYS_INLINE Recording(Recording&& other) noexcept
      : graph_(std::exchange(other.graph_, nullptr)), nodes_(other.nodes_) {}
  Recording& operator=(Recording&& other) noexcept;
  ~Recording();

  SOTTO_ALWAYS_INLINE explicit operator bool() const { return graph_ != nullptr; }
  /// Kernels, products, copies and fills in it.
  SOTTO_ALWAYS_INLINE std::size_t nodes() const { return nodes_; }

 private:
  friend struct Context;
  void* graph_ = nullptr;
  std::size_t nodes_ = 0;
};

/// What the host gives each step, read from the device's memory so that a recorded step can be replayed.
struct StepInput {
  int masked, rows;       ///< of the batch
  std::uint32_t cursor;   ///< of the step's randomness
  int updates;            ///< 0: compute everything, change nothing
  std::uint64_t skipped;  ///< bit l: layer l is skipped
  // AdamW's numbers as it uses them.
  float beta1, rest1, beta2, rest2;  ///< rest: 1 - beta
  float rate;                        ///< learning rate / (1 - beta1^step)
  float root;                        ///< 1 / sqrt(1 - beta2^step)
  float epsilon;
  float shrink;  ///< learning rate * weight decay
  float clip;    ///< largest norm of the gradient; 0: unclipped
};

/// What a step leaves behind.
struct StepOutput {
  double loss, spread, gradient_norm;
  int correct, predicted;
  float clip;    ///< what gradients were multiplied by
  int rejected;  ///< 1: the loss or the gradient is no number, and nothing was changed
  int halted;    ///< 1: a step was rejected since values were brought: none after it changes anything
};

}  // namespace sotto::cuda::inline SOTTO_API
