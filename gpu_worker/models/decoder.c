#include "gpu_worker/models/decoder.h"

#include "common/base/check.h"
#include "gpu_worker/models/mla.h"
#include "gpu_worker/models/moe.h"
#include "gpu_worker/models/shared_prefix.h"
#include "gpu_worker/models/states.h"

#include <math.h>
#include <string.h>

/* ---- one layer, for the rows in hand ---- */

/* What each layer adds of a token: of the token itself, and of its embedding. */
static void embed_layers(const struct pass *p) {
    const struct decoder *d = p->d;
    const double half = sqrt(0.5);
    d->b->embed(p->lane,
                &(struct op_embed){.table = d->token_layers,
                                   .ids = p->s->ids,
                                   .last = p->s->last,
                                   .scale = (float)(sqrt((double)d->info.per_layer) * half),
                                   .out = d->token.p,
                                   .ld = d->token.ld,
                                   .first = p->first,
                                   .n = p->n});
    d->b->linear(p->lane, &(struct op_linear){.is_fine = d->is_fine,
                                              .w = d->token_layers_proj,
                                              .x = d->x.p,
                                              .x_ld = d->x.ld,
                                              .y = d->ffn.p,
                                              .y_ld = d->ffn.ld,
                                              .scale = (float)(1 / sqrt((double)d->info.hidden)),
                                              .first = p->first,
                                              .n = p->n});
    d->b->norm(p->lane, &(struct op_norm){.x = d->ffn.p,
                                          .x_ld = d->ffn.ld,
                                          .width = d->info.per_layer,
                                          .n_parts = d->info.n_layers,
                                          .norm = &d->token_layers_norm,
                                          .y = d->token.p,
                                          .y_ld = d->token.ld,
                                          .is_add = true,
                                          .scale = (float)half,
                                          .first = p->first,
                                          .n = p->n});
}

static void embed(const struct pass *p) {
    const struct decoder *d = p->d;
    d->b->embed(p->lane, &(struct op_embed){.table = d->embed,
                                            .ids = p->s->ids,
                                            .last = p->s->last,
                                            .scale = (float)d->info.embed_scale,
                                            .pos_table = d->positions,
                                            .positions = p->s->positions,
                                            .pos_offset = d->info.pos_offset,
                                            .type_table = d->types,
                                            .types = p->s->types,
                                            .out = d->x.p,
                                            .ld = d->x.ld,
                                            .first = p->first,
                                            .n = p->n});
    if (d->token_layers) embed_layers(p);
    if (!d->embed_norm.w) return;
    d->b->norm(p->lane, &(struct op_norm){.x = d->x.p,
                                          .x_ld = d->x.ld,
                                          .width = d->info.hidden,
                                          .norm = &d->embed_norm,
                                          .y = d->x.p,
                                          .y_ld = d->x.ld,
                                          .scale = 1,
                                          .first = p->first,
                                          .n = p->n});
}

static void project(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    for (uint32_t i = 0; i < l->qkv.n; i++)
        d->b->linear(p->lane, &(struct op_linear){.is_fine = d->is_fine,
                                                  .w = l->qkv.w[i],
                                                  .x = d->x.p,
                                                  .x_ld = d->x.ld,
                                                  .norm = decoder_norm(&l->attn_norm),
                                                  .y = d->qkv.p,
                                                  .y_ld = d->qkv.ld,
                                                  .y_col = l->qkv.y_col[i],
                                                  .scale = 1,
                                                  .first = p->first,
                                                  .n = p->n});
}

/* Each head of the values, or of what keys are made of where that is the values. */
static void norm_values(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    const struct heads *h = l->heads;
    bool is_of_keys = d->info.k_is_v && h == &d->full_heads;
    d->b->norm(p->lane, &(struct op_norm){.x = d->qkv.p,
                                          .x_ld = d->qkv.ld,
                                          .x_col = is_of_keys ? h->k_col : h->v_col,
                                          .width = h->kv.v_dim,
                                          .n_parts = h->kv.n_kv_heads,
                                          .norm = &l->v_norm,
                                          .y = d->qkv.p,
                                          .y_ld = d->qkv.ld,
                                          .y_col = h->v_col,
                                          .scale = 1,
                                          .first = p->first,
                                          .n = p->n});
}

