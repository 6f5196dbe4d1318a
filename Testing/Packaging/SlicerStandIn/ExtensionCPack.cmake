# Slicer refuses to package an extension without these two files; then it describes it.
foreach(file README.md LICENSE)
  if(NOT EXISTS ${CMAKE_SOURCE_DIR}/${file})
    _refuse("${file} is missing")
  endif()
endforeach()

set(description "")
foreach(field HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  string(APPEND description "${field} ${EXTENSION_${field}}\n")
endforeach()
file(WRITE ${CMAKE_BINARY_DIR}/${PROJECT_NAME}.s4ext "${description}")
install(FILES ${CMAKE_BINARY_DIR}/${PROJECT_NAME}.s4ext
  DESTINATION share/Slicer-${Slicer_VERSION} COMPONENT RuntimeLibraries)
