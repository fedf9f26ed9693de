#include "common/base/mem.h"
#include "gpu_worker/cuda/gemm.h"
#include "gpu_worker/cuda/gemm_choices.h"

#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PLANS_MAX = 1024,
    ALIGN_MAX = 16,
    WORKSPACE = 32 << 20, /* what Hopper asks for */
    GUESSES = 8,          /* of the library, best first, that are timed */
    TIMINGS = 5,          /* of each, after one that loads its code; the median counts */
    DEADLINE_MS = 10000,  /* for one of them */
    /* of the first guess's time, from which on another one is taken: below is noise */
    BETTER_PERCENT = 97,
};

/* What is known of a shape: the algorithm that was quickest, or if it was not tuned, the library's first guess. */
struct plan {
    enum gemm_kind kind;
    uint32_t m, n_out, n_in, y_align; /* m: the upper end of its class */
    bool is_tuned;
    cublasLtMatmulAlgo_t algo;
};

struct gemm {
    struct port *port;
    cublasLtHandle_t handle;
    void *workspace;
    struct gemm_choices *choices; /* of this library on such a device, from earlier processes */
    struct plan plans[PLANS_MAX];
    uint32_t n_plans;
};

/* The library counts columns first: its A is w, turned, its B is x, its D is y. */
struct operands {
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t a, b, d;
};

/* A scale for each row's 128 columns, of both; else there are none. An older library has no such products. */
#if CUBLAS_VERSION >= 120900
static cublasStatus_t set_scales(struct operands *o, const struct gemm_call *c) {
    const int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
    const struct {
        cublasLtMatmulDescAttributes_t what;
        const void *value;
        size_t n;
    } all[] = {{CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode, sizeof mode},
               {CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, sizeof mode},
               {CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &c->w_scales, sizeof c->w_scales},
               {CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &c->x_scales, sizeof c->x_scales}};
    cublasStatus_t s = CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; i < BY_COUNTOF(all) && c->kind == GEMM_F8_BLOCKS && !s; i++)
        s = cublasLtMatmulDescSetAttribute(&o->desc, all[i].what, all[i].value, all[i].n);
    return s;
}
#else
static cublasStatus_t set_scales(struct operands *o, const struct gemm_call *c) {
    (void)o;
    return c->kind == GEMM_F8_BLOCKS ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}
#endif

static cublasStatus_t describe(struct operands *o, const struct gemm_call *c, uint32_t m) {
    const cublasOperation_t turned = CUBLAS_OP_T;
    const cudaDataType type = c->kind == GEMM_BF16 ? CUDA_R_16BF : CUDA_R_8F_E4M3;
    cublasStatus_t s = cublasLtMatmulDescInit(&o->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!s)
        s = cublasLtMatmulDescSetAttribute(&o->desc, CUBLASLT_MATMUL_DESC_TRANSA, &turned,
                                           sizeof turned);
    if (!s) s = set_scales(o, c);
    if (!s) s = cublasLtMatrixLayoutInit(&o->a, type, c->n_in, c->n_out, c->w_ld);
    if (!s) s = cublasLtMatrixLayoutInit(&o->b, type, c->n_in, m, c->x_ld);
    return s ? s : cublasLtMatrixLayoutInit(&o->d, CUDA_R_32F, c->n_out, m, c->y_ld);
}

size_t gemm_workspace_bytes(void) {
    return WORKSPACE;
}

int gemm_open(struct gemm **out, const struct gemm_place *at, struct by_err *err) {
    struct gemm *g = by_alloc(sizeof *g);
    char maker[160];
    *g = (struct gemm){.port = at->port, .workspace = at->workspace};
    cublasStatus_t s = cublasLtCreate(&g->handle);
    if (s) {
        by_free(g);
        return by_fail(err, BY_EUNAVAILABLE, "cuBLASLt %zu cannot be used: %s",
                       cublasLtGetVersion(), cublasLtGetStatusString(s));
    }
    snprintf(maker, sizeof maker, "cuBLASLt %zu, %zu bytes of workspace, %.100s",
             cublasLtGetVersion(), (size_t)WORKSPACE, at->device);
    g->choices = gemm_choices_new(at->choices, maker);
    *out = g;
    return 0;
}

