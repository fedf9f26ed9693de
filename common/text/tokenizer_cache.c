/* tokenizer_cache.c - a tokenizer as a file that is mapped and used as it lies there: no second parsing, and one copy in
 * memory for all processes.
 *
 *     $BANYAN_CACHE/tokenizers/<hash of the source's path>.bin
 *     +----------------+-------------------------------+---------------------------------------------------------+
 *     | magic, lengths | key: version, source files'   | facts · JSON of normalizer, pre-tokenizer, decoder ·     |
 *     | xxh3 of rest   | names, sizes, times           | added tokens · vocabularies · model · pieces as decoded |
 *     +----------------+-------------------------------+---------------------------------------------------------+
 *
 * Always: a file that is not this version's, not of these sources, not whole or not sound is ignored and written anew; one
 * that another user could have written is ignored too. A cache that cannot be written costs time, nothing else. */
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/text/tokenizer_parts.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FORMAT = 4,       /* counts up with every change of what is written */
    WORTH_IT = 20000, /* pieces from which reading the cache is faster than parsing */
    CACHE_FILE_MAX = 1 << 30,
};

struct head {
    char magic[16];
    uint64_t hash;       /* of all behind the head */
    uint64_t n_key, n;   /* bytes of the key; of the file */
    uint64_t hash_check; /* by_str_hash may change with the library, and the slots with it */
    uint64_t pad[2];
};
static_assert(sizeof(struct head) == 64, "what follows stays aligned");

struct facts {
    int64_t bos, eos;
    uint32_t n_vocab, n_before, n_behind, kind, model;
    uint32_t before[BY_POST_IDS_MAX], behind[BY_POST_IDS_MAX];
    uint32_t clean_up, n_added;
    struct by_pair_part pair[3]; /* before, between, behind */
    uint32_t pair_is_known, pair_has_types, pair_n_first;
};

struct added {
    uint32_t id, flags, n_content, n_pattern;
};

enum { MODEL_BPE = 1, MODEL_UNIGRAM };
enum { SINGLE_WORD = 1, LSTRIP = 2, RSTRIP = 4, NORMALIZED = 8, SPECIAL = 16 };
static const char *const kinds[] = {"", "BPE", "Unigram", "WordPiece", "WordLevel"};

/* ---- writing ---- */

static void freeze_added(const struct by_tokenizer *t, struct by_buf *out) {
    uint32_t n = by_added_n(t->added);
    struct by_buf text;
    struct added *list = by_alloc_array((size_t)n + 1, sizeof *list);
    by_buf_init(&text, CACHE_FILE_MAX);
    for (uint32_t i = 0; i < n; i++) {
        const struct by_added_token *a = by_added_at(t->added, i);
        list[i] =
            (struct added){.id = a->id,
                           .flags = (uint32_t)(a->single_word * SINGLE_WORD | a->lstrip * LSTRIP |
                                               a->rstrip * RSTRIP | a->normalized * NORMALIZED |
                                               a->special * SPECIAL),
                           .n_content = (uint32_t)a->content.n,
                           .n_pattern = (uint32_t)a->pattern.n};
        by_buf_add_str(&text, a->content);
        by_buf_add_str(&text, a->pattern);
    }
    by_freeze(out, list, n, sizeof *list);
    by_freeze(out, text.p, text.n, 1);
    by_buf_release(&text);
    by_free(list);
}