/* Queries, keys and values of the rows; keys and values go into the pages, where every later row sees them. */
static void attend_in(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    struct kv_shape kv = l->heads->kv;
    if (l->mla)
        mla_project(p, l);
    else
        project(p, l);
    if (l->state) return;
    if (l->v_norm.w) norm_values(p, l);
    if (l != &d->layers[l->kv_layer]) kv.n_kv_heads = 0;
    d->b->kv_write(p->lane, &(struct op_kv_write){.x = d->qkv.p,
                                                  .ld = d->qkv.ld,
                                                  .k_col = l->heads->k_col,
                                                  .v_col = l->heads->v_col,
                                                  .n_heads = d->info.n_heads,
                                                  .q_dim = kv.k_dim,
                                                  .q_norm = decoder_norm(&l->q_norm),
                                                  .k_norm = decoder_norm(&l->k_norm),
                                                  .qk_whole = d->arch.qk_whole,
                                                  .norm_is_last = d->arch.qk_norm_is_last,
                                                  .q_growth = {(float)d->info.query_growth,
                                                               d->info.query_growth_every},
                                                  .rope = l->rope,
                                                  .is_interleaved = d->info.rope.is_interleaved,
                                                  .q_rot_col = l->heads->rot_col,
                                                  .k_rot_col = l->heads->rot_col,
                                                  .kv = kv,
                                                  .pool = l->kv,
                                                  .positions = p->s->positions,
                                                  .seqs = p->s->seqs,
                                                  .n_seqs = p->s->n_seqs,
                                                  .first = p->first,
                                                  .n = p->n});
}

void decoder_add(const struct pass *p, const struct norm *post) {
    const struct decoder *d = p->d;
    if (!post->w) return;
    bool is_post_ln = d->arch.is_post_ln;
    d->b->norm(p->lane, &(struct op_norm){.x = is_post_ln ? d->x.p : d->out.p,
                                          .x_ld = is_post_ln ? d->x.ld : d->out.ld,
                                          .width = d->info.hidden,
                                          .norm = post,
                                          .y = d->x.p,
                                          .y_ld = d->x.ld,
                                          .is_add = !is_post_ln,
                                          .scale = is_post_ln ? 1 : (float)d->info.residual_scale,
                                          .first = p->first,
                                          .n = p->n});
}

static int sum_on_host(void *tp, float *x, size_t n) {
    return tp_sum(tp, x, n);
}

static int sum_ranks(const struct pass *p, float *x, size_t n) {
    const struct decoder *d = p->d;
    return d->b->sum ? d->b->sum(p->lane, x, n, sum_on_host, d->tp) : tp_sum(d->tp, x, n);
}

void decoder_sum_rows(const struct pass *p, const struct buffer *b) {
    struct decoder *d = p->d;
    while (d->b->lane_next(p->lane, 1) != UINT32_MAX)
        if (!d->tp_rc) d->tp_rc = sum_ranks(p, b->p, (size_t)p->n * b->ld);
    d->b->barrier(p->lane);
}

void decoder_sum(const struct pass *p, const struct norm *post) {
    const struct decoder *d = p->d;
    decoder_sum_rows(p, &d->out);
    if (post->w && !d->arch.is_post_ln) {
        decoder_add(p, post);
        return;
    }
    d->b->norm(p->lane, &(struct op_norm){.x = d->out.p,
                                          .x_ld = d->out.ld,
                                          .width = d->info.hidden,
                                          .y = d->x.p,
                                          .y_ld = d->x.ld,
                                          .is_add = true,
                                          .scale = (float)d->info.residual_scale,
                                          .first = p->first,
                                          .n = p->n});
    decoder_add(p, post);
}

/* A sublayer's last matrix adds to x itself, unless a norm or a sum over ranks comes between. */
static void add_linear(const struct pass *p, const struct weight *w, const struct buffer *x,
                       const struct norm *post, bool is_part) {
    const struct decoder *d = p->d;
    bool is_direct = !is_part && (!post->w || d->arch.is_post_ln);
    const struct buffer *y = is_direct ? &d->x : &d->out;
    d->b->linear(p->lane,
                 &(struct op_linear){.is_fine = d->is_fine,
                                     .w = w,
                                     .x = x->p,
                                     .x_ld = x->ld,
                                     .y = y->p,
                                     .y_ld = y->ld,
                                     .is_add = is_direct,
                                     .scale = is_direct ? (float)d->info.residual_scale : 1,
                                     .first = p->first,
                                     .n = p->n});
    if (is_part)
        decoder_sum(p, post);
    else
        decoder_add(p, post);
}

