// The threads of a block as fibres: each runs until it waits for others. Compiled without sanitizers, so that they see
// device code and nothing of this; HOST_CUDA_ASAN tells AddressSanitizer of switched stacks.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "internal.hpp"

extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, void const* bottom, std::size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, void const** bottom, std::size_t* size);
void __asan_poison_memory_region(void const volatile* p, std::size_t size);
void __asan_unpoison_memory_region(void const volatile* p, std::size_t size);
void host_cuda_switch(void** save, void* load);
}
#ifdef HOST_CUDA_ASAN
#define ASAN(...) __VA_ARGS__
#else
#define ASAN(...)
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

#ifndef __x86_64__
#error "tests/host_cuda switches fibres on x86-64 only: another processor needs its own host_cuda_switch"
#endif
// Saves what a callee must keep, changes the stack, and takes the other's back.
asm(R"(.text
.globl host_cuda_switch
.type host_cuda_switch,@function
host_cuda_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size host_cuda_switch,.-host_cuda_switch
)");

namespace host_cuda {

Options options;
Statistics statistics;
Clock now;
thread_local bool in_kernel = false;

namespace {

constexpr std::size_t stack_bytes = std::size_t{256} << 10, page = 4096;
std::string last;
std::uint64_t random_state = 0;

struct AsyncCopy {
  void* to;
  void const* from;  ///< nullptr: zeros
  std::size_t bytes;
  void const* pc;
};

struct Fibre {
  enum class State { ready, at_barrier, in_collective, done };
  State state = State::ready;
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  uint3 index{};
  int number = 0;
  // What it waits with.
  Site site{nullptr, 0};
  int predicate = 0;
  Vote vote = Vote::none;
  unsigned mask = 0;
  void const* in = nullptr;
  void* out = nullptr;
  Combine combine = nullptr;
  bool orders_memory = false;
  // Copies begun, and the groups they were committed in.
  std::vector<AsyncCopy> begun;
  std::vector<std::vector<AsyncCopy>> groups;
  void* fake_stack = nullptr;
};

struct Block {
  Fibre fibres[1024];
  int size = 0, live = 0, waiting = 0;
  Kernel kernel{};
  void const* function = nullptr;
  void** arguments = nullptr;
  char* dynamic = nullptr;
  std::map<void const*, std::pair<std::unique_ptr<char[]>, std::size_t>> statics;
  std::vector<char*> idle_stacks;
  void* scheduler = nullptr;
  void* scheduler_fake_stack = nullptr;
  void const* scheduler_bottom = nullptr;
  std::size_t scheduler_size = 0;
};
Block block;
Fibre* running = nullptr;

void note(void const* p, std::size_t bytes, Memory what) {
  if (note_memory != nullptr) note_memory(p, bytes, what, false);
}

void yield() {
  Fibre* const me = running;
  ++statistics.switches;
  ASAN(__sanitizer_start_switch_fiber(&me->fake_stack, block.scheduler_bottom, block.scheduler_size);)
  host_cuda_switch(&me->stack_pointer, block.scheduler);
  ASAN(__sanitizer_finish_switch_fiber(me->fake_stack, &block.scheduler_bottom, &block.scheduler_size);)
}

std::string place_of(Site site) {
  return std::string(site.file == nullptr ? "?" : site.file) + ":" + std::to_string(site.line);
}

void release_barrier() {
  Fibre const* first = nullptr;
  int count = 0, waiting = 0;
  for (int i = 0; i < block.size; ++i) {
    Fibre const& f = block.fibres[i];
    if (f.state != Fibre::State::at_barrier) continue;
    if (first == nullptr) first = &f;
    if (f.site.line != first->site.line || std::strcmp(f.site.file, first->site.file) != 0)
      report("different __syncthreads meet in " + std::string(block.kernel.name) + ": " + place_of(first->site) +
             " and " + place_of(f.site));
    ++waiting;
    count += f.predicate != 0 ? 1 : 0;
  }
  for (int i = 0; i < block.size; ++i) {
    Fibre& f = block.fibres[i];
    if (f.state != Fibre::State::at_barrier) continue;
    f.state = Fibre::State::ready;
    f.predicate = f.vote == Vote::count ? count : f.vote == Vote::all ? count == waiting : count > 0;
  }
  block.waiting = 0;
  ++now.barriers;
  ++statistics.barriers;
}

void finish_copies(std::vector<AsyncCopy> const& copies) {
  for (AsyncCopy const& c : copies) {
    if (check_access != nullptr) {
      if (c.from != nullptr) check_access(c.from, c.bytes, false, c.pc);
      check_access(c.to, c.bytes, true, c.pc);
    }
    if (c.from != nullptr)
      std::memcpy(c.to, c.from, c.bytes);
    else
      std::memset(c.to, 0, c.bytes);
  }
}

void run_fibre() {
  ASAN(__sanitizer_finish_switch_fiber(nullptr, &block.scheduler_bottom, &block.scheduler_size);)
  block.kernel.invoke(block.function, block.arguments);
  const auto unfinished = [](std::vector<AsyncCopy> const& group) { return !group.empty(); };
  if (unfinished(running->begun) || std::any_of(running->groups.begin(), running->groups.end(), unfinished))
    report("a thread of " + std::string(block.kernel.name) + " ends before the copies it began");
  running->state = Fibre::State::done;
  --block.live;
  if (block.live > 0 && block.waiting == block.live) release_barrier();
  ASAN(__sanitizer_start_switch_fiber(nullptr, block.scheduler_bottom, block.scheduler_size);)
  void* nowhere = nullptr;
  host_cuda_switch(&nowhere, block.scheduler);
  __builtin_unreachable();
}

/// A stack with a page before it that faults.
char* new_stack() {
  void* const p =
      mmap(nullptr, stack_bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  mprotect(p, page, PROT_NONE);
  return static_cast<char*>(p) + page;
}
/// A stack on which host_cuda_switch finds six registers and then run_fibre.
void* fresh_context(char* stack) {
  const auto top = (reinterpret_cast<std::uintptr_t>(stack) + stack_bytes) & ~std::uintptr_t{15};
  auto** const words = reinterpret_cast<void**>(top - 16);
  words[0] = reinterpret_cast<void*>(&run_fibre);
  words[1] = nullptr;
  std::memset(words - 6, 0, 6 * sizeof(void*));
  return words - 6;
}

void resume(Fibre& f) {
  if (f.stack_pointer == nullptr) {
    if (block.idle_stacks.empty()) block.idle_stacks.push_back(new_stack());
    f.stack = block.idle_stacks.back();
    block.idle_stacks.pop_back();
    f.stack_pointer = fresh_context(f.stack);
  }
  running = &f;
  threadIdx = f.index;
  now.thread = static_cast<std::uint32_t>(f.number);
  in_kernel = true;
  ASAN(__sanitizer_start_switch_fiber(&block.scheduler_fake_stack, f.stack, stack_bytes);)
  host_cuda_switch(&block.scheduler, f.stack_pointer);
  ASAN(__sanitizer_finish_switch_fiber(block.scheduler_fake_stack, nullptr, nullptr);)
  in_kernel = false;
  if (f.state != Fibre::State::done) return;
  block.idle_stacks.push_back(f.stack);
  f.stack = nullptr;
}

void arrange(std::vector<int>& order, Order how) {
  if (how == Order::reverse) std::reverse(order.begin(), order.end());
  if (how == Order::random)
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_number() % i]);
}

std::string deadlock() {
  std::string sentence = "deadlock in " + std::string(block.kernel.name) + ":";
  Fibre const* before = nullptr;
  for (int i = 0; i < block.size; ++i) {
    Fibre const& f = block.fibres[i];
    if (before != nullptr && f.state == before->state && f.site.line == before->site.line) continue;
    before = &f;
    sentence += "\n    from thread " + std::to_string(i) + ": ";
    if (f.state == Fibre::State::done)
      sentence += "ended";
    else
      sentence += (f.state == Fibre::State::at_barrier ? "__syncthreads at " : "warp operation at ") + place_of(f.site);
  }
  return sentence;
}

/// Shared memory of one block: fresh, full of NaNs, ending where an overrun is seen.
class DynamicMemory {
 public:
  explicit DynamicMemory(std::size_t bytes) : all_(bytes + 32), begin_(new char[all_]) {
    auto* const at =
        reinterpret_cast<char*>((reinterpret_cast<std::uintptr_t>(begin_.get()) + 15) & ~std::uintptr_t{15});
    std::memset(begin_.get(), 0xff, all_);
    note(begin_.get(), all_, Memory::created);
    ASAN(__asan_poison_memory_region(at + bytes, static_cast<std::size_t>(begin_.get() + all_ - (at + bytes)));)
    block.dynamic = at;
  }
  DynamicMemory(DynamicMemory const&) = delete;
  DynamicMemory& operator=(DynamicMemory const&) = delete;
  ~DynamicMemory() {
    ASAN(__asan_unpoison_memory_region(begin_.get(), all_);)
    note(begin_.get(), all_, Memory::gone);
  }

