// expect: nothing
// Were this to fail, every other file here would fail for the wrong reason.
#include <sotto/core/philox.hpp>
#include <sotto/core/views.hpp>

int main() {}
