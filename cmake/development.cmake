# How sotto itself is built. Read at top level only: none of this reaches a program that uses sotto.

get_property(multi_config GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
if(NOT CMAKE_BUILD_TYPE AND NOT multi_config)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
endif()

set(SOTTO_MARCH native CACHE STRING
    "The instruction set of tests and programs: native, x86-64, x86-64-v3 …; empty: the compiler's")
if(SOTTO_MARCH)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-march=${SOTTO_MARCH}>)
  # A tuned build would schedule for one machine what is measured on many.
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-mtune=generic>)
  endif()
endif()

add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Werror>")
# A kernel that spills, or keeps an array in local memory, is a mistake.
add_compile_options(
  "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xptxas=--warn-on-spills,--warn-on-local-memory-usage,--warning-as-error>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # Its own AVX-512 intrinsics and string concatenations are reported (GCC bugs 105593 and 105651, mended in 13).
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized;-Wno-restrict>")
endif()
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# Every header must compile alone: CMake writes a source file for each, built with everything else.
set(CMAKE_VERIFY_INTERFACE_HEADER_SETS ${SOTTO_BUILD_TESTING})
