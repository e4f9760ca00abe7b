// A program that reads sound: sotto::audio brings the libraries, their headers and sotto::sotto.
#include <sotto/audio.hpp>

int main() {
  try {
    sotto::Corpus::open("no such folder");
  } catch (sotto::Error const&) {
    return 0;
  }
  return 1;
}
