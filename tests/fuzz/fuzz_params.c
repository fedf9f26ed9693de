/* Any bytes as a request's sampling parameters: refused by name, or every value within its range. */
#include "common/base/check.h"
#include "router/params.h"
#include "tests/fuzz/fuzz.h"

static void check(const struct params *p) {
    const struct msg_sampling *s = &p->sampling;
    by_assert(s->temperature >= 0 && s->top_p > 0 && s->top_p <= 1);
    by_assert(s->min_p >= 0 && s->min_p <= 1 && s->top_k >= -1);
    by_assert(s->n >= 1 && s->n <= LIMIT_N);
    by_assert(s->stop_ids.n <= LIMIT_STOP_IDS && p->textual.stop.n <= LIMIT_STOP_STRINGS);
    for (uint32_t i = 0; i < p->textual.stop.n; i++)
        by_assert(p->textual.stop.p[i].n && p->textual.stop.p[i].n <= LIMIT_STOP_BYTES);
    by_assert(p->textual.stop_regex.n <= LIMIT_STOP_REGEXES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct by_json_limits lim = {.bytes_max = 1 << 20, .depth_max = LIMIT_JSON_DEPTH};
    struct by_json *j = NULL;
    struct by_err err = {0};
    struct by_arena arena;
    struct params p;
    if (by_json_parse(&j, fuzz_bytes(data, size), &lim, &err)) return 0;
    by_arena_init(&arena, 16 << 20);
    for (int dialect = 0; dialect < 3; dialect++) {
        params_init(&p, 0);
        int rc = dialect == 2 ? params_read_native(&p, j, &arena, &err)
                              : params_read_openai(&p, j, dialect == 1, &arena, &err);
        if (rc) by_assert(err.text[0]);
        if (!rc) check(&p);
        by_arena_clear(&arena);
    }
    by_arena_release(&arena);
    by_json_free(j);
    return 0;
}
