/* main.c - sim: seeds in, silence or a failing seed out.
 *
 *     sim [--seeds 10000] [--first 1] [--events 1000] [--jobs N]      many seeds
 *     sim --seed N [--trace FILE]                                     one again; FILE.1, FILE.2 … for banyan trace --replay
 *     sim --offsets                                                   stop string, EOS and length, with a kill between */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/modelfile/model_dir.h"
#include "tests/sim/sim.h"

#define MODEL TEST_VECTORS "/tokenizers/tiny-bbpe-gpt2"

struct plan {
    uint64_t n_seeds, first, n_events, n_jobs, seed;
    const char *trace;
    bool has_seed, does_offsets, is_verbose, no_faults;
};

static volatile uint64_t running_seed; /* for the handler of an assertion's abort */
static const char *program;
static FILE *complaints; /* what stderr was */

/* The cores warn and complain of what the seed does to them: that is heard only with --verbose. */
static void hush(void) {
    int fd = dup(2);
    if (fd < 0 || !freopen("/dev/null", "w", stderr)) by_die("/dev/null: %m");
    complaints = fdopen(fd, "w");
}

FILE *sim_out(void) {
    return complaints ? complaints : stderr;
}

static void name_seed(void) {
    fprintf(sim_out(), "sim: SEED %llu fails; again: %s --seed %llu\n",
            (unsigned long long)running_seed, program, (unsigned long long)running_seed);
    fflush(sim_out());
}

static void on_abort(int sig) {
    (void)sig;
    name_seed();
    _exit(1);
}

void sim_fail(const struct sim *s, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fprintf(sim_out(), "sim: after %llu items, at %.6f s: ", (unsigned long long)s->n_items,
            (double)s->now / 1e9);
    vfprintf(sim_out(), fmt, args);
    fputc('\n', sim_out());
    va_end(args);
    name_seed();
    if (getenv("SIM_CORE")) abort();
    _exit(1);
}

static void open_shared(struct sim_shared *shared) {
    struct by_err err = {0};
    struct by_model_dir *dir = NULL;
    struct worker_options o = {.model_path = MODEL, .context_len = SIM_SEQ_MAX};
    if (by_model_dir_open_text(&dir, MODEL, &err) ||
        by_tokenizer_open(&shared->tokenizer, dir, &err) ||
        worker_open(&shared->tokenizer_worker, &o, &err))
        by_die("%s", err.text);
    by_model_dir_close(dir);
}

static void close_shared(struct sim_shared *shared) {
    by_tokenizer_close(shared->tokenizer);
    worker_close(shared->tokenizer_worker);
}

static void run_seeds(const struct plan *p, uint64_t job, struct sim_sum *sum) {
    struct sim_shared shared;
    open_shared(&shared);
    for (uint64_t i = job; i < p->n_seeds; i += p->n_jobs) {
        struct sim_options o = {.seed = p->first + i,
                                .n_events = (uint32_t)p->n_events,
                                .trace = p->trace,
                                .is_verbose = p->is_verbose,
                                .no_faults = p->no_faults};
        running_seed = o.seed;
        sim_run(&shared, &o, sum);
    }
    close_shared(&shared);
}

/* Each job is a process: what it counted comes through a pipe. */
static int run_jobs(const struct plan *p, struct sim_sum *sum) {
    int fds[2], n_bad = 0;
    if (pipe(fds) != 0) by_die("pipe: %m");
    for (uint64_t job = 0; job < p->n_jobs; job++) {
        pid_t pid = fork();
        if (pid < 0) by_die("fork: %m");
        if (pid > 0) continue;
        struct sim_sum mine = {0};
        run_seeds(p, job, &mine);
        _exit(write(fds[1], &mine, sizeof mine) == sizeof mine ? 0 : 1);
    }
    close(fds[1]);
    for (struct sim_sum one; read(fds[0], &one, sizeof one) == sizeof one;)
        sim_sum_add(sum, &one);
    close(fds[0]);
    for (int status; wait(&status) > 0;)
        n_bad += status != 0;
    return n_bad;
}

static bool take(char **argv, int argc, int *i, const char *name, uint64_t *out) {
    if (strcmp(argv[*i], name) != 0) return false;
    if (*i + 1 == argc || !by_str_to_u64(by_str_of(argv[*i + 1]), out))
        by_die("%s needs a number", name);
    ++*i;
    return true;
}

static struct plan parse(int argc, char **argv) {
    struct plan p = {.n_seeds = 10000, .first = 1, .n_events = 1000, .n_jobs = 2};
    for (int i = 1; i < argc; i++) {
        if (take(argv, argc, &i, "--seeds", &p.n_seeds)) continue;
        if (take(argv, argc, &i, "--first", &p.first)) continue;
        if (take(argv, argc, &i, "--events", &p.n_events)) continue;
        if (take(argv, argc, &i, "--jobs", &p.n_jobs)) continue;
        if (take(argv, argc, &i, "--seed", &p.seed)) {
            p.has_seed = true;
        } else if (strcmp(argv[i], "--trace") == 0 && i + 1 < argc) {
            p.trace = argv[++i];
        } else if (strcmp(argv[i], "--offsets") == 0) {
            p.does_offsets = true;
        } else if (strcmp(argv[i], "--verbose") == 0) {
            p.is_verbose = true;
        } else if (strcmp(argv[i], "--calm") == 0) {
            p.no_faults = true;
        } else {
            by_die("sim: what is %s?", argv[i]);
        }
    }
    if (p.n_jobs == 0) p.n_jobs = 1;
    return p;
}

int main(int argc, char **argv) {
    struct sim_sum sum = {0};
    struct plan p = parse(argc, argv);
    program = argv[0];
    signal(SIGABRT, on_abort);
    by_log_init(&(struct by_log_options){.process = "sim",
                                         .level = p.is_verbose ? BY_LOG_DEBUG : BY_LOG_ERROR});
    if (!p.is_verbose) hush();
    uint64_t from = by_now_ns();
    if (p.does_offsets) {
        struct sim_shared shared;
        uint32_t n_runs = 0;
        open_shared(&shared);
        offsets_run(&shared, &n_runs);
        close_shared(&shared);
        printf("sim: %u runs with a kill between, all as undisturbed\n", n_runs);
        return 0;
    }
    if (p.has_seed) {
        p.first = p.seed;
        p.n_seeds = 1;
        run_seeds(&p, 0, &sum);
    } else if (run_jobs(&p, &sum)) {
        return 1;
    }
    double s = (double)(by_now_ns() - from) / 1e9;
    printf("sim: %llu seeds, %llu items, %llu requests (%llu whole, %llu refused), %llu faults, "
           "%llu stale frames, %llu states kept and %llu started from, %.0f simulated hours, in "
           "%.1f s\n",
           (unsigned long long)p.n_seeds, (unsigned long long)sum.n_items,
           (unsigned long long)sum.n_requests, (unsigned long long)sum.n_done,
           (unsigned long long)sum.n_failed, (unsigned long long)sum.n_faults,
           (unsigned long long)sum.n_dropped_frames, (unsigned long long)sum.n_keeps,
           (unsigned long long)sum.n_starts, (double)sum.ns / 3.6e12, s);
    return 0;
}
