// Host execution of CUDA, as tests and the twins of device code see it. A kernel's threads are fibres of one host
// thread; blocks run one after another; streams run when something waits for them. Nothing here includes a header of
// CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace host_cuda {

enum class Order { forward, reverse, random };

struct Options {
  Order threads = Order::forward;             ///< in which the threads of a block take turns
  Order blocks = Order::forward;              ///< in which blocks run, and runnable nodes of a graph
  std::uint64_t seed = 1;                     ///< of random orders
  bool lazy = true;                           ///< streams run only when something waits for them
  bool keep_going = false;                    ///< collect reports; else the first one aborts the program
  bool protect = false;                       ///< device memory cannot be touched while host code runs
  bool forbid_null_stream = true;             ///< work on the null stream is reported
  int devices = 1;                            ///< 0: as a machine without a driver
  int multiprocessors = 3;                    ///< few, so that grid-stride loops have several turns
  std::size_t memory = std::size_t{8} << 30;  ///< of the device
};
extern Options options;

struct Statistics {
  std::uint64_t launches = 0, blocks = 0, threads = 0, switches = 0, barriers = 0, collectives = 0, reports = 0;
};
extern Statistics statistics;

/// What was found wrong: a sentence, with the lines of both sides where there are two.
void report(std::string const& sentence);
std::string const& last_report();
void clear_reports();

/// What kernels of one name did since reset_traffic(). Bytes are counted by the race checker only: each load and store
/// of global memory once, caches ignored. Matrix products are called "product".
struct Traffic {
  std::string name;
  std::uint64_t launches = 0, bytes_read = 0, bytes_written = 0;
};
std::vector<Traffic> traffic();
void reset_traffic();

/// A place in device code.
struct Site {
  char const* file;
  int line;
};
/// What the lanes of a warp bring to an operation that they do together.
struct WarpView {
  unsigned mask;
  void const* in[32];
  void* out[32];
};
using Combine = void (*)(WarpView const&);

enum class Vote { none, count, all, any };
/// __syncthreads and its voting kin.
int barrier(int predicate, Vote vote, Site where);
/// Waits until all lanes of the mask are in the same operation, then does it once. orders_memory: as __syncwarp does.
void collective(unsigned mask, void const* in, void* out, Combine combine, bool orders_memory, Site where);
/// __threadfence.
void fence();
unsigned lane();
/// The block's dynamic shared memory; a static variable of the block's, known by its tag.
void* dynamic_memory();
void* static_memory(void const* tag, std::size_t bytes);

/// cp.async: the copy is done when its group is waited for; till then the target holds NaNs.
void copy_later(void* to, void const* from, std::size_t bytes, Site where);
void commit_group();
void wait_groups(int pending);

/// Tells the race checker of an access that it cannot see, by the thread that runs. No-ops in other builds.
void touch_read(void const* p, std::size_t bytes);
void touch_write(void* p, std::size_t bytes);

}  // namespace host_cuda
