/* pattern_parse.c - a pattern's text into nodes: Python's syntax, by recursive descent.
 *
 *     alternatives := sequence ('|' sequence)*      sequence := (atom repeat?)*      atom := char | class | group | assertion
 *
 * Lazy repeats (*?, +?) accept the same texts as greedy ones, and the end that comes first wins either way. */
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/pattern.h"

enum {
    DEPTH_MAX = 40,
    REPEAT_MAX = 1000,
    STEPS_MAX = 100 * 1000, /* of parsing: counted groups are parsed once a repetition */
    RANGES_MAX = 4096,
    END = 0xFFFFFFFFu,
};

/* A piece of automaton: in at `from`, out of the node `to`, whose `a` is not set yet. */
struct piece {
    uint16_t from, to;
    bool is_empty; /* it can match no character */
};

struct flags { /* of the group in hand */
    bool ignores_case, dot_all, multi_line, is_ascii, is_verbose;
};

struct parser {
    struct by_pattern_code *c;
    struct by_str text;
    size_t at;
    unsigned depth, steps;
    struct flags flags;
    struct by_err *err;
    int rc;
};

static struct piece parse_alternatives(struct parser *p);

static struct piece fail(struct parser *p, const char *what) {
    if (!p->rc)
        p->rc = by_fail(p->err, BY_EINVAL, "'" BY_STR_FMT "', at byte %zu: %s",
                        BY_STR_ARG(by_str_sub(p->text, 0, 100)), p->at, what);
    return (struct piece){0};
}

static struct piece fail_size(struct parser *p) {
    return fail(p, "the pattern is too large: its repetitions multiply to too many states");
}

static uint16_t add_node(struct parser *p, enum by_pattern_op op, uint8_t arg) {
    struct by_pattern_code *c = p->c;
    if (c->n_nodes == BY_PATTERN_NODES_MAX) {
        fail_size(p);
        return 0;
    }
    c->nodes[c->n_nodes] =
        (struct by_pattern_node){.op = op, .arg = arg, .a = BY_PATTERN_NONE, .b = BY_PATTERN_NONE};
    return (uint16_t)c->n_nodes++;
}

static uint16_t add_joint(struct parser *p) {
    return add_node(p, BY_PATTERN_SPLIT, 0);
}

static uint32_t peek(const struct parser *p, size_t *len) {
    *len = 0;
    if (p->at >= p->text.n) return END;
    return by_utf8_decode(p->text.p + p->at, p->text.n - p->at, len);
}

static uint32_t next(struct parser *p) {
    size_t len;
    uint32_t c = peek(p, &len);
    p->at += len;
    return c;
}

static bool take(struct parser *p, const char *what) {
    struct by_str rest = by_str_sub(p->text, p->at, p->text.n);
    if (!by_str_starts(rest, by_str_of(what))) return false;
    p->at += strlen(what);
    return true;
}

/* ---- sets of characters ---- */

static void add_range(struct parser *p, struct by_pattern_set *s, uint32_t low, uint32_t high) {
    struct by_pattern_code *c = p->c;
    if (c->n_ranges == RANGES_MAX) {
        fail(p, "too many ranges");
        return;
    }
    if (c->n_ranges == c->cap_ranges) {
        c->cap_ranges = BY_MAX(c->cap_ranges * 2, 32u);
        c->ranges = by_realloc_array(c->ranges, c->cap_ranges, sizeof *c->ranges);
    }
    c->ranges[c->n_ranges++] = (struct by_pattern_range){low, high};
    s->n++;
}

static struct by_pattern_set new_set(const struct parser *p) {
    return (struct by_pattern_set){.ignores_case = p->flags.ignores_case, .first = p->c->n_ranges};
}

static bool is_same_set(const struct by_pattern_code *c, const struct by_pattern_set *a,
                        const struct by_pattern_set *b) {
    return a->is_negated == b->is_negated && a->ignores_case == b->ignores_case &&
           a->has == b->has && a->has_not == b->has_not && a->n == b->n &&
           (a->n == 0 ||
            memcmp(c->ranges + a->first, c->ranges + b->first, a->n * sizeof *c->ranges) == 0);
}

/* The set's number; one that is there already is used again. */
static uint8_t keep_set(struct parser *p, const struct by_pattern_set *s) {
    struct by_pattern_code *c = p->c;
    for (uint32_t i = 0; i < c->n_sets; i++) {
        if (!is_same_set(c, &c->sets[i], s)) continue;
        c->n_ranges = s->first;
        return (uint8_t)i;
    }
    if (c->n_sets == BY_PATTERN_SETS_MAX) {
        fail(p, "the pattern is too large: it tells too many kinds of characters apart");
        return 0;
    }
    c->sets[c->n_sets] = *s;
    return (uint8_t)c->n_sets++;
}

