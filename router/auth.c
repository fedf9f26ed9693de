#include "router/auth.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <math.h>
#include <stdio.h>

/* A bucket is filled in many small steps: what they lose must not cost a request. */
static const double ROUNDING = 1e-6;

enum { FILE_BYTES_MAX = 4 << 20, SECONDS = 60 };

struct auth *auth_new(void) {
    return by_alloc(sizeof(struct auth));
}

static void key_free(struct auth_key *k) {
    explicit_bzero(k->key, strlen(k->key));
    by_free(k->key);
    by_free(k);
}

void auth_free(struct auth *a) {
    if (!a) return;
    for (size_t i = 0; i < a->n; i++)
        key_free(a->keys[i]);
    for (size_t i = 0; i < a->n_gone; i++)
        key_free(a->gone[i]);
    by_free(a->keys);
    by_free(a->gone);
    by_free(a);
}

/* ---- which keys there are ---- */

static struct auth_key *add(struct auth *a, struct by_str key) {
    struct auth_key *k = by_alloc(sizeof *k);
    k->key = by_strndup(key.p, key.n);
    a->keys = by_realloc_array(a->keys, a->n + 1, sizeof *a->keys);
    a->keys[a->n++] = k;
    return k;
}

void auth_add(struct auth *a, const char *key, bool is_admin) {
    if (!key) return;
    struct auth_key *k = add(a, by_str_of(key));
    k->is_admin = is_admin;
    k->priority_max = INT32_MAX;
    a->n_admins += is_admin;
}

static bool is_name(struct by_str s) {
    if (!s.n || s.n >= AUTH_NAME_MAX) return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] <= ' ' || s.p[i] > '~' || s.p[i] == '"' || s.p[i] == '\\') return false;
    }
    return true;
}

/* "name=alice", "rate=60", "running=8", "tokens=1000", "priority=5" or "admin". */
static bool take_word(struct auth_key *k, struct by_str word) {
    struct by_str value = word, name;
    double limit = 0;
    if (by_str_eqz(word, "admin")) {
        k->is_admin = true;
        return true;
    }
    if (!by_str_split(&value, '=', &name)) return false;
    if (by_str_eqz(name, "name")) {
        if (!is_name(value)) return false;
        snprintf(k->name, sizeof k->name, BY_STR_FMT, BY_STR_ARG(value));
        return true;
    }
    if (by_str_eqz(name, "priority")) {
        if (!by_str_to_f64(value, &limit) || limit != floor(limit) || fabs(limit) > INT32_MAX)
            return false;
        k->priority_max = (int32_t)limit;
        return true;
    }
    if (!by_str_to_f64(value, &limit) || limit < 1 || limit > 1e12) return false;
    if (by_str_eqz(name, "rate")) k->rate = k->rate_left = limit;
    if (by_str_eqz(name, "tokens")) k->tokens = k->tokens_left = limit;
    if (by_str_eqz(name, "running")) k->running = (uint32_t)fmin(limit, 1e9);
    return by_str_eqz(name, "rate") || by_str_eqz(name, "tokens") || by_str_eqz(name, "running");
}

static int take_line(struct auth *a, struct by_str line, const char *path, unsigned n,
                     struct by_err *err) {
    struct by_str word, rest = line;
    bool more = by_str_split(&rest, ' ', &word);
    if (word.n < AUTH_KEY_BYTES_MIN || word.n > AUTH_KEY_BYTES_MAX)
        return by_fail(err, BY_EFORMAT, "%s: line %u: a key has %d to %d bytes", path, n,
                       AUTH_KEY_BYTES_MIN, AUTH_KEY_BYTES_MAX);
    if (a->n >= AUTH_KEYS_MAX)
        return by_fail(err, BY_ELIMIT, "%s: more than %d keys", path, AUTH_KEYS_MAX);
    if (auth_find(a, word))
        return by_fail(err, BY_EFORMAT, "%s: line %u: this key is there already", path, n);
    struct auth_key *k = add(a, word);
    k->is_of_file = true;
    while (more) {
        more = by_str_split(&rest, ' ', &word);
        if (word.n && !take_word(k, word))
            return by_fail(
                err, BY_EFORMAT,
                "%s: line %u: behind the key stand name=WORD, rate=N, running=N, tokens=N, "
                "priority=N, admin; not '%.*s'",
                path, n, (int)BY_MIN(word.n, (size_t)40), word.p);
    }
    if (!k->name[0]) snprintf(k->name, sizeof k->name, "key-%u", n);
    a->n_admins += k->is_admin;
    if (k->is_admin) k->priority_max = INT32_MAX;
    return 0;
}

int auth_parse(struct auth *a, struct by_str text, const char *path, struct by_err *err) {
    struct by_str line;
    bool more = text.n > 0;
    a->has_file = true;
    for (unsigned n = 1; more; n++) {
        more = by_str_split(&text, '\n', &line);
        line = by_str_trim(line);
        if (memchr(line.p ? line.p : "", '\t', line.n))
            return by_fail(err, BY_EFORMAT, "%s: line %u: words are parted by blanks, not tabs",
                           path, n);
        int rc = line.n && line.p[0] != '#' ? take_line(a, line, path, n, err) : 0;
        if (rc) return rc;
    }
    if (!a->n) return by_fail(err, BY_EFORMAT, "%s: there is no key in it", path);
    return 0;
}

