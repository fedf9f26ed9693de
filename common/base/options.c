#include "common/base/options.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/base/options_config.h"
#include "common/base/options_meant.h"
#include "common/base/options_row.h"
#include "common/base/options_text.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static char **str_at(const struct by_options *o, const struct by_options_row *r) {
    return (char **)((char *)(uintptr_t)o + r->at);
}
static int64_t *int_at(const struct by_options *o, const struct by_options_row *r) {
    return (int64_t *)((char *)(uintptr_t)o + r->at);
}
static double *num_at(const struct by_options *o, const struct by_options_row *r) {
    return (double *)((char *)(uintptr_t)o + r->at);
}
static bool *flag_at(const struct by_options *o, const struct by_options_row *r) {
    return (bool *)((char *)(uintptr_t)o + r->at);
}

static void set_default(struct by_options *o, const struct by_options_row *r) {
    if (r->kind == KIND_STR || r->kind == KIND_CHOICE) *str_at(o, r) = by_strdup(r->deflt);
    if (r->kind == KIND_INT) *int_at(o, r) = (int64_t)r->num;
    if (r->kind == KIND_NUM) *num_at(o, r) = r->num;
}

static bool is_default(const struct by_options *o, const struct by_options_row *r) {
    if (r->kind == KIND_INT) return *int_at(o, r) == (int64_t)r->num;
    if (r->kind == KIND_NUM) return *num_at(o, r) == r->num;
    if (r->kind == KIND_FLAG) return !*flag_at(o, r);
    const char *s = *str_at(o, r);
    if (!s || !r->deflt) return s == r->deflt;
    return strcmp(s, r->deflt) == 0;
}

static bool has_word(const char *words, struct by_str word) {
    struct by_str rest = by_str_of(words), head;
    bool more;
    do {
        more = by_str_split(&rest, '|', &head);
        if (by_str_eq(head, word)) return true;
    } while (more);
    return false;
}

/* `from` is how the user knows it: "--port", "BANYAN_PORT", "config.yaml: port". */
static int set_value(struct by_options *o, const struct by_options_row *r, const char *from,
                     const char *text, struct by_err *err) {
    struct by_str s = by_str_of(text);
    int64_t i;
    double d;
    switch (r->kind) {
    case KIND_CHOICE:
        if (!has_word(r->words, s)) {
            return by_fail(err, BY_EINVAL, "%s: '%s' is not one of %s", from, text, r->words);
        }
        /* fall through */
    case KIND_STR:
        /* "$KEY" of a script in which KEY is not set: a server that anybody may use, or of another model */
        if (!*text)
            return by_fail(err, BY_EINVAL, "%s: its value is empty; leave it out, or give one",
                           from);
        by_free(*str_at(o, r));
        *str_at(o, r) = by_strdup(text);
        return 0;
    case KIND_INT:
        if (!by_str_to_i64(s, &i) || (double)i < r->min || (double)i > r->max) {
            return by_fail(err, BY_EINVAL, "%s: '%s' is not a whole number from %.0f to %.0f", from,
                           text, r->min, r->max);
        }
        *int_at(o, r) = i;
        return 0;
    case KIND_NUM:
        if (!by_str_to_f64(s, &d) || d < r->min || d > r->max) {
            return by_fail(err, BY_EINVAL, "%s: '%s' is not a number from %.15g to %.15g", from,
                           text, r->min, r->max);
        }
        *num_at(o, r) = d;
        return 0;
    default:
        if (!by_str_to_bool(s, flag_at(o, r))) {
            return by_fail(err, BY_EINVAL, "%s: '%s' is neither true nor false", from, text);
        }
        return 0;
    }
}

static int fail_unknown(const struct by_options_program *prog, const char *flag,
                        struct by_err *err) {
    char meant[256];
    by_options_meant_text(flag, prog->who, meant, sizeof meant);
    if (*meant == ';') /* that is all that there is to say */
        return by_fail(err, BY_EINVAL, "%s has no option %s%s", prog->name, flag, meant);
    return by_fail(err, BY_EINVAL, "%s has no option %s%s; see %s --help", prog->name, flag, meant,
                   prog->name);
}

struct config_ctx {
    struct by_options *o;
    const struct by_options_program *prog;
    const char *path;
    uint64_t seen[4]; /* a bit for each row that the file has named */
};