static void attend(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    const struct buffer *y = l->mla ? &d->mla.latent : &d->attn;
    d->b->attention(p->lane, &(struct op_attention){.q = d->qkv.p,
                                                    .q_ld = d->qkv.ld,
                                                    .n_heads = d->info.n_heads,
                                                    .scale = (float)d->info.attn_scale,
                                                    .softcap = (float)d->info.attn_softcap,
                                                    .window = l->window,
                                                    .is_full = d->arch.is_encoder,
                                                    .sinks = l->sinks,
                                                    .kv = l->heads->kv,
                                                    .pool = l->kv,
                                                    .out = y->p,
                                                    .out_ld = y->ld,
                                                    .seqs = p->s->seqs,
                                                    .n_seqs = p->s->n_seqs,
                                                    .first = p->first,
                                                    .n = p->n,
                                                    .prefixes = {d->order, d->common, d->n_order}});
    if (l->mla) mla_output(p, l);
    if (!l->heads->gate_cols) return;
    d->b->gate(p->lane, &(struct op_gate){.x = d->attn.p,
                                          .ld = d->attn.ld,
                                          .width = l->heads->gate_cols,
                                          .gate = d->qkv.p,
                                          .gate_ld = d->qkv.ld,
                                          .gate_col = l->heads->q_cols,
                                          .is_by_column = true,
                                          .first = p->first,
                                          .n = p->n});
}

static void attend_out(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    if (l->state)
        states_finish(p, l);
    else
        attend(p, l);
    add_linear(p, l->o, &d->attn, &l->post_attn_norm, decoder_is_part(d, true));
}

static void feed_in(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    if (!l->up) return;
    d->b->linear(p->lane, &(struct op_linear){.is_fine = d->is_fine,
                                              .w = l->up,
                                              .x = d->x.p,
                                              .x_ld = d->x.ld,
                                              .norm = decoder_norm(&l->ffn_norm),
                                              .act = d->arch.act,
                                              .y = d->ffn.p,
                                              .y_ld = d->ffn.ld,
                                              .scale = 1,
                                              .first = p->first,
                                              .n = p->n});
}

static void feed_out(const struct pass *p, const struct layer *l) {
    if (l->moe && l->up)
        moe_beside(p, l);
    else if (l->moe)
        moe_forward(p, l);
    else
        add_linear(p, l->down, &p->d->ffn, &l->post_ffn_norm, decoder_is_part(p->d, false));
}

/* x += norm(out (act(gate x) * what the layer has of the token)) */
static void add_token(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    const uint32_t n = d->info.per_layer;
    d->b->linear(p->lane, &(struct op_linear){.is_fine = d->is_fine,
                                              .w = l->token.gate,
                                              .x = d->x.p,
                                              .x_ld = d->x.ld,
                                              .act = d->arch.act,
                                              .y = d->ffn.p,
                                              .y_ld = d->ffn.ld,
                                              .scale = 1,
                                              .first = p->first,
                                              .n = p->n});
    d->b->gate(p->lane, &(struct op_gate){.x = d->ffn.p,
                                          .ld = d->ffn.ld,
                                          .width = n,
                                          .gate = d->token.p,
                                          .gate_ld = d->token.ld,
                                          .gate_col = (uint32_t)(l - d->layers) * n,
                                          .is_by_column = true,
                                          .is_plain = true,
                                          .first = p->first,
                                          .n = p->n});
    add_linear(p, l->token.out, &d->ffn, &l->token.post_norm, false);
}

static void scale_rows(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    d->b->norm(p->lane, &(struct op_norm){.x = d->x.p,
                                          .x_ld = d->x.ld,
                                          .width = d->info.hidden,
                                          .y = d->x.p,
                                          .y_ld = d->x.ld,
                                          .scale = l->scale,
                                          .first = p->first,
                                          .n = p->n});
}

/* What follows once all keys of the layer are in place. */
static void finish(const struct pass *p, const struct layer *l) {
    if (p->d->arch.is_parallel) feed_in(p, l); /* reads x before attention adds to it */
    attend_out(p, l);
    if (!p->d->arch.is_parallel) feed_in(p, l);
    feed_out(p, l);
    if (l->token.gate) add_token(p, l);
    if (l->scale != 1) scale_rows(p, l);
}

/* ---- a step ---- */

/* From this layer on nothing is written that another row reads: rows that nobody asks for are done. */
static uint32_t n_writing(const struct decoder *d) {
    return d->info.n_layers - d->info.n_kv_shared;
}

