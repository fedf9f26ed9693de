/* sim_expect.c - the undisturbed run of one sample: ids from the hash of all ids before, text from decoding them all at
 * once, stop strings by looking for them in it. Shares no code with the processes but the tokenizer's. */
#include "tests/sim/sim.h"

static void decode(const struct sim *s, const uint32_t *ids, uint32_t n, struct by_buf *out) {
    struct by_decode_options o = {.skip_special_tokens = true};
    by_buf_clear(out);
    by_tokenizer_decode(s->shared->tokenizer, ids, n, &o, out);
}

static void write_ids(const struct sim_client *c, uint32_t sample, struct sim_want *w) {
    uint64_t h = 0;
    for (uint32_t i = 0; i < c->n_prompt; i++)
        h = gpu_hash(h, c->prompt[i]);
    w->finish = FINISH_LENGTH;
    w->n = 0;
    while (w->n < c->sampling.max_new_tokens) {
        uint32_t id = gpu_pick(h, c->sampling.seed, sample);
        w->ids[w->n++] = id;
        h = gpu_hash(h, id);
        if (c->sampling.ignore_eos || !c->sampling.stop_ids.n || id != c->stop_id) continue;
        if (w->n <= c->sampling.min_new_tokens) continue;
        w->finish = FINISH_STOP_ID;
        w->matched_id = id;
        return;
    }
}

/* The stop string that ends first in the text, of equals the longest; its end, or 0. */
static size_t find_stop(const struct sim_client *c, struct by_str text, struct by_str *which) {
    size_t end = 0;
    for (uint32_t i = 0; i < c->n_stops; i++) {
        struct by_str stop = by_str_of(c->stop[i]);
        size_t at = by_str_find(text, stop, 0);
        if (at == SIZE_MAX) continue;
        if (end && (at + stop.n > end || (at + stop.n == end && stop.n <= which->n))) continue;
        end = at + stop.n;
        *which = stop;
    }
    return end;
}

void expect(const struct sim *s, const struct sim_client *c, uint32_t sample, struct sim_want *w) {
    static struct by_buf text, part;
    struct by_str stop = {0}, none;
    if (!text.max) by_buf_init(&text, SIM_TEXT_MAX);
    if (!part.max) by_buf_init(&part, SIM_TEXT_MAX);
    *w = (struct sim_want){0};
    write_ids(c, sample, w);
    bool is_trimmed = w->finish == FINISH_STOP_ID && !c->no_stop_trim;
    uint32_t n_text = w->n - is_trimmed; /* ids that leave text */
    decode(s, w->ids, n_text, &text);
    size_t end = find_stop(c, by_buf_str(&text), &stop);
    if (end) {
        w->finish = FINISH_STOP_TEXT;
        w->matched_id = 0;
        memcpy(w->matched, stop.p, stop.n);
        for (uint32_t n = 1; n <= n_text;
             n++) { /* the id that completed it is the last one that counts */
            decode(s, w->ids, n, &part);
            if (!find_stop(c, by_buf_str(&part), &none) && n < n_text) continue;
            w->n = n == n_text && !find_stop(c, by_buf_str(&part), &none) ? w->n : n;
            break;
        }
        text.n = c->no_stop_trim ? end : end - stop.n;
    }
    if (text.n > sizeof w->text) sim_fail(s, "a text of %zu bytes", text.n);
    memcpy(w->text, text.p, text.n);
    w->text_n = (uint32_t)text.n;
}

/* Could it be the beginning of a stop string? */
static bool may_be_held(const struct sim_client *c, struct by_str rest) {
    for (uint32_t i = 0; i < c->n_stops; i++)
        if (by_str_starts(by_str_of(c->stop[i]), rest)) return true;
    return false;
}

void expect_text(const struct sim *s, const struct sim_client *c, const struct journal_entry *e,
                 const struct journal_sample *j) {
    static struct by_buf text;
    struct by_str got = by_buf_str(&j->text);
    if (!text.max) by_buf_init(&text, SIM_TEXT_MAX);
    decode(s, j->ids, j->n_ids, &text);
    /* Half a character, and what a stop string may begin with, come out at the end, unless the copy that was aborted had not
     * come that far. */
    while (by_str_ends(by_buf_str(&text), BY_STR("\xEF\xBF\xBD")))
        text.n -= 3;
    while (by_str_ends(got, BY_STR("\xEF\xBF\xBD")))
        got.n -= 3;
    struct by_str whole = by_buf_str(&text), rest = {whole.p + got.n, whole.n - got.n};
    bool is_cut =
        got.n < whole.n && by_str_starts(whole, got) && may_be_held(c, rest) && e->n_sent > 1;
    if (!is_cut && !by_str_eq(whole, got))
        sim_fail(s,
                 "the text of an aborted request is \"" BY_STR_FMT
                 "\", that of its %u ids \"" BY_STR_FMT "\"",
                 BY_STR_ARG(got), j->n_ids, BY_STR_ARG(whole));
}
