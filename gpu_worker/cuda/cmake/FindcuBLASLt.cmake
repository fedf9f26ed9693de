# CUBLAS::cublasLt and cuBLASLt_VERSION: the toolkit's own, the system's, or the wheel nvidia-cublas (which has libcublasLt.so.13 only;
# nvidia-cublas-cu12: .so.12). Never another CUDA's than the compiler's: a driver that knows only that one could not run it.
include(${CMAKE_CURRENT_LIST_DIR}/NvidiaWheels.cmake)
find_path(cuBLASLt_INCLUDE_DIR cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS} PATHS ${NVIDIA_WHEELS_FOUND}
  PATH_SUFFIXES include cu${CUDAToolkit_VERSION_MAJOR}/include cublas/include)
find_library(cuBLASLt_LIBRARY NAMES cublasLt libcublasLt.so.${CUDAToolkit_VERSION_MAJOR} HINTS ${CUDAToolkit_LIBRARY_DIR} PATHS ${NVIDIA_WHEELS_FOUND}
  PATH_SUFFIXES lib lib64 cu${CUDAToolkit_VERSION_MAJOR}/lib cublas/lib)
if(cuBLASLt_INCLUDE_DIR AND EXISTS ${cuBLASLt_INCLUDE_DIR}/cublas_api.h)
  foreach(part MAJOR MINOR PATCH)
    file(STRINGS ${cuBLASLt_INCLUDE_DIR}/cublas_api.h line REGEX "^#define CUBLAS_VER_${part} ")
    string(REGEX REPLACE ".*CUBLAS_VER_${part} +([0-9]+).*" "\\1" cuBLASLt_${part} "${line}")
  endforeach()
  set(cuBLASLt_VERSION ${cuBLASLt_MAJOR}.${cuBLASLt_MINOR}.${cuBLASLt_PATCH})
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(cuBLASLt REQUIRED_VARS cuBLASLt_LIBRARY cuBLASLt_INCLUDE_DIR VERSION_VAR cuBLASLt_VERSION)
if(cuBLASLt_FOUND AND NOT TARGET CUBLAS::cublasLt)
  add_library(CUBLAS::cublasLt UNKNOWN IMPORTED)
  set_target_properties(CUBLAS::cublasLt PROPERTIES IMPORTED_LOCATION ${cuBLASLt_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${cuBLASLt_INCLUDE_DIR})
endif()
mark_as_advanced(cuBLASLt_INCLUDE_DIR cuBLASLt_LIBRARY)
