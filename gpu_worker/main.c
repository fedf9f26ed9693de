/* banyan-gpu-worker: loads a model, says what it can hold, and carries out the scheduler's steps. */
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/options.h"
#include "common/base/proc.h"
#include "common/base/sandbox.h"
#include "common/net/loop.h"
#include "gpu_worker/device.h"
#include "gpu_worker/kv.h"
#include "gpu_worker/one_batch.h"
#include "gpu_worker/reload.h"
#include "gpu_worker/tp.h"
#include "gpu_worker/worker.h"
#include "proto/endpoint.h"
#include "proto/wire.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { ROWS_MIN = 512 }; /* rows of a step besides one for each running sequence */

static struct shell {
    struct by_options o;
    struct backend *backend;
    struct model *model;
    struct model_options model_options;
    struct vectors_plan vectors;
    struct reload next; /* weights that wait to be taken */
    char *path;         /* of the weights that were taken; NULL: still those of --model-path */
    struct worker *worker;
    struct wire *wire;
    struct by_loop *loop;
    uint64_t looked_ns;           /* since when a step in flight is looked at; 0: none is */
    struct tp *tp;                /* the group of this session; NULL: a rank of one, or not yet */
    char address[TP_ADDRESS_MAX]; /* the same where devices reach each other */
    bool has_joined;
    struct mirror_limits limits;
    struct msg_model record;
    struct msg_capacity capacity;
    char type[64], arch[128], impl[160], device[128], weights_id[20];
    uint64_t started_ns, told_ns;
    double told_share;
} shell;

/* Says how far the load is: to the supervisor twice a second, to people once it has taken over a second. Numbers that are
 * widened can make it whole before the last of them: it is told once that it is. */
static void on_progress(void *ctx, double share) {
    uint64_t now = by_now_ns();
    char text[64];
    (void)ctx;
    if (now - shell.told_ns < 500000000 && (share < 1 || shell.told_share >= 1)) return;
    shell.told_ns = now;
    shell.told_share = share;
    snprintf(text, sizeof text, "STATUS=loading the model: %.0f %%", share * 100);
    by_notify(text);
    if (now - shell.started_ns > 1000000000) by_info("loading the model: %.0f %%", share * 100);
}

static enum by_dtype quantize_to(const char *word) {
    static const struct {
        const char *word;
        enum by_dtype dtype;
    } known[] = {{"q8_0", BY_DTYPE_Q8_0},
                 {"q4_0", BY_DTYPE_Q4_0},
                 {"q4_1", BY_DTYPE_Q4_1},
                 {"float16", BY_DTYPE_F16},
                 {"bfloat16", BY_DTYPE_BF16}};
    for (size_t i = 0; i < BY_COUNTOF(known); i++) {
        if (strcmp(word, known[i].word) == 0) return known[i].dtype;
    }
    return BY_DTYPE_NONE;
}

/* What people and the other processes are told of the model. */
static void describe(const struct by_model_dir *dir, enum kv_dtype kv) {
    const struct vectors_plan *v = &shell.vectors;
    snprintf(shell.type, sizeof shell.type, "%s", model_family(shell.model));
    snprintf(shell.arch, sizeof shell.arch, "%s", by_model_dir_info(dir)->architecture);
    if (model_is_encoder(shell.model))
        snprintf(shell.impl, sizeof shell.impl, "native, an encoder%s%s",
                 v->n_embed ? " with pooling by " : "",
                 v->n_embed ? vectors_pooling_name(v->pooling) : "");
    else
        snprintf(shell.impl, sizeof shell.impl, "native, KV cache in %s", kv_dtype_name(kv));
    snprintf(shell.device, sizeof shell.device, "%s", shell.backend->name);
    reload_fingerprint(dir, shell.weights_id);
    const struct by_generation_info *g = &by_model_dir_info(dir)->generation;
    shell.record = (struct msg_model){.path = by_str_of(shell.o.model_path),
                                      .type = by_str_of(shell.type),
                                      .arch = by_str_of(shell.arch),
                                      .n_vocab = model_n_vocab(shell.model),
                                      .impl = by_str_of(shell.impl),
                                      .weights_id = by_str_of(shell.weights_id),
                                      .is_encoder = model_is_encoder(shell.model),
                                      .n_embed = v->n_embed,
                                      .n_labels = v->n_labels,
                                      .pools_all = v->pooling == POOLING_MEAN,
                                      .sampling_defaults = {
                                          .is_given = g->is_given,
                                          .temperature = (float)g->temperature,
                                          .top_p = (float)g->top_p,
                                          .top_k = g->top_k,
                                          .min_p = (float)g->min_p,
                                          .repetition_penalty = (float)g->repetition_penalty,
                                      }};
}

