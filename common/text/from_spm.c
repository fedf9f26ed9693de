/* from_spm.c - SentencePiece's tokenizer.model, as transformers converts it.
 *
 *     protobuf ModelProto:  1 pieces {1 piece, 2 score, 3 type}   2 trainer {3 model type, 24 suffix, 35 byte fallback,
 *     40-42 unk, bos, eos id}   3 normalizer {2 character map, 3 dummy prefix, 4 remove spaces, 5 escape spaces}
 *
 * What the file does not say stands in tokenizer_config.json: tokenizer_class, legacy, add_bos_token, added tokens. */
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/tokenizer_parts.h"

#include <stdio.h>

enum piece_type { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };
enum { UNIGRAM = 1, BPE = 2 };

/* ---- protobuf: fields one after the other ---- */

struct field {
    uint32_t number, wire;
    uint64_t value;      /* varint, fixed */
    struct by_str bytes; /* of a length-delimited one */
};

static bool take_varint(struct by_str *s, uint64_t *out) {
    *out = 0;
    for (unsigned shift = 0; shift < 64 && s->n; shift += 7) {
        uint8_t b = (uint8_t)s->p[0];
        *s = by_str_sub(*s, 1, s->n);
        *out |= (uint64_t)(b & 0x7F) << shift;
        if (!(b & 0x80)) return true;
    }
    return false;
}

static bool take_fixed(struct by_str *s, size_t n, uint64_t *out) {
    *out = 0;
    if (s->n < n) return false;
    memcpy(out, s->p, n);
    *s = by_str_sub(*s, n, s->n);
    return true;
}

/* The next field of a message; false at its end, or at bytes that are none: then *is_bad. */
static bool next_field(struct by_str *s, struct field *f, bool *is_bad) {
    uint64_t tag, n;
    *f = (struct field){0};
    if (!s->n) return false;
    *is_bad = true;
    if (!take_varint(s, &tag) || tag >> 3 == 0 || tag >> 3 > 1 << 29) return false;
    f->number = (uint32_t)(tag >> 3);
    f->wire = (uint32_t)(tag & 7);
    if (f->wire == 0) {
        if (!take_varint(s, &f->value)) return false;
    } else if (f->wire == 1 || f->wire == 5) {
        if (!take_fixed(s, f->wire == 1 ? 8 : 4, &f->value)) return false;
    } else if (f->wire == 2) {
        if (!take_varint(s, &n) || n > s->n) return false;
        f->bytes = by_str_sub(*s, 0, n);
        *s = by_str_sub(*s, n, s->n);
    } else {
        return false;
    }
    *is_bad = false;
    return true;
}

static float to_float(uint64_t bits) {
    uint32_t low = (uint32_t)bits;
    float f;
    memcpy(&f, &low, sizeof f);
    return f;
}

/* ---- the model ---- */

struct model {
    struct by_tokenizer *t;
    struct by_spm spm;
    uint8_t *types; /* [vocab.n] enum piece_type */
    size_t cap;
    uint64_t model_type;
    bool is_suffix, keeps_spaces;
    int64_t bos, eos, unk; /* as the trainer wrote them */
};

static void put_score(struct model *m, uint32_t id, double score, uint8_t type) {
    if (id >= m->cap) {
        m->cap = BY_MAX(m->cap * 2, (size_t)1024);
        m->spm.scores = by_realloc_array(m->spm.scores, m->cap, sizeof(double));
        m->types = by_realloc_array(m->types, m->cap, 1);
    }
    m->spm.scores[id] = score;
    m->types[id] = type;
}

static int add_piece(struct model *m, struct by_str piece, double score, uint8_t type,
                     struct by_err *err) {
    uint32_t id = m->t->vocab.n;
    if (!by_utf8_valid(piece.p, piece.n))
        return by_fail(err, BY_EFORMAT, "piece %u is not UTF-8", id);
    int rc = by_vocab_put(&m->t->vocab, id, piece, true, err);
    if (!rc) put_score(m, id, score, type);
    return rc;
}

