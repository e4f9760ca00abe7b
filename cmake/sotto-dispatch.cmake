cmake_minimum_required(VERSION 3.25)
# Run by the build of a target with sotto_add_model(… DISPATCH). Makes, in FOLDER, one object a level, in which nothing
# is left that the linker could merge with code for another processor, and dispatch.cpp, which leads calls to one.
#
# Instances of templates and inline functions are defined in every object that needs them, and a linker keeps one
# of each, whichever instructions it has. So the objects of a level are linked among themselves first, and then
#   functions that the sources define for others      get the level's name as a suffix: train(int) [clone .x86_64_v3]
#   other functions, and constants                    become local; constants, since some are tables of functions
#   variables, and the names and types of exceptions  stay one in the program
#   constructors of static objects                    are taken from the start of the program to the first call
file(MAKE_DIRECTORY ${FOLDER})
set(first_level)
foreach(level IN LISTS LEVELS)
  string(MAKE_C_IDENTIFIER ${level} id)
  set(object ${FOLDER}/${id}.o)
  execute_process(COMMAND ${LD} -r --force-group-allocation -o ${object} ${OBJECTS_${id}} COMMAND_ERROR_IS_FATAL ANY)

  execute_process(COMMAND ${OBJDUMP} -t -w ${object} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE "\n" ";" symbols "${symbols}")
  set(functions)
  set(hidden)
  set(renamed)
  set(global)
  set(shared)
  foreach(line IN LISTS symbols)
    if(NOT line MATCHES "^[0-9a-f]+ (.)(.)....(.) ([^\t]+)\t[0-9a-f]+ (\\.[a-z]+ )?([^ ]+)$")
      continue()
    endif()
    set(binding "${CMAKE_MATCH_1}${CMAKE_MATCH_2}")
    set(kind "${CMAKE_MATCH_3}")
    set(section ${CMAKE_MATCH_4})
    set(visibility "${CMAKE_MATCH_5}")
    set(symbol ${CMAKE_MATCH_6})
    if(section STREQUAL "*UND*" OR binding STREQUAL "l ")
      continue()
    endif()
    if(kind STREQUAL "F" AND binding STREQUAL "g ")
      list(APPEND functions ${symbol})
      if(visibility)
        list(APPEND hidden ${symbol})
      endif()
      string(APPEND renamed "${symbol} ${symbol}.${id}\n")
      string(APPEND global "${symbol}.${id}\n")
    elseif(symbol MATCHES "^_ZT[IS]" OR (kind STREQUAL "O" AND section MATCHES "^\\.(data|bss|tdata|tbss)"
                                         AND NOT section MATCHES "^\\.data\\.rel\\.ro"))
      string(APPEND global "${symbol}\n")
      string(APPEND shared "${symbol}\n")
    endif()
  endforeach()
  list(SORT functions)
  if(NOT functions)
    message(FATAL_ERROR "the sources of ${NAME} define no function that another source could call")
  endif()
  if(NOT first_level)
    set(first_level ${level})
    set(first_functions ${functions})
  elseif(NOT functions STREQUAL first_functions)
    set(others ${functions} ${first_functions})
    foreach(function IN LISTS functions)
      if(function IN_LIST first_functions)
        list(REMOVE_ITEM others ${function})
      endif()
    endforeach()
    list(JOIN others " " others)
    message(FATAL_ERROR "${NAME}: ${first_level} and ${level} define different functions; make static what is for no "
                        "other source, and take and return nothing that is named after an instruction set: ${others}")
  endif()

  # Numbered ones come first, as in a program.
  execute_process(COMMAND ${OBJDUMP} -h -w ${object} OUTPUT_VARIABLE sections COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL " \\.(init|fini)_array(\\.[0-9]+)? +[0-9a-f]+" sections "${sections}")
  list(SORT sections)
  set(numbered ${sections})
  list(FILTER numbered INCLUDE REGEX "_array\\.")
  list(FILTER sections EXCLUDE REGEX "_array\\.")
  set(edits)
  set(init_${id})
  set(fini_${id})
  foreach(entry IN LISTS numbered sections)
    string(REGEX MATCH "\\.(init|fini)_array[.0-9]*" section "${entry}")
    set(purpose ${CMAKE_MATCH_1})
    string(REGEX MATCH "[0-9a-f]+$" size "${entry}")
    math(EXPR count "0x${size} / 8")
    set(symbol sotto_${NAME}${section}.${id})
    list(APPEND edits --rename-section ${section}=.sotto${section},alloc,load,data,contents
         --add-symbol ${symbol}=.sotto${section}:0,global)
    string(APPEND global "${symbol}\n")
    list(LENGTH ${purpose}_${id} number)
    string(APPEND declarations "extern sotto::detail::Function const ${id}_${purpose}_${number}[${count}] "
                               "__asm__(\"${symbol}\") __attribute__((visibility(\"hidden\")));\n")
    list(APPEND ${purpose}_${id} ${id}_${purpose}_${number})
  endforeach()

  file(WRITE ${object}.renamed "${renamed}")
  file(WRITE ${object}.global "${global}")
  if(shared) # an empty list is an error
    file(WRITE ${object}.shared "${shared}")
    list(APPEND edits --weaken-symbols=${object}.shared)
  endif()
  # What clang notes by number for the linker would be wrong afterwards.
  execute_process(COMMAND ${OBJCOPY} --redefine-syms=${object}.renamed --keep-global-symbols=${object}.global ${edits}
                          --remove-section .llvm_addrsig ${object} COMMAND_ERROR_IS_FATAL ANY)

  set(entries)
  set(number 0)
  foreach(function IN LISTS functions)
    string(APPEND declarations "void ${id}_${number}() __asm__(\"${function}.${id}\") "
                               "__attribute__((visibility(\"hidden\")));\n")
    list(APPEND entries ${id}_${number})
    math(EXPR number "${number} + 1")
  endforeach()
  list(JOIN entries ", " entries)
  string(APPEND tables "constexpr sotto::detail::Function ${id}_functions[] = {${entries}};\n")
  set(row "{\"${level}\", ${id}_functions")
  foreach(purpose IN ITEMS init fini)
    if(${purpose}_${id})
      list(JOIN ${purpose}_${id} ", " arrays)
      string(APPEND tables "constexpr std::span<sotto::detail::Function const> ${id}_${purpose}[] = {${arrays}};\n")
      string(APPEND row ", ${id}_${purpose}")
    else()
      string(APPEND row ", {}")
    endif()
  endforeach()
  string(APPEND rows "    ${row}},\n")
