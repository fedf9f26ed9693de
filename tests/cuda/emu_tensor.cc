/* A sum of products as tensor cores make it (emu.h): each product is exact, and is then cut off behind the same bit as all others and
 * the sum so far; what they come to is cut off at 24 bits. "Accurate Models of NVIDIA Tensor Cores" (Khattak and Mikaitis, 2025) found
 * it bit for bit: one bit behind the 24 on an A100 and the like, for 8 products at a time; two on an H100, for 16. */
#include "tests/cuda/emu.h"

enum { BIAS = 127, PARTS_MAX = 16 };

/* 2^exponent; as a double it has room for those of all products. */
static double power_of_two(int exponent) {
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

/* Biased; what is below normal numbers has theirs, 255: it is no number. */
static int exponent_of(float x) {
    int e = (int)(as_u32(x) >> 23 & 255);
    return e ? e : 1;
}

float emu_tensor_sum(float sum, const float *a, const float *b, uint32_t n, uint32_t n_extra) {
    double products[PARTS_MAX];
    int top = exponent_of(sum) + BIAS, largest = exponent_of(sum);
    for (uint32_t i = 0; i < n; i++) {
        const int x = exponent_of(a[i]), y = exponent_of(b[i]);
        products[i] = (double)a[i] * (double)b[i];
        largest = x > largest ? x : largest;
        largest = y > largest ? y : largest;
        if (products[i] != 0 && x + y > top) top = x + y;
    }
    if (largest == 255) {
        for (uint32_t i = 0; i < n; i++)
            sum += a[i] * b[i];
        return sum;
    }
    const int shift = 23 + (int)n_extra - (top - 2 * BIAS);
    const double up = power_of_two(shift);
    int64_t all = (int64_t)((double)sum * up); /* towards zero */
    for (uint32_t i = 0; i < n; i++)
        all += (int32_t)(products[i] * up);
    uint64_t size = (uint64_t)(all < 0 ? -all : all);
    if (size >> 24) size &= ~UINT64_C(0) << (40 - __builtin_clzll(size));
    return (float)((all < 0 ? -(double)size : (double)size) * power_of_two(-shift));
}
