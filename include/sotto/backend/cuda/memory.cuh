// Bodies of memory.hpp. A plain C++ file calls them, so each file of kernels keeps a copy for the linker to choose
// from.
#pragma once

#include <cstring>

#include <sotto/backend/cuda/context.cuh>

namespace sotto::cuda::inline SOTTO_API {

__attribute__((used)) inline DeviceMemory::DeviceMemory(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* p = nullptr;
  const cudaError_t error = cudaMalloc(&p, bytes);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());  // else the next launch would report it again
    throw_error(ErrorCode::device,
                {"the GPU has no memory for ", bytes >> 20,
                 " MiB more; use a smaller model or smaller batch.rows, or end what else runs on it"});
  }
  check(error, "allocating");
  begin_ = static_cast<std::byte*>(p);
}
__attribute__((used)) inline DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : begin_(std::exchange(other.begin_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
__attribute__((used)) inline DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(begin_, other.begin_);
  std::swap(bytes_, other.bytes_);
  return *this;
}
__attribute__((used)) inline DeviceMemory::~DeviceMemory() {
  if (begin_ != nullptr) cudaFree(begin_);
}

__attribute__((used)) inline void use_device(int number) {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0)
    throw_error(ErrorCode::device, {"there is no usable NVIDIA GPU: ",
                                    error == cudaSuccess ? "the driver names none" : cudaGetErrorString(error),
                                    "; install a driver that knows CUDA ", CUDART_VERSION / 1000, ".",
                                    CUDART_VERSION % 1000 / 10, ", or train on the CPU"});
  if (number < 0 || number >= devices)
    throw_error(ErrorCode::device,
                {"there is no GPU number ", number, ": this machine has ", devices, ", numbered from 0"});
  int current = 0;
  check(cudaGetDevice(&current), "asking about the GPU");
  if (current != number) check(cudaSetDevice(number), "choosing the GPU");
}

__attribute__((used)) inline DeviceFacts device_facts(int number) {
  use_device(number);
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, number), "asking about the GPU");
  DeviceFacts facts{};
  check(cudaMemGetInfo(&facts.free_bytes, &facts.total_bytes), "asking about the GPU");
  static_assert(sizeof facts.name == sizeof properties.name);
  std::memcpy(facts.name, properties.name, sizeof facts.name);
  facts.number = number;
  facts.major = properties.major;
  facts.minor = properties.minor;
  facts.multiprocessors = properties.multiProcessorCount;
  return facts;
}

/// Pinned memory of the host: copies to and from it run beside everything else.
class PinnedMemory {
 public:
  explicit PinnedMemory(std::size_t bytes) {
    void* p = nullptr;
    check(cudaMallocHost(&p, bytes), "allocating pinned memory");
    begin_ = static_cast<std::byte*>(p);
  }
  PinnedMemory(PinnedMemory const&) = delete;
  PinnedMemory& operator=(PinnedMemory const&) = delete;
  ~PinnedMemory() { cudaFreeHost(begin_); }
  std::byte* begin() const { return begin_; }

 private:
  std::byte* begin_ = nullptr;
};

class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making an event"); }
  Event(Event const&) = delete;
  Event& operator=(Event const&) = delete;
  ~Event() { cudaEventDestroy(event_); }

  void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "recording an event"); }
  void hold(cudaStream_t stream) { check(cudaStreamWaitEvent(stream, event_, 0), "waiting for an event"); }
  void wait() { check(cudaEventSynchronize(event_), "waiting for the GPU"); }

 private:
  cudaEvent_t event_ = nullptr;
};

struct Feed::State {
  struct Slot {
    explicit Slot(std::size_t bytes) : host(bytes), device(bytes) {}
    PinnedMemory host;
    DeviceMemory device;
    Event copied, read;
  };
  State(Context& c, std::size_t n) : context(c), bytes(n), slots{Slot(n), Slot(n)} {
    check(cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking), "making a stream");
  }
  State(State const&) = delete;
  State& operator=(State const&) = delete;
  ~State() {
    cudaStreamSynchronize(copies);
    cudaStreamSynchronize(context.stream);
    cudaStreamDestroy(copies);
  }
  Context& context;
  std::size_t bytes;
  cudaStream_t copies = nullptr;
  Slot slots[2];
  int next = 0;
};
__attribute__((used)) inline Feed::Feed(Context& context, std::size_t bytes) : state_(new State(context, bytes)) {}
__attribute__((used)) inline Feed& Feed::operator=(Feed&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}
__attribute__((used)) inline Feed::~Feed() { delete state_; }
__attribute__((used)) inline std::byte* Feed::fill() {
  auto& slot = state_->slots[state_->next];
  slot.copied.wait();
  return slot.host.begin();
}
__attribute__((used)) inline std::byte const* Feed::send() {
  auto& slot = state_->slots[state_->next];
  slot.read.hold(state_->copies);
  check(cudaMemcpyAsync(slot.device.begin(), slot.host.begin(), state_->bytes, cudaMemcpyHostToDevice, state_->copies),
        "copying a batch");
  slot.copied.record(state_->copies);
  slot.copied.hold(state_->context.stream);
  return slot.device.begin();
}
__attribute__((used)) inline void Feed::release() {
  state_->slots[state_->next].read.record(state_->context.stream);
  state_->next ^= 1;
}

struct Results::State {
  struct Slot {
    explicit Slot(std::size_t bytes) : host(bytes) {}
    PinnedMemory host;
    Event copied;
  };
  State(Context& c, std::size_t n) : context(c), bytes(n), slots{Slot(n), Slot(n)} {}
  State(State const&) = delete;
  State& operator=(State const&) = delete;
  ~State() { cudaStreamSynchronize(context.stream); }
  Context& context;
  std::size_t bytes;
  Slot slots[2];
  unsigned taken = 0, read = 0;
};
__attribute__((used)) inline Results::Results(Context& context, std::size_t bytes)
    : state_(new State(context, bytes)) {}
__attribute__((used)) inline Results& Results::operator=(Results&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}
__attribute__((used)) inline Results::~Results() { delete state_; }
__attribute__((used)) inline void Results::take(std::byte const* from) {
  auto& slot = state_->slots[state_->taken++ % 2];
  check(cudaMemcpyAsync(slot.host.begin(), from, state_->bytes, cudaMemcpyDeviceToHost, state_->context.stream),
        "copying results");
  slot.copied.record(state_->context.stream);
}
__attribute__((used)) inline std::byte const* Results::read() {
  auto& slot = state_->slots[state_->read++ % 2];
  slot.copied.wait();
  return slot.host.begin();
}

__attribute__((used)) inline Recording& Recording::operator=(Recording&& other) noexcept {
  std::swap(graph_, other.graph_);
  nodes_ = other.nodes_;
  return *this;
}
__attribute__((used)) inline Recording::~Recording() {
  if (graph_ != nullptr) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph_));
}

}  // namespace sotto::cuda::inline SOTTO_API
