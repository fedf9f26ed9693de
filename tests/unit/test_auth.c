#include "router/auth.h"

#include "common/base/clock.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/test.h"

#define SECOND ((uint64_t)BY_NS_PER_S)

static struct auth *with(const char *text) {
    struct auth *a = auth_new();
    struct by_err err = {0};
    if (text && auth_parse(a, by_str_of(text), "keys", &err)) fail_msg("%s", err.text);
    return a;
}

static int may(const struct auth *a, const char *key, bool wants_admin) {
    return auth_may(a, auth_find(a, by_str_of(key)), wants_admin);
}

TEST(without_keys_all_is_open) {
    UNUSED_STATE;
    struct auth *a = with(NULL);
    assert_int_equal(may(a, "", false), 0);
    assert_int_equal(may(a, "", true), 0);
    auth_free(a);
}

TEST(one_key_opens_all_until_there_is_an_admins) {
    UNUSED_STATE;
    struct auth *a = auth_new();
    auth_add(a, "the-api-key", false);
    assert_int_equal(may(a, "", false), BY_EAUTH);
    assert_int_equal(may(a, "the-api-kez", false), BY_EAUTH);
    assert_int_equal(may(a, "the-api-keythe-api-key", false), BY_EAUTH);
    assert_int_equal(may(a, "the-api-key", false), 0);
    assert_int_equal(may(a, "the-api-key", true), 0);
    auth_add(a, "the-admins", true);
    assert_int_equal(may(a, "the-api-key", true), BY_EFORBIDDEN);
    assert_int_equal(may(a, "the-admins", true), 0);
    assert_int_equal(may(a, "the-admins", false), 0);
    assert_int_equal(may(a, "", true), BY_EAUTH);
    auth_free(a);
}

TEST(an_admins_key_alone_leaves_the_rest_open) {
    UNUSED_STATE;
    struct auth *a = auth_new();
    auth_add(a, "the-admins", true);
    assert_int_equal(may(a, "", false), 0);
    assert_int_equal(may(a, "", true), BY_EAUTH);
    auth_free(a);
}

TEST(a_file_has_names_limits_and_admins) {
    UNUSED_STATE;
    struct auth *a = with("# ours\n\nsk-alice-1  name=alice rate=60  running=8 tokens=1000\n"
                          "sk-ops-22 admin name=ops\nsk-bob-33\n");
    struct auth_key *alice = auth_find(a, BY_STR("sk-alice-1"));
    assert_string_equal(alice->name, "alice");
    assert_true(alice->rate == 60 && alice->running == 8 && alice->tokens == 1000);
    assert_string_equal(auth_find(a, BY_STR("sk-bob-33"))->name, "key-5"); /* its line */
    assert_int_equal(may(a, "sk-bob-33", true), BY_EFORBIDDEN);
    assert_int_equal(may(a, "sk-ops-22", true), 0);
    auth_free(a);
}

TEST(one_of_many_is_no_admin_even_when_there_is_none) {
    UNUSED_STATE;
    struct auth *a = with("sk-alice-1 name=alice\n");
    assert_int_equal(may(a, "sk-alice-1", true), BY_EFORBIDDEN);
    auth_free(a);
}

TEST(a_broken_file_names_the_line_and_never_the_key) {
    UNUSED_STATE;
    static const char *const files[] = {
        "sk-alice-1 name=alice\nshort\n",     "sk-alice-1\nsk-bob-333 nme=b\n",
        "sk-alice-1\nsk-bob-333 rate=0\n",    "sk-alice-1\nsk-bob-333 rate=many\n",
        "sk-alice-1\nsk-bob-333 name=a\"b\n", "sk-alice-1\nsk-alice-1\n",
        "sk-alice-1\nsk-bob-333\tname=b\n"};
    for (size_t i = 0; i < BY_COUNTOF(files); i++) {
        struct auth *a = auth_new();
        struct by_err err = {0};
        assert_int_equal(auth_parse(a, by_str_of(files[i]), "the-file", &err), BY_EFORMAT);
        assert_non_null(strstr(err.text, "the-file: line 2"));
        assert_null(strstr(err.text, "sk-"));
        auth_free(a);
    }
    struct auth *a = auth_new();
    assert_int_equal(auth_parse(a, BY_STR("# none\n"), "the-file", NULL), BY_EFORMAT);
    auth_free(a);
}

static int start(struct auth_key *k, uint64_t now, uint32_t *retry) {
    struct by_err err;
    *retry = 0;
    return auth_start(k, now, retry, &err);
}

TEST(a_rate_is_a_minutes_worth_then_steady) {
    UNUSED_STATE;
    struct auth *a = with("sk-alice-1 rate=6\n");
    struct auth_key *k = a->keys[0];
    uint32_t retry;
    uint64_t now = 1000 * SECOND;
    for (int i = 0; i < 6; i++) {
        assert_int_equal(start(k, now, &retry), 0);
        auth_end(k, 0);
    }
    assert_int_equal(start(k, now, &retry), BY_EFULL);
    assert_in_range(retry, 10000, 10001);
    assert_int_equal(start(k, now + 9 * SECOND, &retry), BY_EFULL);
    assert_in_range(retry, 1000, 1001);
    assert_int_equal(start(k, now + 10 * SECOND, &retry), 0);
    assert_int_equal(start(k, now + 10 * SECOND, &retry), BY_EFULL);
    auth_free(a);
}

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0600), 0);
}

