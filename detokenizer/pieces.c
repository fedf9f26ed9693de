#include "detokenizer/pieces.h"

void pieces_init(struct pieces *p, const struct by_tokenizer *t) {
    *p = (struct pieces){.t = t};
    by_map_init(&p->seen);
    by_ids_init(&p->ids, LIMIT_TOKENS);
    by_ids_init(&p->lens, LIMIT_TOKENS);
    by_buf_init(&p->bytes, LIMIT_STR_BYTES);
}

void pieces_release(struct pieces *p) {
    by_map_release(&p->seen);
    by_ids_release(&p->ids);
    by_ids_release(&p->lens);
    by_buf_release(&p->bytes);
}

static void add_ids(struct pieces *p, struct msg_u32s ids) {
    for (uint32_t i = 0; i < ids.n; i++) {
        uint64_t key = (uint64_t)ids.p[i] + 1;
        if (by_map_get(&p->seen, key)) continue;
        struct by_str bytes = by_tokenizer_bytes(p->t, ids.p[i]);
        if (bytes.n > p->bytes.max - p->bytes.n) return; /* these are shown by their ids */
        by_map_put(&p->seen, key, p);
        by_ids_add(&p->ids, ids.p[i]);
        by_ids_add(&p->lens, (uint32_t)bytes.n);
        by_buf_add_str(&p->bytes, bytes);
    }
}

void pieces_fill(struct pieces *p, struct msg_text *t) {
    by_map_clear(&p->seen);
    by_ids_clear(&p->ids);
    by_ids_clear(&p->lens);
    by_buf_clear(&p->bytes);
    add_ids(p, t->ids);
    add_ids(p, t->prompt_ids);
    for (uint32_t i = 0; i < t->tops.n; i++)
        add_ids(p, t->tops.p[i].ids);
    for (uint32_t i = 0; i < t->id_logprobs.n; i++)
        add_ids(p, t->id_logprobs.p[i].ids);
    for (uint32_t i = 0; i < t->prompts.n; i++) {
        add_ids(p, t->prompts.p[i].top.ids);
        add_ids(p, t->prompts.p[i].id_logprobs.ids);
    }
    t->piece_ids = (struct msg_u32s){p->ids.p, (uint32_t)p->ids.n};
    t->piece_lens = (struct msg_u32s){p->lens.p, (uint32_t)p->lens.n};
    t->piece_bytes = by_buf_str(&p->bytes);
}
