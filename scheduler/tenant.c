#include "scheduler/tenant.h"

#include "common/base/check.h"
#include "common/base/mem.h"

enum { PROMPT_WEIGHT = 1, OUTPUT_WEIGHT = 2, SHARE_OF_FREE = 4 };

bool tenant_before(const struct tenant *a, const struct tenant *b) {
    if (a->counter != b->counter) return a->counter < b->counter;
    return a->n_running < b->n_running;
}

/* A newcomer has the counter of who floods: by name it would wait one more step whenever its name comes later. */
static bool heap_before(const struct by_heap_node *x, const struct by_heap_node *y) {
    const struct tenant *a = BY_CONTAINER_OF(x, struct tenant, in_heap);
    const struct tenant *b = BY_CONTAINER_OF(y, struct tenant, in_heap);
    if (tenant_before(a, b) || tenant_before(b, a)) return tenant_before(a, b);
    return by_str_cmp(a->name, b->name) < 0;
}

static bool least_before(const struct by_heap_node *x, const struct by_heap_node *y) {
    return BY_CONTAINER_OF(x, struct tenant, in_wanting)->least <
           BY_CONTAINER_OF(y, struct tenant, in_wanting)->least;
}

void tenants_init(struct tenants *t) {
    *t = (struct tenants){0};
    by_strmap_init(&t->by_name);
    by_list_init(&t->busy);
    by_list_init(&t->idle);
    by_heap_init(&t->heap, heap_before);
    by_heap_init(&t->wanting, least_before);
}

static void tenant_free(struct tenants *t, struct tenant *tenant) {
    uint64_t value;
    bool was_there = by_strmap_remove(&t->by_name, tenant->name, &value);
    by_assert(was_there);
    by_assert(tenant->n_reqs == 0);
    by_list_remove(&tenant->link);
    if (t->last == tenant) t->last = NULL;
    by_free((void *)tenant->name.p);
    by_free(tenant);
    t->n--;
}

void tenants_release(struct tenants *t) {
    by_assert(by_list_empty(&t->busy));
    while (!by_list_empty(&t->idle))
        tenant_free(t, BY_CONTAINER_OF(by_list_first(&t->idle), struct tenant, link));
    by_strmap_release(&t->by_name);
    by_heap_release(&t->heap);
    by_heap_release(&t->wanting);
}

bool tenants_may_queue(const struct tenants *t, struct by_str name, uint32_t n_queued,
                       uint32_t queue_max) {
    uint64_t value;
    if (n_queued >= queue_max) return false;
    name.n = BY_MIN(name.n, (size_t)TENANT_NAME_MAX);
    if (!name.n || !by_strmap_get(&t->by_name, name, &value)) return true;
    const struct tenant *tenant = (const struct tenant *)(uintptr_t)value;
    return tenant->n_queued < (uint64_t)SHARE_OF_FREE * (queue_max - n_queued);
}

static struct tenant *find_or_add(struct tenants *t, struct by_str name) {
    uint64_t value;
    name.n = BY_MIN(name.n, (size_t)TENANT_NAME_MAX);
    if (by_strmap_get(&t->by_name, name, &value)) return (struct tenant *)(uintptr_t)value;
    if (t->n >= TENANTS_MAX) {
        struct by_list *oldest = by_list_first(&t->idle);
        /* All busy: the stranger shares with whoever is first. Ten thousand tenants at a time are not fair anyway. */
        if (!oldest) return BY_CONTAINER_OF(by_list_first(&t->busy), struct tenant, link);
        tenant_free(t, BY_CONTAINER_OF(oldest, struct tenant, link));
    }
    struct tenant *tenant = by_alloc(sizeof *tenant);
    tenant->name = (struct by_str){by_strndup(name.p ? name.p : "", name.n), name.n};
    tenant->in_heap.index = tenant->in_wanting.index = BY_HEAP_OUT;
    by_list_init(&tenant->waiting);
    by_list_push(&t->idle, &tenant->link);
    by_strmap_put(&t->by_name, tenant->name, (uintptr_t)tenant);
    t->n++;
    return tenant;
}

struct tenant *tenants_take(struct tenants *t, struct by_str name) {
    struct tenant *tenant = find_or_add(t, name);
    if (tenant->n_reqs++ == 0) {
        by_list_remove(&tenant->link);
        by_list_push(&t->busy, &tenant->link);
    }
    tenant->n_requests++;
    return tenant;
}

