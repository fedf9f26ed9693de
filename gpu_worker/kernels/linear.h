/* linear.h - a packed product and the team that computes it: what linear.c and layer.c share.
 *
 *     rows of a bf16 caller ─widen─▶ room: f32 ─▶ ops ─▶ f32 ─narrow─▶ rows of the caller
 *
 * Always: the room of a team serves one call at a time.
 * Owner: the thread that made the team. */
#ifndef GPU_WORKER_KERNELS_LINEAR_H
#define GPU_WORKER_KERNELS_LINEAR_H

#include "gpu_worker/backend.h"
#include "gpu_worker/kernels/kernels.h"

struct banyan_team {
    struct backend *backend;
    float *room; /* [room_cap], 64-byte aligned */
    size_t room_cap;
};

struct banyan_linear {
    struct banyan_team *team;
    struct weight *weight;
    uint32_t n_out, n_in; /* of the product: half of a gated weight's rows */
    int32_t dtype;
    enum act_kind act;
};

/* Room for n floats; false: no memory. What was there is gone. */
bool linear_make_room(struct banyan_team *t, size_t n);
void linear_widen(const uint16_t *from, float *to, size_t n);
void linear_narrow(const float *from, uint16_t *to, size_t n); /* to the nearest, ties to even */
/* y [n_rows, n_out] = l of x [n_rows, n_in], both dense. */
struct op_linear linear_op(const struct banyan_linear *l, const float *x, float *y,
                           uint32_t n_rows);

#endif
