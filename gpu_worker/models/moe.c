#include "gpu_worker/models/moe.h"

#include "common/base/mem.h"

#include <math.h>

/* ---- forward ---- */

static void project(const struct pass *p, const struct weight *w, const struct norm *norm,
                    enum act_kind act, const struct buffer *y) {
    const struct decoder *d = p->d;
    d->b->linear(p->lane, &(struct op_linear){.is_fine = p->d->is_fine,
                                              .w = w,
                                              .x = d->x.p,
                                              .x_ld = d->x.ld,
                                              .norm = norm,
                                              .act = act,
                                              .y = y->p,
                                              .y_ld = y->ld,
                                              .scale = 1,
                                              .first = p->first,
                                              .n = p->n});
}

static void route(const struct pass *p, const struct moe *m) {
    const struct decoder *d = p->d;
    const struct by_moe_info *x = &d->info.moe;
    d->b->route(p->lane, &(struct op_route){.logits = d->moe.logits.p,
                                            .logits_ld = d->moe.logits.ld,
                                            .n_experts = x->n_experts,
                                            .n_used = x->n_used,
                                            .is_sigmoid = x->score == BY_MOE_SIGMOID,
                                            .norm_topk = x->norm_topk,
                                            .choice_bias = m->choice_bias,
                                            .weight_scale = m->weight_scale,
                                            .n_groups = x->n_groups,
                                            .n_groups_used = x->n_groups_used,
                                            .group_by_top2 = x->group_by_top2,
                                            .scale = (float)x->routed_scale,
                                            .experts = d->moe.experts,
                                            .weights = d->moe.weights.p,
                                            .first = p->first,
                                            .n = p->n});
}

/* Shared experts see every token; one gate may weigh them. Their input is read before x changes. */
static void shared_in(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    const struct norm *norm = decoder_norm(&l->ffn_norm);
    if (!l->moe->shared_gate_up) return;
    project(p, l->moe->shared_gate_up, norm, d->arch.act, &d->ffn);
    if (!l->moe->shared_score) return;
    project(p, l->moe->shared_score, norm, ACT_NONE, &d->moe.gate);
    d->b->gate(p->lane, &(struct op_gate){.x = d->ffn.p,
                                          .ld = d->ffn.ld,
                                          .width = d->info.moe.shared_ffn,
                                          .gate = d->moe.gate.p,
                                          .gate_ld = d->moe.gate.ld,
                                          .first = p->first,
                                          .n = p->n});
}

/* y = 0: x is finite, or its row is lost anyway. */
static void clear(const struct pass *p, const struct buffer *y) {
    p->d->b->norm(p->lane, &(struct op_norm){.x = p->d->x.p,
                                             .x_ld = p->d->x.ld,
                                             .width = p->d->info.hidden,
                                             .y = y->p,
                                             .y_ld = y->ld,
                                             .scale = 0,
                                             .first = p->first,
                                             .n = p->n});
}

static void choose(const struct pass *p, const struct layer *l) {
    const struct norm *own = decoder_norm(&l->moe->router_norm);
    project(p, l->moe->router, own ? own : decoder_norm(&l->ffn_norm), ACT_NONE, &p->d->moe.logits);
    route(p, l->moe);
}

/* y += scale * what the chosen experts make of x */
static void add_experts(const struct pass *p, const struct layer *l, const struct buffer *y,
                        float scale) {
    const struct decoder *d = p->d;
    const struct norm *own = decoder_norm(&l->moe->norm);
    d->b->experts(p->lane,
                  &(struct op_experts){.gate_up = (const struct weight *const *)l->moe->gate_up,
                                       .down = (const struct weight *const *)l->moe->down,
                                       .n_experts = d->info.moe.n_experts,
                                       .n_used = d->info.moe.n_used,
                                       .experts = d->moe.experts,
                                       .weights = d->moe.weights.p,
                                       .x = d->x.p,
                                       .x_ld = d->x.ld,
                                       .norm = own ? own : decoder_norm(&l->ffn_norm),
                                       .act = d->arch.act,
                                       .y = y->p,
                                       .y_ld = y->ld,
                                       .scale = scale,
                                       .scratch = d->moe.scratch.p,
                                       .is_fine = d->is_fine,
                                       .first = p->first,
                                       .n = p->n});
}

