/* A model with states beside pages (Qwen3.5, its experts too; LFM2; Granite 4): the same bits however a text is cut, in whatever
 * company, on any lanes and instruction set; a slot that is given anew begins with nothing. */
#include "tests/models/model_world.h"
#include "tests/models/st_writer.h"

enum { TOKENS = 100, VOCAB = 97, HIDDEN = 64, LAYERS = 4, FFN = 96, HEADS = 4, KV_HEADS = 2 };
enum { HEAD = 32, KEY_HEADS = 2, VALUE_HEADS = 6, KEY = 20, VALUE = 32, CONV = 5, EXPERTS = 4 };

static const char config[] =
    "{\"model_type\": \"%s\", \"hidden_size\": 64, \"intermediate_size\": 96, \"vocab_size\": 97,"
    " \"num_hidden_layers\": 4, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,"
    " \"head_dim\": 32, \"max_position_embeddings\": 512, \"linear_num_key_heads\": 2,"
    " \"linear_num_value_heads\": 6, \"linear_key_head_dim\": 20, \"linear_value_head_dim\": 32,"
    " \"linear_conv_kernel_dim\": 5, \"num_experts\": 4, \"num_experts_per_tok\": 2,"
    " \"moe_intermediate_size\": 96, \"shared_expert_intermediate_size\": 96,"
    " \"layer_types\": [\"linear_attention\", \"full_attention\", \"linear_attention\","
    " \"linear_attention\"]}";
static const char lfm2_config[] =
    "{\"model_type\": \"lfm2\", \"hidden_size\": 64, \"intermediate_size\": 96, \"vocab_size\": 97,"
    " \"num_hidden_layers\": 4, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,"
    " \"head_dim\": 32, \"max_position_embeddings\": 512, \"conv_L_cache\": 4,"
    " \"block_auto_adjust_ff_dim\": false, \"tie_embedding\": true,"
    " \"layer_types\": [\"conv\", \"full_attention\", \"conv\", \"conv\"]}";

static const char granite_config[] =
    "{\"model_type\": \"granitemoehybrid\", \"hidden_size\": 64, \"vocab_size\": 97,"
    " \"num_hidden_layers\": 4, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,"
    " \"head_dim\": 32, \"max_position_embeddings\": 512, \"num_local_experts\": 0,"
    " \"shared_intermediate_size\": 96, \"mamba_n_heads\": 4, \"mamba_n_groups\": 2,"
    " \"mamba_d_state\": 20, \"tie_word_embeddings\": true,"
    " \"layer_types\": [\"mamba\", \"attention\", \"mamba\", \"mamba\"]}";

static uint64_t seed = 1;

static float number(void) { /* uniform, -1 … 1 */
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int64_t)(seed >> 33) / (float)(1 << 30) - 1;
}

static void add(struct st_writer *w, uint32_t layer, const char *name, uint64_t rows,
                uint64_t cols) {
    char full[ST_NAME_MAX];
    if (layer == UINT32_MAX)
        snprintf(full, sizeof full, "model.%s", name);
    else
        snprintf(full, sizeof full, "model.layers.%u.%s", layer, name);
    float *p = st_add(w, full, BY_DTYPE_F32, rows, cols), size = rows ? 2 / sqrtf((float)cols) : 1;
    for (uint64_t i = 0; i < BY_MAX(rows, (uint64_t)1) * cols; i++)
        p[i] = number() * size;
}

static void add_delta(struct st_writer *w, uint32_t i) {
    const uint32_t k = KEY_HEADS * KEY, v = VALUE_HEADS * VALUE;
    add(w, i, "linear_attn.in_proj_qkv.weight", 2 * k + v, HIDDEN);
    add(w, i, "linear_attn.in_proj_z.weight", v, HIDDEN);
    add(w, i, "linear_attn.in_proj_b.weight", VALUE_HEADS, HIDDEN);
    add(w, i, "linear_attn.in_proj_a.weight", VALUE_HEADS, HIDDEN);
    add(w, i, "linear_attn.conv1d.weight", 2 * k + v, CONV);
    add(w, i, "linear_attn.A_log", 0, VALUE_HEADS);
    add(w, i, "linear_attn.dt_bias", 0, VALUE_HEADS);
    add(w, i, "linear_attn.norm.weight", 0, VALUE);
    add(w, i, "linear_attn.out_proj.weight", HIDDEN, v);
}

