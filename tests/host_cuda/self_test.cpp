// The checkers are checked: each planted mistake is found by the build that is said to find it, and sound kernels pass.
#include <doctest/doctest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string_view>
#include <vector>

#include "planted.cuh"

namespace {

const std::string_view variant = HOST_CUDA_VARIANT;

/// Floats on the device.
class Floats {
 public:
  explicit Floats(std::size_t n) : n_(n) {
    REQUIRE(cudaMalloc(reinterpret_cast<void**>(&begin), n * sizeof(float)) == cudaSuccess);
  }
  Floats(Floats const&) = delete;
  Floats& operator=(Floats const&) = delete;
  ~Floats() { cudaFree(begin); }
  void fill(cudaStream_t stream) {
    std::vector<float> x(n_);
    for (std::size_t i = 0; i < n_; ++i) x[i] = static_cast<float>(i % 97) * .25f - 3;
    cudaMemcpyAsync(begin, x.data(), n_ * sizeof(float), cudaMemcpyHostToDevice, stream);
  }
  std::vector<float> read(cudaStream_t stream) const {
    std::vector<float> x(n_);
    cudaMemcpyAsync(x.data(), begin, n_ * sizeof(float), cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    return x;
  }
  float* begin = nullptr;

 private:
  std::size_t n_;
};

class Stream {
 public:
  Stream() { cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); }
  Stream(Stream const&) = delete;
  Stream& operator=(Stream const&) = delete;
  ~Stream() { cudaStreamDestroy(stream); }
  cudaStream_t stream = nullptr;
};

using sotto::cuda::launch;

/// The kernel that mistake Like is planted in, with mistake Bug; 0: with none.
template <int Bug, int Like = Bug> std::vector<float> trial() {
  Stream s;
  if constexpr (Like == 1 || Like == 2 || Like == 4 || Like == 11) {
    Floats x(3 * 200), y(3 * 200);
    x.fill(s.stream);
    launch(planted::normalise<Bug>, {3, 128}, s.stream, x.begin, y.begin, 200);
    return y.read(s.stream);
  } else if constexpr (Like == 3 || Like == 5 || Like == 6 || Like == 10) {
    Floats x(64 * 96), y(64 * 96);
    x.fill(s.stream);
    launch(planted::transpose<Bug>, {3, dim3(32, 8)}, s.stream, x.begin, y.begin, 64, 96);
    return y.read(s.stream);
  } else if constexpr (Like == 9) {
    Floats x(1000), partial(4), ticket(1), sum(1);
    x.fill(s.stream);
    cudaMemsetAsync(ticket.begin, 0, 4, s.stream);
    launch(planted::sum_last<Bug>, {4, 64}, s.stream, x.begin, 1000, partial.begin,
           reinterpret_cast<unsigned*>(ticket.begin), sum.begin);
    return sum.read(s.stream);
  } else if constexpr (Like == 7 || Like == 12) {
    Floats x(5 * 20), y(5);
    x.fill(s.stream);
    launch(planted::sum_rows<Bug>, {5, 32}, s.stream, x.begin, y.begin, 20);
    return y.read(s.stream);
  } else {
    Floats x(2 * 3 * 512), y(2 * 3 * 512);
    x.fill(s.stream);
    launch(planted::pass_through<Bug>, {2, 128, 2048}, s.stream, x.begin, y.begin, 3);
    return y.read(s.stream);
  }
}
bool same(std::vector<float> const& a, std::vector<float> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Whether a mistake is found: by a report, by numbers that are not the wanted ones in some order of threads and
/// blocks, or by the end of the process. Tried in a child, which may die of it.
bool found(std::vector<float> (*try_it)(), std::vector<float> const& wanted) {
  std::fflush(stdout);
  std::fflush(stderr);
  const pid_t child = fork();
  if (child == 0) {
    for (const int signal_number : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE}) signal(signal_number, SIG_DFL);
    if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(2);
    host_cuda::options.keep_going = true;
    bool wrong = false;
    for (const auto order : {host_cuda::Order::forward, host_cuda::Order::reverse, host_cuda::Order::random}) {
      host_cuda::options.threads = host_cuda::options.blocks = order;
      try {
        wrong = wrong || !same(wanted, try_it());
      } catch (sotto::Error const&) {
        wrong = true;
      }
    }
    _exit(wrong || host_cuda::statistics.reports > 0 ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace

TEST_CASE("sound kernels pass, with the same bits in every order") {
  for (auto* const sound : {&trial<0, 1>, &trial<0, 3>, &trial<0, 9>, &trial<0, 7>, &trial<0, 8>})
    CHECK_FALSE(found(sound, sound()));
}

TEST_CASE("planted mistakes are found") {
  const bool race = variant == "race";
  const auto check = [&]<int Bug>(std::integral_constant<int, Bug>, bool expected = true) {
    const int bug = Bug;
    CAPTURE(bug);
    CHECK(found(&trial<Bug>, trial<0, Bug>()) == expected);
  };
  check(std::integral_constant<int, 1>{});  // no barrier between a write and the reads of it
  check(std::integral_constant<int, 2>{},
        race);                              // nor between reads and the next write: numbers are right all the same
  check(std::integral_constant<int, 3>{});  // shared memory that nobody wrote
  check(std::integral_constant<int, 4>{});  // a write past the end
  check(std::integral_constant<int, 5>{});  // a read past a row of a shared array
  check(std::integral_constant<int, 6>{});  // no barrier at the end of a loop
  check(std::integral_constant<int, 7>{});  // lanes that a shuffle waits for in vain
  check(std::integral_constant<int, 8>{});  // a buffer that is refilled while it is read
  check(std::integral_constant<int, 9>{}, race);  // no fence before another block reads: numbers are right
  check(std::integral_constant<int, 10>{});       // a block in its neighbour's place
  check(std::integral_constant<int, 11>{});       // half of a block at a barrier of the whole
  check(std::integral_constant<int, 12>{});       // lanes outside their own mask
  check(std::integral_constant<int, 13>{});       // copies that nobody waited for
  check(std::integral_constant<int, 14>{});       // copies of other threads, not waited for
}

TEST_CASE("a graph's missing edge shows in an order that the edges allow") {
  const auto run = [](bool joined, host_cuda::Order order) {
    host_cuda::options.blocks = order;
    Stream main, side;
    Floats x(64), y(64);
    cudaEvent_t fork_event, join_event;
    cudaEventCreateWithFlags(&fork_event, cudaEventDisableTiming);
    cudaEventCreateWithFlags(&join_event, cudaEventDisableTiming);
    cudaMemsetAsync(x.begin, 0, 64 * 4, main.stream);
    cudaMemsetAsync(y.begin, 0, 64 * 4, main.stream);
    cudaStreamBeginCapture(main.stream, cudaStreamCaptureModeThreadLocal);
    cudaEventRecord(fork_event, main.stream);
    cudaStreamWaitEvent(side.stream, fork_event, 0);
    launch(planted::set<>, {1, 64}, side.stream, y.begin, 5.f, 64);
    cudaEventRecord(join_event, side.stream);
    launch(planted::set<>, {1, 64}, main.stream, x.begin, 1.f, 64);
    if (joined) cudaStreamWaitEvent(main.stream, join_event, 0);
    launch(planted::add<>, {1, 64}, main.stream, x.begin, y.begin, 64);
    if (!joined) cudaStreamWaitEvent(main.stream, join_event, 0);
    cudaGraph_t graph;
    REQUIRE(cudaStreamEndCapture(main.stream, &graph) == cudaSuccess);
    cudaGraphExec_t executable;
    REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
    cudaGraphDestroy(graph);
    cudaGraphLaunch(executable, main.stream);
    const auto result = x.read(main.stream);
    cudaGraphExecDestroy(executable);
    cudaEventDestroy(fork_event);
    cudaEventDestroy(join_event);
    host_cuda::options.blocks = host_cuda::Order::forward;
    return result[0];
  };
  for (const auto order : {host_cuda::Order::forward, host_cuda::Order::reverse}) CHECK(run(true, order) == 6);
  CHECK(run(false, host_cuda::Order::forward) != run(false, host_cuda::Order::reverse));
}

TEST_CASE("the runtime refuses what CUDA refuses") {
  Stream main, side;
  Floats x(64);
  void* p = nullptr;
  cudaGraph_t graph = nullptr;
  SUBCASE("an allocation while something is captured, and the capture with it") {
    cudaStreamBeginCapture(main.stream, cudaStreamCaptureModeThreadLocal);
    CHECK(cudaMalloc(&p, 4) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(main.stream, &graph) == cudaErrorStreamCaptureInvalidated);
  }
  SUBCASE("a capture whose fork is not joined") {
    cudaEvent_t event;
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaStreamBeginCapture(main.stream, cudaStreamCaptureModeThreadLocal);
    cudaEventRecord(event, main.stream);
    cudaStreamWaitEvent(side.stream, event, 0);
    launch(planted::set<>, {1, 64}, side.stream, x.begin, 5.f, 64);
    CHECK(cudaStreamEndCapture(main.stream, &graph) == cudaErrorStreamCaptureUnjoined);
    cudaEventDestroy(event);
  }
  SUBCASE("a block of too many threads, and shared memory that was not asked for") {
    CHECK_THROWS_AS(launch(planted::set<>, {1, 2048}, main.stream, x.begin, 5.f, 64), sotto::Error);
    cudaLaunchConfig_t config{};
    config.gridDim = config.blockDim = 1;
    config.stream = main.stream;
    config.dynamicSmemBytes = 100 * 1024;
    CHECK(cudaLaunchKernelEx(&config, planted::set<>, x.begin, 5.f, 64) == cudaErrorInvalidValue);
  }
  SUBCASE("more memory than the device has") {
    CHECK(cudaMalloc(&p, std::size_t{100} << 30) == cudaErrorMemoryAllocation);
  }
  static_cast<void>(cudaGetLastError());
}

TEST_CASE("host code that touches the device's memory, or reads before it waits, is found") {
  CHECK(found(
      [] {
        host_cuda::options.protect = true;
        Floats x(64);
        Stream s;
        x.fill(s.stream);
        cudaStreamSynchronize(s.stream);
        return std::vector<float>{x.begin[3]};
      },
      {-2.25f}));
  Stream s;
  Floats x(64);
  float* pinned = nullptr;
  REQUIRE(cudaMallocHost(reinterpret_cast<void**>(&pinned), 64 * 4) == cudaSuccess);
  pinned[0] = 7;
  launch(planted::set<>, {1, 64}, s.stream, x.begin, 5.f, 64);
  cudaMemcpyAsync(pinned, x.begin, 64 * 4, cudaMemcpyDeviceToHost, s.stream);
  CHECK(pinned[0] == 7);  // streams are lazy: what is not waited for is stale
  cudaStreamSynchronize(s.stream);
  CHECK(pinned[0] == 5);
  cudaFreeHost(pinned);
}

TEST_CASE("work on the null stream, and a host pointer given to a kernel, are reported") {
  host_cuda::options.keep_going = true;
  {
    Floats x(64);
    launch(planted::set<>, {1, 64}, nullptr, x.begin, 5.f, 64);
    CHECK(host_cuda::last_report().find("null stream") != std::string::npos);
    host_cuda::clear_reports();
    float on_host[64];
    Stream s;
    CHECK_THROWS_AS(launch(planted::set<>, {1, 64}, s.stream, on_host, 5.f, 64), sotto::Error);
    CHECK(host_cuda::last_report().find("no device pointer") != std::string::npos);
    host_cuda::clear_reports();
  }
  host_cuda::options.keep_going = false;
  static_cast<void>(cudaGetLastError());
}

TEST_CASE("a race is reported with both of its lines") {
  if (variant != "race") return;
  host_cuda::options.keep_going = true;
  trial<2>();
  CHECK(host_cuda::last_report().find("write after read") != std::string::npos);
  CHECK(host_cuda::last_report().find("planted.cuh") != std::string::npos);
  host_cuda::clear_reports();
  host_cuda::options.keep_going = false;
}

TEST_CASE("bytes that move are counted, by kernel") {
  if (variant != "race") return;
  host_cuda::reset_traffic();
  Stream s;
  Floats x(64), y(64);
  launch(planted::set<>, {2, 32}, s.stream, x.begin, 5.f, 64);
  launch(planted::set<>, {2, 32}, s.stream, y.begin, 5.f, 64);
  launch(planted::add<>, {2, 32}, s.stream, x.begin, y.begin, 64);
  cudaStreamSynchronize(s.stream);
  for (auto const& t : host_cuda::traffic()) {
    if (t.name.find("planted::set") != std::string::npos) {
      CHECK(t.launches == 2);
      CHECK(t.bytes_written == 2 * 64 * 4);
      CHECK(t.bytes_read == 0);
    }
    if (t.name.find("planted::add") != std::string::npos) {
      CHECK(t.bytes_read == 2 * 64 * 4);
      CHECK(t.bytes_written == 64 * 4);
    }
  }
}