/* Rows of a step so that an encoder's longest prompt fits: it is not cut. 0 for all others. */
static uint32_t whole_rows(const struct by_model_dir *dir) {
    if (!model_dir_is_encoder(dir)) return 0;
    return shell.o.context_length ? (uint32_t)shell.o.context_length
                                  : by_model_dir_info(dir)->context;
}

/* Before the model's files are looked at, and when the device is open: a CUDA driver starts programs until then, and has
 * sockets of its own, as NCCL has. */
static void shut_in(void) {
    bool is_local = strcmp(shell.o.device, "cpu") == 0 && !shell.o.scheduler_endpoint;
    by_sandbox_enter(shell.o.sandbox, is_local ? BY_SANDBOX_LOCAL : BY_SANDBOX_NETWORK);
}

/* Pages and states, what there is room for. */
static int take_memory(struct kv_plan *kv, uint32_t rows_max, struct by_err *err) {
    int rc = 0;
    kv->context_len = model_context_len(shell.model);
    kv->page_bytes = model_kv_page_bytes(shell.model);
    kv->state_bytes = model_state_bytes(shell.model);
    if (model_is_encoder(shell.model))
        kv->n_pages = kv_plan_steps(&shell.o, rows_max);
    else
        rc = kv_plan(kv, &shell.o, shell.backend, err);
    return rc ? rc : model_kv_new(shell.model, kv->n_pages, kv->n_slots, kv->n_kept, err);
}

static int load(struct by_err *err) {
    struct by_options *o = &shell.o;
    struct by_model_dir *dir = NULL;
    struct kv_plan kv = {.n_slots = (uint32_t)o->max_running_requests};
    if (o->page_size % 16)
        return by_fail(err, BY_EINVAL,
                       "--page-size %lld: the native engine's pages are multiples of 16 tokens",
                       (long long)o->page_size);
    uint32_t rows_max = (uint32_t)BY_MAX(o->chunked_prefill_size, (int64_t)ROWS_MIN) + kv.n_slots;
    int rc = device_open(&shell.backend, o, err);
    if (rc) goto done;
    shut_in();
    rc = by_model_dir_open(&dir, o->model_path, err);
    if (rc) goto done;
    rows_max = BY_MAX(rows_max, whole_rows(dir));
    struct model_options *mo = &shell.model_options;
    *mo = (struct model_options){.page_size = (uint32_t)o->page_size,
                                 .kv_dtype = kv_choose_dtype(o->kv_cache_dtype, dir),
                                 .rows_max = rows_max,
                                 .logit_rows_max = WORKER_LOGIT_ROWS,
                                 .context_len = (uint32_t)o->context_length,
                                 .rank = (uint32_t)o->tp_rank,
                                 .world = (uint32_t)o->tp_size,
                                 .quantize = quantize_to(o->quantization),
                                 .progress = on_progress};
    rc = kv_check_dtype(mo->kv_dtype, shell.backend, err);
    if (!rc) rc = model_open(&shell.model, dir, shell.backend, mo, err);
    if (rc) goto done;
    rc = vectors_plan(&shell.vectors, dir, shell.model, o->pooling, err);
    if (rc) goto done;
    rc = take_memory(&kv, rows_max, err);
    if (rc) goto done;
    describe(dir, mo->kv_dtype);
    struct backend_memory memory;
    shell.backend->memory(shell.backend, &memory);
    shell.record.context_len = kv.context_len;
    shell.capacity = (struct msg_capacity){
        .page_size = (uint32_t)o->page_size,
        .n_pages = kv.n_pages,
        .n_slots = kv.n_slots,
        .step_tokens_max = rows_max,
        .rank = (uint32_t)o->tp_rank,
        .world = (uint32_t)o->tp_size,
        .replica = (uint32_t)o->dp_rank,
        .load_ms = (uint32_t)((by_now_ns() - shell.started_ns) / 1000000),
        .weight_bytes = memory.weights,
        .kv_bytes = memory.kv,
        .device = by_str_of(shell.device),
        .no_prefix_reuse = model_is_encoder(shell.model) || (kv.state_bytes && !kv.n_kept),
        .n_states = kv.n_kept};
    shell.limits = (struct mirror_limits){.n_slots = kv.n_slots,
                                          .n_pages = kv.n_pages,
                                          .page_size = (uint32_t)o->page_size,
                                          .n_vocab = shell.record.n_vocab,
                                          .rows_max = rows_max,
                                          .context_len = kv.context_len,
                                          .has_states = kv.state_bytes > 0,
                                          .n_kept = kv.n_kept};
    shell.worker = worker_new(shell.model, shell.backend, &shell.limits);
    worker_set_vectors(shell.worker, &shell.vectors);
done:
    by_model_dir_close(dir);
    return rc;
}

