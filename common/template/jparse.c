#include "common/template/jparse.h"

#include "common/base/utf8.h"
#include "common/template/jfunc.h"

#include <stdarg.h>
#include <stdio.h>

struct by_jnode *by_jparse_fail(struct by_jparse *p, int code, const char *fmt, ...) {
    if (p->rc) return NULL;
    char text[BY_ERR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    p->rc = by_fail(p->err, code, "chat template, line %u: %s", p->tok->line, text);
    return NULL;
}

struct by_jnode *by_jparse_node(struct by_jparse *p, enum by_jkind kind) {
    struct by_jnode *n = by_arena_get(&p->prog->arena, sizeof(*n));
    n->kind = (uint8_t)kind;
    n->line = p->tok->line;
    return n;
}

static void deepen(uint16_t *depth, const struct by_jnode *kid) {
    if (kid && kid->depth >= *depth) *depth = kid->depth + 1;
}

struct by_jnode *by_jparse_done(struct by_jparse *p, struct by_jnode *n) {
    if (p->rc) return NULL;
    n->depth = 1;
    deepen(&n->depth, n->a);
    deepen(&n->depth, n->b);
    deepen(&n->depth, n->c);
    for (uint32_t i = 0; i < n->kids.n; i++)
        deepen(&n->depth, n->kids.at[i]);
    for (uint32_t i = 0; i < n->orelse.n; i++)
        deepen(&n->depth, n->orelse.at[i]);
    for (uint32_t i = 0; i < n->params.n; i++)
        deepen(&n->depth, n->params.at[i].value);
    if (n->depth > BY_JAST_DEPTH_MAX)
        return by_jparse_fail(p, BY_ELIMIT, "nested more than %d deep", BY_JAST_DEPTH_MAX);
    return n;
}

struct by_jnode *by_jparse_unexpected(struct by_jparse *p) {
    static const char *const names[] = {
        [BY_JTOK_EOF] = "the end of the template",
        [BY_JTOK_DATA] = "text",
        [BY_JTOK_VAR_BEGIN] = "{{",
        [BY_JTOK_VAR_END] = "}}",
        [BY_JTOK_BLOCK_BEGIN] = "{%",
        [BY_JTOK_BLOCK_END] = "%}",
    };
    if (p->tok->type <= BY_JTOK_BLOCK_END)
        return by_jparse_fail(p, BY_EFORMAT, "unexpected %s", names[p->tok->type]);
    struct by_str shown = by_str_sub(p->tok->text, 0, 40);
    return by_jparse_fail(p, BY_EFORMAT, "unexpected '" BY_STR_FMT "'", BY_STR_ARG(shown));
}

struct by_jnode *by_jparse_two(struct by_jparse *p, enum by_jkind kind, struct by_jnode *a,
                               struct by_jnode *b) {
    if (!a || !b) return NULL;
    struct by_jnode *n = by_jparse_node(p, kind);
    n->line = a->line;
    n->a = a;
    n->b = b;
    return by_jparse_done(p, n);
}

struct by_jnode *by_jparse_one(struct by_jparse *p, enum by_jkind kind, struct by_jnode *a) {
    if (!a) return NULL;
    struct by_jnode *n = by_jparse_node(p, kind);
    n->line = a->line;
    n->a = a;
    return by_jparse_done(p, n);
}

struct by_jnode *by_jparse_constant(struct by_jparse *p, struct by_jval v) {
    struct by_jnode *n = by_jparse_node(p, BY_JK_CONST);
    n->val = v;
    return by_jparse_done(p, n);
}

bool by_jparse_is_text(const struct by_jnode *n) {
    return n->kind == BY_JK_CONST && n->val.type == BY_J_STR;
}

void by_jparse_kid(struct by_jparse *p, struct by_jnodes *kids, struct by_jnode *n) {
    if (!n) return; /* the failure is noted in p */
    if (kids->n == kids->cap) {
        uint32_t cap = kids->cap ? kids->cap * 2 : 4;
        struct by_jnode **at = by_arena_get_array(&p->prog->arena, cap, sizeof(struct by_jnode *));
        if (kids->n) memcpy(at, kids->at, kids->n * sizeof(struct by_jnode *));
        kids->at = at;
        kids->cap = cap;
    }
    kids->at[kids->n++] = n;
}

struct by_jnamed *by_jparse_named(struct by_jparse *p, struct by_jnameds *list) {
    if (list->n == list->cap) {
        uint32_t cap = list->cap ? list->cap * 2 : 4;
        struct by_jnamed *at = by_arena_get_array(&p->prog->arena, cap, sizeof(*at));
        if (list->n) memcpy(at, list->at, list->n * sizeof(*at));
        list->at = at;
        list->cap = cap;
    }
    return &list->at[list->n++];
}

uint32_t by_jparse_name(struct by_jparse *p, struct by_str name) {
    struct by_jprog *g = p->prog;
    uint64_t id;
    if (by_strmap_get(&g->names, name, &id)) return (uint32_t)id;
    if (g->n_names == g->names_cap) {
        uint32_t cap = g->names_cap ? g->names_cap * 2 : 64;
        struct by_str *at = by_arena_get_array(&g->arena, cap, sizeof(*at));
        if (g->n_names) memcpy(at, g->name_of, g->n_names * sizeof(*at));
        g->name_of = at;
        g->names_cap = cap;
    }
    g->name_of[g->n_names] = name;
    by_strmap_put(&g->names, name, g->n_names);
    return g->n_names++;
}

void by_jparse_next(struct by_jparse *p) {
    if (p->tok->type != BY_JTOK_EOF) p->tok++;
}

bool by_jparse_is_op(const struct by_jparse *p, const char *op) {
    return p->tok->type == BY_JTOK_OP && by_str_eqz(p->tok->text, op);
}

bool by_jparse_is_name(const struct by_jparse *p, const char *name) {
    return p->tok->type == BY_JTOK_NAME && by_str_eqz(p->tok->text, name);
}

bool by_jparse_take_op(struct by_jparse *p, const char *op) {
    if (!by_jparse_is_op(p, op)) return false;
    by_jparse_next(p);
    return true;
}

bool by_jparse_take_name(struct by_jparse *p, const char *name) {
    if (!by_jparse_is_name(p, name)) return false;
    by_jparse_next(p);
    return true;
}

void by_jparse_need_op(struct by_jparse *p, const char *op) {
    if (!by_jparse_take_op(p, op)) by_jparse_fail(p, BY_EFORMAT, "expected '%s'", op);
}

static void need_block_end(struct by_jparse *p) {
    if (p->tok->type != BY_JTOK_BLOCK_END) by_jparse_fail(p, BY_EFORMAT, "expected %%}");
    by_jparse_next(p);
}

static struct by_jnode *parse_statement(struct by_jparse *p);

/* Is the current {% one of the closing words? They are given as "endfor|else". */
static bool at_end_word(const struct by_jparse *p, const char *words) {
    if (p->tok->type != BY_JTOK_BLOCK_BEGIN || p->tok[1].type != BY_JTOK_NAME) return false;
    struct by_str rest = by_str_of(words), word;
    bool more = true;
    while (more) {
        more = by_str_split(&rest, '|', &word);
        if (by_str_eq(word, p->tok[1].text)) return true;
    }
    return false;
}

/* Text, {{ }} and {% %} until {% one of `ends` (stops behind that word); NULL: until the end of the template. */
static void parse_body(struct by_jparse *p, struct by_jnodes *kids, const char *ends) {
    uint32_t line = p->tok->line;
    if (++p->depth > BY_JAST_DEPTH_MAX) by_jparse_fail(p, BY_ELIMIT, "nested too deep");
    while (!p->rc) {
        if (ends && at_end_word(p, ends)) {
            by_jparse_next(p);
            by_jparse_next(p);
            break;
        }
        if (p->tok->type == BY_JTOK_EOF) {
            if (ends)
                by_jparse_fail(p, BY_EFORMAT, "the block of line %u is not closed: expected %s",
                               line, ends);
            break;
        }
        struct by_jnode *n = NULL;
        if (p->tok->type == BY_JTOK_DATA) {
            n = by_jparse_node(p, BY_JK_TEXT);
            n->val = by_jval_str(p->tok->text, false);
            by_jparse_next(p);
            n = by_jparse_done(p, n);
        } else if (p->tok->type == BY_JTOK_VAR_BEGIN) {
            by_jparse_next(p);
            n = by_jparse_node(p, BY_JK_OUTPUT);
            n->a = by_jparse_tuple(p, true);
            if (!p->rc && p->tok->type != BY_JTOK_VAR_END)
                by_jparse_fail(p, BY_EFORMAT, "expected }}");
            by_jparse_next(p);
            n = by_jparse_done(p, n);
        } else {
            by_jparse_next(p);
            n = parse_statement(p);
        }
        by_jparse_kid(p, kids, n);
    }
    p->depth--;
}

static struct by_jnode *parse_if(struct by_jparse *p) {
    struct by_jnode *n = by_jparse_node(p, BY_JK_IF);
    bool is_else = false;
    for (bool more = true; more && !p->rc;) {
        struct by_jnode *branch = by_jparse_node(p, BY_JK_BRANCH);
        if (!is_else) branch->a = by_jparse_tuple(p, false);
        need_block_end(p);
        parse_body(p, &branch->kids, is_else ? "endif" : "elif|else|endif");
        if (p->rc) break;
        const struct by_jtok *word = p->tok - 1;
        more = !by_str_eqz(word->text, "endif");
        is_else = by_str_eqz(word->text, "else");
        by_jparse_kid(p, &n->kids, by_jparse_done(p, branch));
    }
    need_block_end(p);
    return by_jparse_done(p, n);
}

static struct by_jnode *parse_for(struct by_jparse *p) {
    struct by_jnode *n = by_jparse_node(p, BY_JK_FOR);
    n->a = by_jparse_target(p, false);
    if (!p->rc && !by_jparse_take_name(p, "in")) by_jparse_fail(p, BY_EFORMAT, "expected 'in'");
    n->b = by_jparse_tuple(p, false);
    if (by_jparse_take_name(p, "if")) n->c = by_jparse_expr(p);
    if (by_jparse_is_name(p, "recursive"))
        return by_jparse_fail(p, BY_EUNSUPPORTED,
                              "'for … recursive' is not supported: use a macro");
    need_block_end(p);
    p->n_loops++;
    parse_body(p, &n->kids, "endfor|else");
    p->n_loops--;
    if (!p->rc && by_str_eqz(p->tok[-1].text, "else")) {
        need_block_end(p);
        parse_body(p, &n->orelse, "endfor");
    }
    need_block_end(p);
    return by_jparse_done(p, n);
}

static struct by_jnode *parse_set(struct by_jparse *p) {
    struct by_jnode *n = by_jparse_node(p, BY_JK_SET);
    n->a = by_jparse_target(p, true);
    if (by_jparse_take_op(p, "=")) {
        n->b = by_jparse_tuple(p, true);
        need_block_end(p);
        return by_jparse_done(p, n);
    }
    n->kind = BY_JK_SET_BLOCK;
    if (by_jparse_is_op(p, "|")) n->b = by_jparse_filters(p, NULL, false);
    need_block_end(p);
    parse_body(p, &n->kids, "endset");
    need_block_end(p);
    return by_jparse_done(p, n);
}

/* (a, b=1) into params. */
static void parse_params(struct by_jparse *p, struct by_jnode *n) {
    bool has_default = false;
    by_jparse_need_op(p, "(");
    while (!p->rc && !by_jparse_is_op(p, ")")) {
        if (n->params.n) by_jparse_need_op(p, ",");
        if (p->tok->type != BY_JTOK_NAME) {
            by_jparse_fail(p, BY_EFORMAT, "expected the name of a parameter");
            return;
        }
        struct by_jnamed *param = by_jparse_named(p, &n->params);
        param->name = by_jval_str(p->tok->text, false);
        param->id = by_jparse_name(p, p->tok->text);
        by_jparse_next(p);
        if (by_jparse_take_op(p, "=")) {
            has_default = true;
            param->value = by_jparse_expr(p);
        } else if (has_default) {
            by_jparse_fail(p, BY_EFORMAT,
                           "a parameter without a default stands behind one with a default");
        }
        if (n->params.n > BY_JAST_ARGS_MAX) by_jparse_fail(p, BY_ELIMIT, "too many parameters");
    }
    by_jparse_need_op(p, ")");
}

/* A body that is called: break and continue do not reach out of it. */
static void parse_macro_body(struct by_jparse *p, struct by_jnode *n, const char *end) {
    struct by_jnode *outer = p->macro;
    uint32_t n_loops = p->n_loops;
    p->macro = n;
    p->n_loops = 0;
    need_block_end(p);
    parse_body(p, &n->kids, end);
    need_block_end(p);
    p->macro = outer;
    p->n_loops = n_loops;
    if (outer) { /* a caller named inside belongs to the outer macro, too, as in Jinja's closures */
        outer->uses_caller |= n->uses_caller;
        outer->uses_varargs |= n->uses_varargs;
        outer->uses_kwargs |= n->uses_kwargs;
    }
}

static struct by_jnode *parse_macro(struct by_jparse *p) {
    struct by_jnode *n = by_jparse_node(p, BY_JK_MACRO);
    if (p->tok->type != BY_JTOK_NAME)
        return by_jparse_fail(p, BY_EFORMAT, "expected the macro's name");
    n->val = by_jval_str(p->tok->text, false);
    n->name = by_jparse_name(p, p->tok->text);
    by_jparse_next(p);
    parse_params(p, n);
    parse_macro_body(p, n, "endmacro");
    return by_jparse_done(p, n);
}

static struct by_jnode *parse_call_block(struct by_jparse *p) {
    struct by_jnode *n = by_jparse_node(p, BY_JK_CALL_BLOCK);
    n->val = by_jval_lit("caller");
    if (by_jparse_is_op(p, "(")) parse_params(p, n);
    n->a = by_jparse_expr(p);
    if (n->a && n->a->kind != BY_JK_CALL)
        return by_jparse_fail(p, BY_EFORMAT, "{%% call %%} needs a call");
    parse_macro_body(p, n, "endcall");
    return by_jparse_done(p, n);
}

static struct by_jnode *parse_filter_block(struct by_jparse *p) {
    struct by_jnode *n = by_jparse_node(p, BY_JK_FILTER_BLOCK);
    n->a = by_jparse_filters(p, NULL, true);
    need_block_end(p);
    parse_body(p, &n->kids, "endfilter");
    need_block_end(p);
    return by_jparse_done(p, n);
}

static struct by_jnode *parse_with(struct by_jparse *p) {
    struct by_jnode *n = by_jparse_node(p, BY_JK_WITH);
    while (!p->rc && p->tok->type != BY_JTOK_BLOCK_END) {
        if (n->params.n) by_jparse_need_op(p, ",");
        struct by_jnamed *set = by_jparse_named(p, &n->params);
        set->target = by_jparse_target(p, false);
        by_jparse_need_op(p, "=");
        set->value = by_jparse_expr(p);
    }
    need_block_end(p);
    parse_body(p, &n->kids, "endwith");
    need_block_end(p);
    return by_jparse_done(p, n);
}

static struct by_jnode *parse_generation(struct by_jparse *p) {
    struct by_jnode *n = by_jparse_node(p, BY_JK_SCOPE);
    p->prog->has_generation = true;
    need_block_end(p);
    uint32_t n_loops = p->n_loops;
    p->n_loops = 0; /* Jinja makes a function of the body, which break cannot leave */
    parse_body(p, &n->kids, "endgeneration");
    p->n_loops = n_loops;
    need_block_end(p);
    return by_jparse_done(p, n);
}

static struct by_jnode *parse_loop_control(struct by_jparse *p, enum by_jkind kind) {
    struct by_jnode *n = by_jparse_node(p, kind);
    if (p->n_loops == 0)
        return by_jparse_fail(p, BY_EFORMAT, "'%s' stands outside of a loop",
                              kind == BY_JK_BREAK ? "break" : "continue");
    need_block_end(p);
    return by_jparse_done(p, n);
}

static struct by_jnode *parse_break(struct by_jparse *p) {
    return parse_loop_control(p, BY_JK_BREAK);
}

static struct by_jnode *parse_continue(struct by_jparse *p) {
    return parse_loop_control(p, BY_JK_CONTINUE);
}

static struct by_jnode *parse_print(struct by_jparse *p) {
    struct by_jnode *n = by_jparse_node(p, BY_JK_OUTPUT);
    n->a = by_jparse_expr(p);
    if (!p->rc && by_jparse_is_op(p, ","))
        return by_jparse_fail(p, BY_EUNSUPPORTED,
                              "'print' of several values is not supported: use {{ }}");
    need_block_end(p);
    return by_jparse_done(p, n);
}

static const struct {
    const char *word;
    struct by_jnode *(*parse)(struct by_jparse *p); /* NULL: refused */
    const char *remedy;
} statements[] = {
    {"if", parse_if, NULL},
    {"for", parse_for, NULL},
    {"set", parse_set, NULL},
    {"macro", parse_macro, NULL},
    {"call", parse_call_block, NULL},
    {"filter", parse_filter_block, NULL},
    {"with", parse_with, NULL},
    {"generation", parse_generation, NULL},
    {"break", parse_break, NULL},
    {"continue", parse_continue, NULL},
    {"print", parse_print, NULL},
    {"include", NULL, "a chat template is one file; paste the other one in"},
    {"import", NULL, "a chat template is one file; paste the macros in"},
    {"from", NULL, "a chat template is one file; paste the macros in"},
    {"extends", NULL, "a chat template is one file"},
    {"block", NULL,
     "blocks are for inheritance, which a chat template has none of; remove the tag"},
    {"autoescape", NULL, "a prompt is not HTML; remove the tag"},
    {"do", NULL, "use {% set _ = … %}"},
    {"trans", NULL, "write the text"},
    {"debug", NULL, "remove the tag"},
};

/* Behind {%: one statement up to its last %}. */
static struct by_jnode *parse_statement(struct by_jparse *p) {
    if (p->tok->type != BY_JTOK_NAME)
        return by_jparse_fail(p, BY_EFORMAT, "expected the name of a tag");
    struct by_str word = p->tok->text;
    for (size_t i = 0; i < BY_COUNTOF(statements); i++) {
        if (!by_str_eqz(word, statements[i].word)) continue;
        if (!statements[i].parse)
            return by_jparse_fail(p, BY_EUNSUPPORTED, "the tag '%s' is not supported: %s",
                                  statements[i].word, statements[i].remedy);
        by_jparse_next(p);
        return statements[i].parse(p);
    }
    return by_jparse_fail(p, BY_EFORMAT, "unknown tag '" BY_STR_FMT "'",
                          BY_STR_ARG(by_str_sub(word, 0, 40)));
}

static void know_names(struct by_jprog *prog) {
    prog->loop_name = prog->n_names;
    prog->func_of = by_arena_get_array(&prog->arena, prog->n_names + 1, sizeof *prog->func_of);
    for (uint32_t i = 0; i < prog->n_names; i++) {
        prog->func_of[i] = by_jfunc_global(prog->name_of[i]);
        if (by_str_eqz(prog->name_of[i], "loop")) prog->loop_name = i;
    }
}

int by_jparse(struct by_jprog *prog, struct by_str source, struct by_err *err) {
    if (source.n > BY_JAST_SOURCE_MAX)
        return by_fail(err, BY_ELIMIT, "chat template: %zu bytes is more than the limit of %d",
                       source.n, BY_JAST_SOURCE_MAX);
    if (!by_utf8_valid(source.p, source.n))
        return by_fail(err, BY_EFORMAT, "chat template: it is not valid UTF-8");
    struct by_jlex_tokens tokens;
    int rc = by_jlex(&prog->arena, source, &tokens, err);
    if (rc) return rc;
    struct by_jparse p = {.prog = prog, .tok = tokens.at, .err = err};
    parse_body(&p, &prog->body, NULL);
    if (!p.rc) know_names(prog);
    return p.rc;
}
