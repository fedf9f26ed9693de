/* print_tables options|templates|metrics|messages|paths|openapi: the pages that are made from tables, on stdout (docs.sh keeps them). */
#include "common/base/buf.h"
#include "common/base/json.h"
#include "common/base/options_text.h"
#include "common/template/builtin.h"
#include "router/openapi.h"
#include "router/routes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_options(void) {
    struct by_buf out;
    by_buf_init(&out, 1 << 20);
    by_options_text_doc(&out);
    fputs(out.p, stdout);
    by_buf_release(&out);
}

static void print_templates(void) {
    printf("# Built-in chat templates\n\nMade from common/template/builtin.c by `make docs`; do "
           "not edit.\n\n"
           "A model brings its own template as a rule (chat_template.jinja, tokenizer_config.json, "
           "GGUF). One without gets the first of\nthese whose markers are all in its vocabulary; "
           "those without markers, and any other, by name: `--chat-template llama2`. A file's\n"
           "path there means a Jinja template of your own. They know system, user and assistant "
           "turns; chatml offers tools as Hermes does.\n\n"
           "| name | models | taken for granted when the vocabulary has |\n| --- | --- | --- |\n");
    for (size_t i = 0; by_builtin_template_at(i); i++) {
        const struct by_builtin_template *b = by_builtin_template_at(i);
        printf("| `%s` | %s |", b->name, b->models);
        for (size_t k = 0; k < BY_COUNTOF(b->markers) && b->markers[k]; k++) {
            printf(" `");
            for (const char *c = b->markers[k]; *c; c++)
                printf(*c == '|' ? "\\|" : "%c", *c);
            printf("`");
        }
        printf(" |\n");
    }
}

static void print_metrics(void) {
    printf(
        "# Metrics\n\nMade from common/base/metrics.def by `make docs`; do not edit. `GET "
        "/metrics` "
        "has them in Prometheus' text form, and\n`banyan_build_info{version=\"…\"}`, which is 1. "
        "The names are SGLang's with `banyan:` for `sglang:`; `process_…` are those that "
        "Prometheus'\nclient libraries tell of a process: here the router, each one by itself.\n\n"
        "| name | kind | meaning |\n| --- | --- | --- |\n");
#define ROW(name, kind, help) printf("| `%s` | " kind " | %s |\n", name, help);
#define COUNTER(id, name, help) ROW(name, "counter", help)
#define GAUGE(id, name, help) ROW(name, "gauge", help)
#define HISTOGRAM(id, name, help, ...) ROW(name, "histogram", help)
#include "common/base/metrics.def"
    printf("\nA dashboard made for SGLang finds them when Prometheus renames them as it scrapes: "
           "`metric_relabel_configs: "
           "[{source_labels: [__name__],\nregex: 'banyan:(.*)', target_label: __name__, "
           "replacement: 'sglang:$1'}]`. "
           "SGLang's labels are not here (`/v1/loads?format=prometheus` tells\nreplicas apart by "
           "`dp_rank`), nor what tells of "
           "parts that there are none of: `spec_…`, `lora_…`, `hicache_…`, `…grammar…`, "
           "`kv_transfer_…`.\nSGLang's "
           "`utilization` takes a cache that is full to nine tenths for full; here all of it "
           "counts.\n");
}

