# sotto_add_model(): the sources that train and run models, compiled for one instruction set or for several.
include_guard(GLOBAL)

# sotto_add_model(target
#   SOURCES model.cpp …       added to the target, which links to sotto::sotto as ever
#   [DISPATCH]                compiled once a level; the first call of one of their functions picks the best level that
#                             processor and operating system have
#   [LEVELS x86-64-v2 …])     of x86-64-v2, x86-64-v3, x86-64-v4, avx512-bf16 and amx; all, if it is not said
#
# Without DISPATCH, and on processors other than x86-64, the sources are compiled with the target's own flags. With it,
# the target's other sources must not ask for more than the lowest level: no -march=native. See <sotto/dispatch.hpp>.
function(sotto_add_model target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "DISPATCH" "" "SOURCES;LEVELS")
  set(call "sotto_add_model(${target})")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "${call}: what is ${arg_UNPARSED_ARGUMENTS}?")
  endif()
  if(NOT TARGET ${target})
    message(FATAL_ERROR "${call}: there is no target ${target}; add_executable or add_library it first")
  endif()
  get_target_property(type ${target} TYPE)
  if(NOT type MATCHES "^(EXECUTABLE|STATIC_LIBRARY|SHARED_LIBRARY|MODULE_LIBRARY)$")
    message(FATAL_ERROR "${call}: ${target} must be a program, or a static, shared or module library")
  endif()
  if(NOT arg_SOURCES)
    message(FATAL_ERROR "${call}: which SOURCES?")
  endif()
  if(arg_LEVELS AND NOT arg_DISPATCH)
    message(FATAL_ERROR "${call}: LEVELS are what DISPATCH picks from; without it the target's flags are the level")
  endif()
  set(known x86-64-v2 x86-64-v3 x86-64-v4 avx512-bf16 amx)
  foreach(level IN LISTS arg_LEVELS)
    if(NOT level IN_LIST known)
      list(JOIN known ", " known)
      message(FATAL_ERROR "${call}: there is no level ${level}; there are ${known}")
    endif()
  endforeach()

  if(arg_DISPATCH AND NOT (CMAKE_SYSTEM_NAME STREQUAL Linux AND CMAKE_SIZEOF_VOID_P EQUAL 8
                           AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$"))
    message(STATUS "${call}: levels are of x86-64 Linux; here the target's own flags are the only one")
    set(arg_DISPATCH FALSE)
  endif()
  if(NOT arg_DISPATCH)
    target_sources(${target} PRIVATE ${arg_SOURCES})
    return()
  endif()

  if(TARGET ${target}_dispatch)
    message(FATAL_ERROR "${call}: called twice; name all SOURCES in one call")
  endif()
  set(levels)
  foreach(level IN LISTS known)
    if(NOT arg_LEVELS OR level IN_LIST arg_LEVELS)
      sotto_level_flags(flags ${level})
      if(flags)
        list(APPEND levels ${level})
      else()
        message(STATUS "${call}: ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION} does not know ${level}, which "
                       "is left out")
      endif()
    endif()
  endforeach()
  if(NOT levels)
    message(FATAL_ERROR "${call}: the compiler knows none of the levels")
  endif()
  sotto_find_binutils("${call}")

  # Levels are linked before they meet: see sotto-dispatch.cmake.
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/${target}_dispatch.dir/$<CONFIG>)
  set(arguments)
  set(objects)
  set(linked)
  set(level_targets)
  foreach(level IN LISTS levels)
    string(MAKE_C_IDENTIFIER ${level} id)
    sotto_add_objects(${target}_${id} ${target} "${arg_SOURCES}")
    sotto_level_flags(flags ${level})
    # A variable that g++ marks as unique could not be made local.
    target_compile_options(${target}_${id} PRIVATE ${flags} -mtune=generic
                                                   $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique>)
    list(APPEND arguments -D "OBJECTS_${id}=$<TARGET_OBJECTS:${target}_${id}>")
    list(APPEND objects $<TARGET_OBJECTS:${target}_${id}>)
    list(APPEND linked ${folder}/${id}.o)
    list(APPEND level_targets ${target}_${id})
  endforeach()
  set(script ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/sotto-dispatch.cmake)
  string(MAKE_C_IDENTIFIER ${target} name)
  add_custom_command(
    OUTPUT ${folder}/dispatch.cpp ${linked}
    COMMAND ${CMAKE_COMMAND} -D NAME=${name} -D "LEVELS=${levels}" ${arguments} -D FOLDER=${folder}
            -D LD=${SOTTO_LD} -D OBJCOPY=${SOTTO_OBJCOPY} -D OBJDUMP=${SOTTO_OBJDUMP} -P ${script}
    DEPENDS ${objects} ${script}
    COMMENT "Linking the levels of ${target}"
    VERBATIM)
  sotto_add_objects(${target}_dispatch ${target} ${folder}/dispatch.cpp)
  add_dependencies(${target}_dispatch ${level_targets}) # for make, which knows no objects of other targets
  target_compile_options(${target}_dispatch PRIVATE -march=x86-64 -mtune=generic)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_dispatch> ${linked})
  set_target_properties(${target} PROPERTIES SOTTO_LEVELS "${levels}" SOTTO_LEVEL_OBJECTS "${linked}")
