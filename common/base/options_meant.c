#include "common/base/options_meant.h"

#include <stdio.h>

/* What other servers call it, for who brings a command from there: SGLang, vLLM, llama.cpp. */
static const struct {
    const char *flag, *says;
} foreign[] = {
    {"--max-model-len", "here it is --context-length"},
    {"--ctx-size", "here it is --context-length"},
    {"--gpu-memory-utilization", "here it is --mem-fraction-static"},
    {"--max-num-seqs", "here it is --max-running-requests"},
    {"--parallel", "here it is --max-running-requests"},
    {"--max-num-batched-tokens", "here it is --chunked-prefill-size"},
    {"--block-size", "here it is --page-size"},
    {"--alias", "here it is --served-model-name"},
    {"--tokenizer", "here it is --tokenizer-path"},
    {"--n-gpu-layers", "here it is --device cuda"},
    {"--enforce-eager", "here it is --disable-cuda-graph"},
    {"--no-enable-prefix-caching", "here it is --disable-radix-cache"},
    {"--generation-config", "here it is --sampling-defaults model or openai"},
    {"--enable-log-requests", "here it is --log-requests"},
    {"--download-dir", "here it is HF_HUB_CACHE, a variable of the environment"},
    {"--nnodes", "each host starts its own processes: deploy/README.md, Several hosts"},
    {"--node-rank", "each host starts its own processes: deploy/README.md, Several hosts"},
    {"--dist-init-addr", "each host starts its own processes: deploy/README.md, Several hosts"},
    {"--ep-size", "experts are split with --tp-size"},
    {"--pp-size", "there are no stages; split layers with --tp-size"},
    {"--ssl-certfile", "leave it out: TLS is a balancer's, as in deploy/conf"},
    {"--ssl-keyfile", "leave it out: TLS is a balancer's, as in deploy/conf"},
    {"--is-embedding", "leave it out: /v1/embeddings is there for every model that can"},
    {"--runner", "leave it out: /v1/embeddings is there for every model that can"},
    {"--load-format", "leave it out: the files tell"},
    {"--enable-chunked-prefill", "leave it out: prompts are cut without it"},
    {"--enable-lora", "leave it out: adapters are not served yet"},
    {"--lora-paths", "leave it out: adapters are not served yet"},
    {"--lora-modules", "leave it out: adapters are not served yet"},
    {"--speculative-algorithm", "leave it out: nothing is guessed ahead yet"},
    {"--speculative-config", "leave it out: nothing is guessed ahead yet"},
    {"--seed", "leave it out: a request has its own seed"},
    {"--disable-log-requests", "leave it out: requests are logged with --log-requests only"},
    {"--enable-metrics", "leave it out: GET /metrics is always there"},
    {"--enable-cache-report", "leave it out: usage always has cached_tokens"},
    {"--enable-prefix-caching", "leave it out: prefixes are cached without it"},
    {"--enable-mixed-chunk", "leave it out: steps are mixed without it"},
    {"--enable-priority-scheduling", "here it is --schedule-policy priority"},
    {"--enable-deterministic-inference", "here it is --deterministic, and on a CPU always so"},
    {"--enable-auto-tool-choice", "leave it out: --tool-call-parser is enough"},
    {"--skip-server-warmup", "leave it out: there is none"},
    {"--random-seed", "leave it out: a request has its own seed"},
    {"--stream-interval", "leave it out: what waits for a slow client goes out together"},
    {"--sampling-backend", "leave it out: there is one"},
    {"--attention-backend", "leave it out: --device and --cpu-isa decide"},
    {"--grammar-backend", "leave it out: grammars are not served yet"},
    {"-m", "here it is --model-path"},
    {"-c", "here it is --context-length"},
    {"-ngl", "here it is --device cuda"},
    {"-np", "here it is --max-running-requests"},
    {"-t", "here it is --threads"},
    {"--jinja", "leave it out: templates are Jinja without it"},
    {"--flash-attn", "leave it out: there is one attention"},
    {"-fa", "leave it out: there is one attention"},
};