void moe_forward(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    const bool is_part = decoder_is_part(d, false);
    const bool is_direct = !is_part && !l->post_ffn_norm.w;
    const float scale = is_direct ? (float)d->info.residual_scale : 1;
    const struct buffer *y = is_direct ? &d->x : &d->out;
    choose(p, l);
    shared_in(p, l);
    if (!is_direct) clear(p, y);
    add_experts(p, l, y, scale);
    if (l->moe->shared_down) {
        d->b->linear(p->lane, &(struct op_linear){.is_fine = p->d->is_fine,
                                                  .w = l->moe->shared_down,
                                                  .x = d->ffn.p,
                                                  .x_ld = d->ffn.ld,
                                                  .y = y->p,
                                                  .y_ld = y->ld,
                                                  .is_add = true,
                                                  .scale = scale,
                                                  .first = p->first,
                                                  .n = p->n});
    }
    if (is_part)
        decoder_sum(p, &l->post_ffn_norm);
    else
        decoder_add(p, &l->post_ffn_norm);
}

/* out = or += norm(x) */
static void norm_to_out(const struct pass *p, const struct buffer *x, const struct norm *norm,
                        bool is_add) {
    const struct decoder *d = p->d;
    d->b->norm(p->lane, &(struct op_norm){.x = x->p,
                                          .x_ld = x->ld,
                                          .width = d->info.hidden,
                                          .norm = norm,
                                          .y = d->out.p,
                                          .y_ld = d->out.ld,
                                          .is_add = is_add,
                                          .scale = 1,
                                          .first = p->first,
                                          .n = p->n});
}

void moe_beside(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    const bool is_part = decoder_is_part(d, false);
    d->b->linear(p->lane, &(struct op_linear){.is_fine = d->is_fine,
                                              .w = l->down,
                                              .x = d->ffn.p,
                                              .x_ld = d->ffn.ld,
                                              .y = d->out.p,
                                              .y_ld = d->out.ld,
                                              .scale = 1,
                                              .first = p->first,
                                              .n = p->n});
    choose(p, l);
    clear(p, &d->moe.out);
    add_experts(p, l, &d->moe.out, 1);
    if (is_part) decoder_sum_rows(p, &d->out);
    if (is_part) decoder_sum_rows(p, &d->moe.out);
    norm_to_out(p, &d->out, &l->moe->dense_post_norm, false);
    norm_to_out(p, &d->moe.out, &l->moe->post_norm, true);
    decoder_add(p, &l->post_ffn_norm);
}

/* ---- weights ---- */

/* One tensor for all experts has no '@' in its name. */
static uint32_t slices(const struct decoder *d, enum role role) {
    const char *name = d->arch.names[role];
    for (; name && *name; name++) {
        if (*name == '@') return 0;
    }
    return d->info.moe.n_experts;
}

static bool are_transposed(struct binder *b, enum role role, uint32_t layer, uint32_t n_out,
                           uint32_t n_in) {
    const struct layout *layout = &b->d->arch.layout;
    char name[MATRIX_NAME_MAX];
    if (!layout->experts_either_way || !bind_name(b, role, layer, 0, name, sizeof name))
        return layout->experts_transposed;
    const struct by_tensor_info *t = by_model_dir_find(b->source.dir, name);
    return t && t->n_dims == 3 && !(t->shape[1] == n_out && t->shape[2] == n_in);
}