endforeach()

# Each function leads to where its slot points: first to what chooses a level. That keeps every register that an
# argument may be in, and an exception may pass it.
set(slots)
set(stubs)
set(number 0)
foreach(function IN LISTS first_functions)
  math(EXPR offset "8 * ${number}")
  string(APPEND slots "  .quad .Lfirst_${number}\n")
  string(APPEND stubs "  .globl ${function}\n")
  if(function IN_LIST hidden)
    string(APPEND stubs "  .hidden ${function}\n")
  endif()
  string(
    APPEND
    stubs
    "  .type ${function}, @function
${function}:
  endbr64
  jmp *sotto_${NAME}_functions+${offset}(%rip)
  .size ${function}, .-${function}
.Lfirst_${number}:
  endbr64
  leaq sotto_${NAME}_functions+${offset}(%rip), %r11
  jmp .Lchoose
")
  math(EXPR number "${number} + 1")
endforeach()

set(pushes)
set(pops)
foreach(reg IN ITEMS rdi rsi rdx rcx r8 r9 rax r10 r11)
  string(APPEND pushes "  pushq %${reg}\n  .cfi_adjust_cfa_offset 8\n")
  string(PREPEND pops "  popq %${reg}\n  .cfi_adjust_cfa_offset -8\n")
endforeach()
set(saves)
set(loads)
foreach(reg RANGE 7)
  math(EXPR offset "16 * ${reg}")
  string(APPEND saves "  movaps %xmm${reg}, ${offset}(%rsp)\n")
  string(APPEND loads "  movaps ${offset}(%rsp), %xmm${reg}\n")
endforeach()

file(
  WRITE ${FOLDER}/dispatch.cpp
  "// Written by sotto_add_model().
#include <sotto/dispatch.hpp>

extern \"C\" {
extern sotto::detail::Function sotto_${NAME}_functions[] __attribute__((visibility(\"hidden\")));
void sotto_${NAME}_choose() __attribute__((visibility(\"hidden\"), used));
${declarations}}

namespace {
${tables}constexpr sotto::detail::BuiltLevel built[] = {
${rows}};
}  // namespace

void sotto_${NAME}_choose() {
  static bool const chosen = (sotto::detail::enter_level(built, sotto_${NAME}_functions), true);
  static_cast<void>(chosen);
}

__asm__(R\"(
  .pushsection .data
  .balign 8
  .globl sotto_${NAME}_functions
  .hidden sotto_${NAME}_functions
sotto_${NAME}_functions:
${slots}  .popsection
  .pushsection .text
${stubs}.Lchoose:
  .cfi_startproc
${pushes}  subq $128, %rsp
  .cfi_adjust_cfa_offset 128
${saves}  call sotto_${NAME}_choose
${loads}  addq $128, %rsp
  .cfi_adjust_cfa_offset -128
${pops}  jmp *(%r11)
  .cfi_endproc
  .popsection
)\");
")
