/* Decoding sequences that share their first pages: attended to together they get the bits that each gets alone. */
#include <math.h>
#include <string.h>

#include "common/base/mem.h"
#include "tests/kernels/ops_world.h"

enum { PAGE = 16, TRUNK = 704, N_SEQS = 11, OWN_MAX = 320, PAGES_EACH = (TRUNK + OWN_MAX) / PAGE };

/* Tokens of the trunk that a sequence begins with, and tokens of its own: the last is the row of the step. Neighbours in this
 * list share what the smaller of them has of the trunk, as in a sorted list. */
static const uint32_t shared[N_SEQS] = {0, 16, 64, 64, 128, 256, 304, 512, 512, 512, 704};
static const uint32_t own[N_SEQS] = {70, 1, 1, 260, 5, 300, 16, 1, 40, 257, 3};

struct shape {
    uint32_t n_heads, n_kv_heads, k_dim, v_dim, window;
    enum kv_dtype dtype;
    float softcap;
    bool is_latent; /* values are the keys' first columns */
};

struct scene {
    struct backend *b;
    struct kv_shape kv;
    void *pool;
    float *x, *out, *want;
    uint32_t ld, out_ld, next_page;
    uint32_t trunk[TRUNK / PAGE], pages[N_SEQS][PAGES_EACH], positions[TRUNK], common[N_SEQS],
        order[N_SEQS];
    struct seq_rows seqs[N_SEQS];
    struct op_attention op;
};

/* Random keys and values of n tokens from `position` on; their queries stay in x. */
static void write_tokens(struct scene *c, const struct shape *s, const uint32_t *pages,
                         uint32_t position, uint32_t n) {
    struct seq_rows seq = {0, n, position, pages, 0};
    world_floats(c->x, (size_t)n * c->ld, 1);
    for (uint32_t i = 0; i < n; i++)
        c->positions[i] = position + i;
    RUN_OP(c->b, kv_write,
           (&(struct op_kv_write){.x = c->x,
                                  .ld = c->ld,
                                  .k_col = s->n_heads * s->k_dim,
                                  .v_col =
                                      (s->n_heads + (s->is_latent ? 0 : s->n_kv_heads)) * s->k_dim,
                                  .n_heads = s->n_heads,
                                  .q_dim = s->k_dim,
                                  .kv = c->kv,
                                  .pool = c->pool,
                                  .positions = c->positions,
                                  .seqs = &seq,
                                  .n_seqs = 1,
                                  .n = n}));
}

/* Rows in an order that has nothing to do with who shares what. */
static void set_seqs(struct scene *c, const struct shape *s) {
    for (uint32_t i = 0; i < TRUNK / PAGE; i++)
        c->trunk[i] = c->next_page++;
    write_tokens(c, s, c->trunk, 0, TRUNK);
    for (uint32_t i = 0; i < N_SEQS; i++) {
        uint32_t n = BY_DIV_UP(own[i], PAGE), from = shared[i] / PAGE, at = i * 4 % N_SEQS;
        memcpy(c->pages[i], c->trunk, from * sizeof *c->trunk);
        for (uint32_t k = 0; k < n; k++)
            c->pages[i][from + k] = c->next_page++;
        write_tokens(c, s, c->pages[i], shared[i], own[i]);
        c->seqs[at] = (struct seq_rows){at, 1, shared[i] + own[i] - 1, c->pages[i], i};
        c->order[i] = at;
        c->common[i] = i ? BY_MIN(shared[i - 1], shared[i]) : 0;
    }
    world_floats(c->x, N_SEQS * c->ld, 1);
}

static struct scene *scene_new(struct backend *b, const struct shape *s) {
    struct scene *c = by_alloc(sizeof *c);
    c->b = b;
    c->kv = (struct kv_shape){s->n_kv_heads, s->k_dim, s->v_dim, PAGE, s->dtype, s->is_latent};
    c->ld = (s->n_heads + s->n_kv_heads) * s->k_dim + s->n_kv_heads * s->v_dim;
    c->out_ld = s->n_heads * s->v_dim;
    c->x = world_room(b, (size_t)TRUNK * c->ld, 0);
    c->out = world_room(b, N_SEQS * c->out_ld, NAN);
    c->want = world_room(b, N_SEQS * c->out_ld, NAN);
    c->pool = b->kv_new(b, &c->kv, TRUNK / PAGE + N_SEQS * (OWN_MAX / PAGE));
    assert_non_null(c->pool);
    set_seqs(c, s);
    c->op = (struct op_attention){.q = c->x,
                                  .q_ld = c->ld,
                                  .n_heads = s->n_heads,
                                  .scale = 1 / sqrtf((float)s->k_dim),
                                  .softcap = s->softcap,
                                  .window = s->window,
                                  .kv = c->kv,
                                  .pool = c->pool,
                                  .out_ld = c->out_ld,
                                  .seqs = c->seqs,
                                  .n_seqs = N_SEQS,
                                  .n = N_SEQS};
    return c;
}

