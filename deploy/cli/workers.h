/* workers.h - the gpu workers of `banyan serve`: --dp-size replicas of --tp-size ranks, native or through transformers.
 *
 *     gpu-worker            one
 *     gpu-worker-1          replica 1 of several
 *     gpu-worker-1.0        rank 0 of replica 1
 *
 * Always: all of them run the same implementation of the model or are on their way to it; --threads 0 shares the CPUs out.
 * Owner: cmd_serve; the children are the supervisor's. */
#ifndef DEPLOY_CLI_WORKERS_H
#define DEPLOY_CLI_WORKERS_H

#include "common/base/options.h"
#include "deploy/cli/supervise.h"

struct worker_child {
    struct child *child;
    bool is_transformers;
};

struct workers {
    struct supervisor *supervisor;
    struct by_options o; /* serve's, as the workers get them; borrowed strings */
    const char *exe_dir;
    struct worker_child *children; /* [dp_size * tp_size], by replica, then rank */
    uint32_t n;
};

BY_MUST_USE int workers_start(struct workers *w, struct supervisor *s, const struct by_options *o,
                              const char *exe_dir, struct by_err *err);
void workers_release(struct workers *w);
/* A worker does not know this model. Under --model-impl auto it is made to start again through transformers: true. False:
 * it was no worker, that has been tried, or (err is filled) transformers cannot be had. */
BY_MUST_USE bool workers_hand_over(struct workers *w, struct child *c, struct by_err *err);

#endif