static int read_piece(struct model *m, struct by_str bytes, struct by_err *err) {
    struct field f;
    struct by_str piece = {"", 0};
    float score = 0;
    uint8_t type = NORMAL;
    bool is_bad = false;
    while (next_field(&bytes, &f, &is_bad)) {
        if (f.number == 1 && f.wire == 2) piece = f.bytes;
        if (f.number == 2 && f.wire == 5) score = to_float(f.value);
        if (f.number == 3 && f.wire == 0) type = (uint8_t)BY_MIN(f.value, (uint64_t)255);
    }
    if (is_bad) return by_fail(err, BY_EFORMAT, "piece %u is broken", m->t->vocab.n);
    return add_piece(m, piece, (double)score, type, err);
}

static bool read_trainer(struct model *m, struct by_str bytes) {
    struct field f;
    bool is_bad = false;
    while (next_field(&bytes, &f, &is_bad)) {
        if (f.wire != 0) continue;
        if (f.number == 3) m->model_type = f.value;
        if (f.number == 24) m->is_suffix = f.value;
        if (f.number == 35) m->spm.byte_fallback = f.value;
        if (f.number == 40) m->unk = (int32_t)f.value;
        if (f.number == 41) m->bos = (int32_t)f.value;
        if (f.number == 42) m->eos = (int32_t)f.value;
    }
    return !is_bad;
}

static bool read_normalizer(struct model *m, struct by_str bytes) {
    struct field f;
    bool is_bad = false;
    while (next_field(&bytes, &f, &is_bad)) {
        if (f.number == 2 && f.wire == 2) m->spm.charsmap = f.bytes;
        if (f.number == 3 && f.wire == 0) m->spm.add_dummy_prefix = f.value;
        if (f.number == 4 && f.wire == 0) m->spm.remove_extra_whitespaces = f.value;
        if (f.number == 5 && f.wire == 0) m->keeps_spaces = !f.value;
    }
    return !is_bad;
}

static int read_model(struct model *m, struct by_str bytes, struct by_err *err) {
    struct field f;
    bool is_bad = false;
    int rc = 0;
    while (!rc && next_field(&bytes, &f, &is_bad)) {
        bool is_sound = true;
        if (f.wire == 2 && f.number == 1) rc = read_piece(m, f.bytes, err);
        if (f.wire == 2 && f.number == 2) is_sound = read_trainer(m, f.bytes);
        if (f.wire == 2 && f.number == 3) is_sound = read_normalizer(m, f.bytes);
        if (!is_sound) rc = by_fail(err, BY_EFORMAT, "field %u is broken", f.number);
    }
    if (rc) return rc;
    if (is_bad) return by_fail(err, BY_EFORMAT, "it is no SentencePiece model, or cut short");
    if (!m->t->vocab.n) return by_fail(err, BY_EFORMAT, "it has no pieces");
    if (m->model_type != UNIGRAM && m->model_type != BPE)
        return by_fail(err, BY_EUNSUPPORTED, "a SentencePiece model of the type %s",
                       m->model_type == 3   ? "WORD"
                       : m->model_type == 4 ? "CHAR"
                                            : "unknown");
    if (m->is_suffix)
        return by_fail(err, BY_EUNSUPPORTED, "treat_whitespace_as_suffix is not supported");
    if (m->keeps_spaces)
        return by_fail(err, BY_EUNSUPPORTED, "escape_whitespaces = false is not supported");
    m->spm.is_unigram = m->model_type == UNIGRAM;
    return 0;
}

/* ---- what tokenizer_config.json adds ---- */

static bool has_word(struct by_str s, const char *word) {
    return by_str_find(s, by_str_of(word), 0) != SIZE_MAX;
}