static void freeze(const struct by_tokenizer *t, struct by_buf *out) {
    struct facts f;
    memset(&f, 0, sizeof f); /* padding too */
    f.bos = t->bos;
    f.eos = t->eos;
    f.n_vocab = t->n_vocab;
    f.n_before = t->frame.n_before;
    f.n_behind = t->frame.n_behind;
    f.clean_up = t->clean_up;
    f.n_added = by_added_n(t->added);
    f.model = t->bpe ? MODEL_BPE : MODEL_UNIGRAM;
    for (uint32_t i = 0; i < BY_COUNTOF(kinds); i++)
        f.kind = strcmp(kinds[i], t->kind) == 0 ? i : f.kind;
    memcpy(f.before, t->frame.before, sizeof f.before);
    memcpy(f.behind, t->frame.behind, sizeof f.behind);
    f.pair[0] = t->pair.before;
    f.pair[1] = t->pair.between;
    f.pair[2] = t->pair.behind;
    f.pair_is_known = t->pair.is_known;
    f.pair_has_types = t->pair.has_types;
    f.pair_n_first = t->pair.n_first;
    by_freeze(out, &f, 1, sizeof f);
    for (size_t i = 0; i < BY_COUNTOF(t->parts); i++)
        by_freeze(out, t->parts[i], strlen(t->parts[i]), 1);
    freeze_added(t, out);
    by_freeze(out, t->is_special, (size_t)t->n_vocab + 1, 1);
    by_vocab_freeze(&t->vocab, out);
    by_vocab_freeze(&t->words, out);
    by_vocab_freeze(&t->shown, out);
    by_pretok_freeze(t->pretok, out);
    by_decoder_freeze(t->decoder, out);
    if (t->bpe)
        by_bpe_freeze(t->bpe, out);
    else
        by_unigram_freeze(t->unigram, out);
}

/* ---- reading ---- */

static int thaw_added(struct by_tokenizer *t, uint32_t n, struct by_thaw *from,
                      struct by_err *err) {
    const struct added *list = by_thaw_n(from, sizeof *list, n);
    struct by_str text = by_thaw_str(from);
    int rc = 0;
    for (uint32_t i = 0; i < n && !rc && !from->is_bad; i++) {
        const struct added *a = &list[i];
        if (a->n_content > text.n || a->n_pattern > text.n - a->n_content || a->id >= t->n_vocab) {
            from->is_bad = true;
            break;
        }
        struct by_added_token token = {.id = a->id,
                                       .single_word = a->flags & SINGLE_WORD,
                                       .lstrip = a->flags & LSTRIP,
                                       .rstrip = a->flags & RSTRIP,
                                       .normalized = a->flags & NORMALIZED,
                                       .special = a->flags & SPECIAL,
                                       .content = by_str_sub(text, 0, a->n_content),
                                       .pattern = by_str_sub(text, a->n_content, a->n_pattern)};
        text = by_str_sub(text, a->n_content + a->n_pattern, text.n);
        rc = by_added_put(t->added, &token, err);
    }
    return rc;
}

static bool is_sound(const struct facts *f) {
    if (f->n_vocab > BY_VOCAB_IDS_MAX || f->n_added > BY_ADDED_MAX ||
        f->n_before > BY_POST_IDS_MAX || f->n_behind > BY_POST_IDS_MAX ||
        f->kind >= BY_COUNTOF(kinds) || f->bos < -1 || f->eos < -1 || f->bos >= f->n_vocab ||
        f->eos >= f->n_vocab)
        return false;
    for (uint32_t i = 0; i < f->n_before; i++) {
        if (f->before[i] >= f->n_vocab) return false;
    }
    for (uint32_t i = 0; i < f->n_behind; i++) {
        if (f->behind[i] >= f->n_vocab) return false;
    }
    for (uint32_t k = 0; k < BY_COUNTOF(f->pair); k++) {
        if (f->pair[k].n > BY_PAIR_IDS_MAX) return false;
        for (uint32_t i = 0; i < f->pair[k].n; i++) {
            if (f->pair[k].ids[i] >= f->n_vocab) return false;
        }
    }
    return f->pair_n_first <= f->pair[1].n;
}

static void thaw_tables(struct by_tokenizer *t, struct by_thaw *from, uint32_t model) {
    t->is_special = (void *)(uintptr_t)by_thaw_n(from, 1, (size_t)t->n_vocab + 1); /* only read */
    by_vocab_thaw(&t->vocab, from);
    by_vocab_thaw(&t->words, from);
    by_vocab_thaw(&t->shown, from);
    if (t->vocab.n > t->n_vocab || t->words.n > t->n_vocab || t->shown.n != t->n_vocab)
        from->is_bad = true;
    by_pretok_thaw(t->pretok, from);
    by_decoder_thaw(t->decoder, from, &t->shown);
    if (model == MODEL_BPE)
        t->bpe = by_bpe_thaw(from, &t->vocab, &t->words);
    else
        t->unigram = by_unigram_thaw(from, &t->vocab);
}

