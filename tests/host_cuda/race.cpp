// An exact checker of races and of reads of memory never written. Device code is compiled with -fsanitize=thread, so
// that compilers call __tsan_readN and __tsan_writeN, and linked without the sanitizer: the calls are answered here.
// The rule is CUDA's: two accesses by different threads, one of them a plain write, need a __syncthreads between them
// (one block), a __syncwarp (one warp), or a fence on either side (different blocks).
#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "internal.hpp"

namespace host_cuda {
namespace {

struct Access {
  std::uint32_t launch, block, thread, barriers, warp_barriers, fences;
  void const* pc;  ///< nullptr: none yet
  bool atomic;
};
/// Two bytes of memory: the last write, the last reader, and one more.
struct Cell {
  Access write, reads[2];
};
constexpr std::size_t page_bytes = 4096, cells = page_bytes / 2;
struct Page {
  Cell cell[cells];
  bool tracked[cells], defined[cells], global[cells];
};
/// A page of global memory that nothing has touched yet stands here as nullptr: large buffers are seldom used whole.
std::unordered_map<std::uintptr_t, Page*> pages;
std::uintptr_t last_number = 0;
Page* last_page = nullptr;

Page* page_of(std::uintptr_t address, bool make) {
  const std::uintptr_t number = address / page_bytes;
  if (number == last_number && last_page != nullptr) return last_page;
  auto found = pages.find(number);
  if (found == pages.end()) {
    if (!make) return nullptr;
    found = pages.emplace(number, static_cast<Page*>(std::calloc(1, sizeof(Page)))).first;
  } else if (found->second == nullptr) {
    found->second = static_cast<Page*>(std::calloc(1, sizeof(Page)));
    std::fill_n(found->second->tracked, cells, true);
    std::fill_n(found->second->global, cells, true);
  }
  last_number = number;
  return last_page = found->second;
}
template <class F> void each_cell(void const* p, std::size_t bytes, bool make, F f) {
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  for (std::uintptr_t at = begin & ~std::uintptr_t{1}; at < begin + bytes; at += 2)
    if (Page* const page = page_of(at, make)) f(*page, at / 2 % cells);
}

/// Function, file and line of an instruction.
std::string place_of(void const* pc) {
  Dl_info info{};
  link_map* map = nullptr;
  dladdr1(pc, &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP);
  char command[128];
  std::snprintf(
      command, sizeof command, "addr2line -e /proc/%d/exe -fCis %zx", static_cast<int>(getpid()),
      static_cast<std::size_t>(reinterpret_cast<std::uintptr_t>(pc) - 1 - (map != nullptr ? map->l_addr : 0)));
  std::string place;
  char line[400];
  std::FILE* const lines = popen(command, "r");
  for (int i = 0; lines != nullptr && i < 6 && std::fgets(line, sizeof line, lines) != nullptr; ++i) {
    std::string text(line, std::strcspn(line, "\n"));
    if (text.size() > 90) text = text.substr(0, 87) + "...";
    place += (i == 0 ? "" : i % 2 == 1 ? " at " : " < ") + text;
  }
  if (lines != nullptr) pclose(lines);
  return place;
}

bool ordered(Access const& before) {
  if (before.launch != now.launch) return true;
  if (before.block != now.block) {
    const std::uint32_t theirs = now.block_fence[before.block], mine = now.block_fence[now.block];
    return theirs > before.fences && mine > before.fences + 1;
  }
  const std::uint32_t warp = now.thread / 32;
  return before.thread == now.thread || before.barriers < now.barriers ||
         (before.thread / 32 == warp && before.warp_barriers < now.warp_barriers[warp]);
}
std::string side(Access const& a) {
  return "\n    block " + std::to_string(a.block) + " thread " + std::to_string(a.thread) + ": " + place_of(a.pc);
}
void complain(std::string const& what, Access const* before, Access const& mine) {
  static std::set<std::pair<void const*, void const*>> said;
  if (!said.insert({before == nullptr ? nullptr : before->pc, mine.pc}).second) {
    ++statistics.reports;
    return;
  }
  const bool was_in_kernel = std::exchange(in_kernel, false);
  report(what + (before == nullptr ? std::string() : side(*before)) + side(mine));
  in_kernel = was_in_kernel;
}

std::map<std::string, Traffic> counters;
Traffic* counter = nullptr;

void access(void const* p, std::size_t bytes, bool write, bool atomic, void const* pc) {
  if (!in_kernel) return;
  const Access mine{now.launch, now.block, now.thread, now.barriers, now.warp_barriers[now.thread / 32],
                    now.fences, pc,        atomic};
  bool counted = false;
  each_cell(p, bytes, false, [&](Page& page, std::size_t i) {
    if (!page.tracked[i]) return;  // a thread's own stack
    if (page.global[i] && !counted && counter != nullptr) {
      (write ? counter->bytes_written : counter->bytes_read) += bytes;
      counted = true;
    }
    Cell& cell = page.cell[i];
    const auto clashes = [&](Access const& before) {
      return before.pc != nullptr && !(atomic && before.atomic) && !ordered(before);
    };
    if (!write && !page.defined[i]) complain("memory is read that was never written", nullptr, mine);
    if (clashes(cell.write)) complain(write ? "race: write after write" : "race: read after write", &cell.write, mine);
    if (write) {
      for (Access const& read : cell.reads)
        if (clashes(read)) complain("race: write after read", &read, mine);
      cell.write = mine;
      page.defined[i] = true;
      return;
    }
    Access &last = cell.reads[0], &other = cell.reads[1];
    if (last.launch == mine.launch && last.block == mine.block && last.thread == mine.thread &&
        last.barriers == mine.barriers)
      return;
    // Of earlier readers, keep one of another block where there is one.
    if (last.block != mine.block || other.launch != mine.launch || other.block == mine.block) other = last;
    last = mine;
  });
}

}  // namespace

void note_memory(void const* p, std::size_t bytes, Memory what, bool global) {
  if (global && what != Memory::written) {  // mappings: whole pages
    const auto begin = reinterpret_cast<std::uintptr_t>(p);
    for (std::uintptr_t number = begin / page_bytes; number < (begin + bytes) / page_bytes; ++number) {
      if (what == Memory::created) {
        pages[number] = nullptr;
        continue;
      }
      std::free(pages[number]);
      pages.erase(number);
    }
    last_page = nullptr;
    return;
  }
  each_cell(p, bytes, what == Memory::created, [&](Page& page, std::size_t i) {
    if (what != Memory::written) {
      page.cell[i] = {};
      page.tracked[i] = what == Memory::created;
    }
    page.defined[i] = what == Memory::written;
  });
}
void count_launch(char const* kernel) {
  const std::string name = kernel;
  counter = &counters[name];
  counter->name = name;
  ++counter->launches;
}
void check_access(void const* p, std::size_t bytes, bool write, void const* pc) { access(p, bytes, write, false, pc); }
void count_bytes(std::uint64_t read, std::uint64_t written) {
  counter->bytes_read += read;
  counter->bytes_written += written;
}

std::vector<Traffic> traffic() {
  std::vector<Traffic> all;
  for (auto const& [name, t] : counters)
    if (t.launches > 0) all.push_back(t);
  return all;
}
void reset_traffic() {
  for (auto& [name, t] : counters) t = {name};
}

}  // namespace host_cuda

