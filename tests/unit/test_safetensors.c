/* safetensors: one file, cut short at every byte; headers that lie; an index whose shards leave its folder. */
#include "common/modelfile/safetensors.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/unit/test.h"

#include <stdlib.h>
#include <unistd.h>

static struct by_buf file;

/* A file with this header and n bytes of data. */
static struct by_str made(const char *header, size_t n) {
    uint64_t len = strlen(header);
    by_buf_release(&file);
    by_buf_init(&file, 1 << 20);
    by_buf_add(&file, &len, sizeof len);
    by_buf_addz(&file, header);
    for (size_t i = 0; i < n; i++)
        by_buf_addc(&file, (char)i);
    return by_buf_str(&file);
}

static const char good[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                           "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                           "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}}";

TEST(tensors_are_what_was_written) {
    UNUSED_STATE;
    struct by_safetensors *s = NULL;
    struct by_err err = {0};
    struct by_str bytes = made(good, 32);
    if (by_safetensors_parse(&s, bytes, "x", &err)) fail_msg("%s", err.text);
    assert_int_equal(by_safetensors_n(s), 2);
    const struct by_tensor_info *t = by_safetensors_find(s, BY_STR("b"));
    assert_int_equal(t->n_bytes, 8);
    assert_int_equal(t->data[0], 24);
    by_safetensors_close(s);
}

TEST(a_file_cut_anywhere_is_refused_in_words) {
    UNUSED_STATE;
    struct by_str bytes = made(good, 32);
    for (size_t n = 0; n < bytes.n; n++) {
        struct by_safetensors *s = NULL;
        struct by_err err = {0};
        char *cut = by_memdup(bytes.p, n);
        assert_int_not_equal(by_safetensors_parse(&s, (struct by_str){cut, n}, "cut", &err), 0);
        assert_null(s);
        assert_non_null(strstr(err.text, "cut: "));
        by_free(cut);
    }
    by_buf_release(&file);
}

TEST(headers_that_lie_are_refused) {
    UNUSED_STATE;
    static const char *const headers[] = {
        "[]",
        "{\"a\":5}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}",
        "{\"a\":{\"dtype\":\"X9\",\"shape\":[1],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1000000000,1000000004]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
    };
    for (size_t i = 0; i < BY_COUNTOF(headers); i++) {
        struct by_safetensors *s = NULL;
        struct by_err err = {0};
        if (!by_safetensors_parse(&s, made(headers[i], 32), "lie", &err))
            fail_msg("this was taken: %s", headers[i]);
        assert_non_null(strstr(err.text, "lie"));
    }
    by_buf_release(&file);
}

TEST(a_shard_outside_of_the_folder_is_refused) {
    UNUSED_STATE;
    static const char *const names[] = {
        "../x.safetensors", "/etc/passwd", "..", "a/b.safetensors", "", "a\\\\b.safetensors"};
    char dir[] = "/tmp/banyan-test-XXXXXX", path[128], text[256];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    for (size_t i = 0; i < BY_COUNTOF(names); i++) {
        struct by_safetensors *s = NULL;
        struct by_err err = {0};
        snprintf(text, sizeof text, "{\"weight_map\":{\"a\":\"%s\"}}", names[i]);
        assert_int_equal(by_file_write(path, by_str_of(text), &err), 0);
        assert_int_equal(by_safetensors_open(&s, path, &err), BY_EFORMAT);
        assert_non_null(strstr(err.text, "no plain file name"));
    }
    by_dir_remove(dir);
}

TESTS(RUN(tensors_are_what_was_written), RUN(a_file_cut_anywhere_is_refused_in_words),
      RUN(headers_that_lie_are_refused), RUN(a_shard_outside_of_the_folder_is_refused));
