#include <sotto/backend/cpu/workspace.hpp>

#include <doctest/doctest.h>

#include <cstdint>

using namespace sotto;

TEST_CASE("a workspace keeps its memory once it is big enough") {
  cpu::Workspace workspace;
  float* const first = workspace.take<float>(1000);
  CHECK(reinterpret_cast<std::uintptr_t>(first) % 64 == 0);
  CHECK(workspace.take<float>(10) == first);
  CHECK(workspace.take<float>(1000) == first);
}