using host_cuda::access;

#define HERE __builtin_return_address(0)
#define PLAIN(N)                                                               \
  void __tsan_read##N(void* p) { access(p, N, false, false, HERE); }           \
  void __tsan_write##N(void* p) { access(p, N, true, false, HERE); }           \
  void __tsan_unaligned_read##N(void* p) { access(p, N, false, false, HERE); } \
  void __tsan_unaligned_write##N(void* p) { access(p, N, true, false, HERE); } \
  void __tsan_read_write##N(void* p) {                                         \
    access(p, N, false, false, HERE);                                          \
    access(p, N, true, false, HERE);                                           \
  }                                                                            \
  void __tsan_unaligned_read_write##N(void* p) {                               \
    access(p, N, false, false, HERE);                                          \
    access(p, N, true, false, HERE);                                           \
  }
#define ATOMIC(Bits, T)                                                                                             \
  T __tsan_atomic##Bits##_load(T const volatile* p, int) {                                                          \
    access(const_cast<T const*>(p), sizeof(T), false, true, HERE);                                                  \
    return *p;                                                                                                      \
  }                                                                                                                 \
  void __tsan_atomic##Bits##_store(T volatile* p, T v, int) {                                                       \
    access(const_cast<T*>(p), sizeof(T), true, true, HERE);                                                         \
    *p = v;                                                                                                         \
  }                                                                                                                 \
  T __tsan_atomic##Bits##_exchange(T volatile* p, T v, int) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##Bits##_fetch_add(T volatile* p, T v, int) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##Bits##_fetch_sub(T volatile* p, T v, int) { return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST); } \
  int __tsan_atomic##Bits##_compare_exchange_strong(T volatile* p, T* e, T v, int, int) {                           \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                         \
  }                                                                                                                 \
  int __tsan_atomic##Bits##_compare_exchange_weak(T volatile* p, T* e, T v, int, int) {                             \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                         \
  }                                                                                                                 \
  T __tsan_atomic##Bits##_compare_exchange_val(T volatile* p, T e, T v, int, int) {                                 \
    __atomic_compare_exchange_n(p, &e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                               \
    return e;                                                                                                       \
  }
extern "C" {
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)
void __tsan_read_range(void* p, unsigned long n) { access(p, n, false, false, HERE); }
void __tsan_write_range(void* p, unsigned long n) { access(p, n, true, false, HERE); }
void* __tsan_memcpy(void* to, void const* from, unsigned long n) {
  access(from, n, false, false, HERE);
  access(to, n, true, false, HERE);
  return std::memcpy(to, from, n);
}
void* __tsan_memmove(void* to, void const* from, unsigned long n) {
  access(from, n, false, false, HERE);
  access(to, n, true, false, HERE);
  return std::memmove(to, from, n);
}
void* __tsan_memset(void* to, int value, unsigned long n) {
  access(to, n, true, false, HERE);
  return std::memset(to, value, n);
}
ATOMIC(8, unsigned char)
ATOMIC(16, unsigned short)
ATOMIC(32, unsigned)
ATOMIC(64, unsigned long)
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}
}