static int set_from_config(void *ctx, const char *key, const char *value, struct by_err *err) {
    struct config_ctx *c = ctx;
    char from[512];
    snprintf(from, sizeof from, "%s: %s", c->path, key);
    /* A file is shared by all programs: a key that another program reads is none of our business. */
    const struct by_options_row *any = by_options_row_find(by_str_of(key), BY_FOR_ALL);
    if (!any) {
        char flag[FLAG_MAX], meant[256];
        by_options_row_flag(key, flag);
        by_options_meant_text(flag, BY_FOR_ALL, meant, sizeof meant);
        return by_fail(err, BY_EINVAL, "%s: there is no such option%s", from, meant);
    }
    size_t at = (size_t)(any - by_options_rows);
    by_assert(at < 64 * BY_COUNTOF(c->seen));
    if (c->seen[at / 64] >> at % 64 & 1)
        return by_fail(err, BY_EINVAL, "%s: it is given twice", from);
    c->seen[at / 64] |= UINT64_C(1) << at % 64;
    return by_options_row_is_read(any, c->prog->who) ? set_value(c->o, any, from, value, err) : 0;
}

static bool is_key(const struct by_options_row *r) {
    return r->kind == KIND_STR && by_str_ends(by_str_of(r->name), BY_STR("api_key"));
}

/* Without these a server is anybody's. */
static bool is_guard(const struct by_options_row *r) {
    return strstr(r->name, "api_key") != NULL;
}

/* Kubernetes gives every pod NAME_PORT=tcp://IP:PORT for each Service of its namespace: for one that is called banyan under the
 * name of our option, and nobody has asked for it. */
static bool is_service_link(const struct by_options_row *r, const char *value) {
    return strcmp(r->name, "port") == 0 && strncmp(value, "tcp://", 6) == 0;
}

static int read_env(struct by_options *o, const struct by_options_program *prog,
                    struct by_err *err) {
    for (size_t i = 0; i < by_options_n_rows; i++) {
        char name[FLAG_MAX];
        if (!by_options_row_is_value(&by_options_rows[i]) ||
            !by_options_row_is_read(&by_options_rows[i], prog->who))
            continue;
        by_options_env_name(by_options_rows[i].name, name);
        const char *value = getenv(name);
        if (!value || is_service_link(&by_options_rows[i], value)) continue;
        /* BANYAN_API_KEY: ${KEY} of a compose file, and KEY is not set: refused, as on a command line */
        if (!*value && !is_guard(&by_options_rows[i])) continue;
        int rc = set_value(o, &by_options_rows[i], name, value, err);
        if (rc) return rc;
    }
    return 0;
}

/* One flag at argv[*i]; moves *i over its value. */
static int read_flag(struct by_options *o, const struct by_options_program *prog, int argc,
                     char **argv, int *i, struct by_err *err) {
    struct by_str rest = by_str_of(argv[*i] + 2), name;
    bool has_value = by_str_split(&rest, '=', &name);
    char flag[FLAG_MAX];
    snprintf(flag, sizeof flag, "--" BY_STR_FMT, BY_STR_ARG(name));
    const struct by_options_row *r = by_options_row_find(name, prog->who);
    if (!r && by_str_starts(name, BY_STR("no-")) && !has_value) {
        r = by_options_row_find(by_str_sub(name, 3, name.n), prog->who);
        if (r && r->kind == KIND_FLAG) return set_value(o, r, flag, "false", err);
        r = NULL;
    }
    if (!r) return fail_unknown(prog, flag, err);
    if (r->kind == KIND_FLAG) return set_value(o, r, flag, has_value ? rest.p : "true", err);
    if (!has_value && *i + 1 >= argc) return by_fail(err, BY_EINVAL, "%s needs a value", flag);
    return set_value(o, r, flag, has_value ? rest.p : argv[++*i], err);
}

static int read_flags(struct by_options *o, const struct by_options_program *prog, int argc,
                      char **argv, struct by_err *err) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            while (++i < argc)
                o->rest[o->n_rest++] = argv[i];
        } else if (argv[i][0] != '-' || argv[i][1] != '-') {
            if (argv[i][0] == '-' && argv[i][1]) return fail_unknown(prog, argv[i], err);
            o->rest[o->n_rest++] = argv[i];
        } else {
            int rc = read_flag(o, prog, argc, argv, &i, err);
            if (rc) return rc;
        }
    }
    return 0;
}

static void answer_help(const struct by_options_program *prog, int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        struct by_buf out;
        by_buf_init(&out, 1 << 20);
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            by_options_text_help(&out, prog);
        else if (strcmp(argv[i], "--man") == 0)
            by_options_text_man(&out, prog);
        else if (strcmp(argv[i], "--version") == 0)
            by_buf_addf(&out, "%s " BANYAN_VERSION "\n", prog->name);
        else
            continue;
        fputs(out.p, stdout);
        by_buf_release(&out);
        exit(0);
    }
}

