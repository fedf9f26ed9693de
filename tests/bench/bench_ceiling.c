/* What this machine could do at most: bytes read a second, and multiplications a second with the instructions the engine uses.
 *
 *     bench_ceiling [threads]        the lines that other figures are divided by; the fastest of some repeats */
#include "tests/bench/bench.h"

#include <immintrin.h>
#include <pthread.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/proc.h"

enum { READ_BYTES = 256 << 20, REPEATS = 9, LOOPS = 1 << 20, THREADS_MAX = 256 };

static struct {
    uint8_t *bytes;
    size_t n_each;
    int kernel;
    volatile uint64_t sink;
} shared;

__attribute__((target("avx2"))) static uint64_t read_all(const uint8_t *p, size_t n) {
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (size_t i = 0; i < n; i += 128) {
        a = _mm256_xor_si256(a, _mm256_load_si256((const void *)(p + i)));
        b = _mm256_xor_si256(b, _mm256_load_si256((const void *)(p + i + 32)));
        c = _mm256_xor_si256(c, _mm256_load_si256((const void *)(p + i + 64)));
        d = _mm256_xor_si256(d, _mm256_load_si256((const void *)(p + i + 96)));
    }
    a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
    return (uint64_t)_mm256_extract_epi64(a, 0) ^ (uint64_t)_mm256_extract_epi64(a, 3);
}

/* Each loop is 12 independent chains of one instruction: nothing but that instruction limits it. */
#define CHAINS(op) \
    do { \
        _Pragma("GCC unroll 12") for (int k = 0; k < 12; k++) acc[k] = op; \
        __asm__ volatile("" : "+x"(x)); \
    } while (0)

__attribute__((target("avx2,fma"))) static uint64_t fma256(void) {
    __m256 acc[12], x = _mm256_set1_ps(1.0f);
    for (int k = 0; k < 12; k++)
        acc[k] = _mm256_set1_ps((float)k);
    for (int i = 0; i < LOOPS; i++)
        CHAINS(_mm256_fmadd_ps(x, x, acc[k]));
    float out[8], sum = 0;
    for (int k = 0; k < 12; k++) {
        _mm256_storeu_ps(out, acc[k]);
        sum += out[0];
    }
    return (uint64_t)sum;
}

__attribute__((target("avx2"))) static uint64_t maddubs256(void) {
    __m256i acc[12], x = _mm256_set1_epi8(1);
    for (int k = 0; k < 12; k++)
        acc[k] = _mm256_set1_epi8((char)k);
    for (int i = 0; i < LOOPS; i++)
        CHAINS(_mm256_maddubs_epi16(acc[k], x));
    uint64_t sum = 0;
    for (int k = 0; k < 12; k++)
        sum += (uint64_t)_mm256_extract_epi64(acc[k], 0);
    return sum;
}

__attribute__((target("avx512f"))) static uint64_t fma512(void) {
    __m512 acc[12], x = _mm512_set1_ps(1.0f);
    for (int k = 0; k < 12; k++)
        acc[k] = _mm512_set1_ps((float)k);
    for (int i = 0; i < LOOPS; i++)
        CHAINS(_mm512_fmadd_ps(x, x, acc[k]));
    float sum = 0;
    for (int k = 0; k < 12; k++)
        sum += _mm512_cvtss_f32(acc[k]);
    return (uint64_t)sum;
}

__attribute__((target("avx512f,avx512vnni"))) static uint64_t vnni512(void) {
    __m512i acc[12], x = _mm512_set1_epi8(1);
    for (int k = 0; k < 12; k++)
        acc[k] = _mm512_set1_epi32(k);
    for (int i = 0; i < LOOPS; i++)
        CHAINS(_mm512_dpbusd_epi32(acc[k], x, x));
    uint64_t sum = 0;
    for (int k = 0; k < 12; k++)
        sum += (uint64_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(acc[k]));
    return sum;
}

__attribute__((target("avx512f,avx512bf16"))) static uint64_t bf16_512(void) {
    __m512 acc[12];
    __m512i x = _mm512_set1_epi16(0x3f80);
    for (int k = 0; k < 12; k++)
        acc[k] = _mm512_set1_ps((float)k);
    for (int i = 0; i < LOOPS; i++)
        CHAINS(_mm512_dpbf16_ps(acc[k], (__m512bh)x, (__m512bh)x));
    float sum = 0;
    for (int k = 0; k < 12; k++)
        sum += _mm512_cvtss_f32(acc[k]);
    return (uint64_t)sum;
}

enum { READ, FMA256, MADDUBS256, FMA512, VNNI512, BF16_512 };

static void *work(void *arg) {
    size_t i = (size_t)arg;
    uint64_t x = 0;
    if (shared.kernel == READ) x = read_all(shared.bytes + i * shared.n_each, shared.n_each);
    if (shared.kernel == FMA256) x = fma256();
    if (shared.kernel == MADDUBS256) x = maddubs256();
    if (shared.kernel == FMA512) x = fma512();
    if (shared.kernel == VNNI512) x = vnni512();
    if (shared.kernel == BF16_512) x = bf16_512();
    shared.sink ^= x;
    return NULL;
}

static double seconds(int kernel, int n_threads) {
    pthread_t threads[THREADS_MAX];
    double best = 1e9;
    shared.kernel = kernel;
    for (int r = 0; r < REPEATS; r++) {
        uint64_t from = by_now_ns();
        for (long i = 1; i < n_threads; i++)
            if (pthread_create(&threads[i], NULL, work, (void *)i)) exit(1);
        work((void *)0);
        for (int i = 1; i < n_threads; i++)
            pthread_join(threads[i], NULL);
        best = BY_MIN(best, (double)(by_now_ns() - from) / 1e9);
    }
    return best;
}

int main(int argc, char **argv) {
    int n = argc > 1 ? (int)strtol(argv[1], NULL, 10) : (int)by_proc_n_cpus();
    n = BY_MAX(1, BY_MIN(n, (int)THREADS_MAX));
    shared.bytes = by_try_alloc_aligned(4096, READ_BYTES);
    if (!shared.bytes) return 1;
    memset(shared.bytes, 1, READ_BYTES);
    shared.n_each = (size_t)READ_BYTES / (size_t)n / 128 * 128;
    static const struct {
        int kernel;
        const char *name, *cpu;
        double each; /* operations of one instruction: a multiplication and an addition are two */
    } rows[] = {{FMA256, "fma f32 256", "avx2", 16},
                {MADDUBS256, "maddubs i8 256", "avx2", 64},
                {FMA512, "fma f32 512", "avx512f", 32},
                {VNNI512, "dpbusd i8 512", "avx512vnni", 128},
                {BF16_512, "dpbf16 512", "avx512bf16", 64}};
    __builtin_cpu_init();
    bool has[] = {__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"),
                  __builtin_cpu_supports("avx2"), __builtin_cpu_supports("avx512f"),
                  __builtin_cpu_supports("avx512vnni"), __builtin_cpu_supports("avx512bf16")};
    if (has[0])
        bench_row("ceiling", "read", (double)shared.n_each * n / seconds(READ, n) / 1e9, "GB/s");
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        if (!has[i]) continue;
        double ops = rows[i].each * 12 * LOOPS * n;
        bench_row("ceiling", rows[i].name, ops / seconds(rows[i].kernel, n) / 1e9, "GOPS");
    }
    by_free(shared.bytes);
    return 0;
}
