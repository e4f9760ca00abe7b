// serial: counts every allocation of the process
// After its first step, training allocates nothing between saves: all allocators of the process are interposed.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include <sotto/sotto.hpp>

#include "../sanitizers.hpp"

#if SOTTO_SANITIZED
TEST_CASE("after the first step, training allocates nothing between saves") {
  MESSAGE("SKIPPED: the sanitizer's allocators cannot be interposed");
}
#else

namespace {
std::atomic<long> allocations{0};
std::atomic<bool> counting{false};
void count() {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

// glibc's own entry points: the names below are ours
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t n) {
  count();
  return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t size) {
  count();
  return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) {
  count();
  return __libc_realloc(p, n);
}
void* aligned_alloc(std::size_t alignment, std::size_t n) {
  count();
  return __libc_memalign(alignment, n);
}
int posix_memalign(void** p, std::size_t alignment, std::size_t n) {
  count();
  *p = __libc_memalign(alignment, n);
  return *p == nullptr ? 12 : 0;
}
}

using namespace sotto;
using namespace sotto::literals;

namespace {
struct Toy : Spec {
  static constexpr EncoderShape shape{.width = 48, .depth = 2, .heads = 2, .feed_forward = 96};
  using Position = position::Convolution<8, 9>;
  using Objective = objective::Hubert<16, objective::Cosine<24> >;
};
}  // namespace

TEST_CASE_TEMPLATE("after the first step, training allocates nothing between saves", Storage, float, bf16) {
  PretrainerOptions<Toy> options;
  options.budget = updates(30);
  options.threads = 2;
  options.batch = {.rows = 400, .lane_rows = 150, .crop = 3000ms};
  options.encoder.dropout = .1f;
  options.held_out = {.every = .1, .speakers = .2, .rows = 300};
  // an in-memory source whose utterances have one length, so that every batch fits the first one's buffers
  std::vector<float> samples(48000);
  Random random(1, Purpose::user);
  for (auto& value : samples) value = static_cast<float>(.1 * random.normal());
  const auto memory = source(
      40, [](std::size_t) { return std::int64_t{24000}; },
      [&](std::size_t i, std::int64_t first, std::span<float> out) {
        std::copy_n(samples.begin() + static_cast<std::ptrdiff_t>(i) * 600 + first, out.size(), out.begin());
      });
  Pretrainer<Toy, Cpu<Storage> > trainer(memory, options);
  for (int i = 0; i < 3; ++i) REQUIRE(trainer.step());  // both batches of the ring, and the first evaluation
  allocations = 0;
  counting = true;
  for (int i = 0; i < 20; ++i) REQUIRE(trainer.step());
  counting = false;
  CHECK(allocations == 0);

  counting = true;                      // the counter can count
  static int* volatile kept = nullptr;  // or a compiler does without
  kept = new int[100];
  delete[] kept;
  counting = false;
  CHECK(allocations > 0);
}
#endif