/* The rows from the first to the last that is asked for. Sums over ranks are made of all. */
static void keep_wanted(struct pass *p) {
    const struct model_step *s = p->s;
    if (!s->wanted || p->d->share.world > 1) return;
    p->first = s->n_wanted ? s->wanted[0] : 0;
    p->n = s->n_wanted ? s->wanted[s->n_wanted - 1] + 1 - p->first : 0;
}

static void run_together(struct pass *p) {
    const struct decoder *d = p->d;
    p->first = 0;
    p->n = p->s->n_rows;
    embed(p);
    for (uint32_t i = 0; i < d->info.n_layers; i++) {
        if (d->info.n_kv_shared && i == n_writing(d)) keep_wanted(p);
        if (!p->n) break;
        attend_in(p, &d->layers[i]);
        if (d->layers[i].state) states_run(p, &d->layers[i]);
        finish(p, &d->layers[i]);
    }
}

/* Does anyone ask for a row of these? */
static bool is_wanted(const struct pass *p) {
    if (!p->s->wanted) return true;
    for (uint32_t i = 0; i < p->s->n_wanted; i++) {
        uint32_t r = p->s->wanted[i];
        if (r >= p->first && r < p->first + p->n) return true;
    }
    return false;
}

/* A state goes through its sequence's rows in order, whoever has projected them. */
static void run_states(struct pass *p, const struct layer *l) {
    p->d->b->lane_solo(p->lane, false);
    states_run(p, l);
    p->d->b->lane_solo(p->lane, true);
}

/* The last rows see most keys: they go first, so that the lanes end together. */
static void run_apart(struct pass *p, uint32_t chunk_rows) {
    const struct decoder *d = p->d;
    const uint32_t n_layers = d->info.n_layers, n_chunks = BY_DIV_UP(p->s->n_rows, chunk_rows);
    d->b->lane_solo(p->lane, true);
    for (uint32_t i = 0; i <= n_layers; i++) {
        for (uint32_t c; (c = d->b->lane_next(p->lane, n_chunks)) != UINT32_MAX;) {
            p->first = (n_chunks - 1 - c) * chunk_rows;
            p->n = BY_MIN(chunk_rows, p->s->n_rows - p->first);
            if (i == 0)
                embed(p);
            else if (i < n_writing(d) || is_wanted(p))
                finish(p, &d->layers[i - 1]);
            if (i < n_writing(d) || (i < n_layers && is_wanted(p))) attend_in(p, &d->layers[i]);
        }
        d->b->barrier(p->lane);
        if (i < n_layers && d->layers[i].state) run_states(p, &d->layers[i]);
    }
    d->b->lane_solo(p->lane, false);
}

struct run {
    struct decoder *d;
    const struct model_step *s;
    uint32_t chunk_rows; /* 0: all lanes together */
};

static void run_lane(struct lane *lane, void *ctx) {
    const struct run *r = ctx;
    struct pass p = {.d = r->d, .s = r->s, .lane = lane};
    if (r->chunk_rows)
        run_apart(&p, r->chunk_rows);
    else
        run_together(&p);
}

/* Which sequences attend to the same pages, once a step for all layers. */
static void find_shared(struct decoder *d, const struct model_step *s) {
    uint32_t longest = 0;
    d->n_order =
        shared_prefix_find(s->seqs, s->n_seqs, d->full_heads.kv.page_size, d->order, d->common);
    for (uint32_t i = 0; i < d->n_order; i++)
        longest = BY_MAX(longest, d->common[i]);
    if (!longest) d->n_order = 0;
}

int decoder_forward(struct decoder *d, const struct model_step *s) {
    by_assert(s->n_rows > 0 && s->n_rows <= d->rows_max);
    by_assert(s->n_seqs <= s->n_rows);
    for (uint32_t i = 0; i < s->n_rows; i++)
        d->is_fine[i] = s->positions[i] < FINE_POSITIONS;
    find_shared(d, s);
    if (d->rounds.seqs) states_plan(d, s);
    struct run r = {.d = d, .s = s};
    by_assert(d->share.world == 1 || d->tp || d->b->group_join);
    /* Sums are made of all rows, in one order of calls on every rank. */
    if (d->share.world == 1 && !d->b->is_device && s->n_rows >= APART_ROWS * d->b->n_lanes) {
        /* as many for each lane, and equal ones: they end together */
        uint32_t n_each = BY_DIV_UP(s->n_rows, CHUNK_ROWS * d->b->n_lanes);
        r.chunk_rows = BY_DIV_UP(s->n_rows, n_each * d->b->n_lanes);
    }
    d->b->run(d->b, run_lane, &r);
    return d->tp_rc;
}

/* ---- after the last layer ---- */

