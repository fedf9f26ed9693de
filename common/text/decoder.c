#include "common/text/decoder.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/alphabet.h"
#include "common/text/decoder_parts.h"

/* ENDS_WORD: a space follows, unless it is the last token. IS_HELD: as the last token it leaves yet another text. */
enum { IS_BYTE = 1, ENDS_WORD = 2, IS_HELD = 4 };
/* Where a token stands; a place in the middle is none of these. */
enum { FIRST = 1, LAST = 2 };

/* ---- one token through the steps ---- */

/* text := text with every `what` replaced, by way of b. Nothing is found before, between and behind all characters. */
static void replace(struct by_str what, struct by_str with, struct by_str *text, struct by_buf *b) {
    by_buf_clear(b);
    size_t done = 0;
    for (size_t len; !what.n && with.n && done < text->n; done += len) {
        by_utf8_decode(text->p + done, text->n - done, &len);
        by_buf_add_str(b, with);
        by_buf_add(b, text->p + done, len);
    }
    if (!what.n) by_buf_add_str(b, with);
    while (what.n) {
        size_t at = by_str_find(*text, what, done);
        if (at == SIZE_MAX) break;
        by_buf_add(b, text->p + done, at - done);
        by_buf_add_str(b, with);
        done = at + what.n;
    }
    by_buf_add(b, text->p + done, text->n - done);
    *text = by_buf_str(b);
}

static int replace_matches(const struct by_decoder_step *s, struct by_str *text, struct by_buf *b,
                           struct by_err *err) {
    by_buf_clear(b);
    by_regex_begin(s->regex); /* each piece is a text: steps of a long stream must not add up */
    int rc = by_regex_replace(s->regex, *text, (struct by_str){s->content, s->content_n}, b, err);
    if (!rc) *text = by_buf_str(b);
    return rc;
}

