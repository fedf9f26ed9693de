#include "common/base/heap.h"

#include "common/base/rand.h"
#include "tests/unit/test.h"

enum { NODES = 200, STEPS = 20000 };

struct item {
    struct by_heap_node node;
    uint64_t key;
};

static bool before(const struct by_heap_node *a, const struct by_heap_node *b) {
    return ((const struct item *)a)->key < ((const struct item *)b)->key;
}

TEST(the_first_is_always_the_least) {
    UNUSED_STATE;
    uint64_t seed = test_seed();
    static struct item items[NODES];
    struct by_heap h;
    by_heap_init(&h, before);
    for (int i = 0; i < NODES; i++)
        items[i].node.index = BY_HEAP_OUT;
    for (int step = 0; step < STEPS; step++) {
        struct item *it = &items[by_rand_next(&seed) % NODES];
        uint64_t key = by_rand_next(&seed) % 1000;
        if (it->node.index == BY_HEAP_OUT) {
            it->key = key;
            by_heap_push(&h, &it->node);
        } else if (key % 2) {
            by_heap_remove(&h, &it->node);
        } else {
            it->key = key;
            by_heap_fix(&h, &it->node);
        }
        assert_true(by_heap_check(&h));
        uint64_t least = UINT64_MAX;
        for (int i = 0; i < NODES; i++) {
            if (items[i].node.index != BY_HEAP_OUT) least = BY_MIN(least, items[i].key);
        }
        const struct by_heap_node *first = by_heap_first(&h);
        assert_int_equal(first ? ((const struct item *)first)->key : UINT64_MAX, least);
    }
    uint64_t last = 0;
    for (struct by_heap_node *n; (n = by_heap_pop(&h)) != NULL; last = ((struct item *)n)->key) {
        assert_true(((struct item *)n)->key >= last);
    }
    by_heap_release(&h);
}

TESTS(RUN(the_first_is_always_the_least));