/* Classes that give their pieces other ids or scores than the file does. */
static int refuse_class(struct by_str class, struct by_err *err) {
    static const char *const names[] = {"Albert",  "XLNet",    "Deberta", "Camembert", "MBart",
                                        "BigBird", "Pegasus",  "Nllb",    "M2M100",    "Marian",
                                        "RemBert", "Reformer", "Barthez", "Plbart",    "FNet"};
    for (size_t i = 0; i < BY_COUNTOF(names); i++) {
        if (has_word(class, names[i]))
            return by_fail(err, BY_EUNSUPPORTED,
                           "tokenizer_class '" BY_STR_FMT
                           "' is read from a tokenizer.json only: save one beside it with "
                           "transformers",
                           BY_STR_ARG(class));
    }
    return 0;
}

static int fail_moved(struct by_err *err) {
    return by_fail(err, BY_EFORMAT, "the model has fewer than three pieces");
}

/* XLM-R counts its own four first; the file's first three are left out. */
static int move_xlmr(struct model *m, struct by_err *err) {
    static const char *const first[] = {"<s>", "<pad>", "</s>", "<unk>"};
    struct by_vocab old = m->t->vocab;
    double *scores = m->spm.scores;
    uint8_t *types = m->types;
    int rc = old.n < 3 ? fail_moved(err) : 0;
    by_vocab_init(&m->t->vocab);
    m->spm.scores = NULL;
    m->types = NULL;
    m->cap = 0;
    by_vocab_reserve(&m->t->vocab, old.n + 2);
    for (size_t i = 0; i < BY_COUNTOF(first) && !rc; i++)
        rc = add_piece(m, by_str_of(first[i]), 0, i == 3 ? UNKNOWN : CONTROL, err);
    for (uint32_t id = 3; id < old.n && !rc; id++)
        rc = add_piece(m, by_vocab_get(&old, id), scores[id], types[id], err);
    if (!rc) rc = add_piece(m, BY_STR("<mask>"), 0, CONTROL, err);
    m->unk = 3;
    m->bos = 0;
    m->eos = 2;
    by_vocab_release(&old);
    by_free(scores);
    by_free(types);
    return rc;
}

static int add_extra_ids(struct model *m, int64_t n, struct by_err *err) {
    int rc = 0;
    while (n-- > 0 && !rc) {
        char name[32];
        int len = snprintf(name, sizeof name, "<extra_id_%lld>", (long long)n);
        rc = add_piece(m, (struct by_str){name, (size_t)len}, 0, CONTROL, err);
    }
    return rc;
}

/* Gemma's first vocabulary has no tab but its byte; transformers gives that the name. */
static int name_tab(struct model *m, struct by_err *err) {
    uint32_t id;
    struct by_vocab old = m->t->vocab;
    if (by_vocab_find(&old, BY_STR("\t"), &id) || !by_vocab_find(&old, BY_STR("<0x09>"), &id))
        return 0;
    int rc = 0;
    by_vocab_init(&m->t->vocab);
    by_vocab_reserve(&m->t->vocab, old.n);
    for (uint32_t i = 0; i < old.n && !rc; i++)
        rc = by_vocab_put(&m->t->vocab, i, i == id ? BY_STR("\t") : by_vocab_get(&old, i), true,
                          err);
    by_vocab_release(&old);
    return rc;
}

struct traits {
    bool add_bos, add_eos;
    bool is_gemma;
};

