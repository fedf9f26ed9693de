#include "common/net/keys.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/base/file.h"
#include "tests/unit/test.h"

static struct by_keys fresh(void) {
    struct by_keys k;
    assert_int_equal(by_keys_make(&k, NULL), 0);
    return k;
}

TEST(what_is_written_is_read_back) {
    UNUSED_STATE;
    struct by_keys k = fresh(), other = fresh(), again;
    struct by_buf text;
    memcpy(k.allowed[k.n_allowed++], other.public_key, BY_KEYS_Z85);
    by_buf_init(&text, 4096);
    by_keys_write(&k, &text);
    assert_int_equal(by_keys_parse(&again, by_buf_str(&text), "keys", NULL), 0);
    assert_string_equal(again.public_key, k.public_key);
    assert_string_equal(again.secret_key, k.secret_key);
    assert_int_equal(again.n_allowed, 2);
    assert_string_equal(again.allowed[0], k.public_key); /* one of us is always let in */
    assert_string_equal(again.server_key, k.public_key);
    assert_string_equal(again.allowed[1], other.public_key);
    by_buf_release(&text);
}

TEST(a_guest_knows_the_server) {
    UNUSED_STATE;
    struct by_keys server = fresh(), guest = fresh(), again;
    struct by_buf text;
    memcpy(guest.server_key, server.public_key, BY_KEYS_Z85);
    by_buf_init(&text, 4096);
    by_keys_write(&guest, &text);
    assert_int_equal(by_keys_parse(&again, by_buf_str(&text), "keys", NULL), 0);
    assert_string_equal(again.server_key, server.public_key);
    assert_string_equal(again.public_key, guest.public_key);
    by_buf_release(&text);
}

TEST(pairs_differ) {
    UNUSED_STATE;
    struct by_keys a = fresh(), b = fresh();
    assert_string_not_equal(a.secret_key, b.secret_key);
}

static void refused(struct by_str text, const char *says, const char *secret) {
    struct by_keys k;
    struct by_err err = {0};
    assert_int_equal(by_keys_parse(&k, text, "the-file", &err), BY_EFORMAT);
    assert_non_null(strstr(err.text, "the-file"));
    assert_non_null(strstr(err.text, says));
    if (secret) assert_null(strstr(err.text, secret));
}

TEST(a_broken_file_is_refused_without_telling_the_secret) {
    UNUSED_STATE;
    struct by_keys k = fresh(), other = fresh();
    struct by_buf text;
    by_buf_init(&text, 4096);
    by_buf_addf(&text, "public %s\nsecret %s\n", other.public_key, k.secret_key);
    refused(by_buf_str(&text), "not that of the secret", k.secret_key);
    by_buf_clear(&text);
    by_buf_addf(&text, "secret %s\n", k.secret_key);
    refused(by_buf_str(&text), "no public", k.secret_key);
    by_buf_clear(&text);
    by_buf_addf(&text, "public %s\nsecert %s\n", k.public_key, k.secret_key);
    refused(by_buf_str(&text), "line 2", k.secret_key);
    by_buf_clear(&text);
    by_buf_addf(&text, "public %s\nsecret %.39s\n", k.public_key, k.secret_key);
    refused(by_buf_str(&text), "line 2", k.secret_key);
    refused(BY_STR(""), "no public", NULL);
    by_buf_release(&text);
}

TEST(a_list_that_is_too_long_is_refused) {
    UNUSED_STATE;
    struct by_keys k = fresh();
    struct by_buf text;
    by_buf_init(&text, 16384);
    by_keys_write(&k, &text);
    for (int i = 0; i < BY_KEYS_ALLOWED_MAX; i++)
        by_buf_addf(&text, "allow %s\n", k.public_key);
    refused(by_buf_str(&text), "allow", k.secret_key);
    by_buf_release(&text);
}

TEST(a_file_that_all_can_read_is_refused) {
    UNUSED_STATE;
    struct by_keys k = fresh(), again;
    struct by_err err = {0};
    struct by_buf text;
    char path[64];
    snprintf(path, sizeof path, "/tmp/test-keys-%d", (int)getpid());
    by_buf_init(&text, 4096);
    by_keys_write(&k, &text);
    assert_int_equal(by_file_write(path, by_buf_str(&text), NULL), 0);
    chmod(path, 0644);
    assert_int_equal(by_keys_read(&again, path, &err), BY_EFORBIDDEN);
    assert_non_null(strstr(err.text, "chmod 600"));
    chmod(path, 0640); /* a group that an administrator made for it */
    assert_int_equal(by_keys_read(&again, path, &err), 0);
    unlink(path);
    by_buf_release(&text);
}

TESTS(RUN(what_is_written_is_read_back), RUN(a_guest_knows_the_server), RUN(pairs_differ),
      RUN(a_broken_file_is_refused_without_telling_the_secret),
      RUN(a_list_that_is_too_long_is_refused), RUN(a_file_that_all_can_read_is_refused));