static int bind_expert(struct binder *b, struct moe *m, uint32_t layer, uint32_t e) {
    const struct decoder *d = b->d;
    const struct cut cut = d->share.expert;
    const uint32_t n = d->full.moe.ffn, hidden = d->info.hidden;
    const struct layout *layout = &d->arch.layout;
    struct bind w = {.n_parts = 2,
                     .n_in = hidden,
                     .layer = layer,
                     .expert = e,
                     .is_gated = true,
                     .is_transposed = are_transposed(b, ROLE_EXPERT_GATE_UP, layer, 2 * n, hidden)};
    if (!bind_has(b, ROLE_EXPERT_GATE_UP, layer, e)) {
        w.n_slices = slices(d, ROLE_EXPERT_GATE);
        w.parts[0] = bind_cut(ROLE_EXPERT_GATE, n, 0, cut);
        w.parts[1] = bind_cut(ROLE_EXPERT_UP, n, 0, cut);
    } else if (layout->gate_up_by_pairs) {
        w.n_slices = slices(d, ROLE_EXPERT_GATE_UP);
        for (uint32_t i = 0; i < 2; i++)
            w.parts[i] = (struct bind_part){.role = ROLE_EXPERT_GATE_UP,
                                            .rows = 2 * n,
                                            .n = cut.n,
                                            .run = 1,
                                            .stride = 2,
                                            .offset = 2 * cut.first + i};
    } else {
        w.n_slices = slices(d, ROLE_EXPERT_GATE_UP);
        w.parts[0] = bind_cut(ROLE_EXPERT_GATE_UP, 2 * n, 0, cut);
        w.parts[1] = bind_cut(ROLE_EXPERT_GATE_UP, 2 * n, n, cut);
    }
    const bool has_all =
        w.parts[0].role == ROLE_EXPERT_GATE_UP && d->arch.names[ROLE_EXPERT_DOWN_ALL];
    const enum role down = has_all ? ROLE_EXPERT_DOWN_ALL : ROLE_EXPERT_DOWN;
    int rc = bind_matrix(b, &m->gate_up[e], &w);
    if (rc) return rc;
    return bind_matrix(b, &m->down[e],
                       &(struct bind){.parts = {bind_whole(down, hidden)},
                                      .n_parts = 1,
                                      .n_in = cut.n,
                                      .n_in_all = n,
                                      .in_first = cut.first,
                                      .no_bias = d->share.rank > 0,
                                      .layer = layer,
                                      .expert = e,
                                      .n_slices = slices(d, down),
                                      .is_transposed = are_transposed(b, down, layer, hidden, n)});
}

static int bind_shared(struct binder *b, struct moe *m, uint32_t layer) {
    const struct by_model_info *info = &b->d->info;
    const struct cut cut = b->d->share.shared;
    const uint32_t n = b->d->full.moe.shared_ffn;
    if (!n) return 0;
    struct bind w = {
        .parts = {bind_cut(ROLE_SHARED_GATE, n, 0, cut), bind_cut(ROLE_SHARED_UP, n, 0, cut)},
        .n_parts = 2,
        .n_in = info->hidden,
        .layer = layer,
        .is_gated = true};
    if (b->d->arch.names[ROLE_SHARED_GATE_UP]) {
        w.parts[0] = bind_cut(ROLE_SHARED_GATE_UP, 2 * n, 0, cut);
        w.parts[1] = bind_cut(ROLE_SHARED_GATE_UP, 2 * n, n, cut);
    }
    int rc = bind_matrix(b, &m->shared_gate_up, &w);
    if (!rc)
        rc = bind_matrix(b, &m->shared_down,
                         &(struct bind){.parts = {bind_whole(ROLE_SHARED_DOWN, info->hidden)},
                                        .n_parts = 1,
                                        .n_in = cut.n,
                                        .n_in_all = n,
                                        .in_first = cut.first,
                                        .no_bias = b->d->share.rank > 0,
                                        .layer = layer});
    if (rc || !info->moe.has_shared_gate) return rc;
    return bind_matrix(b, &m->shared_score,
                       &(struct bind){.parts = {bind_whole(ROLE_SHARED_SCORE, 1)},
                                      .n_parts = 1,
                                      .n_in = info->hidden,
                                      .layer = layer,
                                      .keep_type = true});
}

