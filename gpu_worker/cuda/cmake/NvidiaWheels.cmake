# Where NVIDIA's PyPI wheels may lie: folders that hold cu13/ and nccl/.
#   NVIDIA_WHEELS_FOUND   from -DNVIDIA_WHEELS or the environment, from deploy/setup.sh --cuda, from this machine's Python
#   NVIDIA_WHEELS_NVCC    a compiler among them
if(NOT DEFINED NVIDIA_WHEELS_FOUND)
  set(found ${NVIDIA_WHEELS} $ENV{NVIDIA_WHEELS})
  if(DEFINED ENV{XDG_CACHE_HOME})
    list(APPEND found $ENV{XDG_CACHE_HOME}/banyan/cuda/nvidia)
  elseif(DEFINED ENV{HOME})
    list(APPEND found $ENV{HOME}/.cache/banyan/cuda/nvidia)
  endif()
  find_package(Python3 QUIET COMPONENTS Interpreter)
  if(Python3_FOUND)
    execute_process(COMMAND ${Python3_EXECUTABLE} -c "import nvidia; print(';'.join(nvidia.__path__))"
      OUTPUT_VARIABLE of_python ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
    list(APPEND found ${of_python})
  endif()
  set(NVIDIA_WHEELS_FOUND ${found} CACHE INTERNAL "")
endif()
find_program(NVIDIA_WHEELS_NVCC NAMES nvcc PATHS ${NVIDIA_WHEELS_FOUND} PATH_SUFFIXES cu13/bin cuda_nvcc/bin NO_DEFAULT_PATH)
mark_as_advanced(NVIDIA_WHEELS_NVCC)