static void add_attention(struct st_writer *w, uint32_t i) {
    add(w, i, "self_attn.q_proj.weight", 2 * HEADS * HEAD, HIDDEN);
    add(w, i, "self_attn.k_proj.weight", KV_HEADS * HEAD, HIDDEN);
    add(w, i, "self_attn.v_proj.weight", KV_HEADS * HEAD, HIDDEN);
    add(w, i, "self_attn.o_proj.weight", HIDDEN, HEADS * HEAD);
    add(w, i, "self_attn.q_norm.weight", 0, HEAD);
    add(w, i, "self_attn.k_norm.weight", 0, HEAD);
}

static void add_ffn(struct st_writer *w, uint32_t i, const char *where) {
    static const char *const names[] = {"gate_proj", "up_proj", "down_proj"};
    for (uint32_t k = 0; k < 3; k++) {
        char name[64];
        snprintf(name, sizeof name, "mlp.%s%s.weight", where, names[k]);
        add(w, i, name, k < 2 ? FFN : HIDDEN, k < 2 ? HIDDEN : FFN);
    }
}

static void add_experts(struct st_writer *w, uint32_t i) {
    for (uint32_t e = 0; e < EXPERTS; e++) {
        char name[32];
        snprintf(name, sizeof name, "experts.%u.", e);
        add_ffn(w, i, name);
    }
    add_ffn(w, i, "shared_expert.");
    add(w, i, "mlp.gate.weight", EXPERTS, HIDDEN);
    add(w, i, "mlp.shared_expert_gate.weight", 1, HIDDEN);
}

static void write_model(const char *dir, const char *family, bool is_moe) {
    static struct st_writer w;
    char text[sizeof config + 32];
    st_begin(&w);
    add(&w, UINT32_MAX, "embed_tokens.weight", VOCAB, HIDDEN);
    add(&w, UINT32_MAX, "norm.weight", 0, HIDDEN);
    for (uint32_t i = 0; i < LAYERS; i++) {
        add(&w, i, "input_layernorm.weight", 0, HIDDEN);
        add(&w, i, "post_attention_layernorm.weight", 0, HIDDEN);
        if (i == 1)
            add_attention(&w, i);
        else
            add_delta(&w, i);
        if (is_moe)
            add_experts(&w, i);
        else
            add_ffn(&w, i, "");
    }
    float *p = st_add(&w, "lm_head.weight", BY_DTYPE_F32, VOCAB, HIDDEN);
    for (uint32_t i = 0; i < VOCAB * HIDDEN; i++)
        p[i] = number();
    snprintf(text, sizeof text, config, family);
    st_end(&w, dir, text);
}

static void add_plain_attention(struct st_writer *w, uint32_t i, const char *way_out) {
    add(w, i, "self_attn.q_proj.weight", HEADS * HEAD, HIDDEN);
    add(w, i, "self_attn.k_proj.weight", KV_HEADS * HEAD, HIDDEN);
    add(w, i, "self_attn.v_proj.weight", KV_HEADS * HEAD, HIDDEN);
    add(w, i, way_out, HIDDEN, HEADS * HEAD);
}

static void add_short_conv(struct st_writer *w, uint32_t i) {
    add(w, i, "conv.in_proj.weight", 3 * HIDDEN, HIDDEN);
    add(w, i, "conv.conv.weight", HIDDEN, 4);
    add(w, i, "conv.out_proj.weight", HIDDEN, HIDDEN);
}

static void write_lfm2(const char *dir) {
    static struct st_writer w;
    st_begin(&w);
    add(&w, UINT32_MAX, "embed_tokens.weight", VOCAB, HIDDEN);
    add(&w, UINT32_MAX, "embedding_norm.weight", 0, HIDDEN);
    for (uint32_t i = 0; i < LAYERS; i++) {
        add(&w, i, "operator_norm.weight", 0, HIDDEN);
        add(&w, i, "ffn_norm.weight", 0, HIDDEN);
        if (i == 1) {
            add_plain_attention(&w, i, "self_attn.out_proj.weight");
            add(&w, i, "self_attn.q_layernorm.weight", 0, HEAD);
            add(&w, i, "self_attn.k_layernorm.weight", 0, HEAD);
        } else {
            add_short_conv(&w, i);
        }
        add(&w, i, "feed_forward.w1.weight", FFN, HIDDEN);
        add(&w, i, "feed_forward.w3.weight", FFN, HIDDEN);
        add(&w, i, "feed_forward.w2.weight", HIDDEN, FFN);
    }
    st_end(&w, dir, lfm2_config);
}