static struct piece set_piece(struct parser *p, const struct by_pattern_set *s) {
    uint16_t node = add_node(p, BY_PATTERN_SET, keep_set(p, s)), end = add_joint(p);
    p->c->nodes[node].a = end;
    return (struct piece){node, end, false};
}

static struct piece char_piece(struct parser *p, uint32_t cp) {
    struct by_pattern_set s = new_set(p);
    add_range(p, &s, cp, cp);
    return set_piece(p, &s);
}

static uint32_t hex(struct parser *p, size_t n) {
    uint32_t value;
    if (!by_str_hex(p->text, p->at, n, &value)) {
        fail(p, "a broken escape");
        return 0;
    }
    p->at += n;
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) fail(p, "no such character");
    return value;
}

/* Behind a backslash: a class goes into s and gives false, a character into *cp. */
static bool escaped(struct parser *p, struct by_pattern_set *s, uint32_t *cp) {
    static const char letters[] = "wdsWDS", names[] = "ntrfva0", values[] = "\n\t\r\f\v\a";
    static const uint8_t classes[] = {BY_CLASS_WORD, BY_CLASS_DIGIT, BY_CLASS_SPACE};
    uint32_t c = next(p);
    bool is_ascii = c && c < 0x80;
    const char *class = is_ascii ? strchr(letters, (char)c) : NULL;
    const char *name = is_ascii ? strchr(names, (char)c) : NULL;
    if (class) {
        if (p->flags.is_ascii) { /* (?a): the same by ranges, which a negation must turn round */
            fail(p, "classes under (?a) are not supported: write [0-9], [a-zA-Z0-9_]");
            return false;
        }
        size_t i = (size_t)(class - letters);
        if (i < 3)
            s->has |= classes[i];
        else
            s->has_not |= classes[i - 3];
        return false;
    }
    *cp = name ? (uint32_t)values[name - names] : c; /* \0: the NUL behind the others */
    if (c == 'x' || c == 'u' || c == 'U') *cp = hex(p, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    if (name || c == 'x' || c == 'u' || c == 'U') return true;
    if (c == END) fail(p, "a backslash at the end");
    if (c >= '1' && c <= '9') fail(p, "a back reference, which an automaton cannot follow");
    if (c < 0x80 && ((c | 32) >= 'a' && (c | 32) <= 'z')) fail(p, "an unknown escape");
    return true;
}

static struct piece parse_class(struct parser *p) {
    struct by_pattern_set s = new_set(p);
    s.is_negated = take(p, "^");
    for (bool is_first = true; !p->rc; is_first = false) {
        uint32_t low = next(p), high;
        size_t len;
        bool is_char = true;
        if (low == END) return fail(p, "a class without its end");
        if (low == ']' && !is_first) break;
        if (low == '\\') {
            size_t at = p->at;
            if (take(p, "b")) {
                low = '\b';
            } else {
                p->at = at;
                is_char = escaped(p, &s, &low);
            }
        }
        high = low;
        size_t dash = p->at;
        if (is_char && take(p, "-")) {
            uint32_t c = peek(p, &len);
            if (c == ']' || c == END) {
                p->at = dash;
            } else {
                high = next(p);
                if (high == '\\' && !escaped(p, &s, &high)) return fail(p, "a bad range");
                if (high < low) return fail(p, "a range from high to low");
            }
        }
        if (is_char) add_range(p, &s, low, high);
    }
    return set_piece(p, &s);
}

/* ---- groups ---- */

/* Flags behind "(?", up to ')' or ':', of which the latter is left: they hold for this group. */
static bool parse_flags(struct parser *p) {
    bool on = true, any = false;
    for (;;) {
        uint32_t c = next(p);
        bool *flag = c == 'i'   ? &p->flags.ignores_case
                     : c == 's' ? &p->flags.dot_all
                     : c == 'm' ? &p->flags.multi_line
                     : c == 'x' ? &p->flags.is_verbose
                     : c == 'a' ? &p->flags.is_ascii
                                : NULL;
        any = any || c != ':';
        if (c == ')' || c == ':') {
            if (c == ':') p->at--;
            return c == ')' && any;
        }
        if (c == '-' && on)
            on = false;
        else if (flag)
            *flag = on;
        else if (c != 'u') {
            fail(p, "an unknown group or flag");
            return false;
        }
    }
}

static struct piece empty_piece(struct parser *p) {
    uint16_t node = add_joint(p);
    return (struct piece){node, node, true};
}

static struct piece parse_group(struct parser *p) {
    struct parser outer = *p;
    struct piece inside;
    if (take(p, "?")) {
        if (take(p, "P<")) {
            while (!p->rc && !take(p, ">"))
                if (next(p) == END) return fail(p, "a name without its end");
        } else if (take(p, "#")) {
            while (!p->rc && !take(p, ")"))
                if (next(p) == END) return fail(p, "a comment without its end");
            return empty_piece(p);
        } else if (take(p, "=") || take(p, "!") || take(p, "<")) {
            return fail(p, "look-around, which an automaton cannot do");
        } else if (take(p, ">") || take(p, "(") || take(p, "P")) {
            return fail(p, "an atomic or conditional group, or a back reference");
        } else if (parse_flags(p)) { /* (?i): for the rest of the pattern */
            if (outer.depth) return fail(p, "flags for all stand inside a group");
            return empty_piece(p);
        } else if (!p->rc && !take(p, ":")) {
            return fail(p, "an unknown group");
        }
    }
    if (++p->depth > DEPTH_MAX) return fail(p, "groups nested too deeply");
    inside = parse_alternatives(p);
    if (!p->rc && !take(p, ")")) return fail(p, "a group without its end");
    p->depth = outer.depth;
    p->flags = outer.flags;
    return inside;
}

static struct piece assertion(struct parser *p, enum by_pattern_assert kind) {
    uint16_t node = add_node(p, BY_PATTERN_ASSERT, (uint8_t)kind), end = add_joint(p);
    p->c->nodes[node].a = end;
    return (struct piece){node, end, true};
}

static struct piece parse_atom(struct parser *p) {
    struct by_pattern_set s = new_set(p);
    uint32_t c = next(p);
    if (++p->steps > STEPS_MAX) return fail_size(p);
    switch (c) {
    case '(':
        return parse_group(p);
    case '[':
        return parse_class(p);
    case '.':
        s.ignores_case = false;
        s.is_negated = true;
        if (!p->flags.dot_all) add_range(p, &s, '\n', '\n');
        return set_piece(p, &s);
    case '^':
        return assertion(p, p->flags.multi_line ? BY_AT_LINE_START : BY_AT_START);
    case '$':
        if (!p->flags.multi_line)
            return fail(p, "$ asks for the end of the text, which comes too late: write \\Z, or "
                           "(?m) for the end of a line");
        return assertion(p, BY_AT_LINE_END);
    case '*':
    case '+':
    case '?':
        return fail(p, "nothing to repeat");
    case '\\':
        if (take(p, "A")) return assertion(p, BY_AT_START);
        if (take(p, "Z")) return assertion(p, BY_AT_END);
        if (take(p, "b")) return assertion(p, BY_AT_WORD);
        if (take(p, "B")) return assertion(p, BY_AT_NO_WORD);
        if (!escaped(p, &s, &c)) return set_piece(p, &s);
        return char_piece(p, c);
    default:
        return char_piece(p, c);
    }
}

/* ---- repetitions ---- */

struct counts {
    uint32_t min, max; /* max: END without one */
};

/* "{2}", "{2,}", "{,5}", "{2,5}"; false and nothing taken when it is none of these: then { is a character. */
static bool take_counts(struct parser *p, struct counts *c) {
    size_t from = p->at;
    uint32_t n[2] = {0, 0};
    bool has[2] = {false, false}, has_comma = false;
    p->at++;
    for (;;) {
        uint32_t d = next(p);
        if (d >= '0' && d <= '9') {
            has[has_comma] = true;
            n[has_comma] = BY_MIN(n[has_comma] * 10 + (d - '0'), 100000u);
        } else if (d == ',' && !has_comma) {
            has_comma = true;
        } else if (d == '}' && (has[0] || has_comma)) {
            break;
        } else {
            p->at = from;
            return false;
        }
    }
    c->min = n[0];
    c->max = !has_comma ? n[0] : has[1] ? n[1] : END;
    return true;
}

static bool take_repeat(struct parser *p, struct counts *c) {
    size_t len;
    uint32_t sign = peek(p, &len);
    bool found = true;
    if (sign == '*')
        *c = (struct counts){0, END};
    else if (sign == '+')
        *c = (struct counts){1, END};
    else if (sign == '?')
        *c = (struct counts){0, 1};
    else
        found = sign == '{' && take_counts(p, c);
    if (!found) return false;
    if (sign != '{') p->at += len;
    if (!take(p, "?") && take(p, "+")) fail(p, "a possessive repeat");
    if (c->max != END && (c->max < c->min || c->max > REPEAT_MAX)) fail(p, "a bad repeat count");
    if (c->min > REPEAT_MAX) fail(p, "a bad repeat count");
    size_t again = p->at;
    uint32_t behind = peek(p, &len);
    struct counts other;
    bool is_double = behind == '*' || behind == '+' || behind == '?' ||
                     (behind == '{' && take_counts(p, &other));
    p->at = again;
    if (is_double) fail(p, "a repeat of a repeat: put it into a group");
    return true;
}

static void link(struct parser *p, uint16_t from, uint16_t to) {
    p->c->nodes[from].a = to;
}

/* `one` any number of times, or once at most. */
static struct piece optional(struct parser *p, struct piece one, bool is_loop) {
    uint16_t split = add_node(p, BY_PATTERN_SPLIT, 0), end = add_joint(p);
    p->c->nodes[split].a = one.from;
    p->c->nodes[split].b = end;
    link(p, one.to, is_loop ? split : end);
    return (struct piece){split, end, true};
}

static void append(struct parser *p, struct piece *whole, struct piece more) {
    link(p, whole->to, more.from);
    whole->to = more.to;
    whole->is_empty = whole->is_empty && more.is_empty;
}

/* The atom at `from` again and again, each time parsed anew. */
static struct piece repeat(struct parser *p, size_t from, const struct counts *c) {
    struct piece whole = empty_piece(p);
    size_t behind = p->at;
    uint32_t n = c->max == END ? c->min + 1 : c->max;
    for (uint32_t i = 0; i < n && !p->rc; i++) {
        p->at = from;
        struct piece one = parse_atom(p);
        if (p->rc) break;
        if (i >= c->min) one = optional(p, one, c->max == END);
        append(p, &whole, one);
    }
    p->at = behind;
    return whole;
}

static void skip_blanks(struct parser *p) {
    while (p->flags.is_verbose && p->at < p->text.n) {
        char c = p->text.p[p->at];
        if (c == '#') {
            while (p->at < p->text.n && p->text.p[p->at] != '\n')
                p->at++;
        } else if (c == ' ' || (c >= '\t' && c <= '\r')) {
            p->at++;
        } else {
            return;
        }
    }
}

static struct piece parse_sequence(struct parser *p) {
    struct piece whole = empty_piece(p);
    size_t len;
    for (;;) {
        skip_blanks(p);
        uint32_t c = peek(p, &len);
        if (p->rc || c == END || c == '|' || c == ')') return whole;
        size_t from = p->at;
        uint32_t n_nodes = p->c->n_nodes;
        struct piece one = parse_atom(p);
        struct counts counts;
        skip_blanks(p);
        if (!p->rc && take_repeat(p, &counts) && !p->rc) {
            p->c->n_nodes = n_nodes; /* once was to find its end */
            one = repeat(p, from, &counts);
        }
        if (p->rc) return whole;
        append(p, &whole, one);
    }
}

static struct piece parse_alternatives(struct parser *p) {
    struct piece whole = parse_sequence(p);
    while (!p->rc && take(p, "|")) {
        struct piece other = parse_sequence(p);
        uint16_t split = add_node(p, BY_PATTERN_SPLIT, 0), end = add_joint(p);
        if (p->rc) break;
        p->c->nodes[split].a = whole.from;
        p->c->nodes[split].b = other.from;
        link(p, whole.to, end);
        link(p, other.to, end);
        whole = (struct piece){split, end, whole.is_empty || other.is_empty};
    }
    return whole;
}

int by_pattern_parse(struct by_pattern_code *c, struct by_str text, struct by_err *err) {
    struct parser p = {.c = c, .text = text, .err = err};
    if (text.n > BY_PATTERN_BYTES_MAX)
        return by_fail(err, BY_ELIMIT, "a pattern of %zu bytes is over the limit of %d", text.n,
                       BY_PATTERN_BYTES_MAX);
    if (!by_utf8_valid(text.p ? text.p : "", text.n))
        return by_fail(err, BY_EINVAL, "the pattern is not UTF-8");
    struct piece whole = parse_alternatives(&p);
    if (!p.rc && p.at < text.n) fail(&p, "a ) without its (");
    if (!p.rc && whole.is_empty)
        fail(&p, "it matches no character at all, and would stop everything");
    if (!p.rc) {
        uint16_t end = add_node(&p, BY_PATTERN_MATCH, 0);
        link(&p, whole.to, end);
        c->start = whole.from;
    }
    return p.rc;
}
