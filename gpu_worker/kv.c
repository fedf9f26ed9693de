#include "gpu_worker/kv.h"

#include "common/base/cgroup.h"
#include "common/base/log.h"
#include "common/base/proc.h"

#include <stdio.h>

static const struct {
    const char *word;
    enum kv_dtype dtype;
} words[] = {{"float32", KV_F32},
             {"bfloat16", KV_BF16},
             {"float16", KV_F16},
             {"int8", KV_INT8},
             {"fp8", KV_FP8}};

const char *kv_dtype_name(enum kv_dtype t) {
    for (size_t i = 0; i < BY_COUNTOF(words); i++) {
        if (words[i].dtype == t) return words[i].word;
    }
    return "?";
}

enum kv_dtype kv_choose_dtype(const char *word, const struct by_model_dir *dir) {
    uint64_t bytes[BY_N_DTYPES] = {0};
    enum by_dtype most = BY_DTYPE_NONE;
    for (size_t i = 0; i < BY_COUNTOF(words); i++) {
        if (strcmp(word, words[i].word) == 0) return words[i].dtype;
    }
    for (size_t i = 0; i < by_model_dir_n_tensors(dir); i++) {
        const struct by_tensor_info *t = by_model_dir_tensor(dir, i);
        bytes[t->dtype] += t->n_bytes;
        if (bytes[t->dtype] > bytes[most]) most = t->dtype;
    }
    return most == BY_DTYPE_F32 ? KV_F32 : most == BY_DTYPE_BF16 ? KV_BF16 : KV_F16;
}

int kv_check_dtype(enum kv_dtype t, const struct backend *b, struct by_err *err) {
    if (t != KV_FP8 || b->has_fp8_kv) return 0;
    return by_fail(err, BY_EINVAL,
                   "--kv-cache-dtype fp8 is for --device cuda; on %s, int8 takes as many bytes",
                   b->name);
}

uint64_t kv_free_memory(void) {
    uint64_t free_bytes = 0;
    struct by_cgroup group;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && fgets(line, sizeof line, f)) {
        unsigned long long kib;
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1) free_bytes = kib * 1024;
    }
    if (f) fclose(f);
    by_cgroup_read(&group, BY_CGROUP_ROOT, BY_CGROUP_MINE);
    return BY_MIN(free_bytes, group.memory_free);
}

uint32_t kv_plan_steps(const struct by_options *o, uint32_t rows_max) {
    /* Each sequence of a step may leave most of its last page empty. */
    return 2 * (BY_DIV_UP(rows_max, (uint32_t)o->page_size) + (uint32_t)o->max_running_requests);
}

enum {
    SEQUENCES = 16,
    TOKENS = 65536,
    CONTEXT_MIN = 64,
    KEPT_EACH = 2,    /* a prompt's end, and a place in the output */
    KEPT_MAX = 65536, /* the scheduler takes no more */
};

/* A GPU's memory serves nothing else; what is left is for graphs, staging and libraries. */
static double share_of(const struct by_options *o, const struct backend *b) {
    if (o->mem_fraction_static > 0) return o->mem_fraction_static;
    return b->is_device ? 0.9 : 0.5;
}

/* Slots for which there are states; what these take of `room`. */
static int plan_slots(struct kv_plan *p, uint64_t *room, struct by_err *err) {
    if (!p->state_bytes) return 0;
    uint64_t n = BY_MIN((uint64_t)p->n_slots, *room / 2 / p->state_bytes);
    if (n == 0)
        return by_fail(err, BY_ENOMEM,
                       "the states of one sequence take %.1f MB, and half of the %.1f MB that may "
                       "be used beside the weights is less: free memory or raise "
                       "--mem-fraction-static",
                       (double)p->state_bytes / 1e6, (double)*room / 1e6);
    if (n < p->n_slots)
        by_warn("there is room for the states of %llu sequences (%.1f MB each): no more run at a "
                "time, --max-running-requests is %u",
                (unsigned long long)n, (double)p->state_bytes / 1e6, p->n_slots);
    p->n_slots = (uint32_t)n;
    *room -= n * p->state_bytes;
    p->n_kept = (uint32_t)BY_MIN((uint64_t)KEPT_EACH * n, *room / 2 / p->state_bytes);
    p->n_kept = BY_MIN(p->n_kept, (uint32_t)KEPT_MAX);
    *room -= p->n_kept * p->state_bytes;
    return 0;
}

/* What was asked for and is more than there can ever be: on a CPU its pages are given one by one as they are written, so that the
 * kernel would kill the worker when the cache fills, and not at its start. */
static int check_asked(const struct kv_plan *p, uint64_t n_pages, uint64_t page, uint64_t there,
                       uint64_t free_bytes, struct by_err *err) {
    if (n_pages <= there / p->page_bytes) return 0;
    return by_fail(
        err, BY_ENOMEM,
        "--max-total-tokens: a KV cache of %llu tokens takes %.1f MB, and there are %.1f "
        "MB in all; %llu tokens fit into what is free, and a smaller --kv-cache-dtype "
        "takes less",
        (unsigned long long)(n_pages * page), (double)n_pages * (double)p->page_bytes / 1e6,
        (double)there / 1e6, (unsigned long long)(free_bytes / p->page_bytes * page));
}

int kv_plan(struct kv_plan *p, const struct by_options *o, struct backend *b, struct by_err *err) {
    uint64_t page = (uint64_t)o->page_size;
    uint64_t free_bytes = b->free_bytes ? b->free_bytes(b) : kv_free_memory();
    uint64_t bytes = (uint64_t)((double)free_bytes * share_of(o, b));
    int rc = plan_slots(p, &bytes, err);
    if (rc) return rc;
    uint64_t room = bytes / p->page_bytes;
    uint64_t cap = BY_MAX((uint64_t)SEQUENCES * p->context_len, (uint64_t)TOKENS) / page;
    if (b->is_device) cap = room; /* its memory serves nothing else */
    uint64_t n =
        o->max_total_tokens ? BY_DIV_UP((uint64_t)o->max_total_tokens, page) : BY_MIN(room, cap);
    rc = check_asked(p, n, page, b->is_device ? free_bytes : by_proc_memory_max(), free_bytes, err);
    if (rc) return rc;
    n = BY_MIN(n, (uint64_t)UINT32_MAX / page);
    uint64_t n_tokens = n * page, need = o->context_length ? p->context_len : CONTEXT_MIN;
    if (n_tokens < need)
        return by_fail(err, BY_ENOMEM,
                       "the KV cache would hold %llu tokens of %zu bytes in the %.1f MB that are "
                       "free beside the weights, and one sequence of %llu does not fit: "
                       "%s, or give --context-length %llu at most",
                       (unsigned long long)n_tokens, p->page_bytes / (size_t)page,
                       (double)free_bytes / 1e6, (unsigned long long)need,
                       o->max_total_tokens ? "raise --max-total-tokens"
                                           : "free memory, raise --mem-fraction-static, take a "
                                             "smaller --kv-cache-dtype",
                       (unsigned long long)n_tokens);
    if (n_tokens < p->context_len) {
        by_warn("the KV cache holds %llu tokens: sequences end there, the model could do %u",
                (unsigned long long)n_tokens, p->context_len);
        p->context_len = (uint32_t)n_tokens;
    }
    p->n_pages = (uint32_t)n;
    return 0;
}
