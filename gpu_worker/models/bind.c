#include "gpu_worker/models/bind.h"

#include "common/base/log.h"
#include "common/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

static void mark_used(void *ctx, const struct by_tensor_info *t) {
    struct binder *b = ctx;
    if (b->n_used == b->used_cap) {
        b->used_cap = BY_MAX(2 * b->used_cap, (size_t)256);
        b->used = by_realloc_array(b->used, b->used_cap, sizeof(struct by_tensor_info *));
    }
    b->used[b->n_used++] = t;
}

const char *bind_name(struct binder *b, enum role role, uint32_t layer, uint32_t expert, char *out,
                      size_t cap) {
    char name[MATRIX_NAME_MAX];
    size_t base = strlen(b->base);
    if (!arch_name(&b->d->arch, role, layer, expert, name, sizeof name)) return NULL;
    bool has_base = base && strncmp(name, b->base, base) == 0;
    int n = snprintf(out, cap, "%s%s", has_base ? b->as : b->others, name + (has_base ? base : 0));
    return n > 0 && (size_t)n < cap ? out : NULL;
}

bool bind_has(struct binder *b, enum role role, uint32_t layer, uint32_t expert) {
    static const char *const suffixes[] = {".weight", "", ".qweight", ".weight_packed", "_blocks"};
    char stem[MATRIX_NAME_MAX], name[MATRIX_NAME_MAX + 16];
    if (!bind_name(b, role, layer, expert, stem, sizeof stem)) return false;
    for (size_t i = 0; i < BY_COUNTOF(suffixes); i++) {
        snprintf(name, sizeof name, "%s%s", stem, suffixes[i]);
        if (by_model_dir_find(b->source.dir, name)) return true;
    }
    return false;
}

bool bind_has_one_type(struct binder *b, const enum role *roles, size_t n_roles, uint32_t layer) {
    enum by_dtype type = BY_DTYPE_NONE;
    for (size_t i = 0; i < n_roles; i++) {
        char stem[MATRIX_NAME_MAX], name[MATRIX_NAME_MAX + 8];
        if (!bind_name(b, roles[i], layer, 0, stem, sizeof stem)) return true;
        snprintf(name, sizeof name, "%s.weight", stem);
        const struct by_tensor_info *t = by_model_dir_find(b->source.dir, name);
        if (!t) return true;
        if (i && t->dtype != type) return false;
        type = t->dtype;
    }
    return true;
}

/* The same model is saved with and without the prefix of its outer class, or inside a multimodal one. */
static void find_base(struct binder *b) {
    static const struct {
        const char *as, *others;
    } ways[] = {{NULL, ""},
                {"", ""},
                {"language_model.model.", "language_model."},
                {"model.language_model.", ""},
                {"model.text_model.", ""}};
    const char *embed = b->d->arch.names[ROLE_EMBED];
    const char *dot = strchr(embed, '.');
    if (!dot || b->d->info.is_gguf) return;
    for (size_t i = 0; i < BY_COUNTOF(ways); i++) {
        snprintf(b->base, sizeof b->base, "%.*s", (int)(dot - embed + 1), embed);
        snprintf(b->as, sizeof b->as, "%s", ways[i].as ? ways[i].as : b->base);
        snprintf(b->others, sizeof b->others, "%s", ways[i].others);
        if (bind_has(b, ROLE_EMBED, 0, 0)) return;
    }
    b->base[0] = b->as[0] = b->others[0] = 0;
}

void bind_start(struct binder *b, struct decoder *d, const struct by_model_dir *dir,
                const struct model_options *o, struct by_err *err) {
    *b = (struct binder){
        .d = d,
        .source = {.dir = dir, .b = d->b, .seen = mark_used, .ctx = b},
        .o = o,
        .err = err,
        .bytes_all = by_model_dir_weight_bytes(dir),
    };
    find_base(b);
}

/* ---- what nobody asked for ---- */

static int by_address(const void *a, const void *b) {
    const struct by_tensor_info *x = *(const struct by_tensor_info *const *)a,
                                *y = *(const struct by_tensor_info *const *)b;
    return x < y ? -1 : x > y;
}

