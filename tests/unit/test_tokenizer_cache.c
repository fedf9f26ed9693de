/* The cached form of a tokenizer: the same ids as its source's, and hostile or stale files are ignored. */
#include "common/base/file.h"
#include "common/base/rand.h"
#include "common/text/tokenizer.h"
#include "tests/unit/test.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64], cached[512];

static char *path_of(const char *name) {
    return by_path_join(folder, name);
}

static void write_text(const char *name, struct by_str text) {
    struct by_err err;
    char *path = path_of(name);
    if (by_file_write(path, text, &err)) fail_msg("%s", err.text);
    by_free(path);
}

static const char digits[] = "abcdefghijklmnopqrstuvwxyzABC"; /* 29 */

/* Letters, all pairs and all triples of 29 letters: 25,259 pieces; BPE, or Unigram by length. */
static void write_tokenizer(bool is_unigram) {
    struct by_buf vocab, merges, b;
    by_buf_init(&vocab, 8 << 20);
    by_buf_init(&merges, 8 << 20);
    by_buf_init(&b, 16 << 20);
    uint32_t id = 0;
    for (int len = 1; len <= 3; len++) {
        int n = len == 1 ? 29 : len == 2 ? 29 * 29 : 29 * 29 * 29;
        for (int i = 0; i < n; i++, id++) {
            char piece[4] = {0};
            for (int k = 0, rest = i; k < len; k++, rest /= 29)
                piece[k] = digits[rest % 29];
            if (is_unigram)
                by_buf_addf(&vocab, "%s[\"%s\",-%d.%d]", id ? "," : "", piece, 10 - 3 * len, i % 7);
            else
                by_buf_addf(&vocab, "%s\"%s\":%u", id ? "," : "", piece, id);
            if (len > 1)
                by_buf_addf(&merges, "%s\"%.*s %s\"", merges.n ? "," : "", len - 1, piece,
                            piece + len - 1);
        }
    }
    by_buf_addz(
        &b,
        "{\"added_tokens\":[{\"id\":25259,\"content\":\"<end>\",\"special\":true},{\"id\":25260,"
        "\"content\":\"<x>\",\"special\":false,\"lstrip\":true}],\"normalizer\":{\"type\":\"NFC\"},"
        "\"pre_tokenizer\":null,\"decoder\":{\"type\":\"Fuse\"},\"post_processor\":{\"type\":"
        "\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"b\",1]},\"model\":{");
    if (is_unigram)
        by_buf_addf(&b, "\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[%.*s]}}", (int)vocab.n,
                    vocab.p);
    else
        by_buf_addf(&b, "\"type\":\"BPE\",\"vocab\":{%.*s},\"merges\":[%.*s]}}", (int)vocab.n,
                    vocab.p, (int)merges.n, merges.p);
    write_text("tokenizer.json", by_buf_str(&b));
    by_buf_release(&b);
    by_buf_release(&merges);
    by_buf_release(&vocab);
}

static struct by_tokenizer *open_folder(bool by_cache) {
    struct by_model_dir *dir = NULL;
    struct by_tokenizer *t = NULL;
    struct by_err err;
    if (by_model_dir_open_text(&dir, folder, &err)) fail_msg("%s", err.text);
    int rc = by_cache ? by_tokenizer_open_cached(&t, dir, &err) : by_tokenizer_open(&t, dir, &err);
    if (rc) fail_msg("%s", err.text);
    by_model_dir_close(dir);
    return t;
}

static void encode(struct by_tokenizer *t, const char *text, struct by_ids *ids) {
    struct by_encode_options o = {.add_special_tokens = true, .allow_special = true};
    struct by_err err;
    by_ids_clear(ids);
    if (by_tokenizer_encode(t, by_str_of(text), &o, ids, &err)) fail_msg("%s", err.text);
}

static void check_same(struct by_tokenizer *a, struct by_tokenizer *b) {
    static const char *const texts[] = {"", "abcABC", "hello <x>world<end>", "zzyx  \xC3\xA9 cab"};
    struct by_ids x, y;
    struct by_buf p, q;
    struct by_decode_options o = {0};
    by_ids_init(&x, 1000);
    by_ids_init(&y, 1000);
    by_buf_init(&p, 10000);
    by_buf_init(&q, 10000);
    for (size_t i = 0; i < BY_COUNTOF(texts); i++) {
        encode(a, texts[i], &x);
        encode(b, texts[i], &y);
        assert_int_equal(x.n, y.n);
        assert_memory_equal(x.p, y.p, x.n * sizeof *x.p);
        by_buf_clear(&p);
        by_buf_clear(&q);
        by_tokenizer_decode(a, x.p, x.n, &o, &p);
        by_tokenizer_decode(b, x.p, x.n, &o, &q);
        assert_true(by_str_eq(by_buf_str(&p), by_buf_str(&q)));
    }
    assert_int_equal(by_tokenizer_n_vocab(a), by_tokenizer_n_vocab(b));
    assert_string_equal(by_tokenizer_kind(a), by_tokenizer_kind(b));
    assert_true(by_tokenizer_is_special(b, 25259) && !by_tokenizer_is_special(b, 25260));
    by_buf_release(&q);
    by_buf_release(&p);
    by_ids_release(&y);
    by_ids_release(&x);
}

