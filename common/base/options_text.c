#include "common/base/options_text.h"

#include "common/base/options_row.h"

#include <stdio.h>

/* " [default: 30000]", " (error|warn|info|debug; default: info)". */
static void add_default(struct by_buf *out, const struct by_options_row *r) {
    if (r->kind == KIND_CHOICE) by_buf_addf(out, " (%s; default: %s)", r->words, r->deflt);
    if (r->kind == KIND_STR && r->deflt) by_buf_addf(out, " (default: %s)", r->deflt);
    if (r->kind == KIND_INT) by_buf_addf(out, " (default: %.0f)", r->num);
    if (r->kind == KIND_NUM) by_buf_addf(out, " (default: %g)", r->num);
}

/* text in a column of `width`, from column `indent` on; the cursor is at `at` now. */
static void add_wrapped(struct by_buf *out, struct by_str text, size_t at, size_t indent,
                        size_t width) {
    struct by_str word;
    bool more, is_first = true;
    do {
        more = by_str_split(&text, ' ', &word);
        if (is_first) {
            is_first = false;
        } else if (at + 1 + word.n > width) {
            by_buf_addf(out, "\n%*s", (int)indent, "");
            at = indent;
        } else {
            by_buf_addc(out, ' ');
            at++;
        }
        by_buf_add_str(out, word);
        at += word.n;
    } while (more);
    by_buf_addc(out, '\n');
}

enum { HELP_AT = 30, WIDTH = 80 };

static void add_option(struct by_buf *out, const struct by_options_row *r) {
    char flag[FLAG_MAX];
    by_options_row_flag(r->name, flag);
    size_t from = out->n;
    by_buf_addf(out, "  %s%s", flag,
                r->kind == KIND_FLAG     ? ""
                : r->kind == KIND_STR    ? " TEXT"
                : r->kind == KIND_CHOICE ? " WORD"
                                         : " N");
    size_t at = out->n - from;
    if (at < HELP_AT)
        by_buf_addf(out, "%*s", (int)(HELP_AT - at), "");
    else
        by_buf_addf(out, "\n%*s", HELP_AT, "");
    struct by_buf help;
    by_buf_init(&help, 4096);
    by_buf_addz(&help, r->help);
    add_default(&help, r);
    add_wrapped(out, by_buf_str(&help), HELP_AT, HELP_AT, WIDTH);
    by_buf_release(&help);
}

/* The options that the program reads, section by section; false: it reads none. */
static bool add_each(struct by_buf *out, uint32_t who, const char *before, const char *after,
                     void (*add)(struct by_buf *out, const struct by_options_row *r)) {
    const char *section = NULL;
    bool any = false;
    for (size_t i = 0; i < by_options_n_rows; i++) {
        const struct by_options_row *r = &by_options_rows[i];
        if (r->kind == KIND_SECTION) section = r->name;
        if (!by_options_row_is_value(r) || !by_options_row_is_read(r, who)) continue;
        if (section) by_buf_addf(out, "%s%s%s", before, section, after);
        section = NULL;
        add(out, r);
        any = true;
    }
    return any;
}

void by_options_text_help(struct by_buf *out, const struct by_options_program *prog) {
    enum { INDENT = 4 };
    by_buf_addf(out, "%s - ", prog->name);
    add_wrapped(out, by_str_of(prog->summary), out->n, INDENT, WIDTH);
    size_t from = out->n;
    by_buf_addf(out, "\nusage: %s ", prog->name);
    add_wrapped(out, by_str_of(prog->usage ? prog->usage : "[options]"), out->n - from - 1, INDENT,
                WIDTH);
    if (add_each(out, prog->who, "\n", "\n", add_option))
        by_buf_addz(out,
                    "\nEvery option can also be set as BANYAN_NAME in the environment, or as\n"
                    "name: value in the file that --config names. Flags win over the environment,\n"
                    "the environment over the file.");
    by_buf_addz(out,
                "\n  --help, --man, --version    print this, the manual page or the version\n");
}

/* ---- the manual page ---- */

/* roff takes a hyphen for a dash, and a dot or quote at a line's start for a request. */
static void add_roff(struct by_buf *out, const char *text) {
    for (const char *p = text; *p; p++) {
        if (p == text && (*p == '.' || *p == '\'')) by_buf_addz(out, "\\&");
        if (*p == '-' || *p == '\\') by_buf_addc(out, '\\');
        by_buf_addc(out, *p);
        if (*p == '|') by_buf_addz(out, "\\:"); /* a line may end in a list of words */
    }
}