/* --one-batch: measures and ends. */
static int measure(struct by_err *err) {
    struct one_batch *shapes;
    uint32_t n;
    if (model_is_encoder(shell.model))
        return by_fail(err, BY_EUNSUPPORTED, "--one-batch: %s is an encoder, it makes no tokens",
                       shell.type);
    int rc = one_batch_parse(shell.o.one_batch, &shapes, &n, err);
    if (rc) return rc;
    one_batch_print_header();
    for (uint32_t i = 0; !rc && i < n; i++)
        rc = one_batch_run(shell.worker, &shell.limits, (uint32_t)shell.o.chunked_prefill_size,
                           &shapes[i], err);
    by_free(shapes);
    return rc;
}

/* ---- the session with the scheduler ---- */

enum {
    SILENT_RANK_MS = 4000
}; /* before the scheduler gives a silent one up: it then says who failed */

static void set_group(struct tp *tp) {
    tp_close(shell.tp);
    shell.tp = tp;
    model_set_group(shell.model, tp);
}

/* The group's address where the others can find it; NULL: there is none yet. */
static const char *group_address(void) {
    if (shell.tp && !shell.o.tp_rank) return tp_address(shell.tp);
    return *shell.address ? shell.address : NULL;
}

static void leave_group(void) {
    set_group(NULL);
    if (shell.has_joined) shell.backend->group_leave(shell.backend);
    shell.has_joined = false;
    *shell.address = '\0';
}

/* Rank 0 of several makes a new group for each session, and says in hello where it is. */
static int open_group(struct by_err *err) {
    struct backend *b = shell.backend;
    struct tp *tp;
    if (shell.o.tp_size == 1 || shell.o.tp_rank) return 0;
    if (b->group_new) return b->group_new(b, shell.address, sizeof shell.address, err);
    int rc = tp_open(&tp, (uint32_t)shell.o.tp_size, SILENT_RANK_MS, err);
    if (!rc) set_group(tp);
    return rc;
}

static void join_group(struct wire_peer *peer, const struct msg_group *m) {
    struct by_err err;
    struct tp *tp;
    if (!shell.o.tp_rank) return;
    if (shell.backend->group_join) { /* all do that together, at the first step */
        snprintf(shell.address, sizeof shell.address, BY_STR_FMT, BY_STR_ARG(m->address));
        return;
    }
    if (tp_join(&tp, m->address, (uint32_t)shell.o.tp_rank, (uint32_t)shell.o.tp_size,
                SILENT_RANK_MS, &err)) {
        by_warn("cannot join the group: %s", err.text);
        wire_end(peer, err.text);
        return;
    }
    set_group(tp);
}

/* Before a step: has the group met? */
static int meet(struct by_err *err) {
    struct backend *b = shell.backend;
    if (shell.o.tp_size == 1 || shell.tp || shell.has_joined) return 0;
    if (!b->group_join || !*shell.address)
        return by_fail(err, BY_EFORMAT, "a step before the group has met");
    int rc =
        b->group_join(b, shell.address, (uint32_t)shell.o.tp_rank, (uint32_t)shell.o.tp_size, err);
    shell.has_joined = rc == 0;
    return rc;
}

