/* gemm.h on the emulator: a kernel of plain loops. BANYAN_EMU_GEMM=0: a machine without the library. */
#include "tests/cuda/emu.h"

#include "gpu_worker/cuda/gemm.h"

#include <vector>

struct gemm {
    struct port *port;
};

static float number(const struct gemm_call &c, const void *at, size_t i) {
    return c.kind == GEMM_BF16 ? by_bf16_to_f32(((const uint16_t *)at)[i])
                               : by_f8_e4m3_to_f32(((const uint8_t *)at)[i]);
}

static void gemm_kernel(const struct gemm_call c) {
    begin();
    for (uint32_t i = threadIdx.x; i < c.n_out; i += 32)
        for (uint32_t r = 0; r < c.m; r++) {
            float sum = 0, part = 0, *y = c.y + (size_t)r * c.y_ld + i;
            for (uint32_t k = 0; k < c.n_in; k++) {
                part +=
                    number(c, c.w, (size_t)i * c.w_ld + k) * number(c, c.x, (size_t)r * c.x_ld + k);
                if ((k + 1) % GEMM_F8_BLOCK || !c.w_scales) continue;
                const size_t b = k / GEMM_F8_BLOCK;
                sum += part * c.w_scales[b * c.n_out + i] * c.x_scales[b * c.m + r];
                part = 0;
            }
            sum += part;
            *y = c.alpha * sum + (c.beta != 0 ? c.beta * *y : 0);
        }
}

static std::vector<struct gemm_call> tuned;
static uint32_t newest;

extern "C" {
/* Was a product of so many weight rows and m rows (0: any) chosen for? For tests. */
bool gemm_emu_tuned(uint32_t n_out, uint32_t m) {
    for (const struct gemm_call &c : tuned)
        if (c.n_out == n_out && (!m || gemm_class_of(c.m) == gemm_class_of(m))) return true;
    return false;
}

/* Rows of the weight in the newest product. */
uint32_t gemm_emu_newest(void) {
    return newest;
}

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
    volatile float ends = number(*c, c->w, (size_t)(c->n_out - 1) * c->w_ld + c->n_in - 1);
    ends = number(*c, c->x, (size_t)(c->m - 1) * c->x_ld + c->n_in - 1);
    (void)ends;
    tuned.push_back(*c);
    c->y[(size_t)(c->m - 1) * c->y_ld + c->n_out - 1] = 0;
    ((volatile uint8_t *)cold)[0] = ((volatile uint8_t *)cold)[n_cold - 1] = 0;
    return 0;
}

/* As the library has it: FP8 in multiples of 16, blocks of 128, whose scales begin at multiples of 16 bytes. */
bool gemm_serves(struct gemm *, const struct gemm_call *c) {
    if (c->kind == GEMM_F8_BLOCKS && (c->m % 4 || c->n_in % GEMM_F8_BLOCK)) return false;
    return c->kind == GEMM_BF16 || (c->n_out % 16 == 0 && c->n_in % 16 == 0);
}

int gemm_run(void *ctx, const void *args) {
    struct port_launch l;
    struct gemm *g = (struct gemm *)ctx;
    if (!gemm_serves(g, (const struct gemm_call *)args))
        return port_fail(g->port, "the emulated library does not multiply so");
    memset(&l, 0, sizeof l);
    l.kernel = KERNEL_SYMBOL(gemm_kernel, *(const struct gemm_call *)args);
    l.grid[0] = l.grid[1] = l.grid[2] = 1;
    l.block = 32;
    l.n_args = sizeof(struct gemm_call);
    newest = ((const struct gemm_call *)args)->n_out;
    return port_run(g->port, &l, args);
}
}