static void add_man_option(struct by_buf *out, const struct by_options_row *r) {
    static const char *const what[] = {
        [KIND_STR] = "text", [KIND_CHOICE] = "word", [KIND_INT] = "n", [KIND_NUM] = "n"};
    char flag[FLAG_MAX];
    by_options_row_flag(r->name, flag);
    by_buf_addz(out, ".TP\n.B ");
    add_roff(out, flag);
    if (r->kind != KIND_FLAG) by_buf_addf(out, " \\fI%s\\fR", what[r->kind]);
    struct by_buf help;
    by_buf_init(&help, 4096);
    by_buf_addz(&help, r->help);
    add_default(&help, r);
    by_buf_addc(out, '\n');
    add_roff(out, help.p);
    by_buf_addc(out, '\n');
    by_buf_release(&help);
}

void by_options_text_man(struct by_buf *out, const struct by_options_program *prog) {
    char page[FLAG_MAX];
    snprintf(page, sizeof page, "%s", prog->name);
    for (char *p = page; *p; p++) {
        if (*p == ' ') *p = '-';
    }
    by_buf_addf(out, ".TH %s 1 \"\" \"Banyan %s\" Banyan\n.SH NAME\n", page, BANYAN_VERSION);
    add_roff(out, page);
    by_buf_addz(out, " \\- ");
    add_roff(out, prog->summary);
    by_buf_addf(out, "\n.SH SYNOPSIS\n.B %s\n", prog->name);
    add_roff(out, prog->usage ? prog->usage : "[options]");
    struct by_buf options;
    by_buf_init(&options, 1 << 20);
    if (add_each(&options, prog->who, ".SS ", "\n", add_man_option)) {
        by_buf_addz(out, "\n.SH OPTIONS\n");
        by_buf_add_str(out, by_buf_str(&options));
        by_buf_addz(out,
                    ".SH ENVIRONMENT AND FILES\nEvery option can also be set as BANYAN_NAME in the "
                    "environment, or as name: value in the file that\n.B \\-\\-config\nnames. "
                    "Flags win over the environment, the environment over the file.");
    }
    by_buf_addc(out, '\n');
    by_buf_release(&options);
}

/* ---- the page in deploy/docs ---- */

/* "router, scheduler": who reads it, as a cell. */
static void add_readers(struct by_buf *out, uint32_t who) {
    static const struct {
        uint32_t bit;
        const char *name;
    } readers[] = {
        {BY_FOR_SERVE, "serve"},
        {BY_FOR_ROUTER, "router"},
        {BY_FOR_TOKENIZER, "tokenizer worker"},
        {BY_FOR_SCHEDULER, "scheduler"},
        {BY_FOR_WORKER, "gpu worker"},
        {BY_FOR_DETOKENIZER, "detokenizer"},
        {BY_FOR_TOOL, "tokenize, chat-template, model"},
        {BY_FOR_INSPECT, "inspect"},
    };
    if ((who & BY_FOR_ALL) == BY_FOR_ALL) {
        by_buf_addz(out, "all");
        return;
    }
    const char *comma = "";
    for (size_t i = 0; i < BY_COUNTOF(readers); i++) {
        if (!(who & readers[i].bit)) continue;
        by_buf_addf(out, "%s%s", comma, readers[i].name);
        comma = ", ";
    }
}

static void add_doc_row(struct by_buf *out, const struct by_options_row *r) {
    char flag[FLAG_MAX];
    by_options_row_flag(r->name, flag);
    by_buf_addf(out, "| `%s` | ", flag);
    if (r->kind == KIND_ALIAS) {
        by_options_row_flag(r->help, flag);
        by_buf_addf(out, "the same as `%s`", flag);
    } else {
        size_t from = out->n;
        by_buf_addz(out, r->help);
        add_default(out, r);
        if (r->kind == KIND_INT || r->kind == KIND_NUM)
            by_buf_addf(out, " [%.15g to %.15g]", r->min, r->max);
        for (size_t k = from; k < out->n; k++) {
            if (out->p[k] == '|') out->p[k] = '/'; /* a bar would end the cell */
        }
    }
    by_buf_addz(out, " | ");
    add_readers(out, r->who);
    by_buf_addz(out, " |\n");
}

void by_options_text_doc(struct by_buf *out) {
    by_buf_addz(out,
                "# Options\n\nMade from common/base/options.def by `make docs`; do not edit. "
                "Each option can be given as a flag\n(`--model-path DIR`), in the environment "
                "(`BANYAN_MODEL_PATH`), or in the YAML file that `--config` names\n(`model_path`); "
                "flags win over the environment, the environment over the file. `banyan serve`\n"
                "passes its options on to the processes that read them. A variable that is empty "
                "counts as none, but for those\nof keys (`BANYAN_API_KEY` and its kin): left empty "
                "they are refused, as a server that anybody may use is seldom meant.\n");
    for (size_t i = 0; i < by_options_n_rows; i++) {
        const struct by_options_row *r = &by_options_rows[i];
        if (r->kind == KIND_SECTION) {
            by_buf_addf(out, "\n## %s\n| option | meaning | read by |\n| --- | --- | --- |\n",
                        r->name);
        } else {
            add_doc_row(out, r);
        }
    }
}