/* [::1], as URLs write it, is ::1. */
static void take_off_brackets(char *host) {
    size_t n = host ? strlen(host) : 0;
    if (n < 2 || host[0] != '[' || host[n - 1] != ']') return;
    memmove(host, host + 1, n - 2);
    host[n - 2] = 0;
}

int by_options_parse(struct by_options *out, const struct by_options_program *prog, int argc,
                     char **argv, struct by_err *err) {
    answer_help(prog, argc, argv);
    *out = (struct by_options){.rest = by_alloc_array((size_t)argc + 1, sizeof(char *))};
    for (size_t i = 0; i < by_options_n_rows; i++) {
        if (by_options_row_is_value(&by_options_rows[i])) set_default(out, &by_options_rows[i]);
    }
    /* Flags first, to learn --config; then file, environment and flags again, each over the one before. */
    int rc = read_flags(out, prog, argc, argv, err);
    const char *env = getenv("BANYAN_CONFIG");
    const char *config = out->config ? out->config : env && *env ? env : NULL;
    if (!rc && config) {
        char *path = by_strdup(config);
        struct config_ctx ctx = {.o = out, .prog = prog, .path = path};
        rc = by_options_read_config(path, set_from_config, &ctx, err);
        by_free(path);
    }
    if (!rc) rc = read_env(out, prog, err);
    out->n_rest = 0;
    if (!rc) rc = read_flags(out, prog, argc, argv, err);
    if (!rc && out->n_rest > prog->n_words)
        rc = by_fail(err, BY_EINVAL, "%s: '%s' is one word too many; see %s --help", prog->name,
                     out->rest[prog->n_words], prog->name);
    take_off_brackets(out->host);
    if (rc) by_options_release(out);
    return rc;
}

void by_options_release(struct by_options *o) {
    for (size_t i = 0; i < by_options_n_rows; i++) {
        if (by_options_rows[i].kind == KIND_STR || by_options_rows[i].kind == KIND_CHOICE)
            by_free(*str_at(o, &by_options_rows[i]));
    }
    by_free(o->rest);
    *o = (struct by_options){0};
}

char **by_options_hand_on(const struct by_options *o, uint32_t who) {
    char **env = by_alloc_array(by_options_n_rows + 1, sizeof *env);
    size_t n = 0;
    for (size_t i = 0; i < by_options_n_rows; i++) {
        const struct by_options_row *r = &by_options_rows[i];
        char name[FLAG_MAX];
        if (!by_options_row_is_value(r)) continue;
        by_options_env_name(r->name, name);
        if (is_key(r) && r->who & who && *str_at(o, r)) {
            struct by_buf text;
            by_buf_init(&text, 1 << 20);
            by_buf_addf(&text, "%s=%s", name, *str_at(o, r));
            env[n++] = by_buf_take(&text, NULL);
        }
        unsetenv(name);
    }
    return env;
}

char **by_options_argv(const struct by_options *o, const char *program, uint32_t who) {
    char **argv = by_alloc_array(2 * by_options_n_rows + 2, sizeof *argv);
    size_t n = 0;
    argv[n++] = by_strdup(program);
    for (size_t i = 0; i < by_options_n_rows; i++) {
        const struct by_options_row *r = &by_options_rows[i];
        if (!by_options_row_is_value(r) || !(r->who & who) || is_default(o, r)) continue;
        if (is_key(r)) continue;
        /* read already, and the values are passed on */
        if (strcmp(r->name, "config") == 0) continue;
        struct by_buf value;
        by_buf_init(&value, 1 << 20);
        if (r->kind == KIND_INT) by_buf_addf(&value, "%lld", (long long)*int_at(o, r));
        if (r->kind == KIND_NUM) by_buf_addf(&value, "%.17g", *num_at(o, r));
        if (r->kind == KIND_STR || r->kind == KIND_CHOICE) by_buf_addz(&value, *str_at(o, r));
        char flag[FLAG_MAX];
        by_options_row_flag(r->name, flag);
        argv[n++] = by_strdup(flag);
        if (r->kind != KIND_FLAG) argv[n++] = by_buf_take(&value, NULL);
        by_buf_release(&value);
    }
    return argv;
}

void by_options_argv_free(char **argv) {
    if (!argv) return;
    for (size_t i = 0; argv[i]; i++)
        by_free(argv[i]);
    by_free(argv);
}
