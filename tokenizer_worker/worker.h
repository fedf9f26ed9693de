/* worker.h - requests into token ids: the chat template, the tokenizer, and every check that needs neither page nor GPU.
 *
 *     generate ─▶ chat: template ─▶ text ─┐
 *                 text ──────────────────┼▶ ids ─▶ tokenized (stop ids complete, max_new_tokens within the context)
 *                 ids ───────────────────┘      └▶ failed (one sentence for the client)
 *
 * Text of a chat message cannot become a special token: the template marks who wrote what. A raw prompt is the client's
 * own template, so there special tokens are taken as Hugging Face takes them.
 * Pure but for the tokenizer's caches: no socket, no clock. Always: one answer a request, never both.
 * Owner: main.c, one thread. */
#ifndef TOKENIZER_WORKER_WORKER_H
#define TOKENIZER_WORKER_WORKER_H

#include "proto/msg.h"

struct worker;

struct worker_options {
    const char *model_path, *tokenizer_path,
        *chat_template;   /* the last two: NULL for the model's own */
    uint32_t context_len; /* 0: the model's */
};
BY_MUST_USE int worker_open(struct worker **out, const struct worker_options *o,
                            struct by_err *err);
void worker_close(struct worker *w);
uint32_t worker_n_vocab(const struct worker *w);
bool worker_has_template(const struct worker *w);

/* *out is MSG_tokenized or MSG_failed; its arrays and strings live until the next call. */
void worker_generate(struct worker *w, const struct msg_generate *m, struct msg *out);
/* tokenize, detokenize, apply_template: *out is MSG_text_answer, as above. */
void worker_text_ask(struct worker *w, const struct msg_text_ask *m, struct msg *out);

#endif
