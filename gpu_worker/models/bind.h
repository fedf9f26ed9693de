/* bind.h - finds a role's tensors in the file and packs them: the primitives of weights.c, moe.c, mla.c, states.c.
 *
 *     role ─name, as this file writes it─▶ matrix.h ─▶ stack.h ─▶ backend->weight_new
 *
 * Always: a failed call has filled binder->err, with the tensor's name.
 * Owner: weights_load, on the main thread. */
#ifndef GPU_WORKER_MODELS_BIND_H
#define GPU_WORKER_MODELS_BIND_H

#include "gpu_worker/models/decoder.h"
#include "gpu_worker/models/stack.h"

struct binder {
    struct decoder *d;
    struct matrix_source source;
    const struct model_options *o;
    struct by_err *err;
    /* names that begin with base begin with `as` in this file; other names with `others` */
    char base[64], as[64];
    char others[64];
    const struct by_tensor_info **used;
    size_t n_used, used_cap;
    uint64_t bytes_done, bytes_all;
};

void bind_start(struct binder *b, struct decoder *d, const struct by_model_dir *dir,
                const struct model_options *o, struct by_err *err);
/* Logs the tensors that were not used, unless the load failed. */
void bind_finish(struct binder *b, bool is_complete);

/* One part of a matrix that is to be bound: `n` of the `rows` of a role's tensor (see matrix.h for run). */
struct bind_part {
    enum role role;
    uint32_t rows, n, run, stride, offset;
};
static inline struct bind_part bind_whole(enum role role, uint32_t rows) {
    return (struct bind_part){.role = role, .rows = rows, .n = rows};
}
/* Rows `cut` of those that begin at row `from`. */
static inline struct bind_part bind_cut(enum role role, uint32_t rows, uint32_t from,
                                        struct cut cut) {
    return (struct bind_part){.role = role, .rows = rows, .n = cut.n, .offset = from + cut.first};
}
struct bind {
    struct bind_part parts[STACK_PARTS_MAX];
    uint32_t n_parts, n_in, layer, expert;
    /* columns in_first … of n_in_all are bound; n_in_all 0: all n_in */
    uint32_t n_in_all, in_first;
    uint32_t out_n;    /* see weight_source */
    uint32_t n_slices; /* experts in one tensor; 0: a tensor an expert */
    bool is_gated, is_row_lookup, is_transposed, keep_type, is_exact, is_of_tokens, wants_bias,
        no_bias;
};
BY_MUST_USE int bind_matrix(struct binder *b, struct weight **out, const struct bind *w);
/* The tensor of a role: in full, as this file calls it. NULL: this family has none. */
const char *bind_name(struct binder *b, enum role role, uint32_t layer, uint32_t expert, char *out,
                      size_t cap);
/* Does the file have it (as NAME.weight, NAME or packed)? */
bool bind_has(struct binder *b, enum role role, uint32_t layer, uint32_t expert);
/* Are these tensors of a layer of one type, so that one matrix can hold them? */
bool bind_has_one_type(struct binder *b, const enum role *roles, size_t n_roles, uint32_t layer);
/* n floats of the tensor `stem + suffix`, or of one of its slices, or of all of them; *out stays NULL when it is optional and not there.
 * Free with by_free. */
struct bind_vector {
    enum role role;
    const char *suffix;
    uint32_t layer, expert, n, n_slices;
    uint32_t n_all, first; /* n of n_all numbers from `first` on; n_all 0: all n */
    bool is_optional, wants_all;
};
BY_MUST_USE int bind_read(struct binder *b, float **out, const struct bind_vector *v);
/* The same, put into backend memory. */
BY_MUST_USE int bind_put(struct binder *b, const float **out, const struct bind_vector *v);
BY_MUST_USE int bind_norm(struct binder *b, struct norm *out, enum role role, uint32_t layer,
                          uint32_t width);
/* A packed weight out of a stack; `name` is for errors. */
BY_MUST_USE int bind_stack(struct binder *b, struct weight **out, struct stack *s,
                           const struct weight_source *flags);

#endif
