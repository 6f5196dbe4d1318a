# The macros of Slicer and CTK that a scripted extension calls. Each refuses what the real one
# refuses, and also what the real one takes in silence and regrets: a folder for a file, a file
# listed twice, a target named twice, a module without its own script.
include(CTest)

function(_refuse)
  string(CONCAT text ${ARGV})
  message(FATAL_ERROR "stand-in: ${text}")
endfunction()

# Splits ARGN into MY_<keyword>; a macro, so that the variables are the caller's.
macro(_parse command options oneValueArgs multiValueArgs required)
  cmake_parse_arguments(MY "${options}" "${oneValueArgs}" "${multiValueArgs}" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    _refuse("${command} does not know: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  list(REMOVE_ITEM MY_KEYWORDS_MISSING_VALUES RESOURCES)
  if(MY_KEYWORDS_MISSING_VALUES)
    _refuse("${command} got nothing for: ${MY_KEYWORDS_MISSING_VALUES}")
  endif()
  foreach(keyword ${required})
    if(NOT MY_${keyword})
      _refuse("${command} needs ${keyword}")
    endif()
  endforeach()
endmacro()

# The files of a list as Slicer reads it: relative to the folder, ".py" may be left out.
function(_listed_files command folder entries result)
  set(files)
  foreach(entry IN LISTS entries)
    if(IS_ABSOLUTE ${entry})
      _refuse("${command}: ${entry} is absolute, and would be copied to a wrong place")
    endif()
    if(NOT EXISTS ${folder}/${entry} AND EXISTS ${folder}/${entry}.py)
      set(entry ${entry}.py)
    endif()
    if(NOT EXISTS ${folder}/${entry} OR IS_DIRECTORY ${folder}/${entry})
      _refuse("${command} lists ${entry}, which is no file in ${folder}")
    endif()
    if(entry IN_LIST files)
      _refuse("${command} lists ${entry} twice")
    endif()
    list(APPEND files ${entry})
  endforeach()
  set(${result} ${files} PARENT_SCOPE)
endfunction()

# CTK copies at build time, then byte-compiles; the copy here is made at configuration, so that no
# build tool is needed. As in CTK, what is installed is the folder that was copied to.
function(ctkMacroCompilePythonScript)
  _parse(ctkMacroCompilePythonScript "NO_INSTALL_SUBDIR;GLOBAL_TARGET"
    "TARGET_NAME;SOURCE_DIR;DESTINATION_DIR;INSTALL_DIR" "SCRIPTS;RESOURCES"
    "TARGET_NAME;SCRIPTS;DESTINATION_DIR;INSTALL_DIR" ${ARGN})
  if(TARGET Copy${MY_TARGET_NAME}PythonScriptFiles)
    _refuse("the target ${MY_TARGET_NAME} exists; CTK would drop the second one's files silently")
  endif()
  add_custom_target(Copy${MY_TARGET_NAME}PythonScriptFiles)
  if(NOT MY_SOURCE_DIR)
    set(MY_SOURCE_DIR ${CMAKE_CURRENT_SOURCE_DIR})
  endif()
  _listed_files("${MY_TARGET_NAME} SCRIPTS" ${MY_SOURCE_DIR} "${MY_SCRIPTS}" scripts)
  _listed_files("${MY_TARGET_NAME} RESOURCES" ${MY_SOURCE_DIR} "${MY_RESOURCES}" resources)
  foreach(script IN LISTS scripts)
    if(NOT script MATCHES "\\.py$")
      _refuse("${script} is listed among the SCRIPTS of ${MY_TARGET_NAME}")
    endif()
  endforeach()
  foreach(file IN LISTS scripts resources)
    configure_file(${MY_SOURCE_DIR}/${file} ${MY_DESTINATION_DIR}/${file} COPYONLY)
  endforeach()
  if(MY_NO_INSTALL_SUBDIR)
    string(APPEND MY_DESTINATION_DIR /)
  endif()
  install(DIRECTORY ${MY_DESTINATION_DIR} DESTINATION ${MY_INSTALL_DIR}
    COMPONENT RuntimeLibraries USE_SOURCE_PERMISSIONS)
endfunction()

function(slicerMacroBuildScriptedModule)
  _parse(slicerMacroBuildScriptedModule "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME"
    "SCRIPTS;RESOURCES" "NAME;SCRIPTS" ${ARGN})
  _listed_files("${MY_NAME} SCRIPTS" ${CMAKE_CURRENT_SOURCE_DIR} "${MY_SCRIPTS}" scripts)
  if(NOT ${MY_NAME}.py IN_LIST scripts)
    _refuse("${MY_NAME}.py is missing among the SCRIPTS of ${MY_NAME}")
  endif()
  set(subdir)
  set(no_subdir NO_INSTALL_SUBDIR)
  if(MY_WITH_SUBDIR)
    get_filename_component(subdir ${CMAKE_CURRENT_SOURCE_DIR} NAME)
    set(no_subdir)
  endif()
  set(generic_tests ${MY_WITH_GENERIC_TESTS})
  set(name ${MY_NAME})
  ctkMacroCompilePythonScript(
    TARGET_NAME ${MY_NAME}
    SCRIPTS "${MY_SCRIPTS}"
    RESOURCES "${MY_RESOURCES}"
    DESTINATION_DIR ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}/${subdir}
    INSTALL_DIR ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}
    ${no_subdir})
  if(BUILD_TESTING AND generic_tests)
    set(generic qSlicer${name}ModuleGenericTest)
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/${generic}.py "# Slicer makes this one from a template.\n")
    slicer_add_python_unittest(SCRIPT ${generic}.py TESTNAME_PREFIX nomainwindow_
      SLICER_ARGS --no-main-window --disable-cli-modules)
  endif()
endfunction()

# The same names and command lines as Slicer's, for a Slicer that is not there: `ctest -N` shows them.
function(slicer_add_python_unittest)
  _parse(slicer_add_python_unittest "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" "SCRIPT" ${ARGN})
  if(NOT BUILD_TESTING)
    _refuse("${MY_SCRIPT} is registered as a test although BUILD_TESTING is off")
  endif()
  if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT}
     AND NOT EXISTS ${CMAKE_CURRENT_BINARY_DIR}/${MY_SCRIPT})
    _refuse("slicer_add_python_unittest: there is no ${MY_SCRIPT} in ${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
  get_filename_component(name ${MY_SCRIPT} NAME_WE)
  set(folders "['${CMAKE_CURRENT_BINARY_DIR}', '${CMAKE_CURRENT_SOURCE_DIR}']")
  add_test(
    NAME py_${MY_TESTNAME_PREFIX}${name}
    COMMAND ${Slicer_LAUNCHER_EXECUTABLE} --no-splash --testing ${MY_SLICER_ARGS}
      --additional-module-paths ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}
      --python-code
      "import slicer.testing; slicer.testing.runUnitTest(${folders}, '${name}')")
endfunction()
