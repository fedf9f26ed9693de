/* device.cuh - the words that kernels are written in. Two bodies: nvcc's below, and the emulator's (tests/cuda/emu.h, which
 * the compiler includes first): the same text of a kernel is compiled by both.
 *
 *     struct add { float *x; uint32_t n; };
 *     static __global__ void add_kernel(const struct add a) { … }
 *     LAUNCH(c, add_kernel, a, GRID(n, 1, 1), 128, shared bytes)
 *
 * Always: one struct is a kernel's only argument; blocks are whole warps; shared memory is SHARED alone, sized at launch.
 * Owner: nobody. */
#ifndef GPU_WORKER_CUDA_DEVICE_CUH
#define GPU_WORKER_CUDA_DEVICE_CUH

#include "gpu_worker/cuda/cuda.h"
#include "gpu_worker/cuda/products.h"

#if !defined(BANYAN_CUDA_EMU)
#define SHARED(type, name) \
    extern __shared__ __align__(16) unsigned char shared_bytes_[]; \
    type *name = (type *)shared_bytes_
#define KERNEL_SYMBOL(kernel, args) ((const void *)(kernel))

static __device__ __forceinline__ float f16_to_f32(uint16_t h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

static __device__ __forceinline__ uint16_t f32_to_f16(float f) {
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

static __device__ __forceinline__ float as_f32(uint32_t u) {
    return __uint_as_float(u);
}

static __device__ __forceinline__ uint32_t as_u32(float f) {
    return __float_as_uint(f);
}

/* A kernel's first word; what it does before may touch nothing that kernels before it write. The next kernel may come up from
 * here on, beside this one, as far as its own begin: there it waits until all before it is done (programmatic dependent launch,
 * where port_cuda.c asks for it). */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
static __device__ __forceinline__ void begin(void) {
    asm volatile("griddepcontrol.launch_dependents;\n\tgriddepcontrol.wait;" ::: "memory");
}
#else
static __device__ __forceinline__ void begin(void) {
}
#endif

/* Brings 128 bytes nearer, of memory that no kernel writes. */
static __device__ __forceinline__ void prefetch(const uint8_t *at) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}

/* 2^x by one instruction, to 2 in 2^23; what is too small for a normal number is zero. */
static __device__ __forceinline__ float exp2_near(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

#define GRID(x, y, z) \
    { (uint32_t)(x), (uint32_t)(y), (uint32_t)(z) }
#define LAUNCH(c, kernel_, args_, grid_, block_, shared_) \
    do { \
        struct port_launch launch_; \
        const uint32_t grid3_[3] = grid_; \
        memset(&launch_, 0, sizeof launch_); \
        launch_.kernel = KERNEL_SYMBOL(kernel_, args_); \
        for (int i_ = 0; i_ < 3; i_++) \
            launch_.grid[i_] = grid3_[i_]; \
        launch_.block = (block_); \
        launch_.shared_bytes = (uint32_t)(shared_); \
        launch_.n_args = sizeof(args_); \
        queue_add((c)->queue, &launch_, &(args_)); \
    } while (0)

static __device__ __forceinline__ float bf16_to_f32(uint16_t h) {
    return as_f32((uint32_t)h << 16);
}

/* Nearest, ties to even; NaN stays NaN. */
static __device__ __forceinline__ uint16_t f32_to_bf16(float f) {
    uint32_t b = as_u32(f);
    if ((b & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((b >> 16) | 0x40);
    return (uint16_t)((b + 0x7fffu + ((b >> 16) & 1)) >> 16);
}

/* Sum and maximum over a warp, the same bits in every lane: x + y and y + x are. */
static __device__ __forceinline__ float warp_sum(float v) {
    for (int d = 16; d; d >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, d);
    return v;
}

static __device__ __forceinline__ float warp_max(float v) {
    for (int d = 16; d; d >>= 1)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, d));
    return v;
}

/* Over a block of up to 32 warps; room: 33 floats of shared memory. Every thread calls it. */
static __device__ __forceinline__ float block_sum(float v, float *room) {
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, n = blockDim.x / 32;
    v = warp_sum(v);
    __syncthreads(); /* the room may still be read */
    if (lane == 0) room[warp] = v;
    __syncthreads();
    return warp_sum(lane < n ? room[lane] : 0);
}

/* Threads of a block that goes over a row of n numbers: each has four of them to load, if that many threads there may be. */
static inline uint32_t threads_for(uint32_t n) {
    return BY_MIN(BY_ALIGN_UP(BY_DIV_UP(n, 4u), 32u), 1024u);
}

static __device__ __forceinline__ float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

static __device__ __forceinline__ float softplus(float x) {
    return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
}

static __device__ __forceinline__ float activate(enum act_kind act, float x) {
    switch (act) {
    case ACT_SILU:
        return x * sigmoid(x);
    case ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case ACT_RELU:
        return fmaxf(x, 0.0f);
    case ACT_RELU2:
        return fmaxf(x, 0.0f) * fmaxf(x, 0.0f);
    case ACT_QUICK_GELU:
        return x * sigmoid(1.702f * x);
    case ACT_TANH:
        return tanhf(x);
    default:
        return x;
    }
}

static __device__ __forceinline__ float activate_gated(enum act_kind act, float gate, float up) {
    if (act != ACT_SWIGLU_OAI) return activate(act, gate) * up;
    gate = fminf(gate, 7.0f);
    up = fminf(fmaxf(up, -7.0f), 7.0f);
    return gate * sigmoid(1.702f * gate) * (up + 1.0f);
}

/* ---- what follows a sum of products ---- */

static __device__ __forceinline__ void finish(const struct epilogue &e, uint32_t row, uint32_t out,
                                              float v) {
    float *y = e.y + (size_t)row * e.ld + e.col + out;
    v *= e.scale;
    if (e.is_add) v += *y;
    if (e.softcap > 0) v = e.softcap * tanhf(v / e.softcap);
    *y = v;
}

static __device__ __forceinline__ void finish_one(const struct epilogue &e, uint32_t row,
                                                  uint32_t out, float sum) {
    finish(e, row, out, activate(e.act, sum + (e.bias ? e.bias[out] : 0)));
}

/* Weight rows 2 out and 2 out + 1. */
static __device__ __forceinline__ void finish_pair(const struct epilogue &e, uint32_t row,
                                                   uint32_t out, float gate, float up) {
    gate += e.bias ? e.bias[2 * out] : 0;
    up += e.bias ? e.bias[2 * out + 1] : 0;
    finish(e, row, out, activate_gated(e.act, gate, up));
}

/* ---- eight columns of a weight row, from a column that is a multiple of 8 ---- */

static __device__ __forceinline__ void halves(uint32_t v, bool is_bf16, float *out) {
    out[0] = is_bf16 ? as_f32(v << 16) : f16_to_f32((uint16_t)v);
    out[1] = is_bf16 ? as_f32(v & 0xffff0000u) : f16_to_f32((uint16_t)(v >> 16));
}

/* Small floats have their exponent where f16 has it: moved there, all that is missing is a power of two. */
static __device__ __forceinline__ float e4m3(uint32_t v) {
    return 256.0f * f16_to_f32((uint16_t)((v & 0x7f) << 7 | (v & 0x80) << 8));
}

/* Nearest, ties to even, no further than 448; NaN stays NaN. */
static __device__ __forceinline__ uint8_t f32_to_e4m3(float f) {
    uint32_t sign = as_u32(f) >> 24 & 0x80, b = as_u32(f) & 0x7fffffffu;
    if (b > 0x7f800000u) return (uint8_t)(sign | 0x7f);
    if (b >= 0x43e00000u) return (uint8_t)(sign | 0x7e);                               /* 448 */
    if (b < 0x3c800000u) return (uint8_t)(sign | (uint32_t)rintf(as_f32(b) * 512.0f)); /* 2^-6 */
    return (uint8_t)(sign | (((b + 0x7ffffu + (b >> 20 & 1)) >> 20) - (120 << 3)));
}

static __device__ __forceinline__ float e2m1(uint32_t v) {
    return 16384.0f * f16_to_f32((uint16_t)((v & 7) << 9 | (v & 8) << 12));
}

/* Eight numbers of four bits (of five: the fifths are in `high`), whose block has d and m. */
template <int F>
static __device__ __forceinline__ void nibbles_load(uint32_t v, uint32_t word, uint32_t high,
                                                    float *out) {
    float d = f16_to_f32((uint16_t)word), m = f16_to_f32((uint16_t)(word >> 16));
    for (int i = 0; i < 8; i++) {
        uint32_t q = v >> (4 * i) & 15;
        if (F == CUDA_Q5) q |= (high >> i & 1) << 4;
        if (F == CUDA_F4)
            out[i] = as_f32(word) * e2m1(q);
        else if (F == CUDA_Z4)
            out[i] = d * ((float)q - m);
        else
            out[i] = fmaf(d, (float)q, m);
    }
}

static constexpr struct cuda_layout cuda_layouts[] = {CUDA_FORMATS(CUDA_FORMAT_LAYOUT, )};

/* The levels of eight numbers of four bits: bytes are picked from the lower and the upper eight, and of these by the top bit. */
static __device__ __forceinline__ void levels_of(uint4 levels, uint32_t q, uint32_t out[2]) {
    const uint32_t choice = 0x32103210 | (q & 0x88888888) >> 1;
    for (int i = 0; i < 2; i++) {
        uint32_t lower = __byte_perm(levels.x, levels.y, q >> (16 * i)),
                 upper = __byte_perm(levels.z, levels.w, q >> (16 * i));
        out[i] = __byte_perm(lower, upper, choice >> (16 * i));
    }
}

/* d * levels[q]; the row's levels stand at `scales`. */
static __device__ __forceinline__ void levels_load(const uint8_t *scales, uint32_t q, float d,
                                                   float *out) {
    uint32_t four[2];
    levels_of(*(const uint4 *)scales, q, four);
    for (int i = 0; i < 8; i++)
        out[i] = d * (float)(int8_t)(four[i / 4] >> (8 * (i % 4)));
}

/* Of super-blocks. Numbers of 3, 5 and 6 bits are in two parts, one behind the other: the low 2, 4 and 4 bits of the whole row,
 * then what is above them. */
template <int F>
static __device__ __forceinline__ void super_load(const uint8_t *row, uint32_t scale_at, uint32_t k,
                                                  float *out) {
    enum {
        BITS = cuda_layouts[F].bits,
        LOW = BITS < 4 ? 2 : 4,
        HIGH = BITS - LOW,
        BIAS = F == CUDA_Q3_K   ? 4
               : F == CUDA_Q6_K ? 32
                                : 0,
        HEAD = F == CUDA_L4_K ? 16 : 0,
    };
    const uint8_t *block = row + scale_at + HEAD + k / 256 * cuda_layouts[F].scale_bytes,
                  *scale = block + 4 + k % 256 / 16, *highs = row + scale_at / BITS * LOW;
    const uint32_t dm = *(const uint32_t *)block;
    const uint32_t low =
        LOW == 4 ? *(const uint32_t *)(row + k / 2) : *(const uint16_t *)(row + k / 4);
    float s = f16_to_f32((uint16_t)dm), m = -f16_to_f32((uint16_t)(dm >> 16));
    uint32_t high = 0;
    if (F == CUDA_L4_K) {
        levels_load(row + scale_at, low, as_f32(dm) * (float)(int8_t)*scale, out);
        return;
    }
    if (F == CUDA_Q4_K || F == CUDA_Q5_K) {
        uint32_t both = *(const uint16_t *)(block + 4 + k % 256 / 32 * 2);
        s *= (float)(both & 255), m *= (float)(both >> 8);
    } else if (F == CUDA_Q2_K) {
        s *= (float)(*scale & 15), m *= (float)(*scale >> 4);
    } else {
        s *= (float)(int8_t)*scale, m = 0;
    }
    if (HIGH == 2) high = *(const uint16_t *)(highs + k / 4);
    if (HIGH == 1) high = highs[k / 8];
    for (int i = 0; i < 8; i++) {
        uint32_t q = low >> (LOW * i) & ((1u << LOW) - 1);
        if (HIGH > 0) q |= (high >> (HIGH * i) & ((1u << HIGH) - 1)) << LOW;
        out[i] = fmaf(s, (float)((int)q - BIAS), m);
    }
}

template <int F>
static __device__ __forceinline__ void weight_load(const uint8_t *row, uint32_t scale_at,
                                                   uint32_t k, float *out) {
    if (F == CUDA_F32) {
        const float4 *p = (const float4 *)(row + 4 * (size_t)k);
        float4 a = p[0], b = p[1];
        out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
        out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
    } else if (F == CUDA_BF16 || F == CUDA_F16) {
        uint4 v = *(const uint4 *)(row + 2 * (size_t)k);
        halves(v.x, F == CUDA_BF16, out);
        halves(v.y, F == CUDA_BF16, out + 2);
        halves(v.z, F == CUDA_BF16, out + 4);
        halves(v.w, F == CUDA_BF16, out + 6);
    } else if (CUDA_FORMAT_IS_K(F)) {
        super_load<F>(row, scale_at, k, out);
    } else if (F == CUDA_L4) {
        uint16_t d = *(const uint16_t *)(row + scale_at + 16 + k / 32 * 2);
        levels_load(row + scale_at, *(const uint32_t *)(row + k / 2), f16_to_f32(d), out);
    } else if (F == CUDA_Q5) {
        uint2 block = *(const uint2 *)(row + scale_at + k / 32 * 8);
        nibbles_load<F>(*(const uint32_t *)(row + k / 2), block.x, block.y >> k % 32, out);
    } else if (F == CUDA_Q4 || F == CUDA_Z4 || F == CUDA_F4) {
        nibbles_load<F>(*(const uint32_t *)(row + k / 2),
                        *(const uint32_t *)(row + scale_at + k / 32 * 4), 0, out);
    } else if (F == CUDA_F8) {
        uint2 v = *(const uint2 *)(row + k);
        float s = *(const float *)(row + scale_at + k / 32 * 4);
        for (int i = 0; i < 4; i++) {
            out[i] = s * e4m3(v.x >> (8 * i));
            out[4 + i] = s * e4m3(v.y >> (8 * i));
        }
    } else {
        uint2 v = *(const uint2 *)(row + k);
        float s = f16_to_f32(*(const uint16_t *)(row + scale_at + k / 32 * 2));
        for (int i = 0; i < 4; i++) {
            out[i] = s * (float)(int8_t)(v.x >> (8 * i));
            out[4 + i] = s * (float)(int8_t)(v.y >> (8 * i));
        }
    }
}

/* ---- eight columns of a key or value, from a column that is a multiple of 8; their scale is not in them ---- */

template <int T>
static __device__ __forceinline__ void kv_load(const uint8_t *at, uint32_t d, float *out) {
    if (T == KV_F32) {
        const float4 *p = (const float4 *)(at + 4 * (size_t)d);
        float4 a = p[0], b = p[1];
        out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
        out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
    } else if (CUDA_KV_IS_SCALED(T)) {
        uint2 v = *(const uint2 *)(at + d);
        for (int i = 0; i < 4; i++) {
            uint32_t low = v.x >> (8 * i), high = v.y >> (8 * i);
            out[i] = T == KV_FP8 ? e4m3(low) : (float)(int8_t)low;
            out[4 + i] = T == KV_FP8 ? e4m3(high) : (float)(int8_t)high;
        }
    } else {
        uint4 v = *(const uint4 *)(at + 2 * (size_t)d);
        halves(v.x, T == KV_BF16, out);
        halves(v.y, T == KV_BF16, out + 2);
        halves(v.z, T == KV_BF16, out + 4);
        halves(v.w, T == KV_BF16, out + 6);
    }
}

/* Runs a statement with the constant F for a weight's format. */
#define BY_FORMAT_CASE(name, bits, block, scale_bytes, ...) \
    case CUDA_##name: { \
        const int F = CUDA_##name; \
        __VA_ARGS__; \
        break; \
    }
#define BY_FORMATS(format_, ...) \
    do { \
        switch (format_) { \
            CUDA_FORMATS(BY_FORMAT_CASE, __VA_ARGS__) \
        case CUDA_N_FORMATS: \
            break; \
        } \
    } while (0)

#endif
