#include "tests/cuda/lt_loops.h"

#include <cublasLt.h>

#include "common/modelfile/dtype.h"
#include "tests/unit/test.h"

struct lt_loops lt_loops;

struct layout {
    uint64_t rows, cols;
    int64_t ld;
    cudaDataType type;
};

/* What a description says, in the real one's place. */
struct desc {
    cublasOperation_t turned;
    int32_t modes[2];
    const float *scales[2];
};

static struct desc desc_of(const cublasLtMatmulDescOpaque_t *o) {
    struct desc d;
    static_assert(sizeof d <= sizeof *o, "it lies in the real one");
    memcpy(&d, o, sizeof d);
    return d;
}

static struct layout layout_of(const cublasLtMatrixLayoutOpaque_t *o) {
    struct layout y;
    static_assert(sizeof y <= sizeof *o, "it lies in the real one");
    memcpy(&y, o, sizeof y);
    return y;
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t o, size_t size,
                                                 cudaDataType type, uint64_t rows, uint64_t cols,
                                                 int64_t ld) {
    struct layout y = {rows, cols, ld, type};
    assert_int_equal(size, sizeof *o);
    memcpy(o, &y, sizeof y);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t o, size_t size,
                                               cublasComputeType_t compute, cudaDataType_t scale) {
    assert_int_equal(size, sizeof *o);
    assert_true(compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F);
    memset(o, 0, sizeof *o);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t o,
                                              cublasLtMatmulDescAttributes_t what,
                                              const void *value, size_t n) {
    struct desc d = desc_of(o);
    const struct {
        cublasLtMatmulDescAttributes_t what;
        void *at;
        size_t n;
    } known[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &d.turned, sizeof d.turned},
                 {CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &d.modes[0], sizeof d.modes[0]},
                 {CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &d.modes[1], sizeof d.modes[1]},
                 {CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, (void *)&d.scales[0], sizeof d.scales[0]},
                 {CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, (void *)&d.scales[1], sizeof d.scales[1]}};
    size_t i = 0;
    while (i < BY_COUNTOF(known) && known[i].what != what)
        i++;
    assert_true(i < BY_COUNTOF(known) && n == known[i].n);
    memcpy(known[i].at, value, n);
    memcpy(o, &d, sizeof d);
    return CUBLAS_STATUS_SUCCESS;
}

/* The scale of the block that column k of row i belongs to; without one 1. */
static float scale_of(const struct desc *d, int side, uint64_t n, uint64_t i, uint64_t k) {
    if (!d->scales[side]) return 1;
    assert_int_equal(d->modes[side], CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F);
    assert_int_equal(n % 4, 0);
    return d->scales[side][k / 128 * n + i];
}

static float number_of(cudaDataType type, const void *at, uint64_t i) {
    return type == CUDA_R_16BF ? by_bf16_to_f32(((const uint16_t *)at)[i])
                               : by_f8_e4m3_to_f32(((const uint8_t *)at)[i]);
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t o, size_t size) {
    memset(o, 0, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t o,
                                                    cublasLtMatmulPreferenceAttributes_t what,
                                                    const void *value, size_t n) {
    assert_true(o && value && n && what <= CUBLASLT_MATMUL_PREF_IMPL_MASK);
    return CUBLAS_STATUS_SUCCESS;
}

/* An algorithm's first word is its number, its second one the rows that it was asked for. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int n_max,
                                              cublasLtMatmulHeuristicResult_t *out, int *n) {
    assert_true(h && desc && a && c == d && preference);
    lt_loops.n_asked++;
    *n = BY_MIN(n_max, (int)lt_loops.n_guesses);
    for (int i = 0; i < *n; i++) {
        memset(&out[i], 0, sizeof out[i]);
        out[i].algo.data[0] = (uint64_t)i;
        out[i].algo.data[1] = layout_of(b).cols;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t h, cublasLtMatmulDesc_t desc,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *out) {
    uint64_t m = layout_of(b).cols;
    assert_true(h && desc && a && c == d);
    memset(out, 0, sizeof *out);
    return lt_loops.refuses == m && algo->data[1] != m ? CUBLAS_STATUS_NOT_SUPPORTED
                                                       : CUBLAS_STATUS_SUCCESS;
}

/* d = alpha * a^T · b + beta * c, columns first. */
cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_of, const void *b,
                              cublasLtMatrixLayout_t b_of, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_of, void *d, cublasLtMatrixLayout_t d_of,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t n,
                              cudaStream_t stream) {
    struct layout la = layout_of(a_of), lb = layout_of(b_of), ld = layout_of(d_of);
    const struct desc s = desc_of(desc);
    assert_true(h && s.turned == CUBLAS_OP_T && c == d && c_of == d_of && workspace && n);
    assert_true(la.type == CUDA_R_16BF || la.type == CUDA_R_8F_E4M3);
    assert_true(la.type == lb.type && ld.type == CUDA_R_32F);
    assert_true(la.rows == lb.rows && la.cols == ld.rows && lb.cols == ld.cols);
    assert_ptr_equal(stream, port_stream(lt_loops.port));
    lt_loops.last = (uint32_t)algo->data[0];
    if (!lt_loops.cost[lt_loops.last]) return CUBLAS_STATUS_EXECUTION_FAILED;
    lt_loops.n_run++;
    for (uint32_t i = 0; i < lt_loops.cost[lt_loops.last]; i++)
        assert_int_equal(port_zero(lt_loops.port, lt_loops.scratch, 1), 0);
    for (uint64_t j = 0; j < ld.cols; j++)
        for (uint64_t i = 0; i < ld.rows; i++) {
            float sum = 0, *y = (float *)d + i + j * (uint64_t)ld.ld;
            for (uint64_t k = 0; k < la.rows; k++)
                sum += number_of(la.type, a, k + i * (uint64_t)la.ld) *
                       number_of(lb.type, b, k + j * (uint64_t)lb.ld) *
                       scale_of(&s, 0, la.cols, i, k) * scale_of(&s, 1, lb.cols, j, k);
            const float times = *(const float *)beta; /* 0: what is there is not read */
            *y = *(const float *)alpha * sum + (times != 0 ? times * *y : 0);
        }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) {
    *h = (cublasLtHandle_t)&lt_loops;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) {
    return h ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

size_t cublasLtGetVersion(void) {
    return lt_loops.version;
}

const char *cublasLtGetStatusString(cublasStatus_t s) {
    return s == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported" : "failed";
}
