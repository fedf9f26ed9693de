#include "common/base/check.h"
#include "gpu_worker/cuda/gemm.h"

/* A build without cuBLASLt: tiles.cu does it all. */

size_t gemm_workspace_bytes(void) {
    return 0;
}

int gemm_open(struct gemm **out, const struct gemm_place *at, struct by_err *err) {
    (void)at;
    (void)err;
    *out = NULL;
    return 0;
}

void gemm_close(struct gemm *g) {
    by_assert(!g);
}

int gemm_tune(struct gemm *g, const struct gemm_call *c, void *cold, size_t n_cold) {
    (void)c;
    (void)cold;
    (void)n_cold;
    by_assert(!g);
    return 0;
}

bool gemm_serves(struct gemm *g, const struct gemm_call *c) {
    (void)c;
    by_assert(!g);
    return false;
}

int gemm_run(void *ctx, const void *args) {
    (void)ctx;
    (void)args;
    return BY_EUNSUPPORTED; /* nobody has a gemm to call it with */
}