/* Other ranks only tell that their slots are the same. */
static void tell(struct wire_peer *peer, const struct msg *done) {
    if (shell.o.tp_rank == 0 || done->step_done.crc) wire_send(peer, done);
}

/* Answers of steps in flight, until only `left` of them are. */
static void collect(struct wire_peer *peer, uint32_t left) {
    struct msg done = {.kind = MSG_step_done};
    while (worker_n_flying(shell.worker) > left) {
        if (worker_collect(shell.worker, true, &done.step_done)) tell(peer, &done);
    }
}

/* Between the loop's rounds, while a step is in flight. What is late is looked at less often, as most steps end soon. */
static void on_flight(void *ctx, uint64_t now) {
    enum { SPIN_NS = 200000, REST_NS = 20000 };
    struct wire_peer *peer = wire_peer_only(shell.wire);
    struct msg done = {.kind = MSG_step_done};
    while (peer && worker_n_flying(shell.worker) &&
           worker_collect(shell.worker, false, &done.step_done)) {
        shell.looked_ns = now;
        tell(peer, &done);
    }
    if (!peer || !worker_n_flying(shell.worker)) {
        shell.looked_ns = 0;
        return;
    }
    if (now - shell.looked_ns > SPIN_NS) nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL);
    by_loop_set_timer(shell.loop, 1, on_flight, ctx);
}

/* Done at once, or begun, so that its answer comes by on_flight. */
static int do_step(struct wire_peer *peer, const struct msg_step *m, struct by_err *err) {
    struct msg done = {.kind = MSG_step_done};
    while (worker_must_collect(shell.worker, m))
        collect(peer, worker_n_flying(shell.worker) - 1);
    int rc = meet(err);
    if (rc) return rc;
    if (!worker_can_begin(shell.worker, m)) {
        rc = worker_step(shell.worker, m, &done.step_done, err);
        if (!rc) tell(peer, &done);
        return rc;
    }
    rc = worker_begin(shell.worker, m, err);
    if (rc || shell.looked_ns) return rc;
    shell.looked_ns = by_now_ns();
    by_loop_set_timer(shell.loop, 1, on_flight, NULL);
    return 0;
}

static void on_step(struct wire_peer *peer, const struct msg_step *m) {
    struct by_err err = {0};
    if (do_step(peer, m, &err) == 0) return;
    by_error("step %llu: %s", (unsigned long long)m->step, err.text);
    wire_end(peer, err.text);
}

/* Between two steps: the scheduler sends none until all workers have answered. */
static void take_next(void) {
    struct by_err err;
    worker_free(shell.worker);
    model_close(shell.model);
    shell.model = shell.next.model;
    if (model_kv_new(shell.model, shell.limits.n_pages, shell.limits.n_slots, shell.limits.n_kept,
                     &err))
        by_die("%s", err.text);
    shell.worker = worker_new(shell.model, shell.backend, &shell.limits);
    worker_set_vectors(shell.worker, &shell.vectors);
    model_set_group(shell.model, shell.tp);
    by_free(shell.path);
    shell.path = shell.next.path;
    memcpy(shell.weights_id, shell.next.weights_id, sizeof shell.weights_id);
    shell.record.path = by_str_of(shell.path);
    shell.record.weights_id = by_str_of(shell.weights_id);
    shell.next = (struct reload){0};
    by_info("serves the weights of %s", shell.path);
    by_notify("STATUS=serving");
}