static int thaw(struct by_tokenizer *t, struct by_thaw *from, struct by_err *err) {
    struct facts f;
    struct by_str part[3];
    by_thaw_one(from, &f, sizeof f);
    for (size_t i = 0; i < BY_COUNTOF(part); i++)
        part[i] = by_thaw_str(from);
    if (from->is_bad || !is_sound(&f)) return by_fail(err, BY_EFORMAT, "not sound");
    t->n_vocab = f.n_vocab;
    t->frame.n_before = f.n_before;
    t->frame.n_behind = f.n_behind;
    memcpy(t->frame.before, f.before, sizeof t->frame.before);
    memcpy(t->frame.behind, f.behind, sizeof t->frame.behind);
    t->pair = (struct by_pair){.is_known = f.pair_is_known != 0,
                               .has_types = f.pair_has_types != 0,
                               .before = f.pair[0],
                               .between = f.pair[1],
                               .behind = f.pair[2],
                               .n_first = f.pair_n_first};
    t->bos = f.bos;
    t->eos = f.eos;
    t->clean_up = f.clean_up;
    t->kind = kinds[f.kind];
    int rc = by_tokenizer_parse_parts(t, part[0], part[1], part[2], err);
    if (!rc) rc = thaw_added(t, f.n_added, from, err);
    if (rc) return rc;
    by_added_finish(t->added);
    thaw_tables(t, from, f.model);
    if (from->is_bad) return by_fail(err, BY_EFORMAT, "not sound");
    if (t->bpe) by_bpe_finish(t->bpe);
    return 0;
}

/* ---- the file ---- */

static bool add_source(struct by_buf *key, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) return false;
    by_buf_addf(key, "%s %lld %lld.%09ld %llu\n", path, (long long)st.st_size,
                (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (unsigned long long)st.st_ino);
    return true;
}

/* What the cached form depends on; false: that cannot be said. */
static bool make_key(const struct by_model_dir *dir, struct by_buf *key) {
    static const char *const sides[] = {"tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json"};
    const char *path = by_model_dir_path(dir), *file = by_tokenizer_file_of(dir);
    by_buf_addf(key, "banyan %s, format %d, %zu\n", BANYAN_VERSION, FORMAT, sizeof(struct facts));
    if (by_model_dir_gguf(dir)) return add_source(key, path);
    if (!file) return false;
    char *full = by_path_join(path, file);
    bool found = add_source(key, full);
    by_free(full);
    for (size_t i = 0; i < BY_COUNTOF(sides); i++) {
        full = by_path_join(path, sides[i]);
        if (!add_source(key, full)) by_buf_addf(key, "no %s\n", sides[i]);
        by_free(full);
    }
    return found;
}

static const char magic[16] = "banyan tokenizr";

static uint64_t hash_check(void) {
    return by_str_hash(BY_STR("banyan"));
}

/* Others must not have been able to write it: what it says is believed where that is not checked. */
static bool is_private(const struct stat *st) {
    return (st->st_mode & 022) == 0 && (st->st_uid == geteuid() || st->st_uid == 0);
}

static bool is_ours(const char *path) {
    struct stat file, dir;
    char *folder = by_path_dir(path);
    bool is_good = stat(folder, &dir) == 0 && is_private(&dir) && stat(path, &file) == 0 &&
                   is_private(&file) && S_ISREG(file.st_mode) && file.st_size <= CACHE_FILE_MAX;
    by_free(folder);
    return is_good;
}

