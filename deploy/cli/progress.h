/* progress.h - how far a long transfer is: a line that redraws itself on a terminal, a log line now and then elsewhere.
 *
 *     model-00001-of-00002.safetensors  [#########           ]  43 %  1.2 of 2.8 GB  85.1 MB/s
 *
 * Always: writes to stderr only; nothing is drawn for what takes less than half a second.
 * Owner: the cli, one thread. */
#ifndef DEPLOY_CLI_PROGRESS_H
#define DEPLOY_CLI_PROGRESS_H

#include "common/base/base.h"

struct progress {
    uint64_t total, done; /* bytes; total 0: not known */
    uint64_t from;        /* of done, what was here before: no part of the speed */
    uint64_t started_ns, shown_ns;
    bool is_terminal, was_shown;
    char what[40];
};

void progress_start(struct progress *p, uint64_t total);
void progress_name(struct progress *p, const char *what, size_t n);
void progress_add(struct progress *p, uint64_t n);
void progress_skip(struct progress *p, uint64_t n);     /* these bytes are here already */
void progress_back(struct progress *p, uint64_t n);     /* these were counted, and come again */
void progress_end(struct progress *p);                  /* clears the line */
void progress_bytes(char *out, size_t cap, uint64_t n); /* "1.2 GB" */

#endif
