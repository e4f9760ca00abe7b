// The calls of the CUDA runtime that a training step makes: memory, streams, events, graphs. Streams are lazy: work
// runs when something waits for it, so that a missing wait shows. Compiled without sanitizers, like the fibres.
#include <cxxabi.h>
#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "internal.hpp"

extern "C" {
void __asan_poison_memory_region(void const volatile* p, std::size_t size);
void __asan_unpoison_memory_region(void const volatile* p, std::size_t size);
}
#ifdef HOST_CUDA_ASAN
#define ASAN(...) __VA_ARGS__
#else
#define ASAN(...)
#endif

/// A graph: what to run, and after which others.
struct CUgraph_st {
  struct Node {
    std::function<void()> run;
    std::vector<std::size_t> after;
  };
  std::vector<Node> nodes;
  bool valid = true;
};
struct CUgraphExec_st {
  CUgraph_st graph;
};
thread_local int current_device = 0;  // CUDA has one for each thread
struct CUstream_st {
  struct Operation {
    std::function<void()> run;  ///< or, where empty, a wait:
    CUstream_st* awaited = nullptr;
    std::uint64_t until = 0;
  };
  std::deque<Operation> queue;
  std::uint64_t issued = 0, executed = 0;
  int device = current_device;
  CUgraph_st* capture = nullptr;  ///< what is enqueued becomes its nodes
  bool origin = false;            ///< the capture began here
  std::vector<std::size_t> tail;  ///< nodes that the next one follows
};
struct CUevent_st {
  CUstream_st* stream = nullptr;
  std::uint64_t at = 0;
  CUgraph_st* capture = nullptr;
  std::vector<std::size_t> tail;
};