 private:
  std::size_t all_;
  std::unique_ptr<char[]> begin_;
};

bool execute_block(uint3 index, std::size_t shared) {
  blockIdx = index;
  now.block = (index.z * gridDim.y + index.y) * gridDim.x + index.x;
  now.barriers = 0;
  std::fill(std::begin(now.warp_barriers), std::end(now.warp_barriers), 0u);
  block.size = block.live = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  block.waiting = 0;
  for (int i = 0; i < block.size; ++i) {
    Fibre& f = block.fibres[i];
    f = Fibre{};
    const auto n = static_cast<unsigned>(i);
    f.number = i;
    f.index = {n % blockDim.x, n / blockDim.x % blockDim.y, n / (blockDim.x * blockDim.y)};
  }
  const DynamicMemory dynamic(shared);
  ++statistics.blocks;
  statistics.threads += static_cast<std::uint64_t>(block.size);
  static std::vector<int> turn;
  turn.resize(static_cast<std::size_t>(block.size));
  std::iota(turn.begin(), turn.end(), 0);
  arrange(turn, options.threads);
  while (block.live > 0) {
    bool moved = false;
    for (const int i : turn)
      if (block.fibres[i].state == Fibre::State::ready) {
        resume(block.fibres[i]);
        moved = true;
      }
    if (!moved) {
      report(deadlock());
      break;
    }
    if (options.threads == Order::random) arrange(turn, Order::random);
  }
  for (auto const& [tag, memory] : block.statics) note(memory.first.get(), memory.second, Memory::gone);
  block.statics.clear();
  return block.live == 0;
}

}  // namespace

