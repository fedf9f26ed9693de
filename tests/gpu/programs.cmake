# What check.sh runs on a machine with a GPU: the tests of tests/cuda and the ops' speed over the module's own objects, and the
# ceilings of a card.
# Included where the CUDA language is known (gpu_worker/cuda).
find_library(CMOCKA_LIBRARY cmocka REQUIRED)
add_executable(bench_gpu ${PROJECT_SOURCE_DIR}/tests/gpu/bench_gpu.cu)
set_target_properties(bench_gpu PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
add_custom_target(gpu_kernels DEPENDS bench_gpu) # those that need no library of the server
foreach(name test_cuda_ops test_cuda_experts test_cuda_attention test_cuda_spans test_cuda_fp8 bench_ops test_cuda_sample test_cuda_ranks test_cuda_ahead_shared
        test_cuda_models_shared)
  if(name MATCHES "_shared$" AND NOT EXISTS ${PROJECT_SOURCE_DIR}/../shared/data)
    continue()
  endif()
  string(REPLACE test_cuda gpu program ${name})
  set(folder tests)
  set(sources ${PROJECT_SOURCE_DIR}/tests/cuda/${name}.c ${PROJECT_SOURCE_DIR}/tests/cuda/both.c
    ${PROJECT_SOURCE_DIR}/tests/cuda/rounding.c ${PROJECT_SOURCE_DIR}/tests/cuda/attention_world.c
    ${PROJECT_SOURCE_DIR}/tests/kernels/ops_world.c)
  if(name STREQUAL "bench_ops")
    set(folder bench)
    set(sources ${PROJECT_SOURCE_DIR}/tests/gpu/bench_ops.c)
  endif()
  add_executable(${program} ${sources} $<TARGET_OBJECTS:banyan_cuda>)
  set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/${folder} LINKER_LANGUAGE C)
  target_link_libraries(${program} PRIVATE room_cpu room_modelfile ${CMOCKA_LIBRARY} CUDA::cudart)
  if(name MATCHES "_(ops|experts|attention|spans|fp8)$")
    add_dependencies(gpu_kernels ${program})
  else()
    target_link_libraries(${program} PRIVATE room_gpu_worker room_models)
  endif()
  if(cuBLASLt_FOUND)
    target_link_libraries(${program} PRIVATE CUBLAS::cublasLt)
  endif()
  if(NCCL_FOUND)
    target_link_libraries(${program} PRIVATE NCCL::NCCL)
  endif()
  target_compile_definitions(${program} PRIVATE TEST_SHARED_DATA="${PROJECT_SOURCE_DIR}/../shared/data")
endforeach()