static void add_mamba(struct st_writer *w, uint32_t i) {
    enum { GROUPS = 2, SSM_HEADS = 4, STATE = 20, INNER = 2 * HIDDEN };
    const uint32_t conv = INNER + 2 * GROUPS * STATE;
    add(w, i, "mamba.in_proj.weight", INNER + conv + SSM_HEADS, HIDDEN);
    add(w, i, "mamba.conv1d.weight", conv, 4);
    add(w, i, "mamba.conv1d.bias", 0, conv);
    add(w, i, "mamba.A_log", 0, SSM_HEADS);
    add(w, i, "mamba.dt_bias", 0, SSM_HEADS);
    add(w, i, "mamba.D", 0, SSM_HEADS);
    add(w, i, "mamba.norm.weight", 0, INNER);
    add(w, i, "mamba.out_proj.weight", HIDDEN, INNER);
}

static void write_granite(const char *dir) {
    static struct st_writer w;
    st_begin(&w);
    add(&w, UINT32_MAX, "embed_tokens.weight", VOCAB, HIDDEN);
    add(&w, UINT32_MAX, "norm.weight", 0, HIDDEN);
    for (uint32_t i = 0; i < LAYERS; i++) {
        add(&w, i, "input_layernorm.weight", 0, HIDDEN);
        add(&w, i, "post_attention_layernorm.weight", 0, HIDDEN);
        if (i == 1) {
            add_plain_attention(&w, i, "self_attn.o_proj.weight");
        } else {
            add_mamba(&w, i);
        }
        add(&w, i, "shared_mlp.input_linear.weight", 2 * FFN, HIDDEN);
        add(&w, i, "shared_mlp.output_linear.weight", HIDDEN, FFN);
    }
    st_end(&w, dir, granite_config);
}

static void write_qwen(const char *dir) {
    write_model(dir, "qwen3_5_text", false);
}

static void write_qwen_moe(const char *dir) {
    write_model(dir, "qwen3_5_moe_text", true);
}

/* ---- the same bits ---- */

struct bits {
    struct world w;
    uint32_t ids[WORLD_SEQS][TOKENS];
    float whole[VOCAB]; /* of sequence 0 in one step */
};

static void same(const struct bits *b, const float *logits, const char *what) {
    for (uint32_t i = 0; i < VOCAB; i++) {
        if (memcmp(&b->whole[i], &logits[i], sizeof *logits) != 0)
            fail_msg("%s: logit %u is %.9g, was %.9g", what, i, (double)logits[i],
                     (double)b->whole[i]);
    }
}

/* Its slot holds what the text before left there. */
static void in_chunks(struct bits *b, uint32_t chunk, const char *what) {
    b->w.n_done[0] = 0;
    same(b, world_feed(&b->w, 0, b->ids[0], TOKENS, chunk, NULL), what);
}

/* Sixteen at once, at different places: some decode, some prefill, some are over and begin anew. */
static void among_others(struct bits *b) {
    uint32_t n[WORLD_SEQS] = {0}, first[WORLD_SEQS] = {0};
    const uint32_t *from[WORLD_SEQS];
    memset(b->w.n_done, 0, sizeof b->w.n_done);
    while (b->w.n_done[0] < TOKENS) {
        for (uint32_t s = 0; s < WORLD_SEQS; s++) {
            uint32_t end = s ? 17 + 5 * s : TOKENS, chunk = s % 3 == 0 ? 29 : s % 3;
            if (b->w.n_done[s] == end) b->w.n_done[s] = 0;
            n[s] = BY_MIN(chunk, end - b->w.n_done[s]);
            from[s] = b->ids[s] + b->w.n_done[s];
        }
        world_step(&b->w, from, n, first);
    }
    uint32_t row = first[0] + n[0] - 1;
    same(b, model_logits(b->w.m, &row, 1), "among 15 others");
}