std::uint64_t random_number() {  // splitmix64
  random_state += 0x9e3779b97f4a7c15u;
  std::uint64_t z = random_state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

bool execute(Kernel const& kernel, void const* function, void** arguments, dim3 grid, dim3 threads,
             std::size_t shared) {
  gridDim = grid;
  blockDim = threads;
  block.kernel = kernel;
  block.function = function;
  block.arguments = arguments;
  random_state = options.seed * 0x2545f4914f6cdd1du + statistics.launches++;
  const unsigned n = grid.x * grid.y * grid.z;
  ++now.launch;
  now.fences = 0;
  now.block_fence.assign(n, 0);
  if (count_launch != nullptr) count_launch(kernel.name);
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  arrange(order, options.blocks);
  for (const int i : order) {
    const auto b = static_cast<unsigned>(i);
    if (!execute_block({b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)}, shared)) return false;
  }
  return true;
}

void report(std::string const& sentence) {
  last = sentence;
  ++statistics.reports;
  if (options.keep_going) return;
  std::fprintf(stderr, "host_cuda: %s\n", sentence.c_str());
  std::abort();
}
std::string const& last_report() { return last; }
void clear_reports() {
  last.clear();
  statistics.reports = 0;
}
void report_foreign_lane(int lane, int source, unsigned mask) {
  char mask_text[16];
  std::snprintf(mask_text, sizeof mask_text, "%08x", mask);
  report("lane " + std::to_string(lane) + " shuffles from lane " + std::to_string(source) + ", which is not in mask " +
         mask_text);
}

