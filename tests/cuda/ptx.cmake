cmake_minimum_required(VERSION 3.25)
# What makes kernels fast is in their PTX: tensor cores, 16 bytes at a time, no local memory, no slow division. Without
# it they compute the same, so that no other test would notice.
#   cmake -D NVCC=nvcc -D INCLUDE=include -P ptx.cmake
file(WRITE ptx.cu "#include <sotto/cuda.cuh>
#include <sotto/attention/full.hpp>
template class sotto::Cuda<sotto::bf16>;
template struct sotto::cuda::AttentionOperations<sotto::attention::Full, 64, sotto::bf16>;
")
execute_process(COMMAND ${NVCC} -std=c++20 -DNDEBUG -I${INCLUDE} -arch=compute_80 -ptx ptx.cu -o ptx.ptx
                COMMAND_ERROR_IS_FATAL ANY)

# One element a kernel: `}` at the begin of a line ends it. Neither separators nor brackets, which lists would heed.
file(READ ptx.ptx text)
string(REPLACE ";" "" text "${text}")
string(REPLACE "[" "(" text "${text}")
string(REPLACE "]" ")" text "${text}")
string(REPLACE "\n}\n" ";" kernels "${text}")
list(FILTER kernels INCLUDE REGEX "\\.entry _Z")

# What a kernel's name contains; what its PTX must contain, and must not.
set(load_128 "ld\\.global[.a-z]*\\.v(4\\.[a-z]32|2\\.[a-z]64)")
set(store_128 "st\\.global[.a-z]*\\.v(4\\.[a-z]32|2\\.[a-z]64)")
set(tensor_cores "mma\\.sync" "ldmatrix\\.sync" "cp\\.async\\.c[ag]\\.shared")
set(ieee_division "(div|rcp)\\.rn\\.f32") # has a slow path, for which ptxas sets registers aside
set(failures)
# check(name [HAS …] [HAS_NO …])
function(check name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "HAS;HAS_NO")
  set(met FALSE)
  foreach(kernel IN LISTS kernels)
    string(REGEX MATCH "\\.entry ([A-Za-z0-9_]+)" entry "${kernel}")
    set(symbol ${CMAKE_MATCH_1})
    if(NOT symbol MATCHES "${name}")
      continue()
    endif()
    set(met TRUE)
    foreach(wanted IN LISTS arg_HAS)
      if(NOT kernel MATCHES "${wanted}")
        list(APPEND failures "${symbol} has no ${wanted}")
      endif()
    endforeach()
    foreach(unwanted IN LISTS arg_HAS_NO)
      if(kernel MATCHES "${unwanted}")
        string(STRIP "${CMAKE_MATCH_0}" found)
        list(APPEND failures "${symbol} has ${found}")
      endif()
    endforeach()
  endforeach()
  if(NOT met)
    list(APPEND failures "there is no kernel ${name}")
  endif()
  set(failures ${failures} PARENT_SCOPE)
endfunction()

check("[0-9]attention_forwardI" HAS ${tensor_cores} ${store_128})
check("[0-9]attention_backward_(queries|keys)I" HAS ${tensor_cores} ${store_128} HAS_NO ${ieee_division})
check("[0-9](convolve|gradient)_fragmentsI" HAS ${tensor_cores})
check("[0-9]layer_norm(_back)?I" HAS ${load_128} ${store_128})
check("[0-9]move_rowsI.*RowMoveE[01]" HAS ${load_128} ${store_128}) # gather, scatter_add
check("[0-9]move_rowsI.*RowMoveE2" HAS ${store_128}) # fill
check("[0-9]map_(one|two)I" HAS ${load_128} ${store_128})
check("[0-9]adamwI" HAS ${load_128} ${store_128} HAS_NO ${ieee_division})
check("[0-9]cross_entropyI" HAS_NO ${ieee_division})
check("." HAS_NO "\n[ \t]*\\.local[^\n]*" "\n[ \t]*(@!?%p[0-9]+ )?call[^\n]*")

if(failures)
  list(JOIN failures "\n  " failures)
  message(FATAL_ERROR "PTX for compute_80:\n  ${failures}")
endif()