/* UINT32_MAX: of no layer. */
static uint32_t layer_of(struct by_str name) {
    static const char *const stems[] = {"layers.", "blk."};
    for (size_t i = 0; i < BY_COUNTOF(stems); i++) {
        size_t at = by_str_find(name, by_str_of(stems[i]), 0);
        if (at == SIZE_MAX) continue;
        uint32_t layer = 0;
        for (at += strlen(stems[i]);
             at < name.n && name.p[at] >= '0' && name.p[at] <= '9' && layer <= BY_LAYERS_MAX; at++)
            layer = 10 * layer + (uint32_t)(name.p[at] - '0');
        return layer;
    }
    return UINT32_MAX;
}

/* Layers that guess further tokens lie behind the last one (DeepSeek V3, GLM); and layers that attend to another one's keys
 * may have what would make some of their own (Gemma 4). */
static bool is_left_out(const struct decoder *d, struct by_str name) {
    static const char *const keys[] = {"k_proj", "v_proj", "k_norm", "attn_k", "attn_v"};
    const uint32_t layer = layer_of(name), n_own = d->info.n_layers - d->info.n_kv_shared;
    for (size_t i = 0; i < BY_COUNTOF(keys) && layer != UINT32_MAX && layer >= n_own; i++)
        if (by_str_find(name, by_str_of(keys[i]), 0) != SIZE_MAX) return true;
    return layer != UINT32_MAX && layer >= d->info.n_layers;
}

/* Tensors that repeat what the config says, or belong to parts that are left out on purpose. */
static bool may_be_unused(const struct decoder *d, struct by_str name) {
    static const char *const parts[] = {
        "rotary_emb",     "inv_freq",     "rope_f", "attn.bias",   "masked_bias",
        "attention.bias", "position_ids", "vision", "multi_modal", "pooler",
        "_scale",         "mtp",          "audio"};
    for (size_t i = 0; i < BY_COUNTOF(parts); i++) {
        if (by_str_find(name, by_str_of(parts[i]), 0) != SIZE_MAX) return true;
    }
    if (is_left_out(d, name)) return true;
    return d->info.is_tied &&
           (by_str_eqz(name, "lm_head.weight") || by_str_eqz(name, "output.weight"));
}

void bind_finish(struct binder *b, bool is_complete) {
    const struct by_tensor_info *first = NULL;
    size_t n = 0;
    if (b->n_used) qsort(b->used, b->n_used, sizeof *b->used, by_address);
    for (size_t i = 0; i < by_model_dir_n_tensors(b->source.dir); i++) {
        const struct by_tensor_info *t = by_model_dir_tensor(b->source.dir, i);
        if (b->n_used && bsearch(&t, b->used, b->n_used, sizeof *b->used, by_address)) continue;
        if (may_be_unused(b->d, t->name)) continue;
        if (!n++) first = t;
    }
    if (n && is_complete && b->d->share.rank == 0)
        by_warn("%zu tensors of the model are not used by its family '%s', the first is %.*s", n,
                b->d->info.family, (int)BY_MIN(first->name.n, (size_t)200), first->name.p);
    by_free(b->used);
    b->used = NULL;
}

/* ---- vectors ---- */

static bool are_finite(const float *v, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(v[i])) return false;
    }
    return true;
}

int bind_read(struct binder *b, float **out, const struct bind_vector *v) {
    char stem[MATRIX_NAME_MAX];
    if (!bind_name(b, v->role, v->layer, v->expert, stem, sizeof stem)) return 0;
    const struct by_tensor_info *t = matrix_find(&b->source, stem, v->suffix);
    if (!t && v->is_optional) return 0;
    if (!t) return by_fail(b->err, BY_ENOTFOUND, "there is no tensor %s%s", stem, v->suffix);
    uint64_t rows, cols;
    by_tensor_rows(t, &rows, &cols);
    const uint32_t n_all = v->n_all ? v->n_all : v->n;
    if (rows != BY_MAX(v->n_slices, 1u) || cols != n_all)
        return v->n_slices ? matrix_shape_error(t, b->err, "[%u, %u]", v->n_slices, n_all)
                           : matrix_shape_error(t, b->err, "[%u]", n_all);
    if (!by_dtype_is_float(t->dtype) || !by_dtype_has_f32(t->dtype))
        return by_fail(b->err, BY_EUNSUPPORTED,
                       "the tensor %s%s is of type %s, which is not supported", stem, v->suffix,
                       by_dtype_name(t->dtype));
    const uint32_t n_rows = v->wants_all ? v->n_slices : 1;
    const uint32_t first = v->n_slices && !v->wants_all ? v->expert : 0;
    float *p = by_alloc_array((size_t)n_rows * n_all, sizeof *p);
    for (uint32_t r = 0; r < n_rows; r++)
        by_tensor_row_f32(t, first + r, p + (size_t)r * n_all);
    if (v->n_all) memmove(p, p + v->first, v->n * sizeof *p);
    if (!are_finite(p, (size_t)n_rows * v->n)) {
        by_free(p);
        return by_fail(b->err, BY_EINVAL, "the tensor %s%s holds a number that is not finite", stem,
                       v->suffix);
    }
    *out = p;
    return 0;
}

