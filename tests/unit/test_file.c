/* Files where others may have been before us: a link in place of our folder, somebody else's unfinished file. */
#include "common/base/file.h"

#include "common/base/mem.h"
#include "tests/unit/test.h"

#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/banyan-file-XXXXXX";

static char *at(const char *name) {
    return by_path_join(dir, name);
}

static void put(const char *path) {
    assert_int_equal(by_file_write(path, BY_STR("kept"), NULL), 0);
}

/* /tmp is everybody's: a folder named as those that a dead server left may be a link to one that is dear to us. */
TEST(what_lies_behind_a_link_is_not_removed) {
    UNUSED_STATE;
    char *real = at("real"), *link = at("link"), *file = at("real/file");
    assert_int_equal(mkdir(real, 0700), 0);
    put(file);
    assert_int_equal(symlink(real, link), 0);
    by_dir_remove(link);
    assert_true(by_file_exists(file));
    assert_int_equal(unlink(link), 0);
    by_dir_remove(real);
    assert_false(by_file_exists(real));
    by_free(real);
    by_free(link);
    by_free(file);
}

/* Keys are written with a mask that makes the new file private; one that lay there under the name was taken as it was. */
TEST(what_is_written_goes_into_a_new_file) {
    UNUSED_STATE;
    char *path = at("keys"), others[128];
    struct stat st;
    snprintf(others, sizeof others, "%s.%d.tmp", path, (int)getpid());
    assert_int_equal(symlink("/dev/null", others), 0);
    mode_t before = umask(0077);
    put(path);
    umask(before);
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(unlink(others), 0);
    assert_int_equal(unlink(path), 0);
    by_free(path);
}

/* flock is what two servers see of each other that do not see each other's processes. */
TEST(a_folder_is_locked_once) {
    UNUSED_STATE;
    struct by_err err;
    assert_int_equal(by_dir_lock(dir, &err), 0);
    assert_int_equal(by_dir_lock(dir, &err), BY_EAGAIN);
    assert_non_null(strstr(err.text, dir));
}

/* A service of systemd's has no HOME: what others had put into /tmp/.cache/banyan was taken for our own model and tokenizer. */
TEST(the_cache_is_never_in_everybodys_folder) {
    UNUSED_STATE;
    for (const char *const *name =
             (const char *const[]){"BANYAN_CACHE", "XDG_CACHE_HOME", "HOME", NULL};
         *name; name++)
        assert_int_equal(unsetenv(*name), 0);
    char *path = by_path_cache();
    assert_true(by_str_ends(by_str_of(path), BY_STR("/.cache/banyan")));
    assert_false(by_str_starts(by_str_of(path), BY_STR("/tmp/")));
    by_free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        RUN(what_lies_behind_a_link_is_not_removed), RUN(what_is_written_goes_into_a_new_file),
        RUN(a_folder_is_locked_once), RUN(the_cache_is_never_in_everybodys_folder)};
    if (!mkdtemp(dir)) return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    by_dir_remove(dir);
    return rc;
}