/* Whatever stands between the router, the experts and a feed-forward beside them. */
static int bind_beside(struct binder *b, struct moe *m, uint32_t layer) {
    struct decoder *d = b->d;
    const uint32_t hidden = d->info.hidden;
    float *scale = NULL;
    int rc = bind_norm(b, &m->norm, ROLE_EXPERT_NORM, layer, hidden);
    if (!rc) rc = bind_norm(b, &m->post_norm, ROLE_POST_EXPERT_NORM, layer, hidden);
    if (!rc) rc = bind_norm(b, &m->dense_post_norm, ROLE_POST_DENSE_NORM, layer, hidden);
    if (!rc)
        rc = bind_put(b, &m->weight_scale,
                      &(struct bind_vector){.role = ROLE_EXPERT_SCALE,
                                            .suffix = "",
                                            .layer = layer,
                                            .n = d->info.moe.n_experts});
    if (!rc)
        rc = bind_read(b, &scale,
                       &(struct bind_vector){
                           .role = ROLE_ROUTER_SCALE, .suffix = "", .layer = layer, .n = hidden});
    for (uint32_t i = 0; scale && i < hidden; i++)
        scale[i] /= sqrtf((float)hidden);
    m->router_norm = (struct norm){.kind = NORM_RMS, .eps = (float)d->info.norm_eps};
    if (scale) m->router_norm.w = d->b->put(d->b, scale, hidden);
    if (scale && !m->router_norm.w)
        rc = by_fail(b->err, BY_ENOMEM, "no memory for %u numbers", hidden);
    by_free(scale);
    return rc;
}

int moe_bind(struct binder *b, struct layer *l, uint32_t layer) {
    struct decoder *d = b->d;
    const uint32_t n = d->info.moe.n_experts;
    struct moe *m = l->moe = by_alloc(sizeof *m);
    m->gate_up = by_alloc_array(n, sizeof(struct weight *));
    m->down = by_alloc_array(n, sizeof(struct weight *));
    /* In f32, as transformers has it: what a rounded activation would change is which expert is asked. */
    int rc = bind_matrix(b, &m->router,
                         &(struct bind){.parts = {bind_whole(ROLE_ROUTER, n)},
                                        .n_parts = 1,
                                        .n_in = d->info.hidden,
                                        .layer = layer,
                                        .is_exact = true});
    if (!rc && d->info.moe.is_bias_corrected)
        rc = bind_put(
            b, &m->choice_bias,
            &(struct bind_vector){.role = ROLE_ROUTER_BIAS, .suffix = "", .layer = layer, .n = n});
    if (!rc) rc = bind_beside(b, m, layer);
    for (uint32_t e = 0; e < n && !rc; e++)
        rc = bind_expert(b, m, layer, e);
    return rc ? rc : bind_shared(b, m, layer);
}

void moe_release(struct decoder *d, struct moe *m) {
    if (!m) return;
    for (uint32_t e = 0; e < d->info.moe.n_experts; e++) {
        d->b->weight_free(d->b, m->gate_up[e]);
        d->b->weight_free(d->b, m->down[e]);
    }
    struct weight *rest[] = {m->router, m->shared_gate_up, m->shared_down, m->shared_score};
    for (size_t i = 0; i < BY_COUNTOF(rest); i++)
        d->b->weight_free(d->b, rest[i]);
    const float *vectors[] = {m->choice_bias, m->weight_scale, m->router_norm.w,
                              m->norm.w,      m->post_norm.w,  m->dense_post_norm.w};
    for (size_t i = 0; i < BY_COUNTOF(vectors); i++)
        d->b->free(d->b, (void *)(uintptr_t)vectors[i]);
    by_free(m->gate_up);
    by_free(m->down);
    by_free(m);
}
