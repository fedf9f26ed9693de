#include "router/url.h"

#include "tests/unit/test.h"

TEST(paths_never_climb_above_the_root) {
    static const char *const rows[][2] = {
        {"/", "/"},           {"//", "/"},           {"/a//b/", "/a/b"},
        {"/a/./b", "/a/b"},   {"/a/../b", "/b"},     {"/..", "/"},
        {"/../../a", "/a"},   {"/a/b/../..", "/"},   {"/a/.../b", "/a/.../b"},
        {"/a/..b", "/a/..b"}, {"/./.././a/.", "/a"},
    };
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        char path[32];
        snprintf(path, sizeof path, "%s", rows[i][0]);
        size_t n = url_remove_dots(path, strlen(path));
        if (!by_str_eqz((struct by_str){path, n}, rows[i][1]))
            fail_msg("%s became %.*s", rows[i][0], (int)n, path);
    }
}

TEST(escapes_are_undone_once_and_never_give_a_nul) {
    static const char *const rows[][2] = {
        {"a%2Fb", "a/b"}, {"%2e%2E", ".."}, {"%252e", "%2e"}, {"a+b", "a+b"}, {"", ""},
        {"%00", NULL},    {"%", NULL},      {"%4", NULL},     {"%4g", NULL},  {"%%41", NULL},
    };
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        char text[32];
        snprintf(text, sizeof text, "%s", rows[i][0]);
        size_t n = url_unescape(by_str_of(text), text, false);
        if (rows[i][1] ? !by_str_eqz((struct by_str){text, n}, rows[i][1]) : n != SIZE_MAX)
            fail_msg("%s was undone wrongly", rows[i][0]);
    }
}

TEST(a_plus_is_a_blank_in_a_query_alone) {
    char text[] = "a+%2B";
    UNUSED_STATE;
    assert_int_equal(url_unescape(by_str_of(text), text, true), 3);
    assert_memory_equal(text, "a +", 3);
}

TESTS(RUN(paths_never_climb_above_the_root), RUN(escapes_are_undone_once_and_never_give_a_nul),
      RUN(a_plus_is_a_blank_in_a_query_alone));
