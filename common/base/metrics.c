#include "common/base/metrics.h"

#include <stdatomic.h>

enum kind { KIND_COUNTER, KIND_GAUGE, KIND_HISTOGRAM };
enum { BUCKETS_MAX = 24 };

struct row {
    enum kind kind;
    const char *name;
    const char *help;
    double bounds[BUCKETS_MAX]; /* ascending, 0 ends the list */
};

static const struct row rows[BY_N_METRICS + 1] = {
#define COUNTER(id, name, help) {KIND_COUNTER, name, help, {0}},
#define GAUGE(id, name, help) {KIND_GAUGE, name, help, {0}},
#define HISTOGRAM(id, name, help, ...) {KIND_HISTOGRAM, name, help, {__VA_ARGS__}},
#include "common/base/metrics.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
};

static _Atomic double values[BY_N_METRICS]; /* counter, gauge, or a histogram's sum */
static atomic_uint_fast64_t buckets[BY_N_METRICS][BUCKETS_MAX + 1];

static void add(_Atomic double *to, double v) {
    double old = atomic_load_explicit(to, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(to, &old, old + v)) {
    }
}

void by_count(enum by_metric m, uint64_t n) {
    add(&values[m], (double)n);
}

void by_gauge_add(enum by_metric m, double more) {
    add(&values[m], more);
}

void by_gauge(enum by_metric m, double value) {
    atomic_store(&values[m], value);
}

void by_observe_many(enum by_metric m, double value, uint64_t n) {
    const double *bounds = rows[m].bounds;
    unsigned i = 0;
    while (i < BUCKETS_MAX && bounds[i] > 0 && value > bounds[i])
        i++;
    if (i < BUCKETS_MAX && bounds[i] <= 0) i = BUCKETS_MAX; /* above the last bound */
    atomic_fetch_add(&buckets[m][i], n);
    add(&values[m], value * (double)n);
}

void by_observe(enum by_metric m, double value) {
    by_observe_many(m, value, 1);
}

static void histogram_text(struct by_buf *out, size_t m) {
    const struct row *r = &rows[m];
    uint64_t n = 0;
    for (size_t i = 0; i < BUCKETS_MAX && r->bounds[i] > 0; i++) {
        n += atomic_load(&buckets[m][i]);
        by_buf_addf(out, "%s_bucket{le=\"%g\"} %lu\n", r->name, r->bounds[i], (unsigned long)n);
    }
    n += atomic_load(&buckets[m][BUCKETS_MAX]);
    by_buf_addf(out, "%s_bucket{le=\"+Inf\"} %lu\n", r->name, (unsigned long)n);
    by_buf_addf(out, "%s_sum %.17g\n%s_count %lu\n", r->name, atomic_load(&values[m]), r->name,
                (unsigned long)n);
}

void by_metrics_text(struct by_buf *out) {
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    for (size_t m = 0; m < BY_N_METRICS; m++) {
        const struct row *r = &rows[m];
        by_buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", r->name, r->help, r->name, kinds[r->kind]);
        if (r->kind == KIND_HISTOGRAM)
            histogram_text(out, m);
        else
            by_buf_addf(out, "%s %.17g\n", r->name, atomic_load(&values[m]));
    }
    by_buf_addz(out, "# HELP banyan_build_info 1; which build it is, the labels say\n"
                     "# TYPE banyan_build_info gauge\n"
                     "banyan_build_info{version=\"" BANYAN_VERSION "\"} 1\n");
}
