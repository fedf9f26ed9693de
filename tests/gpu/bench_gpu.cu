/* The ceilings of a card, to which the figures of the same run are held: copy and read of device memory, an empty kernel in a
 * stream and in a graph, and the product of two bf16 matrices by the tile kernel's own instruction. Medians of 9.
 *
 *     bench_gpu [devices]        devices: what CUDA sees instead, a line each: "90 NVIDIA H100 80GB HBM3" */
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_runtime.h>
#include <functional>

#define CHECK(call) \
    do { \
        cudaError_t e_ = (call); \
        if (e_ != cudaSuccess) { \
            printf("%s: %s\n", #call, cudaGetErrorString(e_)); \
            exit(1); \
        } \
    } while (0)

static __global__ void read_kernel(const uint4 *p, size_t n, uint32_t *sink) {
    uint32_t x = 0;
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        uint4 v = p[i];
        x ^= v.x ^ v.y ^ v.z ^ v.w;
    }
    if (x == 0x12345678) *sink = x;
}

static __global__ void empty_kernel(uint32_t *sink) {
    if (blockIdx.x == 1u << 30) *sink = 0;
}

/* What the tensor cores give through mma.sync when nothing has to be loaded: 4 chains a warp. */
static __global__ void mma_kernel(uint32_t n, float *sink) {
    float d[4][4] = {};
    uint32_t a[4] = {threadIdx.x, 1, 2, 3}, b[2] = {4, threadIdx.x};
    for (uint32_t i = 0; i < n; i++)
        for (int k = 0; k < 4; k++)
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\n"
                         : "+f"(d[k][0]), "+f"(d[k][1]), "+f"(d[k][2]), "+f"(d[k][3])
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    if (d[0][0] == 1.5f) *sink = d[0][0] + d[1][1] + d[2][2] + d[3][3];
}

static double seconds(cudaStream_t s, const std::function<void()> &run) {
    cudaEvent_t from, to;
    float ms[9];
    CHECK(cudaEventCreate(&from));
    CHECK(cudaEventCreate(&to));
    run();
    for (float &t : ms) {
        CHECK(cudaEventRecord(from, s));
        run();
        CHECK(cudaEventRecord(to, s));
        CHECK(cudaEventSynchronize(to));
        CHECK(cudaEventElapsedTime(&t, from, to));
    }
    std::sort(ms, ms + 9);
    return ms[4] / 1e3;
}

static void list_devices(void) {
    cudaDeviceProp prop;
    int n = 0;
    CHECK(cudaGetDeviceCount(&n));
    for (int i = 0; i < n; i++) {
        CHECK(cudaGetDeviceProperties(&prop, i));
        printf("%d%d %s\n", prop.major, prop.minor, prop.name);
    }
}

int main(int argc, char **argv) {
    cudaDeviceProp prop;
    if (argc > 1 && strcmp(argv[1], "devices") == 0) {
        list_devices();
        return 0;
    }
    CHECK(cudaGetDeviceProperties(&prop, 0));
    const size_t bytes = std::min<size_t>((size_t)4 << 30, prop.totalGlobalMem / 4);
    uint8_t *a, *b;
    uint32_t *sink;
    cudaStream_t s;
    CHECK(cudaStreamCreate(&s));
    CHECK(cudaMalloc(&a, bytes));
    CHECK(cudaMalloc(&b, bytes));
    CHECK(cudaMalloc(&sink, 64));
    CHECK(cudaMemset(a, 1, bytes));
    const int n_blocks = prop.multiProcessorCount * 8;
    double copy = seconds(s, [&] { CHECK(cudaMemcpyAsync(b, a, bytes, cudaMemcpyDeviceToDevice, s)); });
    double read = seconds(s, [&] { read_kernel<<<n_blocks, 256, 0, s>>>((const uint4 *)a, bytes / 16, sink); });
    const uint32_t n_mma = 20000;
    double mma = seconds(s, [&] { mma_kernel<<<prop.multiProcessorCount * 4, 128, 0, s>>>(n_mma, (float *)sink); });
    double plain = seconds(s, [&] { for (int i = 0; i < 1000; i++) empty_kernel<<<1, 32, 0, s>>>(sink); });
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < 1000; i++)
        empty_kernel<<<1, 32, 0, s>>>(sink);
    CHECK(cudaStreamEndCapture(s, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    double replay = seconds(s, [&] { CHECK(cudaGraphLaunch(exec, s)); });
    printf("%s, sm_%d%d, %d processors\n", prop.name, prop.major, prop.minor, prop.multiProcessorCount);
    printf("copy (read + written)   %8.2f TB/s\n", 2e-12 * (double)bytes / copy);
    printf("read                    %8.2f TB/s\n", 1e-12 * (double)bytes / read);
    printf("bf16 by mma.sync        %8.1f TFLOP/s\n", 1e-12 * prop.multiProcessorCount * 4 * 4 * 4.0 * n_mma * 2 * 16 * 8 * 16 / mma);
    printf("a kernel in a stream    %8.2f us\n", plain * 1e3);
    printf("a kernel in a graph     %8.2f us\n", replay * 1e3);
    CHECK(cudaGetLastError());
    return 0;
}