static int put(struct binder *b, const float **out, const float *v, uint32_t n) {
    *out = b->d->b->put(b->d->b, v, n);
    return *out ? 0 : by_fail(b->err, BY_ENOMEM, "no memory for %u numbers", n);
}

int bind_put(struct binder *b, const float **out, const struct bind_vector *v) {
    float *p = NULL;
    int rc = bind_read(b, &p, v);
    if (!rc && p) rc = put(b, out, p, v->wants_all ? v->n * v->n_slices : v->n);
    by_free(p);
    return rc;
}

int bind_norm(struct binder *b, struct norm *out, enum role role, uint32_t layer, uint32_t width) {
    const struct arch *a = &b->d->arch;
    *out = (struct norm){.kind = a->norm, .eps = (float)b->d->info.norm_eps};
    if (!a->names[role]) return 0;
    float *w = NULL;
    int rc = bind_read(
        b, &w,
        &(struct bind_vector){.role = role, .suffix = ".weight", .layer = layer, .n = width});
    for (uint32_t i = 0; w && a->layout.norm_less_one && i < width; i++)
        w[i] += 1;
    if (!rc) rc = put(b, &out->w, w, width);
    by_free(w);
    if (rc || out->kind != NORM_LAYER) return rc;
    return bind_put(
        b, &out->b,
        &(struct bind_vector){
            .role = role, .suffix = ".bias", .layer = layer, .n = width, .is_optional = true});
}

/* ---- matrices ---- */

/* Weights that are not quantised are when --quantization says so; where rows are no whole blocks they stay. What reads
 * or writes tokens keeps 8 bits: it decides more than its share. */
static enum by_dtype stack_dtype(const struct binder *b, const struct stack *s,
                                 const struct bind *w) {
    enum by_dtype t = s->parts[0].m->dtype, want = w->keep_type ? BY_DTYPE_NONE : b->o->quantize;
    if (w->is_exact) return BY_DTYPE_F32;
    if (w->is_of_tokens && by_dtype_is_quantised(want)) want = BY_DTYPE_Q8_0;
    for (uint32_t i = 0; i < s->n_parts; i++) {
        if (s->parts[i].m->dtype != t) t = BY_DTYPE_F32;
        if (by_dtype_is_quantised(s->parts[i].m->dtype)) want = BY_DTYPE_NONE;
    }
    if (want != BY_DTYPE_NONE && s->n_cols % by_dtype_block_len(want) == 0) t = want;
    return t;
}

int bind_stack(struct binder *b, struct weight **out, struct stack *s,
               const struct weight_source *flags) {
    struct weight_source src = *flags;
    src.n_out = 0;
    for (uint32_t i = 0; i < s->n_parts; i++)
        src.n_out += s->parts[i].n;
    src.n_in = s->n_cols;
    src.dtype = s->dtype;
    src.row = stack_row;
    src.ctx = s;
    const char *name = s->parts[0].m->name;
    int rc = b->d->b->weight_new(b->d->b, out, &src, b->err);
    if (rc) return by_fail_prefix(b->err, "the tensor %s", name);
    unsigned bad = atomic_load(&s->bad);
    if (!bad) return 0;
    return by_fail(b->err, BY_EINVAL, "the tensor %s holds a number that is not finite",
                   s->parts[bad - 1].m->name);
}

