/* from_scores.c - tokenizers whose files hold pieces, but neither merges nor the steps around the model: those follow
 * from scores or ranks as transformers derives them.
 *
 *     merges: every way to cut a piece into two pieces; scores: the highest first, then the longest left part;
 *             ranks (tiktoken): a pair has the rank of what it becomes */
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/base64.h"
#include "common/text/tokenizer_parts.h"

#include <stdlib.h>

enum {
    /* Bytes hashed to find all cuts: the largest vocabularies in use need 30 million. */
    WORK_MAX = 160 * 1000 * 1000,
    PART_MAX = 64 << 20, /* a step's JSON, a character map in base64 inside */
};

/* One way to cut a piece in two. */
struct cut {
    double score;
    uint32_t n_left, n_right; /* characters */
    uint32_t left, right, id;
};

struct cuts {
    struct cut *p;
    size_t n, cap;
    size_t work;
};

/* ---- the parts around the model ---- */

int by_tokenizer_parse_parts(struct by_tokenizer *t, struct by_str normalizer,
                             struct by_str pre_tokenizer, struct by_str decoder,
                             struct by_err *err) {
    static const struct by_json_limits limits = {.bytes_max = PART_MAX, .depth_max = 32};
    static const char *const names[] = {"normalizer", "pre_tokenizer", "decoder"};
    struct by_str text[] = {normalizer, pre_tokenizer, decoder};
    struct by_json *j[3] = {NULL, NULL, NULL};
    int rc = 0;
    for (size_t i = 0; i < BY_COUNTOF(j) && !rc; i++) {
        if (!text[i].n) text[i] = BY_STR("null");
        t->parts[i] = by_strndup(text[i].p, text[i].n);
        rc = by_json_parse(&j[i], text[i], &limits, err);
        if (rc) rc = by_fail_prefix(err, "%s", names[i]);
    }
    if (!rc) rc = by_normalize_parse(&t->normalize, j[0], t->uni, err);
    if (!rc) rc = by_pretok_parse(&t->pretok, j[1], t->uni, err);
    if (!rc) rc = by_decoder_parse(&t->decoder, j[2], err);
    for (size_t i = 0; i < BY_COUNTOF(j); i++)
        by_json_free(j[i]);
    return rc;
}

int by_tokenizer_set_parts(struct by_tokenizer *t, const char *normalizer,
                           const char *pre_tokenizer, const char *decoder, struct by_err *err) {
    return by_tokenizer_parse_parts(t, by_str_of(normalizer), by_str_of(pre_tokenizer),
                                    by_str_of(decoder), err);
}

void by_tokenizer_frame(struct by_tokenizer *t, int64_t before, int64_t behind) {
    if (before >= 0) t->frame.before[t->frame.n_before++] = (uint32_t)before;
    if (behind >= 0) t->frame.behind[t->frame.n_behind++] = (uint32_t)behind;
}

#define MARK "\xE2\x96\x81"
#define SPACE_TO_MARK \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" MARK "\"}"

static void add_normalizer(const struct by_spm *s, struct by_buf *out) {
    bool is_words = s->style == BY_SPM_T5;
    by_buf_addz(out, "{\"type\":\"Sequence\",\"normalizers\":[");
    size_t from = out->n;
    if (s->charsmap.n) {
        by_buf_addz(out, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"");
        by_base64_encode(s->charsmap, out);
        by_buf_addz(out, "\"},");
    }
    if (s->remove_extra_whitespaces) {
        by_buf_addf(out, "{\"type\":\"Strip\",\"strip_left\":%s,\"strip_right\":true},",
                    is_words ? "false" : "true");
        by_buf_addf(out,
                    "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\"%s\"},",
                    is_words ? MARK : " ");
    }
    if (s->style == BY_SPM_LLAMA && s->add_dummy_prefix)
        by_buf_addz(out, "{\"type\":\"Prepend\",\"prepend\":\"" MARK "\"},");
    if (s->style == BY_SPM_LLAMA || s->style == BY_SPM_GEMMA) by_buf_addz(out, SPACE_TO_MARK ",");
    if (out->n > from) out->n--; /* the last comma */
    by_buf_addz(out, "]}");
}

static int set_parts(struct by_tokenizer *t, const struct by_spm *s, struct by_err *err) {
    struct by_buf normalizer, pre, decoder;
    by_buf_init(&normalizer, PART_MAX);
    by_buf_init(&pre, 512);
    by_buf_init(&decoder, 512);
    add_normalizer(s, &normalizer);
    const char *scheme = !s->add_dummy_prefix ? "never" : s->is_first_only ? "first" : "always";
    if (s->style == BY_SPM_LLAMA || s->style == BY_SPM_GEMMA)
        by_buf_addz(&pre, "null");
    else
        by_buf_addf(&pre,
                    "{\"type\":\"Metaspace\",\"replacement\":\"" MARK
                    "\",\"prepend_scheme\":\"%s\",\"split\":%s}",
                    scheme, s->style == BY_SPM_T5 ? "true" : "false");
    if (s->style == BY_SPM_T5)
        by_buf_add_str(&decoder, by_buf_str(&pre));
    else
        by_buf_addf(&decoder,
                    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":"
                    "{\"String\":\"" MARK
                    "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}%s]}",
                    s->add_dummy_prefix && s->style != BY_SPM_GEMMA
                        ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}"
                        : "");
    int rc = normalizer.is_full
                 ? by_fail(err, BY_ELIMIT, "the character map has %zu bytes", s->charsmap.n)
                 : by_tokenizer_set_parts(t, normalizer.p, pre.p, decoder.p, err);
    by_buf_release(&decoder);
    by_buf_release(&pre);
    by_buf_release(&normalizer);
    return rc;
}