static const char *const cleanups[][2] = {
    {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
    {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
    {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
};

static void strip_token(const struct by_decoder_step *s, struct by_str *text) {
    struct by_str c = {s->text, s->text_n};
    for (uint32_t i = 0; i < s->start && by_str_starts(*text, c); i++)
        *text = by_str_sub(*text, c.n, text->n);
    for (uint32_t i = 0; i < s->stop && by_str_ends(*text, c); i++)
        *text = by_str_sub(*text, 0, text->n - c.n);
}

/* Two buffers to go back and forth between. */
struct pad {
    struct by_buf b[2];
    unsigned k;
};

static struct by_buf *other(struct pad *pad) {
    pad->k ^= 1;
    return &pad->b[pad->k];
}

static void clean_up(struct by_str *text, struct pad *pad) {
    for (size_t i = 0; i < BY_COUNTOF(cleanups); i++) {
        struct by_str what = by_str_of(cleanups[i][0]);
        if (by_str_find(*text, what, 0) != SIZE_MAX)
            replace(what, by_str_of(cleanups[i][1]), text, other(pad));
    }
}

static int run_step(const struct by_decoder_step *s, unsigned place, struct by_str *text,
                    uint8_t *flags, struct pad *pad, struct by_err *err) {
    bool is_first = place & FIRST;
    struct by_str what = {s->text, s->text_n}, with = {s->content, s->content_n};
    struct by_buf *b;
    switch (s->kind) {
    case REPLACE:
        if (text->n) replace(what, with, text, other(pad)); /* nothing is not even an empty match */
        return 0;
    case REPLACE_REGEX:
        return text->n ? replace_matches(s, text, other(pad), err) : 0;
    case METASPACE:
        replace(what, is_first && s->flag ? BY_STR("") : BY_STR(" "), text, other(pad));
        return 0;
    case STRIP:
        strip_token(s, text);
        return 0;
    case WORDPIECE:
        if (!is_first && by_str_starts(*text, what)) {
            *text = by_str_sub(*text, what.n, text->n);
        } else if (!is_first) {
            b = other(pad);
            by_buf_clear(b);
            by_buf_addc(b, ' ');
            by_buf_add_str(b, *text);
            *text = by_buf_str(b);
        }
        if (s->flag) clean_up(text, pad);
        return 0;
    case CTC:
        replace(what, BY_STR(""), text, other(pad));
        if (s->flag) clean_up(text, pad);
        if (s->flag) replace(with, BY_STR(" "), text, other(pad));
        return 0;
    case SUFFIX:
        replace(what, place & LAST ? BY_STR("") : BY_STR(" "), text, other(pad));
        return 0;
    case JOIN:
        *flags |= ENDS_WORD;
        return 0;
    case BYTE_FALLBACK:
    case BYTE_LEVEL:
    case FUSE:
        return 0;
    }
    return 0;
}

/* "<0x0A>" → 10; -1 for any other piece. */
static int byte_of(struct by_str s) {
    uint32_t byte;
    if (s.n != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>') return -1;
    return by_str_hex(s, 3, 2, &byte) ? (int)byte : -1;
}

/* The token's bytes, borrowed from pad or the piece. */
static int work_out(const struct by_decoder *d, struct by_str piece, unsigned place,
                    struct by_str *text, uint8_t *flags, char *byte, struct pad *pad,
                    struct by_err *err) {
    *text = piece;
    *flags = 0;
    for (unsigned i = 0; i < d->n; i++) {
        const struct by_decoder_step *s = &d->steps[i];
        if (s->kind == BYTE_FALLBACK) {
            int value = byte_of(*text);
            if (value < 0) continue;
            *flags = IS_BYTE;
            *byte = (char)value;
            return 0;
        }
        if (s->kind == BYTE_LEVEL) {
            struct by_buf *b = other(pad);
            by_buf_clear(b);
            char *room = by_buf_reserve(b, text->n + 1);
            bool is_spelled;
            if (!room) return by_fail(err, BY_ELIMIT, "a piece too long");
            b->n = by_alphabet_spell(*text, room, &is_spelled);
            *text = (struct by_str){room, b->n};
            continue;
        }
        int rc = run_step(s, place, text, flags, pad, err);
        if (rc) return rc;
    }
    return pad->b[0].is_full || pad->b[1].is_full ? by_fail(err, BY_ELIMIT, "a piece too long") : 0;
}

static void init_pad(struct pad *pad) {
    *pad = (struct pad){.k = 0};
    by_buf_init(&pad->b[0], 16 * (size_t)BY_PIECE_BYTES_MAX);
    by_buf_init(&pad->b[1], 16 * (size_t)BY_PIECE_BYTES_MAX);
}

static void release_pad(struct pad *pad) {
    by_buf_release(&pad->b[0]);
    by_buf_release(&pad->b[1]);
}

/* In the middle of a text or at its end: which of the two is kept, and what flags say of the other. */
static int work_out_both(const struct by_decoder *d, struct by_str piece, struct by_str *text,
                         uint8_t *flags, char *byte, struct pad *pad, struct pad *pad_of_last,
                         struct by_err *err) {
    struct by_str last;
    uint8_t flags_of_last;
    int rc = work_out(d, piece, 0, text, flags, byte, pad, err);
    if (rc || !d->is_last_special) return rc;
    rc = work_out(d, piece, LAST, &last, &flags_of_last, byte, pad_of_last, err);
    if (rc || by_str_eq(last, *text)) return rc;
    if (text->n == last.n + 1 && text->p[last.n] == ' ' && by_str_starts(*text, last)) {
        *flags |= ENDS_WORD;
        *text = by_str_sub(*text, 0, last.n);
    } else {
        *flags |= IS_HELD;
    }
    return 0;
}

int by_decoder_set_pieces(struct by_decoder *d, const struct by_vocab *pieces, struct by_err *err) {
    struct pad pad, pad_of_last;
    int rc = 0;
    init_pad(&pad);
    init_pad(&pad_of_last);
    d->pieces = pieces;
    d->flags = by_alloc_array(pieces->n + 1, 1);
    by_vocab_reserve(&d->bytes, pieces->n);
    for (uint32_t id = 0; id < pieces->n && !rc; id++) {
        if (!by_vocab_has(pieces, id)) continue;
        struct by_str piece = by_vocab_get(pieces, id), text;
        char byte;
        rc = work_out_both(d, piece, &text, &d->flags[id], &byte, &pad, &pad_of_last, err);
        if (rc) break;
        if (d->flags[id] & IS_BYTE) text = (struct by_str){&byte, 1};
        rc = by_vocab_put(&d->bytes, id, text, false, err);
    }
    release_pad(&pad_of_last);
    release_pad(&pad);
    return rc;
}

void by_decoder_freeze(const struct by_decoder *d, struct by_buf *out) {
    by_freeze(out, d->flags, (size_t)d->pieces->n + 1, 1);
    by_vocab_freeze(&d->bytes, out);
}

void by_decoder_thaw(struct by_decoder *d, struct by_thaw *t, const struct by_vocab *pieces) {
    d->pieces = pieces;
    d->is_borrowed = true;
    d->flags = (void *)(uintptr_t)by_thaw_n(t, 1, (size_t)pieces->n + 1); /* only read */
    by_vocab_thaw(&d->bytes, t);
    if (d->bytes.n > pieces->n) t->is_bad = true;
    for (uint32_t id = 0; id < d->bytes.n && !t->is_bad; id++) {
        if ((d->flags[id] & IS_BYTE) && by_vocab_get(&d->bytes, id).n != 1) t->is_bad = true;
    }
}

struct by_str by_decoder_bytes(const struct by_decoder *d, uint32_t id) {
    return by_vocab_get(&d->bytes, id);
}

/* ---- a stream of tokens ---- */

void by_decoder_start(const struct by_decoder *d, struct by_decoder_state *s) {
    *s = (struct by_decoder_state){.n_strip = d->strip_start, .last_id = UINT32_MAX};
}

void by_decoder_add_lossy(struct by_buf *out, struct by_str bytes) {
    size_t from = 0;
    for (size_t i = 0, len; i < bytes.n; i += len) {
        if ((unsigned char)bytes.p[i] < 0x80) {
            len = 1;
            continue;
        }
        if (by_utf8_decode(bytes.p + i, bytes.n - i, &len) != BY_UTF8_BAD) continue;
        by_buf_add(out, bytes.p + from, i - from);
        by_buf_addz(out, "\xEF\xBF\xBD");
        from = i + len;
    }
    if (from < bytes.n) by_buf_add(out, bytes.p + from, bytes.n - from);
}

void by_decoder_settle(struct by_decoder_state *s, struct by_buf *text) {
    uint32_t n = s->n_run, n_all = n + s->n_gone;
    s->n_run = s->n_gone = 0;
    if (!n || by_utf8_valid(text->p + text->n - n, n)) return;
    text->n -= n;
    while (n_all--)
        by_buf_addz(text, "\xEF\xBF\xBD");
}

/* Appends but for what is stripped from the very start of the text. */
static void add_stripped(const struct by_decoder *d, struct by_decoder_state *s, struct by_str t,
                         struct by_buf *text) {
    while (s->n_strip && t.n) {
        size_t len;
        if (by_utf8_decode(t.p, t.n, &len) != d->strip_char) {
            s->n_strip = 0;
            break;
        }
        s->n_strip--;
        t = by_str_sub(t, len, t.n);
    }
    by_buf_add_str(text, t);
}

static void put_bytes(const struct by_decoder *d, struct by_decoder_state *s, struct by_str t,
                      uint8_t flags, struct by_buf *text) {
    if (s->is_space_due) by_buf_addc(text, ' '); /* behind a whole token: no run of bytes is open */
    s->is_space_due = false;
    if (flags & IS_BYTE) {
        size_t n = text->n;
        add_stripped(d, s, t, text);
        s->n_run += (uint32_t)(text->n - n);
        s->n_gone += text->n == n;
        return;
    }
    by_decoder_settle(s, text);
    s->is_space_due = flags & ENDS_WORD;
    add_stripped(d, s, t, text);
}

/* A token whose place is known to be no other than what has_begun and is_last say. */
static void put(const struct by_decoder *d, struct by_decoder_state *s, uint32_t id, bool is_last,
                struct by_buf *text) {
    uint8_t flags = d->flags[id], flags_there;
    struct by_str t = by_vocab_get(&d->bytes, id);
    unsigned place = (!s->has_begun && d->is_first_special ? FIRST : 0) | (is_last ? LAST : 0);
    s->has_begun = true;
    if (!place) {
        put_bytes(d, s, t, flags, text);
        return;
    }
    if (flags & ENDS_WORD) place |= LAST; /* the space comes with the next token, if one comes */
    struct pad pad;
    char byte;
    init_pad(&pad);
    if (work_out(d, by_vocab_get(d->pieces, id), place, &t, &flags_there, &byte, &pad, NULL) == 0) {
        if (flags_there & IS_BYTE) t = (struct by_str){&byte, 1};
        put_bytes(d, s, t, flags_there | (flags & ENDS_WORD), text);
    }
    release_pad(&pad);
}

void by_decoder_push(const struct by_decoder *d, struct by_decoder_state *s, uint32_t id,
                     struct by_buf *text) {
    if (!by_vocab_has(&d->bytes, id)) return;
    if (d->is_ctc && id == s->last_id) return;
    s->last_id = id;
    if (s->is_held) put(d, s, s->held_id, false, text);
    s->is_held = d->flags[id] & IS_HELD;
    s->held_id = id;
    if (!s->is_held) put(d, s, id, false, text);
}

void by_decoder_finish(const struct by_decoder *d, struct by_decoder_state *s,
                       struct by_buf *text) {
    if (s->is_held) put(d, s, s->held_id, true, text);
    s->is_held = false;
    by_decoder_settle(s, text);
}

void by_decoder_free(struct by_decoder *d) {
    if (!d) return;
    for (unsigned i = 0; i < BY_DECODER_STEPS_MAX; i++) {
        by_regex_free(d->steps[i].regex);
        by_free(d->steps[i].content);
        by_free(d->steps[i].text);
    }
    if (!d->is_borrowed) by_free(d->flags);
    by_vocab_release(&d->bytes);
    by_free(d);
}
