#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <sotto/core/order.hpp>
#include <sotto/core/texts.hpp>

using namespace sotto;

TEST_CASE("texts keep their order; a later one of a name replaces the earlier") {
  Texts texts;
  CHECK(texts.empty());
  texts.set("b", "1");
  texts.set("a", "2");
  texts.set("b", "3");
  CHECK(texts.size() == 2);
  CHECK(texts.begin()->first == "b");
  CHECK(*texts.find("b") == "3");
  CHECK(*texts.find("a") == "2");
  CHECK(texts.find("c") == nullptr);
}

TEST_CASE("indices are sorted by any strict order") {
  std::vector<int> indices{0, 1, 2, 3, 4};
  const int keys[] = {3, 1, 3, 0, 2};
  sort_indices(indices, [&](int a, int b) { return keys[a] != keys[b] ? keys[a] > keys[b] : a < b; });
  CHECK(indices == std::vector<int>{0, 2, 4, 1, 3});
}