static void on_update(struct wire_peer *peer, const struct msg_update *m) {
    struct msg done = {.kind = MSG_updated, .updated = {.id = m->id}};
    struct by_err err = {0};
    bool is_late = m->phase == UPDATE_CATCH_UP;
    collect(peer, 0);
    if (m->phase == UPDATE_DROP) {
        reload_drop(&shell.next);
        return;
    }
    if (m->phase == UPDATE_LOAD || is_late) {
        char *path = by_strndup(m->path.p ? m->path.p : "", m->path.n);
        shell.started_ns = by_now_ns();
        done.updated.code = reload_open(&shell.next, path, shell.backend, &shell.model_options,
                                        shell.model, shell.o.kv_cache_dtype, &err);
        by_free(path);
        if (done.updated.code && is_late) by_die("cannot catch up with the others: %s", err.text);
        done.updated.text = by_str_of(err.text);
        if (done.updated.code) by_warn("the weights were not loaded: %s", err.text);
    }
    if (shell.next.model) done.updated.weights_id = by_str_of(shell.next.weights_id);
    if ((m->phase == UPDATE_SWITCH || is_late) && shell.next.model) take_next();
    wire_send(peer, &done);
}

static void on_up(void *ctx, struct wire_peer *peer) {
    (void)ctx;
    (void)peer;
    worker_reset(shell.worker);
    by_notify("READY=1\nSTATUS=serving");
}

static void on_down(void *ctx, struct wire_peer *peer, const char *why) {
    (void)ctx;
    (void)peer;
    struct by_err err;
    by_log(by_proc_loss_level(),
           "lost the scheduler: %s; %llu steps began while another was in flight", why,
           (unsigned long long)worker_n_ahead(shell.worker));
    worker_reset(shell.worker);
    leave_group();
    if (open_group(&err)) by_die("%s", err.text);
    if (group_address()) wire_set_my_endpoint(shell.wire, group_address());
}

static void on_msg(void *ctx, struct wire_peer *peer, const struct msg *m) {
    (void)ctx;
    if (m->kind == MSG_step) on_step(peer, &m->step);
    if (m->kind == MSG_group) join_group(peer, &m->group);
    if (m->kind == MSG_update) on_update(peer, &m->update);
}

static int serve(struct by_err *err) {
    struct endpoint at;
    int rc = endpoint_read(&at, &shell.o, NULL, err);
    if (!rc) rc = open_group(err);
    if (rc) return rc;
    struct wire_options w = {.endpoint = at.scheduler,
                             .key_file = shell.o.curve_key_file,
                             .role = ROLE_GPU_WORKER,
                             .instance = shell.o.instance,
                             .epoch = by_proc_epoch(),
                             .expect = ROLE_SCHEDULER,
                             .my_endpoint = group_address(),
                             .model = &shell.record,
                             .capacity = &shell.capacity,
                             .up = on_up,
                             .msg = on_msg,
                             .down = on_down};
    by_notify("STATUS=waiting for the scheduler");
    rc = wire_open(&shell.wire, &w, err);
    if (rc) return rc;
    shell.loop = by_loop_new();
    wire_attach(shell.wire, shell.loop);
    by_loop_run(shell.loop);
    wire_close(shell.wire);
    leave_group();
    by_proc_tidy(shell.o.run_dir);
    by_loop_free(shell.loop);
    return 0;
}

int main(int argc, char **argv) {
    static const struct by_options_program program = {
        .name = "banyan-gpu-worker",
        .who = BY_FOR_WORKER,
        .summary = "computes the model; `banyan serve` starts it for you",
    };
    struct by_err err = {0};
    by_proc_start(&shell.o, &program, argc, argv);
    shell.started_ns = by_now_ns();
    if (!shell.o.model_path) by_die("--model-path is needed; `banyan serve` names it for you");
    by_notify("STATUS=loading the model");
    int rc = load(&err);
    if (rc) {
        by_proc_last_words(err.text);
        return rc == BY_EUNSUPPORTED ? BY_EXIT_UNSUPPORTED : 1;
    }
    by_info("loaded %s %s: %.0f MB of weights, %u pages of %u tokens on %s in %.2f s", shell.type,
            shell.o.model_path, (double)shell.capacity.weight_bytes / 1e6, shell.capacity.n_pages,
            shell.capacity.page_size, shell.device, shell.capacity.load_ms / 1e3);
    if (shell.o.one_batch ? measure(&err) : serve(&err)) by_die("%s", err.text);
    worker_free(shell.worker);
    model_close(shell.model);
    reload_drop(&shell.next);
    by_free(shell.path);
    shell.backend->close(shell.backend);
    by_options_release(&shell.o);
    return 0;
}