/* The biases of a stack's parts, rows in the stack's order; *out NULL when no part has one. */
static int read_bias(struct binder *b, float **out, const struct bind *w) {
    uint32_t n = 0, at = 0;
    bool found = false;
    for (uint32_t i = 0; i < w->n_parts; i++)
        n += w->parts[i].n;
    float *all = by_alloc_array(n, sizeof *all);
    int rc = 0;
    for (uint32_t i = 0; i < w->n_parts && !rc; i++) {
        const struct bind_part *p = &w->parts[i];
        float *v = NULL;
        struct bind_vector want = {.role = p->role,
                                   .suffix = "_bias",
                                   .layer = w->layer,
                                   .expert = w->expert,
                                   .n = p->rows,
                                   .n_slices = w->n_slices,
                                   .is_optional = true};
        rc = bind_read(b, &v, &want);
        want.suffix = ".bias";
        want.is_optional = !w->wants_bias;
        if (!rc && !v) rc = bind_read(b, &v, &want);
        for (uint32_t r = 0; v && r < p->n; r++)
            all[at + r] =
                v[p->run ? r / p->run * p->stride + r % p->run + p->offset : r + p->offset];
        found |= v != NULL;
        at += p->n;
        by_free(v);
    }
    if (found && !rc) {
        *out = all;
        all = NULL;
    }
    by_free(all);
    return rc;
}

static void show_progress(struct binder *b, const struct matrix *m) {
    b->bytes_done += m->row_bytes * m->n_rows;
    if (b->o->progress && b->bytes_all)
        b->o->progress(b->o->progress_ctx, fmin(1, (double)b->bytes_done / (double)b->bytes_all));
}

/* Ranks part a matrix's columns between blocks of its type. */
static int check_cut(struct binder *b, const struct bind *w, const struct matrix *m) {
    uint32_t block = by_dtype_block_len(m->dtype);
    if (w->in_first % block == 0 && w->n_in % block == 0) return 0;
    return by_fail(
        b->err, BY_EUNSUPPORTED,
        "the tensor %s is of type %s, blocks of %u columns, and --tp-size %u would cut at "
        "column %u",
        m->name, by_dtype_name(m->dtype), block, b->d->share.world,
        w->in_first % block ? w->in_first : w->in_first + w->n_in);
}

int bind_matrix(struct binder *b, struct weight **out, const struct bind *w) {
    struct matrix m[STACK_PARTS_MAX] = {0};
    struct stack s = {.n_parts = w->n_parts, .n_cols = w->n_in, .col_first = w->in_first};
    float *bias = NULL;
    int rc = 0;
    for (uint32_t i = 0; i < w->n_parts && !rc; i++) {
        const struct bind_part *p = &w->parts[i];
        char stem[MATRIX_NAME_MAX];
        bool is_same = i && p->role == w->parts[i - 1].role;
        s.parts[i] = (struct stack_part){.m = is_same ? s.parts[i - 1].m : &m[i],
                                         .n = p->n,
                                         .run = p->run,
                                         .stride = p->stride,
                                         .offset = p->offset};
        if (is_same) continue;
        struct matrix_want want = {
            .stem = bind_name(b, p->role, w->layer, w->expert, stem, sizeof stem),
            .n_rows = p->rows,
            .n_cols = w->n_in_all ? w->n_in_all : w->n_in,
            .slice = w->n_slices ? w->expert : 0,
            .n_slices = w->n_slices,
            .is_transposed = w->is_transposed};
        rc = want.stem ? matrix_open(&m[i], &b->source, &want, b->err)
                       : by_fail(b->err, BY_EINTERNAL, "a role without a name");
    }
    if (!rc && w->n_in_all) rc = check_cut(b, w, &m[0]);
    if (!rc && !w->no_bias) rc = read_bias(b, &bias, w);
    if (!rc) {
        s.dtype = stack_dtype(b, &s, w);
        rc = bind_stack(b, out, &s,
                        &(struct weight_source){.bias = bias,
                                                .is_gated = w->is_gated,
                                                .is_row_lookup = w->is_row_lookup,
                                                .out_n = w->out_n});
    }
    for (uint32_t i = 0; i < w->n_parts; i++) {
        show_progress(b, &m[i]);
        matrix_close(&m[i]);
    }
    by_free(bias);
    return rc;
}