static void print_messages(void) {
    printf("# Frames\n\nMade from messages.def by `make docs`; do not edit. README.md says who "
           "sends what when.\n");
#define RECORD(name, doc) \
    printf("\n## record %s\n%s\n\n| field | type | |\n| --- | --- | --- |\n", #name, doc);
#define MESSAGE(name, code, doc) \
    printf("\n## %d %s\n%s\n\n| field | type | |\n| --- | --- | --- |\n", code, #name, doc);
#define FIELD(type, name, doc) printf("| `%s` | %s | %s |\n", #name, #type, doc);
#define LIST(type, name, doc) printf("| `%s` | list of %s | %s |\n", #name, #type, doc);
#define ENUM(name, doc) \
    printf("\n## enum %s\n%s\n\n| value | | |\n| --- | --- | --- |\n", #name, doc);
#define VALUE(name, value, text) printf("| `%s` | %d | %s |\n", #name, value, text);
#include "proto/messages.def"
}

static void print_form(const struct form *f) {
    printf("\n## %s\n%s.%s\n\n| field | needed | |\n| --- | --- | --- |\n", f->name, f->help,
           f->params == FORM_NO_PARAMS ? "" : " Beside these: the sampling parameters.");
    for (size_t i = 0; i < f->n_fields; i++)
        printf("| `%s` | %s | %s |\n", f->fields[i].name, f->fields[i].is_needed ? "yes" : "",
               f->fields[i].help);
}

/* Once each, in the order of the routes. */
static void print_forms(void) {
    for (size_t i = 0; i < n_routes; i++) {
        const struct form *both[] = {routes[i].asks, routes[i].answers};
        for (size_t k = 0; k < 2; k++) {
            bool is_new = both[k] && both[k]->n_fields;
            for (size_t at = 0; at < i; at++)
                is_new &= routes[at].asks != both[k] && routes[at].answers != both[k];
            if (is_new) print_form(both[k]);
        }
    }
}

static void print_paths(void) {
    static const char *const keys[] = {"none", "API key", "admin key"};
    printf(
        "# Paths\n\nMade from router/routes.c and router/forms_*.c by `make docs`; do not edit. "
        "Keys are asked for when `--api-key` or\n`--admin-api-key` is given; the admin key opens "
        "all. With ranges and types: `openapi.json` beside this page, and `GET "
        "/openapi.json`.\n\n| path | what it is for | key | asks | answers |\n"
        "| --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; i < n_routes; i++)
        printf("| `%s %s` | %s | %s | %s | %s%s |\n", http1_method_name(routes[i].method),
               routes[i].path, routes[i].help, keys[routes[i].level],
               routes[i].asks ? routes[i].asks->name : "", routes[i].answers->name,
               routes[i].answers->stream ? ", or events" : "");
    print_forms();
}

/* One line for each path and schema, so that a change shows as one. */
static void print_lines(const struct by_json *j, int depth, struct by_buf *out) {
    if (depth == 3 || by_json_type(j) != BY_JSON_OBJECT) {
        by_json_print(j, out);
        return;
    }
    by_buf_addz(out, "{\n");
    for (const struct by_json *it = by_json_first(j); it; it = by_json_next(it)) {
        by_buf_addf(out, "%*s", depth + 1, "");
        by_buf_add_json_str(out, by_json_key(it));
        by_buf_addz(out, ": ");
        print_lines(it, depth + 1, out);
        by_buf_addz(out, by_json_next(it) ? ",\n" : "\n");
    }
    by_buf_addf(out, "%*s}", depth, "");
}

static void print_openapi(void) {
    static const struct by_json_limits lim = {.bytes_max = 1 << 20, .depth_max = 64};
    struct by_json *j = NULL;
    struct by_buf out, lines;
    by_buf_init(&out, 1 << 20);
    by_buf_init(&lines, 1 << 20);
    openapi_write(&out);
    if (out.is_full || by_json_parse(&j, by_buf_str(&out), &lim, NULL)) abort();
    print_lines(j, 0, &lines);
    puts(lines.p);
    by_json_free(j);
    by_buf_release(&lines);
    by_buf_release(&out);
}

int main(int argc, char **argv) {
    const char *what = argc == 2 ? argv[1] : "";
    if (strcmp(what, "options") == 0) {
        print_options();
    } else if (strcmp(what, "templates") == 0) {
        print_templates();
    } else if (strcmp(what, "metrics") == 0) {
        print_metrics();
    } else if (strcmp(what, "messages") == 0) {
        print_messages();
    } else if (strcmp(what, "paths") == 0) {
        print_paths();
    } else if (strcmp(what, "openapi") == 0) {
        print_openapi();
    } else {
        fprintf(stderr, "usage: print_tables options|templates|metrics|messages|paths|openapi\n");
        return 2;
    }
    return 0;
}
