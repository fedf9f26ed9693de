/* clock.h - time in nanoseconds. Timers and timeouts use the monotonic clock, which no operator can turn back;
 * the wall clock is for logs, `created` fields and chat templates.
 *
 * Always: by_now_ns never goes backwards.
 * Owner: the process; cores (scheduler/core, router/journal) take `now` as an argument instead. */
#ifndef COMMON_BASE_CLOCK_H
#define COMMON_BASE_CLOCK_H

#include "common/base/base.h"

#define BY_NS_PER_MS UINT64_C(1000000)
#define BY_NS_PER_S UINT64_C(1000000000)

uint64_t by_now_ns(void);  /* monotonic */
uint64_t by_wall_ns(void); /* since 1970, UTC */

#endif
