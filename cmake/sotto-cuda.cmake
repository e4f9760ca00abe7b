# sotto::cuda, the kernels of Cuda<float> and Cuda<bf16>, and sotto_add_kernels(), for what a program adds to them.
# Needs the CUDA toolkit, 12 or newer; CMAKE_CUDA_ARCHITECTURES says for which GPUs.
include_guard(GLOBAL)

find_package(CUDAToolkit 12 REQUIRED GLOBAL)
set(architectures 80 90a)
if(CUDAToolkit_VERSION VERSION_GREATER_EQUAL 12.8)
  list(APPEND architectures 100)
endif()
# Known wherever sotto_add_kernels() is called.
set(sotto_cuda_architectures ${architectures} CACHE INTERNAL "What sotto's kernels are compiled for by default")
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES ${sotto_cuda_architectures})
endif()
enable_language(CUDA)

# sotto_add_kernels(target
#   [STORAGE float bf16]            what activations are kept in; both, if it is not said
#   [HEADERS mine.hpp …]            where the types below are declared
#   [ATTENTION type …]              softmax policies, for heads of the widths below
#   [HEAD_WIDTHS 64 …]              1 to 128; rounded up to a multiple of 16
#   [ROW_LOSS type …] [MAP type …]  functors of an objective
#   [OPERATIONS])                   everything else: sotto::cuda has it
#
# Adds one source file a type and storage to the target, to be compiled by nvcc. A program that uses Cuda<…> is plain C++:
# a missing kernel is an undefined reference to sotto::cuda::AttentionOperations<type, width, storage>.
function(sotto_add_kernels target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "OPERATIONS" "" "STORAGE;HEADERS;ATTENTION;HEAD_WIDTHS;ROW_LOSS;MAP")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "sotto_add_kernels(${target}): what is ${arg_UNPARSED_ARGUMENTS}?")
  endif()
  if(arg_ATTENTION AND NOT arg_HEAD_WIDTHS)
    message(FATAL_ERROR "sotto_add_kernels(${target}): ATTENTION needs HEAD_WIDTHS, the widths of a model's heads")
  endif()
  if(NOT arg_STORAGE)
    set(arg_STORAGE float bf16)
  endif()
  set(widths)
  foreach(width IN LISTS arg_HEAD_WIDTHS)
    if(NOT width MATCHES "^[0-9]+$" OR width LESS 1 OR width GREATER 128)
      message(FATAL_ERROR "sotto_add_kernels(${target}): a head of width ${width}; it must be from 1 to 128")
    endif()
    math(EXPR width "(${width} + 15) / 16 * 16")
    list(APPEND widths ${width})
  endforeach()
  list(REMOVE_DUPLICATES widths)

  set(preamble "// Written by sotto_add_kernels().\n#include <sotto/cuda.cuh>\n")
  foreach(header IN LISTS arg_HEADERS)
    if(NOT IS_ABSOLUTE ${header} AND EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${header})
      set(header ${CMAKE_CURRENT_SOURCE_DIR}/${header})
    endif()
    string(APPEND preamble "#include \"${header}\"\n")
  endforeach()
  string(APPEND preamble "\n")

  set(sources)
  foreach(storage IN LISTS arg_STORAGE)
    if(storage STREQUAL float)
      set(type float)
    elseif(storage STREQUAL bf16)
      set(type sotto::bf16)
    else()
      message(FATAL_ERROR "sotto_add_kernels(${target}): STORAGE is float or bf16, not ${storage}")
    endif()
    if(arg_OPERATIONS)
      sotto_write_kernels(sources ${target} operations_${storage} "${preamble}template class sotto::Cuda<${type}>;\n")
    endif()
    foreach(attention IN LISTS arg_ATTENTION)
      set(text "${preamble}template struct sotto::cuda::TableOperations<${attention}, ${type}>;\n")
      foreach(width IN LISTS widths)
        string(APPEND text "template struct sotto::cuda::AttentionOperations<${attention}, ${width}, ${type}>;\n")
      endforeach()
      list(JOIN widths _ named_widths)
      sotto_write_kernels(sources ${target} ${attention}_${named_widths}_${storage} "${text}")
    endforeach()
    foreach(functor IN LISTS arg_ROW_LOSS)
      sotto_write_kernels(sources ${target} ${functor}_${storage}
                          "${preamble}template struct sotto::cuda::RowLossOperations<${functor}, ${type}>;\n")
    endforeach()
    foreach(functor IN LISTS arg_MAP)
      sotto_write_kernels(sources ${target} ${functor}_${storage}
                          "${preamble}template struct sotto::cuda::MapOperations<${functor}, ${type}>;\n")
    endforeach()
  endforeach()
  target_sources(${target} PRIVATE ${sources})
  # What nvcc takes where a project says nothing is too old for bf16 and asynchronous copies.
  get_target_property(architectures ${target} CUDA_ARCHITECTURES)
  if(architectures MATCHES "^(52|75)$")
    set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES "${sotto_cuda_architectures}")
  endif()
  # CMake 3.25 knows no standards of newer nvccs by name.
  set_property(SOURCE ${sources} APPEND PROPERTY COMPILE_OPTIONS -std=c++20)
  # assert() in a kernel costs registers and a stack.
  set_property(SOURCE ${sources} APPEND PROPERTY COMPILE_DEFINITIONS NDEBUG)
endfunction()

# One file, rewritten only where its text differs.
function(sotto_write_kernels files target name text)
  string(MAKE_C_IDENTIFIER ${name} name)
  set(file ${CMAKE_CURRENT_BINARY_DIR}/${target}_kernels/${name}.cu)
  file(CONFIGURE OUTPUT ${file} CONTENT "${text}" @ONLY)
  set(${files} ${${files}} ${file} PARENT_SCOPE)
endfunction()

# Built where something links to it.
add_library(sotto_cuda STATIC EXCLUDE_FROM_ALL)
add_library(sotto::cuda ALIAS sotto_cuda)
target_link_libraries(sotto_cuda PUBLIC sotto::sotto CUDA::cudart CUDA::cublasLt)
sotto_add_kernels(sotto_cuda OPERATIONS)
sotto_add_kernels(sotto_cuda HEADERS sotto/attention/full.hpp ATTENTION sotto::attention::Full
                  HEAD_WIDTHS 16 32 48 64 80 96 112 128)
sotto_add_kernels(sotto_cuda HEADERS sotto/attention/relative_bias.hpp
                  ATTENTION sotto::attention::RelativeBias<> sotto::attention::WavLmBias HEAD_WIDTHS 32 48 64)
