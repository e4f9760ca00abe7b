cmake_minimum_required(VERSION 3.25)

# cmake -D SOURCE=file.cpp -P check.cmake -- compiler flags…
#
# A file that must not compile says `// expect: sentence`: the first error must hold the sentence and
# be the only one, or one of `// errors: 2`. A file that says `// expect: nothing` must compile.
set(command)
foreach(i RANGE ${CMAKE_ARGC})
  if(DEFINED separator)
    list(APPEND command "${CMAKE_ARGV${i}}")
  elseif("${CMAKE_ARGV${i}}" STREQUAL "--")
    set(separator ${i})
  endif()
endforeach()
list(REMOVE_ITEM command "")

file(READ ${SOURCE} text)
if(NOT text MATCHES "// expect: ([^\n]+)")
  message(FATAL_ERROR "${SOURCE} has no line `// expect: sentence`")
endif()
set(expected "${CMAKE_MATCH_1}")
set(allowed 1)
if(text MATCHES "// errors: ([0-9]+)")
  set(allowed ${CMAKE_MATCH_1})
endif()

execute_process(COMMAND ${command} ${SOURCE} RESULT_VARIABLE result OUTPUT_VARIABLE output
                ERROR_VARIABLE output)

if(expected STREQUAL "nothing")
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "should compile, but does not:\n${output}")
  endif()
  return()
endif()

if(result EQUAL 0)
  message(FATAL_ERROR "compiles, but should not: \"${expected}\" was expected")
endif()
# Lists would split at the semicolons and brackets of the compiler's text.
string(REGEX REPLACE "[][;]" "_" lines "${output}")
string(REGEX MATCHALL "[^\n]*error: [^\n]*" errors "${lines}")
string(REGEX REPLACE "[][;]" "_" expected "${expected}")
list(LENGTH errors count)
if(count EQUAL 0)
  message(FATAL_ERROR "fails without an error line:\n${output}")
endif()
list(GET errors 0 first)
string(FIND "${first}" "${expected}" position)
if(position EQUAL -1)
  message(FATAL_ERROR "the first error should say\n  ${expected}\nbut says\n  ${first}\n\n${output}")
endif()
if(count GREATER allowed)
  message(FATAL_ERROR "${count} errors, at most ${allowed} expected:\n${output}")
endif()
