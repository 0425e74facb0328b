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
