/* metrics.h - counters, gauges and histograms from one table (metrics.def).
 *
 *     by_count(BY_M_HTTP_REQUESTS, 1);   by_gauge(BY_M_RUNNING, n);   by_observe(BY_M_TTFT, seconds);
 *
 * Always: a row's name is the whole name; buckets are fixed per row. banyan_build_info, which is 1, comes after the rows.
 * Owner: the process; atomics, so any thread may count. */
#ifndef COMMON_BASE_METRICS_H
#define COMMON_BASE_METRICS_H

#include "common/base/buf.h"

enum by_metric {
#define COUNTER(id, name, help) BY_M_##id,
#define GAUGE(id, name, help) BY_M_##id,
#define HISTOGRAM(id, name, help, ...) BY_M_##id,
#include "common/base/metrics.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
    BY_N_METRICS
};

void by_count(enum by_metric m, uint64_t n);
void by_gauge(enum by_metric m, double value);
void by_gauge_add(enum by_metric m, double more);
void by_observe(enum by_metric m, double value);
void by_observe_many(enum by_metric m, double value, uint64_t n); /* the same value n times */
void by_metrics_text(struct by_buf *out);                         /* Prometheus text format 0.0.4 */

#endif
