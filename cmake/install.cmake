# `cmake --install` and find_package(sotto [COMPONENTS audio]).
include(CMakePackageConfigHelpers)

set(package_directory ${CMAKE_INSTALL_DATADIR}/cmake/sotto)
configure_package_config_file(cmake/sotto-config.cmake.in sotto-config.cmake
                              INSTALL_DESTINATION ${package_directory})
write_basic_package_version_file(sotto-config-version.cmake COMPATIBILITY SameMinorVersion
                                 ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/sotto-config.cmake
              ${PROJECT_BINARY_DIR}/sotto-config-version.cmake DESTINATION ${package_directory})

install(FILES cmake/sotto-cuda.cmake cmake/sotto-model.cmake cmake/sotto-dispatch.cmake
        DESTINATION ${package_directory})

install(TARGETS sotto_headers EXPORT sotto FILE_SET HEADERS FILE_SET kernels)
install(EXPORT sotto NAMESPACE sotto:: FILE sotto-targets.cmake DESTINATION ${package_directory})

# An export of its own, so that who does not ask for audio is never asked for its libraries.
install(TARGETS sotto_audio EXPORT sotto_audio FILE_SET HEADERS)
install(EXPORT sotto_audio NAMESPACE sotto:: FILE sotto-audio-targets.cmake
        DESTINATION ${package_directory})

install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/licenses/sotto)

# The program, and the speech of its demo.
if(SOTTO_BUILD_EXAMPLES)
  install(TARGETS sotto RUNTIME)
  install(DIRECTORY examples/data DESTINATION ${CMAKE_INSTALL_DATADIR}/sotto)
endif()