endfunction()

# Objects compiled like those of a target.
function(sotto_add_objects name target sources)
  add_library(${name} OBJECT EXCLUDE_FROM_ALL ${sources})
  target_link_libraries(${name} PRIVATE sotto::sotto $<TARGET_PROPERTY:${target},LINK_LIBRARIES>)
  target_compile_definitions(${name} PRIVATE $<TARGET_PROPERTY:${target},COMPILE_DEFINITIONS>)
  target_compile_options(${name} PRIVATE $<TARGET_PROPERTY:${target},COMPILE_OPTIONS> -fno-lto)
  target_include_directories(${name} PRIVATE $<TARGET_PROPERTY:${target},INCLUDE_DIRECTORIES>)
  foreach(property IN ITEMS CXX_STANDARD CXX_EXTENSIONS CXX_VISIBILITY_PRESET VISIBILITY_INLINES_HIDDEN
                            POSITION_INDEPENDENT_CODE)
    get_target_property(value ${target} ${property})
    if(NOT value MATCHES "-NOTFOUND$")
      set_target_properties(${name} PROPERTIES ${property} "${value}")
    endif()
  endforeach()
  get_target_property(type ${target} TYPE)
  if(type MATCHES "^(SHARED|MODULE)_LIBRARY$")
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  endif()
endfunction()

# The compiler's flags for a level; empty: it knows no such level.
function(sotto_level_flags variable level)
  set(flags -march=${level})
  if(level STREQUAL "avx512-bf16")
    set(flags -march=x86-64-v4 -mavx512bf16)
  elseif(level STREQUAL "amx")
    set(flags -march=x86-64-v4 -mavx512bf16 -mamx-tile -mamx-bf16)
  endif()
  string(MAKE_C_IDENTIFIER "SOTTO_COMPILES_${level}" known)
  include(CheckCXXSourceCompiles)
  list(JOIN flags " " CMAKE_REQUIRED_FLAGS)
  set(CMAKE_REQUIRED_QUIET TRUE)
  set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
  check_cxx_source_compiles("int main() {}" ${known})
  if(NOT ${known})
    set(flags)
  endif()
  set(${variable} "${flags}" PARENT_SCOPE)
endfunction()

# GNU's tools, which the compiler knows to find, wherever it compiles for; those of LLVM cannot take groups apart.
function(sotto_find_binutils call)
  foreach(tool IN ITEMS ld objcopy objdump)
    string(TOUPPER SOTTO_${tool} variable)
    if(${variable})
      continue()
    endif()
    set(program ${tool})
    if(tool STREQUAL ld)
      set(program ld.bfd)
    endif()
    execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-prog-name=${program} OUTPUT_VARIABLE path
                    OUTPUT_STRIP_TRAILING_WHITESPACE)
    execute_process(COMMAND ${path} --help OUTPUT_VARIABLE help ERROR_QUIET RESULT_VARIABLE result)
    if(NOT result EQUAL 0 OR (tool STREQUAL ld AND NOT help MATCHES "--force-group-allocation"))
      message(FATAL_ERROR "${call}: DISPATCH needs ${program} of GNU binutils, 2.29 or newer; install it")
    endif()
    set(${variable} ${path} CACHE INTERNAL "A tool of sotto_add_model()")
  endforeach()
endfunction()
