#include "scheduler/update.h"

#include "common/base/json.h"
#include "common/base/log.h"
#include "scheduler/core_state.h"

#include <stdio.h>

static void say(struct core *c, const struct core_peer *worker, enum update_phase phase,
                const char *path) {
    struct msg m = {.kind = MSG_update,
                    .update = {.id = c->update.id, .phase = phase, .path = by_str_of(path)}};
    c->sink.send(c->sink.ctx, worker->id, &m);
}

static bool is_member(const struct core *c, const struct core_peer *p) {
    return p->role == ROLE_GPU_WORKER && !p->is_stale &&
           c->replicas[p->replica]->ranks[p->rank] == p->id;
}

/* A round: all of them are told, and each answers or is lost. */
static void ask_all(struct core *c, enum update_phase phase) {
    c->update.n_waiting = 0;
    for (BY_LIST_EACH(it, &c->peers)) {
        struct core_peer *p = BY_CONTAINER_OF(it, struct core_peer, link);
        if (!is_member(c, p)) continue;
        say(c, p, phase, c->update.path);
        p->update_due = phase == UPDATE_DROP ? 0 : c->update.id;
        c->update.n_waiting += p->update_due != 0;
    }
}

static void answer(struct core *c, uint32_t asker, uint64_t ask_id, int code, struct by_str json) {
    struct msg m = {.kind = MSG_answer, .answer = {.id = ask_id, .code = code, .json = json}};
    if (core_peer(c, asker)) c->sink.send(c->sink.ctx, asker, &m);
}

static void refuse(struct core *c, uint32_t asker, uint64_t ask_id, int code, const char *text) {
    struct by_buf out;
    by_buf_init(&out, 65536);
    by_buf_addz(&out, "{\"error\":");
    by_buf_add_json_str(&out, by_str_of(text));
    by_buf_addc(&out, '}');
    answer(c, asker, ask_id, code, by_buf_str(&out));
    by_buf_release(&out);
}

static void give_up(struct core *c) {
    struct update *u = &c->update;
    by_warn("weights were not updated path=%s why=%s", u->path, u->text);
    ask_all(c, UPDATE_DROP);
    u->state = UPDATE_NONE;
    refuse(c, u->asker, u->ask_id, u->code, u->text);
}

static void finish(struct core *c) {
    struct update *u = &c->update;
    char json[128];
    u->state = UPDATE_NONE;
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        for (uint32_t k = 0; k < REPLICA_RANKS_MAX; k++) {
            struct core_peer *p = core_peer(c, c->replicas[i]->ranks[k]);
            if (p) core_end_peer(c, p, "its weights are new");
        }
    }
    by_info("weights are updated path=%s id=%s live=%u", u->path_now, u->weights_id_now,
            u->n_paused);
    int n = snprintf(json, sizeof json, "{\"paused\":%u}", u->n_paused);
    answer(c, u->asker, u->ask_id, 0, (struct by_str){json, (size_t)n});
}

static void next(struct core *c) {
    struct update *u = &c->update;
    if (u->n_waiting) return;
    if (u->state == UPDATE_SWITCHING) {
        finish(c);
    } else if (u->code) {
        give_up(c);
    } else {
        u->state = UPDATE_SWITCHING;
        snprintf(u->path_now, sizeof u->path_now, "%s", u->path);
        snprintf(u->weights_id_now, sizeof u->weights_id_now, "%s", u->weights_id);
        ask_all(c, UPDATE_SWITCH);
        next(c); /* nobody may be left */
    }
}

static void fail(struct core *c, int code, const char *text) {
    if (c->update.code) return; /* the first says why */
    c->update.code = code;
    snprintf(c->update.text, sizeof c->update.text, "%s", text);
}

void update_ask(struct core *c, struct core_peer *from, const struct msg_ask *m) {
    static const struct by_json_limits limits = {.bytes_max = 65536, .depth_max = 4};
    struct update *u = &c->update;
    struct by_json *args = NULL;
    struct by_str path = {0};
    struct by_err err = {0};
    int rc = by_json_parse(&args, m->json, &limits, &err);
    if (!rc) rc = by_json_get_str(args, "", "model_path", &path, &err);
    if (!rc && (!path.n || path.n >= UPDATE_PATH_BYTES))
        rc =
            by_fail(&err, BY_EINVAL, "model_path: 1 to %d bytes are needed", UPDATE_PATH_BYTES - 1);
    if (!rc && u->state != UPDATE_NONE)
        rc = by_fail(&err, BY_EAGAIN, "the weights are being updated already");
    if (!rc && !c->n_replicas_up) rc = by_fail(&err, BY_EUNAVAILABLE, "no gpu worker is ready");
    if (rc) {
        refuse(c, from->id, m->id, rc, err.text);
    } else {
        u->state = UPDATE_LOADING;
        u->id++;
        u->asker = from->id;
        u->ask_id = m->id;
        u->n_paused = c->n_live;
        u->code = 0;
        u->weights_id[0] = '\0';
        snprintf(u->path, sizeof u->path, BY_STR_FMT, BY_STR_ARG(path));
        by_info("weights are being updated path=%s live=%u", u->path, c->n_live);
        ask_all(c, UPDATE_LOAD);
        next(c);
    }
    by_json_free(args);
}

void update_answered(struct core *c, struct core_peer *from, const struct msg_updated *m) {
    struct update *u = &c->update;
    char text[BY_ERR_TEXT_MAX];
    if (from->is_stale) { /* it has caught up, or ended itself */
        core_end_peer(c, from, "its weights are new");
        return;
    }
    if (!from->update_due || from->update_due != m->id) return; /* of a round that is over */
    from->update_due = 0;
    u->n_waiting--;
    if (m->code) {
        snprintf(text, sizeof text, BY_STR_FMT, (int)BY_MIN(m->text.n, sizeof text - 1),
                 m->text.p ? m->text.p : "");
        fail(c, m->code, text);
    } else if (u->state == UPDATE_LOADING) {
        if (!u->weights_id[0])
            snprintf(u->weights_id, sizeof u->weights_id, BY_STR_FMT,
                     (int)BY_MIN(m->weights_id.n, sizeof u->weights_id - 1),
                     m->weights_id.p ? m->weights_id.p : "");
        else if (!by_str_eqz(m->weights_id, u->weights_id))
            fail(c, BY_EINVAL, "model_path: the workers found different weights there");
    }
    next(c);
}

void update_lost(struct core *c, struct core_peer *worker) {
    if (!worker->update_due) return;
    worker->update_due = 0;
    c->update.n_waiting--;
    if (c->update.state == UPDATE_LOADING)
        fail(c, BY_EUNAVAILABLE, "a gpu worker was lost while it loaded the weights");
    next(c); /* one that is lost while it switches comes back, and is told then */
}

bool update_is_stale(const struct core *c, const struct msg_model *model) {
    return c->update.weights_id_now[0] && !by_str_eqz(model->weights_id, c->update.weights_id_now);
}

void update_catch_up(struct core *c, struct core_peer *worker) {
    by_info("a gpu worker came with former weights instance=%s: it loads %s", worker->instance,
            c->update.path_now);
    worker->is_stale = true;
    say(c, worker, UPDATE_CATCH_UP, c->update.path_now);
}