static int read_config(struct model *m, const struct by_json *j, struct traits *tr,
                       struct by_err *err) {
    struct by_str class = {"", 0};
    bool is_legacy = true, has_prefix = true;
    int64_t extra_ids = 100;
    const char *at = "tokenizer_config.json";
    int rc = by_json_get_str(j, at, "tokenizer_class", &class, err);
    if (!rc) rc = refuse_class(class, err);
    if (!rc) rc = by_json_get_bool(j, at, "legacy", &is_legacy, err);
    if (!rc) rc = by_json_get_bool(j, at, "add_prefix_space", &has_prefix, err);
    if (!rc) rc = by_json_get_i64(j, at, "extra_ids", 0, 1000, &extra_ids, err);
    if (rc) return rc;
    m->spm.is_first_only = !is_legacy;
    tr->is_gemma = has_word(class, "Gemma");
    bool is_llama = has_word(class, "Llama") || has_word(class, "Mistral") ||
                    (!class.n && !m->spm.is_unigram && m->spm.byte_fallback);
    if (is_llama || tr->is_gemma) { /* these take neither the map nor the flags of the file */
        m->spm.style = tr->is_gemma ? BY_SPM_GEMMA : is_legacy ? BY_SPM_LLAMA : BY_SPM_LLAMA_NEW;
        m->spm.charsmap = (struct by_str){0};
        m->spm.remove_extra_whitespaces = false;
        m->spm.add_dummy_prefix = has_prefix && !tr->is_gemma;
        m->spm.byte_fallback = tr->add_bos = true;
    } else {
        m->spm.style = m->spm.is_unigram ? BY_SPM_T5 : BY_SPM_LLAMA;
        m->spm.add_dummy_prefix &= has_prefix;
    }
    if (tr->is_gemma) rc = name_tab(m, err);
    if (has_word(class, "T5")) {
        rc = add_extra_ids(m, extra_ids, err);
        tr->add_eos = true;
    } else if (has_word(class, "XLMRoberta")) {
        rc = move_xlmr(m, err);
        tr->add_bos = tr->add_eos = true;
    }
    if (!rc) rc = by_json_get_bool(j, at, "add_bos_token", &tr->add_bos, err);
    if (!rc) rc = by_json_get_bool(j, at, "add_eos_token", &tr->add_eos, err);
    return rc;
}

static int add_symbols(struct model *m, const struct traits *tr, struct by_err *err) {
    int rc = 0;
    for (uint32_t id = 0; id < m->t->vocab.n && !rc; id++) {
        if (m->types[id] != CONTROL && m->types[id] != USER_DEFINED) continue;
        struct by_str piece = by_vocab_get(&m->t->vocab, id);
        bool is_turn = tr->is_gemma &&
                       (by_str_eqz(piece, "<start_of_turn>") || by_str_eqz(piece, "<end_of_turn>"));
        struct by_added_token token = {
            .id = id, .content = piece, .special = m->types[id] == CONTROL || is_turn};
        rc = by_tokenizer_add(m->t, &token, err);
    }
    uint32_t n = m->t->vocab.n;
    if (!rc && m->unk >= 0 && m->unk < n) { /* transformers lists it among the special ones */
        struct by_added_token token = {.id = (uint32_t)m->unk,
                                       .content = by_vocab_get(&m->t->vocab, (uint32_t)m->unk),
                                       .special = true};
        rc = by_tokenizer_add(m->t, &token, err);
    }
    return rc;
}

int by_tokenizer_from_spm(struct by_tokenizer *t, struct by_str bytes,
                          const struct by_text_config *c, struct by_err *err) {
    struct model m = {.t = t,
                      .model_type = UNIGRAM,
                      .unk = 0,
                      .bos = 1,
                      .eos = 2,
                      .spm = {.add_dummy_prefix = true, .remove_extra_whitespaces = true}};
    struct traits tr = {.add_bos = false};
    int rc = read_model(&m, bytes, err);
    if (!rc) rc = read_config(&m, c->tokenizer, &tr, err);
    if (!rc) {
        int64_t n = t->vocab.n;
        m.spm.unk_id = m.unk >= 0 && m.unk < n ? m.unk : -1;
        t->bos = m.bos >= 0 && m.bos < n ? m.bos : -1;
        t->eos = m.eos >= 0 && m.eos < n ? m.eos : -1;
        rc = by_tokenizer_from_scores(t, &m.spm, err);
    }
    if (!rc) rc = add_symbols(&m, &tr, err);
    if (!rc) rc = by_tokenizer_add_config(t, c, err);
    if (!rc) by_tokenizer_frame(t, tr.add_bos ? t->bos : -1, tr.add_eos ? t->eos : -1);
    by_free(m.types);
    by_free(m.spm.scores);
    return rc;
}
