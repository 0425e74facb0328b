# The Python generator targets that prebuilt message packages export can name include folders of the machine they
# were built on; CMake refuses to configure against a folder that is not there. Dropping those entries is safe:
# the Python and NumPy headers of this machine are found on their own.
#
# drop_missing_include_dirs(<package>...)
function(drop_missing_include_dirs)
  foreach(_package IN LISTS ARGN)
    set(_target ${_package}::${_package}__rosidl_generator_py)
    if(NOT TARGET ${_target})
      continue()
    endif()
    get_target_property(_all ${_target} INTERFACE_INCLUDE_DIRECTORIES)
    set(_there "")
    foreach(_dir IN LISTS _all)
      if(_dir MATCHES "^\\$<" OR EXISTS "${_dir}")
        list(APPEND _there "${_dir}")
      endif()
    endforeach()
    set_target_properties(${_target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_there}")
  endforeach()
endfunction()

# An exported target must not name a folder inside the source tree, and a virtual environment in the tree is one:
# such folders (NumPy's headers) are needed to build, not by who uses the built package.
#
# build_only_include_dirs(<target>)
function(build_only_include_dirs _target)
  get_target_property(_all ${_target} INTERFACE_INCLUDE_DIRECTORIES)
  set(_marked "")
  foreach(_dir IN LISTS _all)
    string(FIND "${_dir}" "${CMAKE_CURRENT_SOURCE_DIR}/" _at)
    if(_at EQUAL 0)
      list(APPEND _marked "$<BUILD_INTERFACE:${_dir}>")
    else()
      list(APPEND _marked "${_dir}")
    endif()
  endforeach()
  set_target_properties(${_target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_marked}")
endfunction()