static bool is_right(struct by_mapped m, struct by_str key) {
    struct head h;
    if (m.n < sizeof h) return false;
    memcpy(&h, m.p, sizeof h);
    struct by_str rest = {(const char *)m.p + sizeof h, m.n - sizeof h};
    return memcmp(h.magic, magic, sizeof magic) == 0 && h.n == m.n && h.n_key == key.n &&
           h.hash_check == hash_check() && by_str_eq(by_str_sub(rest, 0, key.n), key) &&
           h.hash == by_str_hash(rest);
}

static size_t aligned(size_t n) {
    return (n + 63) / 64 * 64;
}

/* NULL: there is none to be used. */
static struct by_tokenizer *read_cache(const char *path, struct by_str key) {
    struct by_mapped m = {0};
    struct by_err err = {0};
    if (!is_ours(path) || by_file_map(&m, path, &err)) return NULL;
    if (!is_right(m, key)) {
        by_file_unmap(&m);
        return NULL;
    }
    struct by_tokenizer *t = by_tokenizer_new();
    size_t from = sizeof(struct head) + aligned(key.n);
    struct by_thaw thawing = {.bytes =
                                  by_str_sub((struct by_str){(const char *)m.p, m.n}, from, m.n)};
    t->mapped = m; /* closed with it */
    if (!thaw(t, &thawing, &err)) return t;
    by_debug("cached tokenizer ignored path=%s why=%s", path, err.text);
    by_tokenizer_close(t);
    return NULL;
}

static void write_cache(struct by_tokenizer *t, const char *path, struct by_str key) {
    struct by_buf out;
    struct by_err err = {0};
    struct head h = {.n_key = key.n, .hash_check = hash_check()};
    memcpy(h.magic, magic, sizeof magic);
    by_buf_init(&out, CACHE_FILE_MAX);
    by_buf_add(&out, &h, sizeof h);
    by_buf_add_str(&out, key);
    while (out.n % 64)
        by_buf_addc(&out, '\0');
    by_vocab_shrink(&t->vocab);
    by_vocab_shrink(&t->words);
    if (t->bpe) by_bpe_shrink(t->bpe);
    freeze(t, &out);
    h.n = out.n;
    h.hash = by_str_hash(by_str_sub(by_buf_str(&out), sizeof h, out.n));
    memcpy(out.p, &h, sizeof h);
    char *folder = by_path_dir(path);
    int rc = out.is_full ? BY_ELIMIT : by_dir_make(folder, 0700, &err);
    if (!rc) rc = by_file_write(path, by_buf_str(&out), &err);
    if (rc) by_debug("tokenizer not cached path=%s why=%s", path, err.text);
    by_free(folder);
    by_buf_release(&out);
}

static char *cache_path(const struct by_model_dir *dir) {
    char name[64];
    char *cache = by_path_cache(), *folder = by_path_join(cache, "tokenizers");
    snprintf(name, sizeof name, "%016llx.bin",
             (unsigned long long)by_str_hash(by_str_of(by_model_dir_path(dir))));
    char *path = by_path_join(folder, name);
    by_free(folder);
    by_free(cache);
    return path;
}

int by_tokenizer_open_cached(struct by_tokenizer **out, const struct by_model_dir *dir,
                             struct by_err *err) {
    struct by_buf key;
    int rc = 0;
    by_buf_init(&key, 1 << 16);
    bool has_key = make_key(dir, &key) && !key.is_full;
    char *path = cache_path(dir);
    *out = has_key ? read_cache(path, by_buf_str(&key)) : NULL;
    if (!*out) {
        rc = by_tokenizer_open(out, dir, err);
        bool is_worth_it =
            !rc && has_key && (*out)->vocab.n_pieces >= WORTH_IT && !(*out)->wordpiece;
        if (is_worth_it) {
            write_cache(*out, path, by_buf_str(&key));
            /* From now on use the mapping, which all processes share. */
            struct by_tokenizer *mapped = read_cache(path, by_buf_str(&key));
            if (mapped) {
                by_tokenizer_close(*out);
                *out = mapped;
            }
        }
    }
    by_free(path);
    by_buf_release(&key);
    return rc;
}