void gemm_close(struct gemm *g) {
    if (!g) return;
    cublasLtDestroy(g->handle);
    gemm_choices_free(g->choices);
    by_free(g);
}

static uint32_t align_of(const struct gemm_call *c) {
    uintptr_t bits = (uintptr_t)c->y | (uintptr_t)c->y_ld * sizeof(float) | ALIGN_MAX;
    return (uint32_t)(bits & -bits);
}

/* Up to n_max guesses, best first, all of which can be carried out. */
static cublasStatus_t ask(struct gemm *g, struct operands *o, const struct plan *p,
                          cublasLtMatmulHeuristicResult_t *guesses, int n_max, int *n) {
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
    int n_given = 0;
    cublasStatus_t s = cublasLtMatmulPreferenceInit(&preference);
    for (size_t i = 0; i < BY_COUNTOF(wishes) && !s; i++)
        s = cublasLtMatmulPreferenceSetAttribute(&preference, wishes[i].what, wishes[i].value,
                                                 wishes[i].n);
    if (!s)
        s = cublasLtMatmulAlgoGetHeuristic(g->handle, &o->desc, &o->a, &o->b, &o->d, &o->d,
                                           &preference, n_max, guesses, &n_given);
    *n = 0;
    for (int i = 0; i < n_given && !s; i++)
        if (!guesses[i].state && guesses[i].workspaceSize <= WORKSPACE)
            guesses[(*n)++] = guesses[i];
    return s || *n ? s : CUBLAS_STATUS_NOT_SUPPORTED;
}

static struct plan *find(struct gemm *g, const struct plan *like) {
    for (uint32_t i = 0; i < g->n_plans; i++) {
        struct plan *p = &g->plans[i];
        if (p->kind == like->kind && p->m == like->m && p->n_out == like->n_out &&
            p->n_in == like->n_in && p->y_align == like->y_align)
            return p;
    }
    return NULL;
}

/* Those that were tuned stay when the table is full; the others are asked for anew, in time. */
static struct plan *add(struct gemm *g, const struct plan *p) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n_plans && g->n_plans == PLANS_MAX; i++)
        if (g->plans[i].is_tuned) g->plans[n++] = g->plans[i];
    if (g->n_plans == PLANS_MAX) g->n_plans = BY_MIN(n, PLANS_MAX - 1u);
    g->plans[g->n_plans] = *p;
    return &g->plans[g->n_plans++];
}

static struct plan plan_of(const struct gemm_call *c, uint32_t m) {
    return (struct plan){
        .kind = c->kind, .m = m, .n_out = c->n_out, .n_in = c->n_in, .y_align = align_of(c)};
}

/* Of this class of rows; asked for once. */
static cublasStatus_t plan_for(struct gemm *g, const struct gemm_call *c, uint32_t m,
                               const struct plan **out) {
    struct plan like = plan_of(c, m);
    struct operands o;
    cublasLtMatmulHeuristicResult_t guess;
    int n;
    *out = find(g, &like);
    if (*out) return CUBLAS_STATUS_SUCCESS;
    cublasStatus_t s = describe(&o, c, m);
    if (!s) s = ask(g, &o, &like, &guess, 1, &n);
    if (s) return s;
    like.algo = guess.algo;
    *out = add(g, &like);
    return s;
}

static cublasStatus_t carry_out(struct gemm *g, struct operands *o, const struct gemm_call *c,
                                const cublasLtMatmulAlgo_t *algo) {
    return cublasLtMatmul(g->handle, &o->desc, &c->alpha, c->w, &o->a, c->x, &o->b, &c->beta, c->y,
                          &o->d, c->y, &o->d, algo, g->workspace, WORKSPACE, port_stream(g->port));
}