/* Sequence 0 in one step, its state kept behind 32, 80 and 96 tokens (number 2 written over by the last), and that of another;
 * then sequence 1 goes on from each on the same pages. */
static void from_kept_states(struct bits *b) {
    uint32_t n[WORLD_SEQS] = {TOKENS, 0, 40}, first[WORLD_SEQS] = {0}, own[WORLD_PAGES_EACH];
    const uint32_t *from[WORLD_SEQS] = {b->ids[0], NULL, b->ids[2]};
    const struct state_keep keeps[] = {{0, 80, 3}, {0, 32, 5}, {1, 16, 2}, {1, 32, 7}, {0, 96, 2}};
    memset(b->w.n_done, 0, sizeof b->w.n_done);
    b->w.keeps = keeps;
    b->w.n_keeps = BY_COUNTOF(keeps);
    world_step(&b->w, from, n, first);
    uint32_t row = first[0] + TOKENS - 1;
    same(b, model_logits(b->w.m, &row, 1), "kept on the way");
    memcpy(own, b->w.pages[1], sizeof own);
    for (uint32_t i = 0; i < 3; i++) {
        static const uint32_t numbers[] = {3, 5, 2}, places[] = {80, 32, 96};
        const struct state_copy start = {numbers[i], 1};
        const uint32_t at = places[i], chunk = i ? 11 : TOKENS;
        memcpy(b->w.pages[1], b->w.pages[0], at / WORLD_PAGE * sizeof own[0]);
        b->w.n_done[1] = at;
        b->w.starts = &start;
        b->w.n_starts = 1;
        same(b, world_feed(&b->w, 1, b->ids[0] + at, TOKENS - at, chunk, NULL), "from a state");
    }
    memcpy(b->w.pages[1], own, sizeof own);
}

static void open_world(struct bits *b, const char *dir, enum cpu_isa isa, uint32_t lanes,
                       enum by_dtype quantize) {
    struct backend *cpu = NULL;
    struct by_err err = {0};
    if (cpu_backend_new(&cpu, &(struct cpu_options){.n_threads = lanes, .isa = isa}, &err))
        fail_msg("%s", err.text);
    world_open(&b->w, dir, cpu, &(struct world_options){.quantize = quantize, .kv_dtype = KV_BF16});
}

static void close_world(struct bits *b) {
    struct backend *cpu = b->w.b;
    world_close(&b->w);
    cpu->close(cpu);
}

static void check(const char *dir, enum by_dtype quantize) {
    static struct bits b;
    for (uint32_t s = 0; s < WORLD_SEQS; s++) {
        for (uint32_t i = 0; i < TOKENS; i++)
            b.ids[s][i] = (uint32_t)((number() + 1) * (VOCAB / 2));
    }
    for (uint32_t lanes = 1; lanes <= 3; lanes += 2) {
        open_world(&b, dir, world_isa, lanes, quantize);
        assert_true(model_state_bytes(b.w.m) > 0);
        const float *whole = world_feed(&b.w, 0, b.ids[0], TOKENS, TOKENS, NULL);
        if (lanes == 1)
            memcpy(b.whole, whole, sizeof b.whole);
        else
            same(&b, whole, "3 lanes");
        if (lanes == 1) in_chunks(&b, 1, "chunks of 1");
        in_chunks(&b, 7, "chunks of 7");
        in_chunks(&b, 64, "chunks of 64");
        among_others(&b);
        from_kept_states(&b);
        close_world(&b);
    }
    if (world_isa == CPU_ISA_PORTABLE) return;
    open_world(&b, dir, CPU_ISA_PORTABLE, 1, quantize);
    in_chunks(&b, 29, "portable C");
    close_world(&b);
}

TEST(a_state_is_what_its_text_makes_it) {
    UNUSED_STATE;
    static void (*const writers[])(const char *dir) = {write_qwen, write_qwen_moe, write_lfm2,
                                                       write_granite};
    for (size_t i = world_is_few; i < BY_COUNTOF(writers); i++) {
        char dir[] = "/tmp/by-XXXXXX";
        assert_non_null(mkdtemp(dir));
        writers[i](dir);
        if (!world_is_few) check(dir, BY_DTYPE_NONE);
        check(dir, BY_DTYPE_Q8_0);
        by_dir_remove(dir);
    }
}

WORLD_TESTS(RUN(a_state_is_what_its_text_makes_it));
