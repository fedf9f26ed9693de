# The version of each way that a card must have shown to be right (proven.h): a hash of the sources that it is made of, so that
# what was shown of other sources counts no more. Written to `proven-ways` of the build for tests/gpu/check.sh, a line a way, and
# given to proven.c; to be included where that file is compiled.
set(proven_sources_windows tp_nccl.c ranks.cu)
set(proven_sources_fp8 large_f8.cu gemm_lt.c gemm.h mma.cuh device.cuh)
set(proven_sources_fp8-blocks ${proven_sources_fp8})
set(proven_sources_wgmma attention_wgmma.cu attention_rows.cuh attention.h wgmma.cuh copies.cuh mma.cuh device.cuh)
file(GLOB proven_sources_overlap RELATIVE ${PROJECT_SOURCE_DIR}/gpu_worker/cuda CONFIGURE_DEPENDS
  ${PROJECT_SOURCE_DIR}/gpu_worker/cuda/*.cu ${PROJECT_SOURCE_DIR}/gpu_worker/cuda/*.cuh
  ${PROJECT_SOURCE_DIR}/gpu_worker/cuda/port_cuda.c)
set(proven_ways)
foreach(way windows fp8 fp8-blocks wgmma overlap)
  set(hashes)
  foreach(source ${proven_sources_${way}})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/gpu_worker/cuda/${source})
    file(SHA256 ${PROJECT_SOURCE_DIR}/gpu_worker/cuda/${source} hash)
    string(APPEND hashes ${hash})
  endforeach()
  string(SHA256 hash "${hashes}")
  string(SUBSTRING ${hash} 0 12 hash)
  list(APPEND proven_ways "${way} ${hash}")
endforeach()
list(JOIN proven_ways "\n" text)
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/proven-ways "${text}\n")
list(JOIN proven_ways "," text)
set_property(SOURCE ${PROJECT_SOURCE_DIR}/gpu_worker/cuda/proven.c APPEND PROPERTY COMPILE_DEFINITIONS BANYAN_PROVEN_WAYS="${text}")
