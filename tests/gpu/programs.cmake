# What check.sh runs on a machine with a GPU: the tests of tests/cuda over the module's own objects, and the ceilings of a card.
# Included where the CUDA language is known (gpu_worker/cuda).
find_library(CMOCKA_LIBRARY cmocka REQUIRED)
add_executable(bench_gpu ${PROJECT_SOURCE_DIR}/tests/gpu/bench_gpu.cu)
set_target_properties(bench_gpu PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
foreach(name test_cuda_ops test_cuda_sample test_cuda_models_shared)
  if(name MATCHES "_shared$" AND NOT EXISTS ${PROJECT_SOURCE_DIR}/../shared/data)
    continue()
  endif()
  string(REPLACE test_cuda gpu program ${name})
  add_executable(${program} ${PROJECT_SOURCE_DIR}/tests/cuda/${name}.c ${PROJECT_SOURCE_DIR}/tests/kernels/ops_world.c
    $<TARGET_OBJECTS:banyan_cuda>)
  set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests LINKER_LANGUAGE C)
  target_link_libraries(${program} PRIVATE room_gpu_worker room_models room_cpu ${CMOCKA_LIBRARY} CUDA::cudart)
  if(NCCL_FOUND)
    target_link_libraries(${program} PRIVATE NCCL::NCCL)
  endif()
  target_compile_definitions(${program} PRIVATE TEST_SHARED_DATA="${PROJECT_SOURCE_DIR}/../shared/data")
endforeach()
