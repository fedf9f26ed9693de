/* gemm.h on the emulator: a kernel of plain loops. BANYAN_EMU_GEMM=0: a machine without the library. */
#include "tests/cuda/emu.h"

#include "gpu_worker/cuda/gemm.h"

struct gemm {
    struct port *port;
};

static void gemm_kernel(const struct gemm_call c) {
    for (uint32_t i = threadIdx.x; i < c.n_out; i += 32) {
        const uint16_t *w = c.w + (size_t)i * c.w_ld;
        for (uint32_t r = 0; r < c.m; r++) {
            const uint16_t *x = c.x + (size_t)r * c.x_ld;
            float sum = 0, *y = c.y + (size_t)r * c.y_ld + i;
            for (uint32_t k = 0; k < c.n_in; k++)
                sum += by_bf16_to_f32(x[k]) * by_bf16_to_f32(w[k]);
            *y = c.alpha * sum + (c.beta != 0 ? c.beta * *y : 0);
        }
    }
}

extern "C" {
size_t gemm_workspace_bytes(void) {
    return 64;
}

int gemm_open(struct gemm **out, const struct gemm_place *at, struct by_err *) {
    const char *flag = getenv("BANYAN_EMU_GEMM");
    *out = flag && *flag == '0' ? NULL : new gemm{at->port};
    return 0;
}

void gemm_close(struct gemm *g) {
    delete g;
}

/* Nothing to choose from: are the ends of all three matrices memory? */
int gemm_tune(struct gemm *, const struct gemm_call *c, void *cold, size_t n_cold) {
    volatile const uint16_t *w = c->w, *x = c->x;
    (void)w[(size_t)(c->n_out - 1) * c->w_ld + c->n_in - 1];
    (void)x[(size_t)(c->m - 1) * c->x_ld + c->n_in - 1];
    c->y[(size_t)(c->m - 1) * c->y_ld + c->n_out - 1] = 0;
    ((volatile uint8_t *)cold)[0] = ((volatile uint8_t *)cold)[n_cold - 1] = 0;
    return 0;
}

int gemm_run(void *ctx, const void *args) {
    struct port_launch l;
    memset(&l, 0, sizeof l);
    l.kernel = KERNEL_SYMBOL(gemm_kernel, *(const struct gemm_call *)args);
    l.grid[0] = l.grid[1] = l.grid[2] = 1;
    l.block = 32;
    l.n_args = sizeof(struct gemm_call);
    return port_run(((struct gemm *)ctx)->port, &l, args);
}
}
