/* RMS norm and rotation over rows of tensors, as transformers computes them: operation by operation, rounded where it rounds. */
#include "gpu_worker/kernels/kernels.h"

#include "common/modelfile/dtype.h"

#include <math.h>
#include <string.h>

/* Built for each instruction set and chosen when the library is loaded; without fma, all give the same bits. */
#define FOR_EACH_ISA __attribute__((target_clones("avx512f", "avx2", "default")))
#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16 }; /* partial sums of a sum of squares */

INLINE float rounded(float f) {
    return by_bf16_to_f32(by_f32_to_bf16(f));
}

/* ---- norm ---- */

INLINE float inverse_rms(float *lane, uint32_t width, float eps) {
    float sum = 0;
    for (int j = 0; j < LANES; j++)
        sum += lane[j];
    return 1.0f / sqrtf(sum / (float)width + eps);
}

FOR_EACH_ISA static void norm_f32(const struct banyan_norm *n, const float *x, float *y) {
    float lane[LANES] = {0};
    uint32_t d = 0;
    for (; d + LANES <= n->width; d += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += x[d + j] * x[d + j];
    for (uint32_t j = 0; d + j < n->width; j++)
        lane[j] += x[d + j] * x[d + j];
    float scale = inverse_rms(lane, n->width, n->eps);
    for (d = 0; d < n->width; d++)
        y[d] = x[d] * scale * n->w[d];
}

FOR_EACH_ISA static void norm_bf16(const struct banyan_norm *n, const uint16_t *x, uint16_t *y) {
    float lane[LANES] = {0};
    uint32_t d = 0;
    for (; d + LANES <= n->width; d += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += by_bf16_to_f32(x[d + j]) * by_bf16_to_f32(x[d + j]);
    for (uint32_t j = 0; d + j < n->width; j++)
        lane[j] += by_bf16_to_f32(x[d + j]) * by_bf16_to_f32(x[d + j]);
    float scale = inverse_rms(lane, n->width, n->eps);
    if (n->is_early)
        for (d = 0; d < n->width; d++)
            y[d] = by_f32_to_bf16(rounded(by_bf16_to_f32(x[d]) * scale) * n->w[d]);
    else
        for (d = 0; d < n->width; d++)
            y[d] = by_f32_to_bf16(by_bf16_to_f32(x[d]) * scale * n->w[d]);
}

void banyan_norm_run(const struct banyan_norm *n, const void *x, void *y, uint32_t n_rows) {
    for (size_t r = 0, at = 0; r < n_rows; r++, at += n->width) {
        if (n->dtype == BANYAN_F32)
            norm_f32(n, (const float *)x + at, (float *)y + at);
        else
            norm_bf16(n, (const uint16_t *)x + at, (uint16_t *)y + at);
    }
}

/* ---- rope ---- */

FOR_EACH_ISA static void turn_f32(const float *x, float *y, const float *cos, const float *sin,
                                  int half) {
    for (int i = 0; i < half; i++) {
        y[i] = x[i] * cos[i] + -x[i + half] * sin[i];
        y[i + half] = x[i + half] * cos[i + half] + x[i] * sin[i + half];
    }
}

FOR_EACH_ISA static void turn_bf16(const uint16_t *x, uint16_t *y, const uint16_t *cos,
                                   const uint16_t *sin, int half) {
    for (int i = 0; i < half; i++) {
        float a = by_bf16_to_f32(x[i]), b = by_bf16_to_f32(x[i + half]);
        y[i] = by_f32_to_bf16(rounded(a * by_bf16_to_f32(cos[i])) +
                              rounded(-b * by_bf16_to_f32(sin[i])));
        y[i + half] = by_f32_to_bf16(rounded(b * by_bf16_to_f32(cos[i + half])) +
                                     rounded(a * by_bf16_to_f32(sin[i + half])));
    }
}

struct side {
    const char *x;
    char *y;
    int64_t row_stride, head_stride;
    int n_heads;
};

static void turn(const struct banyan_rope *r, const struct side *s) {
    int64_t size = r->dtype == BANYAN_F32 ? 4 : 2;
    int half = r->n_rot / 2;
    char *y = s->y;
    for (int row = 0; row < r->n_rows; row++) {
        const char *cos = (const char *)r->cos + (int64_t)row * r->n_rot * size;
        const char *sin = (const char *)r->sin + (int64_t)row * r->n_rot * size;
        for (int h = 0; h < s->n_heads; h++, y += r->dim * size) {
            const char *x = s->x + (row * s->row_stride + h * s->head_stride) * size;
            if (r->dtype == BANYAN_F32)
                turn_f32((const void *)x, (void *)y, (const void *)cos, (const void *)sin, half);
            else
                turn_bf16((const void *)x, (void *)y, (const void *)cos, (const void *)sin, half);
            memcpy(y + r->n_rot * size, x + r->n_rot * size, (size_t)((r->dim - r->n_rot) * size));
        }
    }
}

void banyan_rope_run(const struct banyan_rope *r) {
    turn(r, &(struct side){r->q, r->q_out, r->q_row_stride, r->q_head_stride, r->n_q_heads});
    turn(r, &(struct side){r->k, r->k_out, r->k_row_stride, r->k_head_stride, r->n_k_heads});
}
