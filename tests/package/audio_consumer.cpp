// A program that reads sound: sotto::audio brings the libraries, their headers and sotto::sotto.
#include <samplerate.h>
#include <sndfile.h>

#include <sotto/core/error.hpp>

int main() { return sf_version_string() && src_get_version() ? 0 : 1; }
