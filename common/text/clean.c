#include "common/text/clean.h"

/* Each begins with a space, and has no other but perhaps its last character: so what fails to become one can only begin
 * anew with the character that it failed at. */
static const struct {
    const char *what, *with;
} stages[BY_CLEAN_STAGES] = {
    {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
    {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
};

static void run_stage(struct by_clean *c, unsigned k, struct by_str text, struct by_buf *out) {
    const char *what = stages[k].what;
    unsigned n = c->n_held[k];
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == what[n]) {
            n++;
            if (what[n]) continue;
            by_buf_addz(out, stages[k].with);
            n = 0;
            continue;
        }
        by_buf_add(out, what, n);
        n = text.p[i] == ' ';
        if (!n) by_buf_addc(out, text.p[i]);
    }
    c->n_held[k] = (uint8_t)n;
}

static void run_all(struct by_clean *c, struct by_str text, bool is_end, struct by_buf *out) {
    for (unsigned k = 0; k < BY_CLEAN_STAGES; k++) {
        struct by_buf *to = &c->between[k & 1];
        by_buf_clear(to);
        run_stage(c, k, text, to);
        if (is_end) {
            by_buf_add(to, stages[k].what, c->n_held[k]);
            c->n_held[k] = 0;
        }
        text = by_buf_str(to);
    }
    by_buf_add_str(out, text);
}

void by_clean_init(struct by_clean *c) {
    memset(c->n_held, 0, sizeof c->n_held);
    by_buf_init(&c->between[0], SIZE_MAX / 2);
    by_buf_init(&c->between[1], SIZE_MAX / 2);
}

void by_clean_release(struct by_clean *c) {
    by_buf_release(&c->between[0]);
    by_buf_release(&c->between[1]);
}

void by_clean_push(struct by_clean *c, struct by_str text, struct by_buf *out) {
    bool is_quiet = !text.n || !memchr(text.p, ' ', text.n);
    for (unsigned k = 0; k < BY_CLEAN_STAGES; k++)
        is_quiet &= c->n_held[k] == 0;
    if (is_quiet)
        by_buf_add_str(out, text);
    else
        run_all(c, text, false, out);
}

void by_clean_finish(struct by_clean *c, struct by_buf *out) {
    run_all(c, BY_STR(""), true, out);
}