static void scene_free(struct scene *c) {
    c->b->free(c->b, c->x);
    c->b->free(c->b, c->out);
    c->b->free(c->b, c->want);
    c->b->kv_free(c->b, c->pool);
    by_free(c);
}

/* Rows [first, first + n) alone and in company; is_solo: by one lane, as a lane does its part of a long step. */
static void check(struct scene *c, uint32_t first, uint32_t n, bool is_solo, const char *what) {
    struct op_attention o = c->op;
    o.first = first;
    o.n = n;
    o.out = c->want;
    RUN_OP_SOLO(c->b, attention, &o);
    o.out = c->out;
    memset(c->out, 0xff, N_SEQS * c->out_ld * sizeof *c->out);
    o.prefixes = (struct shared_prefixes){c->order, c->common, N_SEQS};
    (is_solo ? world_run_solo : world_run)(c->b, offsetof(struct backend, attention), &o);
    assert_same_bits(c->out + (size_t)first * c->out_ld, c->want + (size_t)first * c->out_ld,
                     (size_t)n * c->out_ld, what);
    for (uint32_t r = 0; r < N_SEQS; r++)
        assert_true((r >= first && r < first + n) == !isnan(c->out[r * c->out_ld]));
}

static void play(const struct shape *s) {
    struct scene *c = scene_new(world.b, s);
    check(c, 0, N_SEQS, false, "all rows, 2 lanes");
    check(c, 0, N_SEQS, true, "all rows, one lane");
    for (uint32_t n = 1; n < N_SEQS; n += 3)
        check(c, world_below(N_SEQS - n + 1), n, true, "some rows");
    scene_free(c);
}

TEST(sharers_of_all_head_groups) {
    UNUSED_STATE;
    static const uint32_t groups[][2] = {{9, 3}, {4, 4}, {8, 2}, {5, 1}, {12, 1}, {26, 2}};
    for (size_t i = 0; i < BY_COUNTOF(groups); i++)
        play(&(struct shape){groups[i][0], groups[i][1], 32, 32, 0, KV_F32, 0, false});
}

TEST(sharers_over_all_cache_types_and_windows) {
    UNUSED_STATE;
    static const uint32_t windows[] = {0, 1, 100, 300, 600};
    for (uint32_t t = KV_F32; t <= KV_INT8; t++) {
        for (size_t i = 0; i < BY_COUNTOF(windows); i++)
            play(&(struct shape){6, 3, 16, 24, windows[i], (enum kv_dtype)t, i % 2 ? 5 : 0, false});
        play(&(struct shape){4, 1, 80, 64, 0, (enum kv_dtype)t, 0, true});
    }
}

/* One sequence's last key is NaN: nobody else's row may show it. */
TEST(a_broken_sequence_leaves_sharers_alone) {
    UNUSED_STATE;
    struct shape s = {6, 2, 16, 16, 0, KV_F32, 0, false};
    struct scene *c = scene_new(world.b, &s);
    struct op_attention o = c->op;
    o.prefixes = (struct shared_prefixes){c->order, c->common, N_SEQS};
    o.out = c->want;
    RUN_OP(c->b, attention, &o);
    uint32_t broken = c->order[8];
    for (uint32_t i = 0; i < s.n_heads * s.k_dim; i++)
        c->x[broken * c->ld + i] = NAN;
    o.out = c->out;
    RUN_OP(c->b, attention, &o);
    for (uint32_t r = 0; r < N_SEQS; r++) {
        const float *row = c->out + (size_t)r * c->out_ld;
        if (r == broken)
            assert_true(isnan(row[0]));
        else
            assert_same_bits(row, c->want + (size_t)r * c->out_ld, c->out_ld, "beside a NaN");
    }
    scene_free(c);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        RUN(sharers_of_all_head_groups),
        RUN(sharers_over_all_cache_types_and_windows),
        RUN(a_broken_sequence_leaves_sharers_alone),
    };
    return world_main(argc, argv, tests, BY_COUNTOF(tests));
}