void tenants_give(struct tenants *t, struct tenant *tenant) {
    by_assert(tenant->n_reqs > 0);
    if (--tenant->n_reqs > 0) return;
    by_assert(tenant->n_waiting == 0);
    by_list_remove(&tenant->link);
    by_list_push(&t->idle, &tenant->link);
}

static void update_wanting(struct tenants *t, struct tenant *tenant) {
    bool does_want = tenant->n_waiting + tenant->n_running > 0;
    if (does_want == (tenant->in_wanting.index != BY_HEAP_OUT)) return;
    tenant->least = tenant->counter;
    if (does_want)
        by_heap_push(&t->wanting, &tenant->in_wanting);
    else
        by_heap_remove(&t->wanting, &tenant->in_wanting);
}

/* What a tenant that begins to wait has at least: the least counter of the others who want something now; when nobody
 * does, that of whoever wanted something last. */
static double floor_for(struct tenants *t) {
    for (struct by_heap_node *n; (n = by_heap_first(&t->wanting)) != NULL;) {
        struct tenant *o = BY_CONTAINER_OF(n, struct tenant, in_wanting);
        if (o->least == o->counter) return o->counter;
        o->least = o->counter; /* served since it was put there */
        by_heap_fix(&t->wanting, n);
    }
    return t->last_counter;
}

void tenants_wait(struct tenants *t, struct tenant *tenant) {
    if (tenant->n_waiting++ > 0) return;
    if (tenant->in_wanting.index != BY_HEAP_OUT) by_heap_remove(&t->wanting, &tenant->in_wanting);
    tenant->counter = BY_MAX(tenant->counter, floor_for(t));
    update_wanting(t, tenant);
    by_heap_push(&t->heap, &tenant->in_heap);
}

void tenants_unwait(struct tenants *t, struct tenant *tenant) {
    by_assert(tenant->n_waiting > 0);
    if (--tenant->n_waiting > 0) return;
    if (tenant->in_heap.index != BY_HEAP_OUT) by_heap_remove(&t->heap, &tenant->in_heap);
    update_wanting(t, tenant);
    t->last = tenant;
    t->last_counter = tenant->counter;
}

void tenants_run(struct tenants *t, struct tenant *tenant) {
    tenant->n_running++;
    update_wanting(t, tenant);
    if (tenant->in_heap.index != BY_HEAP_OUT) by_heap_fix(&t->heap, &tenant->in_heap);
}

void tenants_unrun(struct tenants *t, struct tenant *tenant) {
    by_assert(tenant->n_running > 0);
    tenant->n_running--;
    update_wanting(t, tenant);
    if (tenant->in_heap.index != BY_HEAP_OUT) by_heap_fix(&t->heap, &tenant->in_heap);
}

void tenants_charge(struct tenants *t, struct tenant *tenant, uint32_t n_prompt,
                    uint32_t n_output) {
    tenant->counter += (double)PROMPT_WEIGHT * n_prompt + (double)OUTPUT_WEIGHT * n_output;
    if (t->last == tenant) t->last_counter = tenant->counter;
    if (tenant->in_heap.index != BY_HEAP_OUT) by_heap_fix(&t->heap, &tenant->in_heap);
}

bool tenants_check(const struct tenants *t) {
    uint32_t n = 0;
    for (BY_LIST_EACH(it, &t->busy)) {
        const struct tenant *tenant = BY_CONTAINER_OF(it, struct tenant, link);
        uint32_t n_waiting = 0;
        for (BY_LIST_EACH(at, &tenant->waiting))
            n_waiting++;
        if (n_waiting != tenant->n_waiting || tenant->n_reqs == 0) return false;
        if ((tenant->in_heap.index != BY_HEAP_OUT) != (n_waiting > 0)) return false;
        bool does_want = n_waiting + tenant->n_running > 0;
        if ((tenant->in_wanting.index != BY_HEAP_OUT) != does_want) return false;
        if (does_want && tenant->least > tenant->counter) return false;
        n++;
    }
    for (BY_LIST_EACH(it, &t->idle)) {
        const struct tenant *tenant = BY_CONTAINER_OF(it, struct tenant, link);
        if (tenant->n_reqs || tenant->n_waiting || tenant->in_heap.index != BY_HEAP_OUT ||
            tenant->in_wanting.index != BY_HEAP_OUT)
            return false;
        n++;
    }
    return n == t->n && by_heap_check(&t->heap) && by_heap_check(&t->wanting);
}