static void find_cached(void) {
    char *dir = path_of("cache/tokenizers");
    DIR *d = opendir(dir);
    assert_non_null(d);
    cached[0] = '\0';
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strstr(e->d_name, ".bin")) snprintf(cached, sizeof cached, "%s/%s", dir, e->d_name);
    }
    closedir(d);
    by_free(dir);
    assert_true(cached[0]);
}

static void begin(bool is_unigram) {
    snprintf(folder, sizeof folder, "/tmp/banyan-cache-XXXXXX");
    assert_non_null(mkdtemp(folder));
    char *cache = path_of("cache");
    setenv("BANYAN_CACHE", cache, 1);
    by_free(cache);
    write_tokenizer(is_unigram);
}

static void end(void) {
    char *cache = path_of("cache"), *inner = path_of("cache/tokenizers");
    unsetenv("BANYAN_CACHE");
    by_dir_remove(inner);
    by_dir_remove(cache);
    by_dir_remove(folder);
    by_free(inner);
    by_free(cache);
}

static void check_round(bool is_unigram) {
    begin(is_unigram);
    struct by_tokenizer *plain = open_folder(false);
    for (int i = 0; i < 3; i++) {
        struct by_tokenizer *t = open_folder(true);
        check_same(plain, t);
        by_tokenizer_close(t);
    }
    find_cached();
    by_tokenizer_close(plain);
    end();
}

TEST(a_cached_bpe_tokenizer_is_the_same) {
    UNUSED_STATE;
    check_round(false);
}

TEST(a_cached_unigram_tokenizer_is_the_same) {
    UNUSED_STATE;
    check_round(true);
}

static ino_t inode_of(const char *path) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

TEST(what_is_stale_or_not_ours_is_made_anew) {
    UNUSED_STATE;
    begin(false);
    by_tokenizer_close(open_folder(true));
    find_cached();
    ino_t first = inode_of(cached);
    by_tokenizer_close(open_folder(true));
    assert_int_equal(inode_of(cached), first); /* still good */
    write_text("tokenizer_config.json", BY_STR("{\"eos_token\":\"<end>\"}"));
    struct by_tokenizer *t = open_folder(true);
    assert_int_equal(by_tokenizer_eos(t), 25259);
    by_tokenizer_close(t);
    assert_true(inode_of(cached) != first); /* a source has changed */
    first = inode_of(cached);
    assert_int_equal(chmod(cached, 0666), 0);
    by_tokenizer_close(open_folder(true));
    assert_true(inode_of(cached) != first); /* others could have written it */
    end();
}

/* Where the folder cannot be written it works without. */
TEST(no_cache_folder_is_no_error) {
    UNUSED_STATE;
    begin(false);
    setenv("BANYAN_CACHE", "/proc/nowhere", 1);
    struct by_tokenizer *plain = open_folder(false), *t = open_folder(true);
    check_same(plain, t);
    by_tokenizer_close(t);
    by_tokenizer_close(plain);
    end();
}

/* Any bytes changed, with and without a hash that fits: ignored, or a tokenizer that stays within its bounds. */
TEST(a_hostile_file_is_ignored) {
    UNUSED_STATE;
    struct by_buf good, bad;
    struct by_err err;
    struct by_ids ids;
    uint64_t seed = test_seed();
    begin(false);
    by_tokenizer_close(open_folder(true));
    find_cached();
    by_buf_init(&good, 64 << 20);
    by_buf_init(&bad, 64 << 20);
    by_ids_init(&ids, 1 << 16);
    assert_int_equal(by_file_read(&good, cached, &err), 0);
    for (int round = 0; round < 120; round++) {
        by_buf_clear(&bad);
        by_buf_add_str(&bad, by_buf_str(&good));
        for (int k = 0; k < 1 + round % 4; k++) { /* near the head, where lengths are, more often */
            size_t at = by_rand_next(&seed) % (round % 2 ? bad.n : 8192);
            bad.p[at] = (char)by_rand_next(&seed);
        }
        if (round % 10 == 9) bad.n = by_rand_next(&seed) % bad.n;
        if (round % 3 && bad.n > 64) {
            uint64_t hash = by_str_hash((struct by_str){bad.p + 64, bad.n - 64});
            memcpy(bad.p + 16, &hash, sizeof hash);
        }
        assert_int_equal(by_file_write(cached, by_buf_str(&bad), &err), 0);
        assert_int_equal(chmod(cached, 0600), 0);
        struct by_tokenizer *t = open_folder(true);
        struct by_encode_options o = {.allow_special = true};
        struct by_buf text;
        struct by_decode_options d = {0};
        by_buf_init(&text, 1 << 16);
        by_ids_clear(&ids);
        (void)!by_tokenizer_encode(t, BY_STR("abc <x> hello<end> zyx"), &o, &ids, &err);
        by_tokenizer_decode(t, ids.p, ids.n, &d, &text);
        by_buf_release(&text);
        by_tokenizer_close(t);
    }
    by_ids_release(&ids);
    by_buf_release(&bad);
    by_buf_release(&good);
    end();
}

TESTS(RUN(a_cached_bpe_tokenizer_is_the_same), RUN(a_cached_unigram_tokenizer_is_the_same),
      RUN(what_is_stale_or_not_ours_is_made_anew), RUN(no_cache_folder_is_no_error),
      RUN(a_hostile_file_is_ignored));
