#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include <sotto/core/parallel.hpp>

#include "../sanitizers.hpp"

namespace {
std::atomic<long> allocations{0};
}

#if defined(__GLIBC__) && !SOTTO_SANITIZED
extern "C" void* __libc_malloc(std::size_t);  // glibc's own: ours counts and passes on
extern "C" void* malloc(std::size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}
#endif

using namespace sotto;

TEST_CASE("a thread pool runs every task once, on any number of threads") {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    CHECK(pool.concurrency() == threads);
    for (int tasks : {0, 1, 2, 3, 100}) {
      std::vector<std::atomic<int>> ran(static_cast<std::size_t>(tasks));
      pool.run(tasks, [&](int i) { ++ran[static_cast<std::size_t>(i)]; });
      for (auto& count : ran) CHECK(count == 1);
    }
  }
}

TEST_CASE("what tasks write is seen after run() without atomics") {
  ThreadPool pool(3);
  std::vector<int> out(64);
  for (int round = 1; round <= 500; ++round) {
    pool.run(64, [&](int i) { out[static_cast<std::size_t>(i)] += i; });
    REQUIRE(out[63] == 63 * round);
    REQUIRE(out[1] == round);
  }
}

TEST_CASE("the lowest-numbered failure is rethrown after all tasks have ended, and the pool goes on") {
  for (int threads : {2, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 50; ++round) {
      std::atomic<int> ran{0};
      std::string message;
      try {
        pool.run(20, [&](int i) {
          ++ran;
          if (i == 7 || i == 13 || i == 19) throw std::runtime_error(std::to_string(i));
        });
      } catch (std::runtime_error const& error) {
        message = error.what();
      }
      CHECK(message == "7");
      CHECK(ran == 20);
      std::atomic<int> again{0};
      pool.run(5, [&](int) { ++again; });
      CHECK(again == 5);
    }
  }
}

// Executor::run promises it; the pool's short cut for one thread stops at the first failure
// instead.
TEST_CASE("a pool of one thread also ends every task before it rethrows") {
  ThreadPool pool(1);
  int ran = 0;
  CHECK_THROWS_AS(pool.run(4,
                           [&](int i) {
                             ++ran;
                             if (i == 1) throw std::runtime_error("1");
                           }),
                  std::runtime_error);
  CHECK(ran == 4);
}

TEST_CASE("a running pool allocates nothing") {
  ThreadPool pool(3);
  std::atomic<int> ran{0};
  auto task = [&](int) { ++ran; };
  pool.run(10, task);
  const long before = allocations.load();
  for (int round = 0; round < 100; ++round) pool.run(10, task);
  CHECK(allocations.load() == before);
  CHECK(ran == 1010);
#if defined(__GLIBC__) && !SOTTO_SANITIZED
  CHECK(before > 0);  // the counter counts
#endif
}

TEST_CASE("a function reference calls what it refers to") {
  int sum = 0;
  auto add = [&](int i) { return sum += i; };
  const FunctionRef<int(int)> reference = add;
  CHECK(reference(3) == 3);
  CHECK(reference(4) == 7);
}
