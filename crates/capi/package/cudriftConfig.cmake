# cudrift::cudrift is the shared library, cudrift::static the other.
get_filename_component(_cudrift_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET cudrift::cudrift)
  add_library(cudrift::cudrift SHARED IMPORTED)
  set_target_properties(cudrift::cudrift PROPERTIES
    IMPORTED_LOCATION "${_cudrift_prefix}/lib/libcudrift.so"
    IMPORTED_SONAME "libcudrift.so"
    INTERFACE_INCLUDE_DIRECTORIES "${_cudrift_prefix}/include")
  add_library(cudrift::static STATIC IMPORTED)
  set_target_properties(cudrift::static PROPERTIES
    IMPORTED_LOCATION "${_cudrift_prefix}/lib/libcudrift.a"
    INTERFACE_LINK_LIBRARIES "gcc_s;util;rt;pthread;m;dl"
    INTERFACE_INCLUDE_DIRECTORIES "${_cudrift_prefix}/include")
endif()
unset(_cudrift_prefix)
