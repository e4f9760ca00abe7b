cmake_minimum_required(VERSION 3.25)
# The instructions of PROGRAM's counted_step() are within 3 % of the BASELINE's of this compiler.
if(NOT VALGRIND)
  message("SKIPPED: no valgrind found")
  return()
endif()
file(STRINGS ${BASELINE} line REGEX "^${COMPILER} ${PRECISION} [0-9]+$")
if(NOT line)
  message("SKIPPED: ${BASELINE} has no line for ${COMPILER} ${PRECISION}")
  return()
endif()
string(REGEX REPLACE ".* " "" wanted "${line}")
execute_process(
  COMMAND ${VALGRIND} --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect=*counted_step* ${PROGRAM}
          ${PRECISION}
  OUTPUT_VARIABLE output ERROR_VARIABLE report COMMAND_ERROR_IS_FATAL ANY)
if(NOT report MATCHES "Collected : ([0-9]+)")
  message(FATAL_ERROR "valgrind counted nothing: ${report}")
endif()
set(got ${CMAKE_MATCH_1})
# In tenths of a percent. math() has integers only.
math(EXPR change "(${got} - ${wanted}) * 1000 / ${wanted}")
message("${COMPILER} ${PRECISION} ${got}\n${change} thousandths from the baseline's ${wanted}")
if(change GREATER 30 OR change LESS -30)
  message(FATAL_ERROR "a training step takes another number of instructions than ${BASELINE} says: if that is meant, "
                      "write the line above into it")
endif()