namespace host_cuda {
namespace {

constexpr std::size_t page = 4096, alignment = 256;

/// One cudaMalloc: its own mapping, a page behind it that faults, full of NaNs, never used again.
struct Allocation {
  char* mapping;
  std::size_t mapped, bytes;
  bool device;
};
std::map<std::uintptr_t, Allocation> allocations;
std::size_t device_bytes = 0;
std::map<void const*, Kernel> kernels;
std::map<void const*, std::size_t> shared_limits;
cudaError_t pending_error = cudaSuccess;
CUstream_st null_stream;
std::vector<CUstream_st*> streams{&null_stream};

cudaError_t fail(cudaError_t error) {
  pending_error = error;
  return error;
}
/// A failed kernel breaks the context for good.
cudaError_t condition() { return pending_error == cudaErrorLaunchFailure ? pending_error : cudaSuccess; }

std::uintptr_t address(void const* p) { return reinterpret_cast<std::uintptr_t>(p); }
Allocation const* find(void const* p) {
  auto after = allocations.upper_bound(address(p));
  if (after == allocations.begin()) return nullptr;
  --after;
  return address(p) < after->first + std::max<std::size_t>(after->second.bytes, 1) ? &after->second : nullptr;
}
bool holds(void const* p, std::size_t bytes, bool device) {
  Allocation const* const a = find(p);
  if (a == nullptr || a->device != device) return false;
  return address(p) + bytes <= address(a->mapping) + a->mapped - page;
}
void close_memory(bool closed) {
  if (!options.protect) return;
  for (auto const& [at, a] : allocations)
    if (a.device) mprotect(a.mapping, a.mapped - page, closed ? PROT_NONE : PROT_READ | PROT_WRITE);
}
void note(void const* p, std::size_t bytes, Memory what) {
  if (note_memory != nullptr) note_memory(p, bytes, what, true);
}

CUstream_st& of(cudaStream_t stream) { return stream == nullptr ? null_stream : *stream; }
void drain(CUstream_st& stream, std::uint64_t until) {
  while (stream.executed < until) {
    auto operation = std::move(stream.queue.front());
    stream.queue.pop_front();
    if (operation.awaited != nullptr) drain(*operation.awaited, operation.until);
    if (operation.run) {
      close_memory(false);
      operation.run();
      close_memory(true);
    }
    ++stream.executed;
  }
}
void drain(CUstream_st& stream) { drain(stream, stream.issued); }
/// Most calls that wait or allocate are illegal while anything is captured, and end the capture.
bool breaks_capture() {
  bool any = false;
  for (CUstream_st* const s : streams)
    if (s->capture != nullptr) {
      s->capture->valid = false;
      any = true;
    }
  return any;
}

cudaError_t allocate(void** p, std::size_t bytes, bool device) {
  if (breaks_capture()) return fail(cudaErrorStreamCaptureUnsupported);
  if (options.devices == 0) return fail(cudaErrorInsufficientDriver);
  if (device && device_bytes + bytes > options.memory) return fail(cudaErrorMemoryAllocation);
  const std::size_t body = (bytes + alignment - 1 + page - 1) / page * page;
  void* const m =
      mmap(nullptr, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (m == MAP_FAILED) return fail(cudaErrorMemoryAllocation);
  auto* const mapping = static_cast<char*>(m);
  mprotect(mapping + body, page, PROT_NONE);
  char* const user = mapping + (body - bytes) / alignment * alignment;  // an overrun soon meets the page behind
  if (device) {
    std::memset(mapping, 0xff, body);
    device_bytes += bytes;
    note(mapping, body, Memory::created);
  }
  ASAN(__asan_poison_memory_region(mapping, body); __asan_unpoison_memory_region(user, bytes);)
  allocations[address(user)] = {mapping, body + page, bytes, device};
  if (device) close_memory(true);
  *p = user;
  return cudaSuccess;
}
cudaError_t release(void* p, bool device) {
  if (breaks_capture()) return fail(cudaErrorStreamCaptureUnsupported);
  if (p == nullptr) return cudaSuccess;
  const auto found = allocations.find(address(p));
  if (found == allocations.end() || found->second.device != device) return fail(cudaErrorInvalidValue);
  for (CUstream_st* const s : streams) drain(*s);
  Allocation const& a = found->second;
  if (device) {
    device_bytes -= a.bytes;
    note(a.mapping, a.mapped - page, Memory::gone);
  }
  ASAN(__asan_unpoison_memory_region(a.mapping, a.mapped - page);)
  mprotect(a.mapping, a.mapped, PROT_NONE);  // its addresses are not used again: a stale pointer faults
  madvise(a.mapping, a.mapped, MADV_DONTNEED);
  allocations.erase(found);
  return cudaSuccess;
}

/// Runs a graph in any order that its edges allow.
void run_graph(CUgraph_st const& graph) {
  std::vector<char> done(graph.nodes.size());
  for (std::size_t left = graph.nodes.size(); left > 0; --left) {
    std::vector<std::size_t> runnable;
    for (std::size_t i = 0; i < graph.nodes.size() && runnable.size() < 8; ++i) {
      auto const& after = graph.nodes[i].after;
      if (done[i] == 0 && std::all_of(after.begin(), after.end(), [&](std::size_t p) { return done[p] != 0; }))
        runnable.push_back(i);
    }
    const std::size_t chosen = options.blocks == Order::forward   ? runnable.front()
                               : options.blocks == Order::reverse ? runnable.back()
                                                                  : runnable[random_number() % runnable.size()];
    graph.nodes[chosen].run();
    done[chosen] = 1;
  }
}
/// Whether every node is followed, in the end, by the capture's last ones.
bool joined(CUgraph_st const& graph, std::vector<std::size_t> pending) {
  std::vector<char> reached(graph.nodes.size());
  while (!pending.empty()) {
    const std::size_t i = pending.back();
    pending.pop_back();
    if (reached[i] != 0) continue;
    reached[i] = 1;
    pending.insert(pending.end(), graph.nodes[i].after.begin(), graph.nodes[i].after.end());
  }
  return std::all_of(reached.begin(), reached.end(), [](char c) { return c != 0; });
}

}  // namespace

void know(void const* function, Kernel const& kernel) {
  const auto [at, fresh] = kernels.emplace(function, kernel);
  if (!fresh) return;
  Dl_info info{};  // programs are linked so that their symbols can be found
  if (dladdr(function, &info) == 0 || info.dli_sname == nullptr) return;
  int status = 0;
  char* const name = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
  if (name == nullptr) return;
  static std::deque<std::string> names;  // as long as kernels are known
  at->second.name = names.emplace_back(name).c_str();
  std::free(name);
}

void enqueue(cudaStream_t stream, std::function<void()> work) {
  CUstream_st& s = of(stream);
  if (s.capture != nullptr) {
    s.capture->nodes.push_back({std::move(work), s.tail});
    s.tail = {s.capture->nodes.size() - 1};
    return;
  }
  if (&s == &null_stream) {
    if (options.forbid_null_stream) report("work is enqueued on the null stream, which waits for all others");
    for (CUstream_st* const other : streams) drain(*other);
  }
  s.queue.push_back({std::move(work)});
  ++s.issued;
  if (!options.lazy || &s == &null_stream) drain(s);
}
bool is_device_pointer(void const* p, std::size_t bytes) { return holds(p, bytes, true); }

cudaError_t launch(cudaLaunchConfig_t const& config, void const* function, void** arguments) {
  if (options.devices == 0) return fail(cudaErrorInsufficientDriver);
  if (of(config.stream).device != current_device) return fail(cudaErrorInvalidResourceHandle);
  Kernel const& kernel = kernels.at(function);
  const dim3 g = config.gridDim, b = config.blockDim;
  const std::size_t shared = config.dynamicSmemBytes;
  constexpr std::size_t default_shared = 48 * 1024, most_shared = 227 * 1024;
  if (g.x == 0 || g.y == 0 || g.z == 0 || g.y > 65535 || g.z > 65535 || b.x == 0 || b.y == 0 || b.z == 0 ||
      b.x * b.y * b.z > 1024 || b.z > 64)
    return fail(cudaErrorInvalidConfiguration);
  const auto limit = shared_limits.find(function);
  if (shared > most_shared || (shared > default_shared && (limit == shared_limits.end() || limit->second < shared)))
    return fail(cudaErrorInvalidValue);
  std::vector<std::vector<char>> copies;
  for (int i = 0; i < kernel.parameters; ++i) {
    auto const* const bytes = static_cast<char const*>(arguments[i]);
    copies.emplace_back(bytes, bytes + kernel.sizes[i]);
    if (!kernel.pointers[i]) continue;
    void* pointer = nullptr;
    std::memcpy(&pointer, bytes, sizeof pointer);
    if (pointer == nullptr || find(pointer) != nullptr) continue;
    report("argument " + std::to_string(i) + " of " + kernel.name + " is no device pointer");
    return fail(cudaErrorInvalidValue);
  }
  enqueue(config.stream, [kernel, function, g, b, shared, copies]() mutable {
    std::vector<void*> pointers;
    for (auto& copy : copies) pointers.push_back(copy.data());
    if (!execute(kernel, function, pointers.data(), g, b, shared)) fail(cudaErrorLaunchFailure);
  });
  return condition();
}

}  // namespace host_cuda

using namespace host_cuda;

#define NOT_WHILE_CAPTURING() \
  if (breaks_capture()) return fail(cudaErrorStreamCaptureUnsupported)

extern "C" {

cudaError_t cudaMalloc(void** p, std::size_t bytes) { return allocate(p, bytes, true); }
cudaError_t cudaFree(void* p) { return release(p, true); }
cudaError_t cudaMallocHost(void** p, std::size_t bytes) { return allocate(p, bytes, false); }
cudaError_t cudaFreeHost(void* p) { return release(p, false); }

cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice,
             from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (to_device != holds(to, bytes, true) || from_device != holds(from, bytes, true))
    return fail(cudaErrorInvalidValue);
  const auto copied = [=](void const* source) {
    std::memcpy(to, source, bytes);
    if (to_device) note(to, bytes, Memory::written);
    if (count_launch != nullptr) {
      count_launch("copy");
      count_bytes(from_device ? bytes : 0, to_device ? bytes : 0);
    }
  };
  CUstream_st& s = of(stream);
  const bool pageable_source = !from_device && find(from) == nullptr,
             pageable_target = !to_device && find(to) == nullptr;
  if (pageable_source && s.capture == nullptr) {  // pageable memory is staged before the call returns
    auto const* const begin = static_cast<char const*>(from);
    enqueue(stream, [copied, staged = std::vector<char>(begin, begin + bytes)] { copied(staged.data()); });
  } else {
    enqueue(stream, [copied, from] { copied(from); });
  }
  if (pageable_target && s.capture == nullptr) drain(s);
  return condition();
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!holds(to, bytes, true)) return fail(cudaErrorInvalidValue);
  enqueue(stream, [=] {
    std::memset(to, value, bytes);
    note(to, bytes, Memory::written);
    if (count_launch == nullptr) return;
    count_launch("fill");
    count_bytes(0, bytes);
  });
  return condition();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  NOT_WHILE_CAPTURING();
  streams.push_back(*stream = new CUstream_st);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  drain(*stream);
  std::erase(streams, stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  NOT_WHILE_CAPTURING();
  drain(of(stream));
  return condition();
}
cudaError_t cudaDeviceSynchronize() {
  NOT_WHILE_CAPTURING();
  for (CUstream_st* const s : streams) drain(*s);
  return condition();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  CUstream_st& s = of(stream);
  *event = {&s, s.issued, s.capture, s.tail};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  NOT_WHILE_CAPTURING();
  if (event->capture != nullptr) return fail(cudaErrorCapturedEvent);
  if (event->stream != nullptr) drain(*event->stream, event->at);
  return condition();
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begun, cudaEvent_t ended) {
  if (begun->stream == nullptr || ended->stream == nullptr) return fail(cudaErrorInvalidResourceHandle);
  if (begun->stream != ended->stream) return fail(cudaErrorInvalidResourceHandle);  // this clock is a stream's own:
  *milliseconds = .001f * static_cast<float>(1 + ended->at - begun->at);            // it counts operations
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  CUstream_st& s = of(stream);
  if (event->capture != nullptr) {  // the stream joins the capture
    if (s.capture != nullptr && s.capture != event->capture) return fail(cudaErrorStreamCaptureIsolation);
    s.capture = event->capture;
    s.tail.insert(s.tail.end(), event->tail.begin(), event->tail.end());
    return cudaSuccess;
  }
  if (s.capture != nullptr) return fail(cudaErrorStreamCaptureIsolation);
  if (event->stream == nullptr || event->stream == &s) return cudaSuccess;
  s.queue.push_back({{}, event->stream, event->at});
  ++s.issued;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr) return fail(cudaErrorStreamCaptureUnsupported);
  if (stream->capture != nullptr) return fail(cudaErrorIllegalState);
  stream->capture = new CUgraph_st;
  stream->origin = true;
  stream->tail.clear();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (stream->capture == nullptr) return fail(cudaErrorIllegalState);
  if (!stream->origin) return fail(cudaErrorStreamCaptureUnmatched);
  std::unique_ptr<CUgraph_st> captured(stream->capture);
  const bool whole = joined(*captured, stream->tail);
  for (CUstream_st* const s : streams)
    if (s->capture == captured.get()) {
      s->capture = nullptr;
      s->origin = false;
      s->tail.clear();
    }
  if (!captured->valid) return fail(cudaErrorStreamCaptureInvalidated);
  if (!whole) return fail(cudaErrorStreamCaptureUnjoined);
  *graph = captured.release();
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, std::size_t* n) {
  *n = graph->nodes.size();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new CUgraphExec_st{*graph};
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  enqueue(stream, [executable] { run_graph(executable->graph); });
  return condition();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  for (CUstream_st* const s : streams) drain(*s);
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(void const* function, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return fail(cudaErrorInvalidValue);
  if (value > 227 * 1024) return fail(cudaErrorInvalidValue);
  shared_limits[function] = static_cast<std::size_t>(value);
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return std::exchange(pending_error, condition()); }
char const* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    default:
      static char text[40];
      std::snprintf(text, sizeof text, "CUDA error %d", static_cast<int>(error));
      return text;
  }
}
cudaError_t cudaGetDeviceCount(int* n) {
  if (options.devices == 0) return fail(cudaErrorInsufficientDriver);
  *n = options.devices;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= options.devices) return fail(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "host_cuda");
  properties->major = 9;
  properties->warpSize = 32;
  properties->multiProcessorCount = options.multiprocessors;
  properties->maxThreadsPerBlock = 1024;
  properties->sharedMemPerBlock = 48 << 10;
  properties->sharedMemPerBlockOptin = 227 << 10;
  properties->totalGlobalMem = options.memory;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total) {
  *free_bytes = options.memory - std::min(options.memory, device_bytes);
  *total = options.memory;
  return cudaSuccess;
}
}