struct by_options_meant by_options_meant(const char *flag, uint32_t who) {
    struct by_options_meant meant = {0};
    char text[FLAG_MAX];
    unsigned least = (unsigned)BY_MIN(strlen(flag) / 3, (size_t)3) + 1;
    for (size_t i = 0; i < BY_COUNTOF(foreign) && !meant.says; i++) {
        if (strcmp(flag, foreign[i].flag) == 0) meant.says = foreign[i].says;
    }
    for (size_t i = 0; i < by_options_n_rows && !meant.says; i++) {
        const struct by_options_row *r = &by_options_rows[i];
        if (r->kind == KIND_SECTION || !by_options_row_is_read(r, who)) continue;
        by_options_row_flag(r->name, text);
        unsigned d = by_str_distance(flag, text);
        if (d < least) meant.row = r;
        least = BY_MIN(least, d);
    }
    return meant;
}

void by_options_meant_text(const char *flag, uint32_t who, char *out, size_t cap) {
    struct by_options_meant meant = by_options_meant(flag, who);
    char text[FLAG_MAX];
    *out = '\0';
    if (meant.says) snprintf(out, cap, "; %s", meant.says);
    if (!meant.row) return;
    by_options_row_flag(meant.row->name, text);
    snprintf(out, cap, " (did you mean %s?)", text);
}

void by_options_env_name(const char *name, char out[FLAG_MAX]) {
    snprintf(out, FLAG_MAX, "BANYAN_%s", name);
    for (char *p = out; *p; p++) {
        if (*p >= 'a' && *p <= 'z') *p = (char)(*p - 32);
    }
}

/* BANYAN_MAX_MODEL_LEN: --max-model-len */
static void flag_of(struct by_str name, char out[FLAG_MAX]) {
    snprintf(out, FLAG_MAX, "--" BY_STR_FMT, BY_STR_ARG(name));
    for (char *p = out; *p; p++) {
        if (*p >= 'A' && *p <= 'Z') *p = (char)(*p + 32);
        if (*p == '_') *p = '-';
    }
}

/* A letter more, less or another, or letters that changed places; of a long name any two. Words of their own stay anybody's:
 * BANYAN_BUILD is not BANYAN_BIND, nor BANYAN_VERSION BANYAN_REVISION. */
static bool is_slip(const char *typed, const char *name) {
    enum { LONG = 10 };
    int n_more[256] = {0};
    char flag[FLAG_MAX];
    bool has_same_letters = true;
    by_options_row_flag(name, flag);
    unsigned d = by_str_distance(typed, flag);
    for (const char *p = typed; *p; p++)
        n_more[(unsigned char)*p]++;
    for (const char *p = flag; *p; p++)
        n_more[(unsigned char)*p]--;
    for (size_t i = 0; i < BY_COUNTOF(n_more); i++)
        has_same_letters &= n_more[i] == 0;
    return d <= 1 || has_same_letters || (d == 2 && strlen(typed) >= LONG);
}

static void tell_of(struct by_str name, void (*tell)(const char *text)) {
    char flag[FLAG_MAX], as[FLAG_MAX], text[256];
    if (name.n + 3 > FLAG_MAX) return;
    flag_of(name, flag);
    const struct by_options_row *r = by_options_row_find(by_str_of(flag + 2), BY_FOR_ALL);
    if (r && strlen(r->name) == name.n) return; /* it is one; an alias is for flags alone */
    struct by_options_meant meant = {.row = r};
    if (!r) meant = by_options_meant(flag, BY_FOR_ALL);
    if (!r && meant.row && !is_slip(flag, meant.row->name)) meant.row = NULL;
    if (meant.row && meant.row->kind == KIND_ALIAS)
        meant.row = by_options_row_find(by_str_of(meant.row->name), BY_FOR_ALL);
    if (meant.row) by_options_env_name(meant.row->name, as);
    if (meant.row)
        snprintf(text, sizeof text, "BANYAN_" BY_STR_FMT " sets nothing (did you mean %s?)",
                 BY_STR_ARG(name), as);
    else if (meant.says)
        snprintf(text, sizeof text, "BANYAN_" BY_STR_FMT " sets nothing; %s", BY_STR_ARG(name),
                 meant.says);
    if (meant.row || meant.says) tell(text);
}

void by_options_strange_env(void (*tell)(const char *text)) {
    extern char **environ;
    for (char **e = environ; *e; e++) {
        struct by_str value = by_str_of(*e), name;
        by_str_split(&value, '=', &name);
        if (!by_str_starts(name, BY_STR("BANYAN_")) || !value.n) continue;
        /* read by the Python package; Kubernetes' word of a Service that is called banyan-… */
        if (by_str_eqz(name, "BANYAN_BIN") || by_str_starts(value, BY_STR("tcp://"))) continue;
        tell_of(by_str_sub(name, strlen("BANYAN_"), name.n), tell);
    }
}
