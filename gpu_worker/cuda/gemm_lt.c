#include "common/base/mem.h"
#include "gpu_worker/cuda/gemm.h"

#include <cublasLt.h>
#include <string.h>

enum { PLANS_MAX = 1024, ALIGN_MAX = 16, WORKSPACE = 32 << 20 /* what Hopper asks for */ };

/* What is known of a shape: the best algorithm by the library's own estimate. */
struct plan {
    uint32_t m, n_out, n_in, y_align; /* m: the upper end of its class */
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
};

struct gemm {
    struct port *port;
    cublasLtHandle_t handle;
    void *workspace;
    struct plan plans[PLANS_MAX];
    uint32_t n_plans;
};

/* The library counts columns first: its A is w, turned, its B is x, its D is y. */
struct operands {
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t a, b, d;
};

static cublasStatus_t describe(struct operands *o, const struct gemm_call *c, uint32_t m) {
    const cublasOperation_t turned = CUBLAS_OP_T;
    cublasStatus_t s = cublasLtMatmulDescInit(&o->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!s)
        s = cublasLtMatmulDescSetAttribute(&o->desc, CUBLASLT_MATMUL_DESC_TRANSA, &turned,
                                           sizeof turned);
    if (!s) s = cublasLtMatrixLayoutInit(&o->a, CUDA_R_16BF, c->n_in, c->n_out, c->w_ld);
    if (!s) s = cublasLtMatrixLayoutInit(&o->b, CUDA_R_16BF, c->n_in, m, c->x_ld);
    return s ? s : cublasLtMatrixLayoutInit(&o->d, CUDA_R_32F, c->n_out, m, c->y_ld);
}

size_t gemm_workspace_bytes(void) {
    return WORKSPACE;
}

int gemm_open(struct gemm **out, struct port *p, void *workspace, struct by_err *err) {
    struct gemm *g = by_alloc(sizeof *g);
    *g = (struct gemm){.port = p, .workspace = workspace};
    cublasStatus_t s = cublasLtCreate(&g->handle);
    if (s) {
        by_free(g);
        return by_fail(err, BY_EUNAVAILABLE, "cuBLASLt %zu cannot be used: %s",
                       cublasLtGetVersion(), cublasLtGetStatusString(s));
    }
    *out = g;
    return 0;
}

void gemm_close(struct gemm *g) {
    if (!g) return;
    cublasLtDestroy(g->handle);
    by_free(g);
}

/* Rows that share an algorithm: powers of two, and the middle between two. */
static uint32_t class_of(uint32_t m) {
    uint32_t c = 16;
    while (c < m)
        c *= 2;
    return c >= 64 && m <= c / 4 * 3 ? c / 4 * 3 : c;
}

static uint32_t align_of(const struct gemm_call *c) {
    uintptr_t bits = (uintptr_t)c->y | (uintptr_t)c->y_ld * sizeof(float) | ALIGN_MAX;
    return (uint32_t)(bits & -bits);
}

static cublasStatus_t ask(struct gemm *g, struct operands *o, struct plan *p) {
    const size_t room = WORKSPACE;
    const uint32_t align = ALIGN_MAX,
                   sums = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t what;
        const void *value;
        size_t n;
    } wishes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums, sizeof sums},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align, sizeof align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align, sizeof align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &p->y_align, sizeof p->y_align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &p->y_align, sizeof p->y_align},
    };
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t best;
    int n = 0;
    cublasStatus_t s = cublasLtMatmulPreferenceInit(&preference);
    for (size_t i = 0; i < BY_COUNTOF(wishes) && !s; i++)
        s = cublasLtMatmulPreferenceSetAttribute(&preference, wishes[i].what, wishes[i].value,
                                                 wishes[i].n);
    if (!s)
        s = cublasLtMatmulAlgoGetHeuristic(g->handle, &o->desc, &o->a, &o->b, &o->d, &o->d,
                                           &preference, 1, &best, &n);
    if (s || !n) return s ? s : CUBLAS_STATUS_NOT_SUPPORTED;
    p->algo = best.algo;
    p->workspace = best.workspaceSize;
    return best.state;
}

static struct plan *find(struct gemm *g, const struct plan *like) {
    for (uint32_t i = 0; i < g->n_plans; i++) {
        struct plan *p = &g->plans[i];
        if (p->m == like->m && p->n_out == like->n_out && p->n_in == like->n_in &&
            p->y_align == like->y_align)
            return p;
    }
    return NULL;
}

/* Of this class of rows; asked for once. */
static cublasStatus_t plan_for(struct gemm *g, const struct gemm_call *c, uint32_t m,
                               const struct plan **out) {
    struct plan like = {.m = m, .n_out = c->n_out, .n_in = c->n_in, .y_align = align_of(c)};
    struct operands o;
    *out = find(g, &like);
    if (*out) return CUBLAS_STATUS_SUCCESS;
    cublasStatus_t s = describe(&o, c, m);
    if (!s) s = ask(g, &o, &like);
    if (s) return s;
    if (g->n_plans == PLANS_MAX) g->n_plans = 0; /* all are asked for anew, in time */
    g->plans[g->n_plans] = like;
    *out = &g->plans[g->n_plans++];
    return s;
}

static cublasStatus_t multiply(struct gemm *g, const struct gemm_call *c) {
    struct operands o;
    const struct plan *p = NULL;
    cublasLtMatmulHeuristicResult_t fits;
    cublasStatus_t s = plan_for(g, c, class_of(c->m), &p);
    if (!s) s = describe(&o, c, c->m);
    if (s) return s;
    /* What serves the class's largest m need not serve this one. */
    if (cublasLtMatmulAlgoCheck(g->handle, &o.desc, &o.a, &o.b, &o.d, &o.d, &p->algo, &fits) ||
        fits.workspaceSize > WORKSPACE) {
        s = plan_for(g, c, c->m, &p);
        if (s) return s;
    }
    return cublasLtMatmul(g->handle, &o.desc, &c->alpha, c->w, &o.a, c->x, &o.b, &c->beta, c->y,
                          &o.d, c->y, &o.d, &p->algo, g->workspace, WORKSPACE,
                          port_stream(g->port));
}

int gemm_run(void *ctx, const void *args) {
    struct gemm *g = ctx;
    struct gemm_call c;
    memcpy(&c, args, sizeof c);
    cublasStatus_t s = multiply(g, &c);
    if (!s) return 0;
    return port_fail(g->port, "cuBLASLt: [%u, %u] times [%u, %u]: %s", c.m, c.n_in, c.n_out, c.n_in,
                     cublasLtGetStatusString(s));
}