static cublasStatus_t multiply(struct gemm *g, const struct gemm_call *c) {
    struct operands o;
    const struct plan *p = NULL;
    cublasLtMatmulHeuristicResult_t fits;
    cublasStatus_t s = plan_for(g, c, gemm_class_of(c->m), &p);
    if (!s) s = describe(&o, c, c->m);
    if (s) return s;
    /* What serves the class's largest m need not serve this one. */
    if (cublasLtMatmulAlgoCheck(g->handle, &o.desc, &o.a, &o.b, &o.d, &o.d, &p->algo, &fits) ||
        fits.workspaceSize > WORKSPACE) {
        s = plan_for(g, c, c->m, &p);
        if (s) return s;
    }
    return carry_out(g, &o, c, &p->algo);
}

bool gemm_serves(struct gemm *g, const struct gemm_call *c) {
    const struct plan like = plan_of(c, gemm_class_of(c->m));
    struct operands o;
    cublasLtMatmulHeuristicResult_t guess;
    int n;
    return find(g, &like) || (!describe(&o, c, like.m) && !ask(g, &o, &like, &guess, 1, &n));
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

/* ---- at load ---- */

struct trial {
    struct gemm *gemm;
    struct operands *operands;
    const struct gemm_call *call;
    const cublasLtMatmulAlgo_t *algo;
};

static int try_once(void *ctx) {
    const struct trial *t = ctx;
    return carry_out(t->gemm, t->operands, t->call, t->algo) ? 1 : 0;
}

static int by_time(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The median of its times; infinite: the library does not carry it out after all. Not 0: the device failed. */
static int time_of(struct trial *t, void *cold, size_t n_cold, float *ms) {
    float times[TIMINGS];
    for (int i = -1; i < TIMINGS; i++) {
        if (port_zero(t->gemm->port, cold, n_cold)) return -1;
        int rc = port_time(t->gemm->port, try_once, t, DEADLINE_MS, ms);
        if (rc) return rc < 0 ? rc : 0;
        if (i >= 0) times[i] = *ms;
    }
    qsort(times, TIMINGS, sizeof *times, by_time);
    *ms = times[TIMINGS / 2];
    return 0;
}

static struct gemm_choice choice_of(const struct plan *p) {
    struct gemm_choice x = {p->kind, p->m, p->n_out, p->n_in, p->y_align, {0}};
    static_assert(sizeof x.algo == sizeof p->algo, "the library's struct of words");
    memcpy(x.algo, &p->algo, sizeof x.algo);
    return x;
}

/* What an earlier process chose, if the library takes it for this shape. */
static bool was_chosen(struct gemm *g, struct operands *o, struct plan *p) {
    const struct gemm_choice like = choice_of(p), *x = gemm_choices_find(g->choices, &like);
    cublasLtMatmulHeuristicResult_t fits;
    cublasLtMatmulAlgo_t algo;
    if (!x) return false;
    memcpy(&algo, x->algo, sizeof algo);
    if (cublasLtMatmulAlgoCheck(g->handle, &o->desc, &o->a, &o->b, &o->d, &o->d, &algo, &fits) ||
        fits.workspaceSize > WORKSPACE)
        return false;
    p->algo = algo;
    return true;
}

int gemm_tune(struct gemm *g, const struct gemm_call *c, void *cold, size_t n_cold) {
    struct plan plan = plan_of(c, gemm_class_of(c->m));
    cublasLtMatmulHeuristicResult_t guesses[GUESSES];
    struct operands o;
    int n, best = 0;
    float best_ms = 0;
    if (find(g, &plan)) return 0;
    plan.is_tuned = true;
    /* What the library cannot do is told when a step asks for it. */
    if (describe(&o, c, c->m)) return 0;
    if (was_chosen(g, &o, &plan)) {
        add(g, &plan);
        return 0;
    }
    if (ask(g, &o, &plan, guesses, GUESSES, &n)) return 0;
    for (int i = 0; i < n && n > 1; i++) {
        struct trial t = {g, &o, c, &guesses[i].algo};
        float ms;
        if (time_of(&t, cold, n_cold, &ms)) return -1;
        if (i == 0) best_ms = ms * BETTER_PERCENT / 100;
        if (i == 0 || ms >= best_ms) continue;
        best = i;
        best_ms = ms;
    }
    plan.algo = guesses[best].algo;
    add(g, &plan);
    const struct gemm_choice x = choice_of(&plan);
    gemm_choices_add(g->choices, &x);
    return 0;
}