struct rows {
    struct decoder *d;
    const uint32_t *rows;
    uint32_t n;
};

static int gather_on_host(void *tp, const float *x, size_t n, float *all) {
    return tp_gather(tp, x, n, all);
}

static void logits_lane(struct lane *lane, void *ctx) {
    const struct rows *r = ctx;
    struct decoder *d = r->d;
    const bool is_part = d->own_logits.p;
    const struct buffer *y = is_part ? &d->own_logits : &d->logits;
    const bool is_cut = is_part && d->output == d->embed; /* else it has our rows only */
    d->b->linear(lane, &(struct op_linear){.is_fine = d->is_fine,
                                           .w = d->output,
                                           .x = d->x.p,
                                           .x_ld = d->x.ld,
                                           .norm = decoder_norm(&d->final_norm),
                                           .out_first = is_cut ? d->share.vocab.first : 0,
                                           .out_n = is_cut ? d->share.vocab.n : 0,
                                           .y = y->p,
                                           .y_ld = y->ld,
                                           .scale = (float)d->info.logit_scale,
                                           .softcap = (float)d->info.final_softcap,
                                           .rows = r->rows,
                                           .n = r->n});
    if (!is_part || !d->b->gather || d->tp_rc) return;
    d->tp_rc = d->b->gather(lane,
                            &(struct op_gather){.own = d->own_logits.p,
                                                .own_ld = d->own_logits.ld,
                                                .all = d->logits.p,
                                                .all_ld = d->logits.ld,
                                                .starts = d->logit_starts,
                                                .world = d->share.world,
                                                .n = r->n},
                            gather_on_host, d->tp);
}

/* Row by row, every rank's logits to where they belong. */
static void gather_logits(struct decoder *d, uint32_t n) {
    const uint32_t world = d->share.world, ld = d->own_logits.ld, *starts = d->logit_starts;
    for (uint32_t r = 0; r < n && !d->tp_rc; r++) {
        d->tp_rc = tp_gather(d->tp, d->own_logits.p + (size_t)r * ld, ld, d->all_logits);
        for (uint32_t k = 0; k < world && !d->tp_rc; k++)
            memcpy(d->logits.p + (size_t)r * d->logits.ld + starts[k],
                   d->all_logits + (size_t)k * ld,
                   (starts[k + 1] - starts[k]) * sizeof *d->all_logits);
    }
}

int decoder_logits(struct decoder *d, const uint32_t *rows, uint32_t n) {
    by_assert(n > 0 && n <= d->logit_rows_max && d->output);
    struct rows r = {.d = d, .rows = rows, .n = n};
    d->b->run(d->b, logits_lane, &r);
    if (d->all_logits) gather_logits(d, n);
    return d->tp_rc;
}

static void scores_lane(struct lane *lane, void *ctx) {
    const struct rows *r = ctx;
    const struct decoder *d = r->d;
    d->b->linear(lane, &(struct op_linear){.w = d->pooler,
                                           .x = d->x.p,
                                           .x_ld = d->x.ld,
                                           .act = ACT_TANH,
                                           .y = d->pooled.p,
                                           .y_ld = d->pooled.ld,
                                           .scale = 1,
                                           .rows = r->rows,
                                           .n = r->n});
    d->b->linear(lane, &(struct op_linear){.w = d->scores,
                                           .x = d->pooled.p,
                                           .x_ld = d->pooled.ld,
                                           .y = d->labels.p,
                                           .y_ld = d->labels.ld,
                                           .scale = 1,
                                           .n = r->n});
}

void decoder_scores(struct decoder *d, const uint32_t *rows, uint32_t n) {
    by_assert(n > 0 && n <= d->logit_rows_max && d->scores);
    struct rows r = {.d = d, .rows = rows, .n = n};
    d->b->run(d->b, scores_lane, &r);
}

static void hidden_lane(struct lane *lane, void *ctx) {
    const struct rows *r = ctx;
    const struct decoder *d = r->d;
    d->b->norm(lane, &(struct op_norm){.x = d->x.p,
                                       .x_ld = d->x.ld,
                                       .width = d->info.hidden,
                                       .norm = decoder_norm(&d->final_norm),
                                       .y = d->hidden.p,
                                       .y_ld = d->hidden.ld,
                                       .scale = 1,
                                       .n = r->n});
}

void decoder_hidden(struct decoder *d, uint32_t n_rows) {
    struct rows r = {.d = d, .n = n_rows};
    d->b->run(d->b, hidden_lane, &r);
}
