/* tp.h for callers without struct by_err. */
#include "gpu_worker/kernels/kernels.h"
#include "gpu_worker/tp.h"

#include <stdio.h>

static struct tp *tell(int rc, struct tp *group, const struct by_err *err, char *why) {
    if (rc) snprintf(why, BANYAN_WHY, "%s", err->text);
    return rc ? NULL : group;
}

struct tp *banyan_group_open(uint32_t world, uint32_t deadline_ms, char *why) {
    struct by_err err = {0};
    struct tp *group = NULL;
    int rc = tp_open(&group, world, deadline_ms, &err);
    return tell(rc, group, &err, why);
}

struct tp *banyan_group_join(const char *address, uint32_t rank, uint32_t world,
                             uint32_t deadline_ms, char *why) {
    struct by_err err = {0};
    struct tp *group = NULL;
    int rc = tp_join(&group, by_str_of(address), rank, world, deadline_ms, &err);
    return tell(rc, group, &err, why);
}

const char *banyan_group_address(const struct tp *group) {
    return tp_address(group);
}

void banyan_group_close(struct tp *group) {
    tp_close(group);
}

int banyan_group_sum(struct tp *group, float *x, size_t n) {
    return tp_sum(group, x, n) ? -1 : 0;
}

int banyan_group_gather(struct tp *group, const float *x, size_t n, float *all) {
    return tp_gather(group, x, n, all) ? -1 : 0;
}
