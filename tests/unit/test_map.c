#include "common/base/map.h"

#include "common/base/rand.h"
#include "tests/unit/test.h"

enum { KEYS = 512, STEPS = 40000 };

TEST(a_map_does_what_an_array_does) {
    UNUSED_STATE;
    uint64_t seed = test_seed();
    void *twin[KEYS] = {0};
    size_t n = 0;
    struct by_map m;
    by_map_init(&m);
    for (int i = 0; i < STEPS; i++) {
        uint64_t r = by_rand_next(&seed);
        uint64_t key = r % KEYS;
        void *value = (void *)(uintptr_t)(r | 1);
        if (r >> 63) {
            n += twin[key] == NULL;
            by_map_put(&m, key * 64, value);
            twin[key] = value;
        } else {
            n -= twin[key] != NULL;
            assert_ptr_equal(by_map_remove(&m, key * 64), twin[key]);
            twin[key] = NULL;
        }
        assert_int_equal(m.n, n);
        uint64_t probe = (r >> 20) % KEYS;
        assert_ptr_equal(by_map_get(&m, probe * 64), twin[probe]);
    }
    size_t at = 0, seen = 0;
    uint64_t key;
    void *value;
    while (by_map_next(&m, &at, &key, &value)) {
        assert_ptr_equal(value, twin[key / 64]);
        seen++;
    }
    assert_int_equal(seen, n);
    by_map_release(&m);
}

TEST(a_map_gives_its_room_back_and_keeps_its_keys) {
    UNUSED_STATE;
    struct by_map m;
    char value;
    by_map_init(&m);
    by_map_fit(&m);
    assert_int_equal(m.cap, 0);
    for (uint64_t key = 0; key < 100000; key++)
        by_map_put(&m, key, &value);
    size_t full = m.cap;
    by_map_fit(&m);
    assert_int_equal(m.cap, full);
    for (uint64_t key = 100; key < 100000; key++)
        by_map_remove(&m, key);
    by_map_fit(&m);
    assert_true(m.cap <= 512 && m.n == 100);
    for (uint64_t key = 0; key < 200; key++)
        assert_ptr_equal(by_map_get(&m, key), key < 100 ? &value : NULL);
    by_map_release(&m);
}

TEST(a_strmap_does_what_an_array_does) {
    UNUSED_STATE;
    uint64_t seed = test_seed();
    static char names[KEYS][12];
    uint64_t twin[KEYS] = {0};
    struct by_strmap m;
    by_strmap_init(&m);
    for (unsigned i = 0; i < KEYS; i++)
        snprintf(names[i], sizeof names[i], "key-%u", i);
    for (int i = 0; i < STEPS; i++) {
        uint64_t r = by_rand_next(&seed), got = 0;
        uint64_t key = r % KEYS;
        struct by_str name = by_str_of(names[key]);
        if (r >> 63) {
            by_strmap_put(&m, name, r | 1);
            twin[key] = r | 1;
        } else {
            assert_int_equal(by_strmap_remove(&m, name, &got), twin[key] != 0);
            assert_int_equal(got, twin[key]);
            twin[key] = 0;
        }
        uint64_t probe = (r >> 20) % KEYS, value = 0;
        assert_int_equal(by_strmap_get(&m, by_str_of(names[probe]), &value), twin[probe] != 0);
        assert_int_equal(value, twin[probe]);
    }
    by_strmap_release(&m);
}

TESTS(RUN(a_map_does_what_an_array_does), RUN(a_map_gives_its_room_back_and_keeps_its_keys),
      RUN(a_strmap_does_what_an_array_does));
