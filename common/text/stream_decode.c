#include "common/text/stream_decode.h"

#include "common/base/utf8.h"
#include "common/text/tokenizer_parts.h"

/* Text that ends in U+FFFD is kept back, as Hugging Face's DecodeStream does, since more bytes may turn it into a
 * character; but not for ever. */
enum { HELD_MAX = 64 };

void by_stream_decode_init(struct by_stream_decode *s, const struct by_tokenizer *t,
                           const struct by_decode_options *o) {
    *s = (struct by_stream_decode){.t = t, .o = *o};
    by_decoder_start(t->decoder, &s->state);
    s->is_cleaned = by_tokenizer_cleans(t, o);
    by_clean_init(&s->clean);
    by_buf_init(&s->plain, SIZE_MAX / 2);
    by_buf_init(&s->held, SIZE_MAX / 2);
}

void by_stream_decode_release(struct by_stream_decode *s) {
    by_clean_release(&s->clean);
    by_buf_release(&s->plain);
    by_buf_release(&s->held);
}

/* Where the last, broken or unfinished, character of p begins; n when p ends well. U+FFFD itself counts as broken. */
static size_t broken_tail(const char *p, size_t n) {
    size_t at = n;
    while (at > 0 && n - at < 4 && ((unsigned char)p[at - 1] & 0xC0) == 0x80)
        at--;
    if (at == n) return n && (unsigned char)p[n - 1] >= 0xC0 ? n - 1 : n;
    if (at == 0) return n - 1;
    size_t len;
    uint32_t cp = by_utf8_decode(p + at - 1, n - at + 1, &len);
    if (cp == BY_UTF8_BAD || len != n - at + 1)
        return cp == BY_UTF8_BAD && len == n - at + 1 ? at - 1 : n - 1;
    return cp == 0xFFFD ? at - 1 : n;
}

static void release(struct by_stream_decode *s, struct by_str text, struct by_buf *out) {
    if (!s->is_cleaned) {
        by_decoder_add_lossy(out, text);
        return;
    }
    by_buf_clear(&s->plain);
    by_decoder_add_lossy(&s->plain, text);
    by_clean_push(&s->clean, by_buf_str(&s->plain), out);
}

void by_stream_decode_push(struct by_stream_decode *s, uint32_t id, struct by_buf *out) {
    if (s->o.skip_special_tokens && by_tokenizer_is_special(s->t, id)) return;
    struct by_buf *held = &s->held;
    by_decoder_push(s->t->decoder, &s->state, id, held);
    size_t n_run = s->state.n_run;
    bool is_run_whole = n_run && by_utf8_valid(held->p + held->n - n_run, n_run);
    size_t tail = n_run && !is_run_whole ? held->n - n_run : broken_tail(held->p, held->n);
    if (tail < held->n) {
        if (held->n <= HELD_MAX) return;
        release(s, (struct by_str){held->p, tail}, out);
        by_buf_drop_front(held, tail);
        if (n_run <= HELD_MAX) return;
        by_decoder_settle(&s->state, held); /* no character is that long */
    }
    release(s, by_buf_str(held), out);
    by_buf_clear(held);
    s->state.n_run = s->state.n_gone = 0;
}

void by_stream_decode_finish(struct by_stream_decode *s, struct by_buf *out) {
    by_decoder_finish(s->t->decoder, &s->state, &s->held);
    release(s, by_buf_str(&s->held), out);
    if (s->is_cleaned) by_clean_finish(&s->clean, out);
    by_buf_clear(&s->held);
    by_decoder_start(s->t->decoder, &s->state);
}