int auth_read(struct auth *a, const char *path, struct by_err *err) {
    struct by_buf text;
    by_buf_init(&text, FILE_BYTES_MAX);
    int rc = by_file_read_secret(&text, path, err);
    if (!rc) rc = auth_parse(a, by_buf_str(&text), path, err);
    if (text.p) explicit_bzero(text.p, text.n);
    by_buf_release(&text);
    return rc;
}

/* ---- the file again ---- */

static void take_limits(struct auth_key *k, const struct auth_key *now) {
    snprintf(k->name, sizeof k->name, "%s", now->name);
    k->is_admin = now->is_admin;
    k->rate_left = k->rate > 0 ? fmin(k->rate_left, now->rate) : now->rate;
    k->tokens_left = k->tokens > 0 ? fmin(k->tokens_left, now->tokens) : now->tokens;
    k->rate = now->rate;
    k->tokens = now->tokens;
    k->running = now->running;
    k->priority_max = now->priority_max;
}

static void free_gone(struct auth *a) {
    size_t n = 0;
    for (size_t i = 0; i < a->n_gone; i++) {
        if (a->gone[i]->n_running)
            a->gone[n++] = a->gone[i];
        else
            key_free(a->gone[i]);
    }
    a->n_gone = n;
}

/* Requests point to their key: one that stays is the same struct as before, one that goes is kept while it has any. */
static void merge(struct auth *a, struct auth *fresh) {
    free_gone(a);
    a->gone = by_realloc_array(a->gone, a->n_gone + a->n + 1, sizeof *a->gone);
    for (size_t i = 0; i < a->n; i++) {
        struct auth_key *old = a->keys[i], *now = NULL;
        size_t at = 0;
        for (size_t k = 0; k < fresh->n && !now; k++) {
            if (strcmp(fresh->keys[k]->key, old->key) == 0) now = fresh->keys[at = k];
        }
        if (now) {
            take_limits(old, now);
            key_free(now);
            fresh->keys[at] = old;
        } else {
            a->gone[a->n_gone++] = old;
        }
    }
    by_free(a->keys);
    a->keys = fresh->keys;
    a->n = fresh->n;
    a->n_admins = fresh->n_admins;
    fresh->keys = NULL;
    fresh->n = 0;
    free_gone(a);
}

int auth_reread(struct auth *a, const char *path, struct by_err *err) {
    struct auth *fresh = auth_new();
    for (size_t i = 0; i < a->n; i++) {
        if (!a->keys[i]->is_of_file) auth_add(fresh, a->keys[i]->key, a->keys[i]->is_admin);
    }
    int rc = auth_read(fresh, path, err);
    if (!rc) merge(a, fresh);
    auth_free(fresh);
    return rc;
}

/* ---- who may ---- */

/* As long for every key that is given: what is not there is compared as something else. */
static bool is_same(struct by_str given, const char *key) {
    size_t n = strlen(key);
    unsigned char differs = given.n != n;
    for (size_t i = 0; i < n; i++)
        differs |= (unsigned char)((i < given.n ? given.p[i] : ~key[i]) ^ key[i]);
    return !differs;
}

struct auth_key *auth_find(const struct auth *a, struct by_str key) {
    struct auth_key *found = NULL;
    for (size_t i = 0; i < a->n; i++) {
        if (is_same(key, a->keys[i]->key)) found = a->keys[i];
    }
    return found;
}

int auth_may(const struct auth *a, const struct auth_key *k, bool wants_admin) {
    if (!wants_admin) return k || a->n == a->n_admins ? 0 : BY_EAUTH;
    if (k && k->is_admin) return 0;
    if (a->n_admins || a->has_file) return k ? BY_EFORBIDDEN : BY_EAUTH;
    return k || !a->n ? 0 : BY_EAUTH;
}

/* ---- how much ---- */

static void fill(struct auth_key *k, uint64_t now) {
    double minutes = (double)(now - k->filled_ns) / BY_NS_PER_S / SECONDS;
    k->filled_ns = now;
    k->rate_left = fmin(k->rate, k->rate_left + k->rate * minutes);
    k->tokens_left = fmin(k->tokens, k->tokens_left + k->tokens * minutes);
}

static uint32_t wait_ms(double missing, double a_minute) {
    return (uint32_t)fmin(ceil(missing / a_minute * SECONDS * 1000), 3600000);
}

int auth_start(struct auth_key *k, uint64_t now_ns, uint32_t *retry_ms, struct by_err *err) {
    if (!k) return 0;
    fill(k, now_ns);
    if (k->running && k->n_running >= k->running) {
        *retry_ms = 1000;
        return by_fail(err, BY_EFULL, "this key has %u requests running, as many as it may",
                       k->running);
    }
    if (k->rate > 0 && k->rate_left < 1 - ROUNDING) {
        *retry_ms = wait_ms(1 - k->rate_left, k->rate);
        return by_fail(err, BY_EFULL, "this key may make %.0f requests a minute", k->rate);
    }
    if (k->tokens > 0 && k->tokens_left <= 0) {
        *retry_ms = wait_ms(1 - k->tokens_left, k->tokens);
        return by_fail(err, BY_EFULL, "this key may use %.0f tokens a minute", k->tokens);
    }
    if (k->rate > 0) k->rate_left -= 1;
    k->n_running++;
    return 0;
}

void auth_end(struct auth_key *k, uint64_t n_tokens) {
    if (!k) return;
    k->n_running--;
    if (k->tokens > 0) k->tokens_left -= (double)n_tokens;
}