int barrier(int predicate, Vote vote, Site where) {
  Fibre* const me = running;
  me->state = Fibre::State::at_barrier;
  me->site = where;
  me->predicate = predicate;
  me->vote = vote;
  if (++block.waiting == block.live) release_barrier();
  if (me->state != Fibre::State::ready) yield();
  return me->predicate;
}

void collective(unsigned mask, void const* in, void* out, Combine combine, bool orders_memory, Site where) {
  Fibre* const me = running;
  const int warp = me->number / 32, base = warp * 32, lane = me->number % 32;
  if ((mask >> lane & 1) == 0)
    report("lane " + std::to_string(lane) + " at " + place_of(where) + " is not in the mask of its own operation");
  me->state = Fibre::State::in_collective;
  me->site = where;
  me->mask = mask;
  me->in = in;
  me->out = out;
  me->combine = combine;
  me->orders_memory = orders_memory;
  for (int l = 0; l < 32; ++l) {
    if ((mask >> l & 1) == 0) continue;
    if (base + l >= block.size) {
      report("the mask at " + place_of(where) + " names lane " + std::to_string(l) + ", which the block lacks");
      continue;
    }
    Fibre const& f = block.fibres[base + l];
    if (f.state != Fibre::State::in_collective || f.mask != mask || f.combine != combine) {
      yield();
      return;
    }
  }
  WarpView view{mask, {}, {}};
  for (int l = 0; l < 32; ++l)
    if ((mask >> l & 1) != 0 && base + l < block.size) {
      view.in[l] = block.fibres[base + l].in;
      view.out[l] = block.fibres[base + l].out;
    }
  combine(view);
  bool ordered = true;
  for (int l = 0; l < 32; ++l)
    if ((mask >> l & 1) != 0 && base + l < block.size) {
      block.fibres[base + l].state = Fibre::State::ready;
      ordered = ordered && block.fibres[base + l].orders_memory;
    }
  if (ordered && mask == 0xffffffffu) ++now.warp_barriers[warp];
  ++statistics.collectives;
}

void fence() { now.block_fence[now.block] = ++now.fences; }
unsigned lane() { return static_cast<unsigned>(running->number) % 32; }
void* dynamic_memory() { return block.dynamic; }
void* static_memory(void const* tag, std::size_t bytes) {
  auto& [memory, size] = block.statics[tag];
  if (memory == nullptr) {
    memory.reset(new char[bytes]);
    size = bytes;
    std::memset(memory.get(), 0xff, bytes);
    note(memory.get(), bytes, Memory::created);
  }
  return memory.get();
}

void copy_later(void* to, void const* from, std::size_t bytes, Site where) {
  const auto misplaced = [&](void const* p) { return reinterpret_cast<std::uintptr_t>(p) % bytes != 0; };
  if (misplaced(to) || misplaced(from)) report("cp.async at " + place_of(where) + " is not aligned to its size");
  std::memset(to, 0xff, bytes);
  running->begun.push_back({to, from, bytes, __builtin_return_address(0)});
}
void commit_group() { running->groups.push_back(std::exchange(running->begun, {})); }
void wait_groups(int pending) {
  auto& groups = running->groups;
  while (static_cast<int>(groups.size()) > pending) {
    finish_copies(groups.front());
    groups.erase(groups.begin());
  }
}

void touch_read(void const* p, std::size_t bytes) {
  if (check_access != nullptr) check_access(p, bytes, false, __builtin_return_address(0));
}
void touch_write(void* p, std::size_t bytes) {
  if (check_access != nullptr) check_access(p, bytes, true, __builtin_return_address(0));
}
void mark_written(void* p, std::size_t bytes) {
  if (note_memory != nullptr) note_memory(p, bytes, Memory::written, true);
}
void count_product(std::uint64_t bytes_read, std::uint64_t bytes_written) {
  if (count_launch == nullptr) return;
  count_launch("product");
  count_bytes(bytes_read, bytes_written);
}

}  // namespace host_cuda