/* Keys that come, stay with other limits, and go while a request of theirs runs; then a broken file. */
TEST(a_file_read_again_takes_nothing_from_what_runs) {
    UNUSED_STATE;
    char path[] = "/tmp/banyan-keys-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct auth *a = auth_new();
    struct by_err err = {0};
    uint32_t retry;
    auth_add(a, "the-option-key", true);
    write_file(path, "sk-alice-1 name=alice rate=60\nsk-bob-33 name=bob\n");
    assert_int_equal(auth_read(a, path, &err), 0);
    struct auth_key *alice = auth_find(a, BY_STR("sk-alice-1")),
                    *bob = auth_find(a, BY_STR("sk-bob-33"));
    assert_int_equal(start(alice, SECOND, &retry), 0);
    assert_int_equal(start(bob, SECOND, &retry), 0);
    write_file(path, "sk-carol-4 name=carol admin\nsk-alice-1 name=alice rate=1\n");
    assert_int_equal(auth_reread(a, path, &err), 0);
    assert_ptr_equal(auth_find(a, BY_STR("sk-alice-1")), alice);
    assert_null(auth_find(a, BY_STR("sk-bob-33")));
    assert_true(auth_find(a, BY_STR("sk-carol-4"))->is_admin);
    assert_true(auth_find(a, BY_STR("the-option-key"))->is_admin);
    assert_int_equal(a->n_admins, 2);
    assert_int_equal(start(alice, SECOND, &retry), 0);
    assert_int_equal(start(alice, SECOND, &retry), BY_EFULL);
    auth_end(bob, 5); /* its request ends after it has gone */
    auth_end(alice, 5);
    write_file(path, "sk-dave-55 name=dave\nsk-dave-55 name=dave\n");
    assert_int_equal(auth_reread(a, path, &err), BY_EFORMAT);
    assert_non_null(auth_find(a, BY_STR("sk-carol-4")));
    assert_null(auth_find(a, BY_STR("sk-dave-55")));
    unlink(path);
    assert_int_not_equal(auth_reread(a, path, &err), 0);
    assert_int_equal(a->n, 3);
    auth_free(a);
}

TEST(so_many_at_a_time) {
    UNUSED_STATE;
    struct auth *a = with("sk-alice-1 running=2\n");
    struct auth_key *k = a->keys[0];
    uint32_t retry;
    assert_int_equal(start(k, SECOND, &retry), 0);
    assert_int_equal(start(k, SECOND, &retry), 0);
    assert_int_equal(start(k, SECOND, &retry), BY_EFULL);
    assert_true(retry > 0);
    auth_end(k, 5);
    assert_int_equal(start(k, SECOND, &retry), 0);
    auth_free(a);
}

TEST(tokens_are_paid_when_known_and_refill) {
    UNUSED_STATE;
    struct auth *a = with("sk-alice-1 tokens=600\n");
    struct auth_key *k = a->keys[0];
    uint32_t retry;
    uint64_t now = 1000 * SECOND;
    assert_int_equal(start(k, now, &retry), 0);
    auth_end(k, 700); /* 100 below zero */
    assert_int_equal(start(k, now, &retry), BY_EFULL);
    assert_in_range(retry, 10000, 10200); /* 101 tokens at 10 a second */
    assert_int_equal(start(k, now + 11 * SECOND, &retry), 0);
    auth_free(a);
}

TEST(nobody_counts_without_a_key) {
    UNUSED_STATE;
    uint32_t retry;
    assert_int_equal(start(NULL, 0, &retry), 0);
    auth_end(NULL, 5);
}

TEST(no_length_makes_two_keys_the_same) {
    UNUSED_STATE;
    struct auth *a = with("sk-alice-1\n");
    char text[2000] = "sk-alice-1";
    for (size_t n = 0; n < 10; n++)
        assert_null(auth_find(a, (struct by_str){text, n}));
    assert_non_null(auth_find(a, (struct by_str){text, 10}));
    assert_null(auth_find(a, (struct by_str){text, 11})); /* with the NUL */
    for (size_t n = 10; n + 10 < sizeof text; n += 10)
        memcpy(text + n, "sk-alice-1", 10);
    assert_null(auth_find(a, (struct by_str){text, 20}));
    assert_null(auth_find(a, (struct by_str){text, 1990}));
    auth_free(a);
}

TEST(a_key_has_the_highest_priority_that_its_line_says) {
    UNUSED_STATE;
    struct auth *a =
        with("sk-alice-1\nsk-bob-222 priority=7\nsk-carol-3 priority=-2\nsk-ops-444 admin\n");
    auth_add(a, "the-api-key", false);
    assert_int_equal(auth_find(a, BY_STR("sk-alice-1"))->priority_max, 0);
    assert_int_equal(auth_find(a, BY_STR("sk-bob-222"))->priority_max, 7);
    assert_int_equal(auth_find(a, BY_STR("sk-carol-3"))->priority_max, -2);
    assert_int_equal(auth_find(a, BY_STR("sk-ops-444"))->priority_max, INT32_MAX);
    assert_int_equal(auth_find(a, BY_STR("the-api-key"))->priority_max, INT32_MAX);
    auth_free(a);
}

TESTS(RUN(without_keys_all_is_open), RUN(one_key_opens_all_until_there_is_an_admins),
      RUN(an_admins_key_alone_leaves_the_rest_open), RUN(a_file_has_names_limits_and_admins),
      RUN(one_of_many_is_no_admin_even_when_there_is_none),
      RUN(a_broken_file_names_the_line_and_never_the_key),
      RUN(a_rate_is_a_minutes_worth_then_steady),
      RUN(a_file_read_again_takes_nothing_from_what_runs), RUN(so_many_at_a_time),
      RUN(tokens_are_paid_when_known_and_refill), RUN(nobody_counts_without_a_key),
      RUN(no_length_makes_two_keys_the_same),
      RUN(a_key_has_the_highest_priority_that_its_line_says));
