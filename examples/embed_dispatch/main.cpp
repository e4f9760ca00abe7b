// A program to ship: it runs on any x86-64-v2 machine, and uses AVX2, AVX-512 or AMX where they are. CMakeLists.txt:
//   add_executable(embed_dispatch main.cpp)
//   target_link_libraries(embed_dispatch PRIVATE sotto::sotto)
//   sotto_add_model(embed_dispatch SOURCES model.cpp DISPATCH)
#include <cstdio>
#include <cstdlib>
#include <sotto/core/error.hpp>

#include "model.hpp"

int main(int count, char** words) try {
  double loss = 0;
  pretrain(count > 1 ? std::strtoull(words[1], nullptr, 10) : 60, [&](sotto::Step const& step) { loss = step.loss; });
  const std::vector<float> hidden = encode(std::vector<float>(16000));
  const std::string_view name = level();
  std::printf("%.*s: final loss %.4f; one second became %zu numbers\n", static_cast<int>(name.size()), name.data(),
              loss, hidden.size());
} catch (sotto::Error const& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