/* ---- merges ---- */

static int fail_work(struct by_err *err) {
    return by_fail(err, BY_ELIMIT,
                   "the vocabulary's pieces are too long and too many to derive merges from");
}

/* All cuts of one piece between characters; a step of 0 cuts between bytes. */
static int cut_piece(const struct by_vocab *v, uint32_t id, double score, struct cuts *c,
                     struct by_err *err) {
    struct by_str piece = by_vocab_get(v, id);
    uint32_t n_chars = 0, k = 0;
    size_t len;
    c->work += piece.n * piece.n;
    if (piece.n > 1 << 14 || c->work > WORK_MAX) return fail_work(err);
    for (size_t i = 0; i < piece.n; i += len, n_chars++)
        by_utf8_decode(piece.p + i, piece.n - i, &len);
    for (size_t i = 0; i < piece.n; i += len) {
        uint32_t left, right;
        by_utf8_decode(piece.p + i, piece.n - i, &len);
        k++;
        size_t at = i + len;
        if (at == piece.n || !by_vocab_find(v, by_str_sub(piece, 0, at), &left) ||
            !by_vocab_find(v, by_str_sub(piece, at, piece.n - at), &right))
            continue;
        if (c->n == BY_MERGES_MAX) return fail_work(err);
        if (c->n == c->cap) {
            c->cap = BY_MAX(c->cap * 2, (size_t)4096);
            c->p = by_realloc_array(c->p, c->cap, sizeof *c->p);
        }
        c->p[c->n++] = (struct cut){.score = score,
                                    .n_left = k,
                                    .n_right = n_chars - k,
                                    .left = left,
                                    .right = right,
                                    .id = id};
    }
    return 0;
}

static int by_order(uint64_t a, uint64_t b) {
    return (a > b) - (a < b);
}

static int compare_cuts(const void *pa, const void *pb) {
    const struct cut *a = pa, *b = pb;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    if (a->n_left != b->n_left) return by_order(b->n_left, a->n_left);
    if (a->n_right != b->n_right) return by_order(b->n_right, a->n_right);
    if (a->id != b->id) return by_order(a->id, b->id);
    return a->left != b->left ? by_order(a->left, b->left) : by_order(a->right, b->right);
}

static int derive_merges(struct by_tokenizer *t, const struct by_spm *s, struct by_err *err) {
    struct cuts c = {.n = 0};
    int rc = 0;
    for (uint32_t id = 0; id < t->vocab.n && !rc; id++) {
        uint32_t found;
        if (!by_vocab_find(&t->vocab, by_vocab_get(&t->vocab, id), &found) || found != id) continue;
        rc = cut_piece(&t->vocab, id, s->scores[id], &c, err);
    }
    if (!rc) {
        struct by_bpe_options o = {.byte_fallback = s->byte_fallback,
                                   .fuse_unk = true,
                                   .has_unk = s->unk_id >= 0,
                                   .unk_id = (uint32_t)BY_MAX(s->unk_id, 0)};
        if (c.n) qsort(c.p, c.n, sizeof *c.p, compare_cuts);
        t->bpe = by_bpe_new(&t->vocab, &t->vocab, &o, (uint32_t)c.n);
        for (size_t i = 0; i < c.n; i++)
            by_bpe_put_merge(t->bpe, c.p[i].left, c.p[i].right, (uint32_t)i, c.p[i].id);
    }
    by_free(c.p);
    return rc;
}

int by_tokenizer_from_scores(struct by_tokenizer *t, const struct by_spm *s, struct by_err *err) {
    for (uint32_t id = 0; id < t->vocab.n; id++) {
        if (!(s->scores[id] > -1e30 && s->scores[id] < 1e30)) /* NaN too */
            return by_fail(err, BY_EFORMAT, "the score of piece %u is no number", id);
    }
    int rc = set_parts(t, s, err);
    if (rc) return rc;
    t->kind = s->is_unigram ? "Unigram" : "BPE";
    if (!s->is_unigram) return derive_merges(t, s, err);
    struct by_unigram_options o = {.has_unk = s->unk_id >= 0,
                                   .unk_id = (uint32_t)BY_MAX(s->unk_id, 0),
                                   .byte_fallback = s->byte_fallback};
    return by_unigram_new(&t->unigram, &t->vocab, s->scores, &o, err);
}

/* tiktoken merges any two neighbours that together are a token, the lowest rank first. */
int by_tokenizer_from_ranks(struct by_tokenizer *t, struct by_err *err) {
    struct by_bpe_options o = {.is_byte_level = true, .ignore_merges = true};
    const struct by_vocab *w = &t->words;
    size_t work = 0;
    int rc = by_tokenizer_spell_words(t, err);
    if (rc) return rc;
    t->kind = "BPE";
    t->bpe = by_bpe_new(&t->vocab, w, &o, BY_MIN(w->n * 3, (uint32_t)BY_MERGES_MAX));
    for (uint32_t id = 0; id < w->n; id++) {
        struct by_str piece = by_vocab_get(w, id);
        work += piece.n * piece.n;
        if (work > WORK_MAX) return fail_work(err);
        for (size_t at = 1; at < piece.n; at++) {
            uint32_t left, right;
            if (!by_vocab_find(w, by_str_sub(piece, 0, at), &left) ||
                !by_vocab_find(w, by_str_sub(piece, at, piece.n - at), &right))
                continue;
            if (by_bpe_n_merges(t->bpe) == BY_MERGES_MAX) return fail_work(err);
            by_bpe_put_merge(t->bpe, left, right, id, id);
        }
    }
    return 0;
}
