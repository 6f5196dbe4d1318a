# What the extension manager shows must be there, and quoted: an unquoted address with a ";" or a
# space arrives in pieces.
foreach(field HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if("${EXTENSION_${field}}" STREQUAL "")
    _refuse("EXTENSION_${field} is not set")
  endif()
  list(LENGTH EXTENSION_${field} pieces)
  if(NOT pieces EQUAL 1)
    _refuse("EXTENSION_${field} falls into ${pieces} pieces")
  endif()
endforeach()
