#include "common/text/regex.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum {
    STEPS_BASE = 200 * 1000, /* that a text may take, short as it is; a step is 10 to 40 ns */
    STEPS_A_BYTE = 64,       /* and for each of its bytes: known patterns take up to 27 */
    STEPS_MAX = 64 << 20,    /* and in all: about a second; prose takes 2 to 5 steps a byte */
    DEPTH_MAX = 100 * 1000,
    HEAP_KIB_MAX = 64 * 1024,
    NESTING_MAX = 16,  /* character classes in character classes */
    COUNT_MAX = 65535, /* of x{n}, as pcre2 has it */
    BLOCK = 4,         /* what a count is taken apart into: small, for what fails soon; and */
    LONG_BLOCK = 64,   /* of more than a thousand, as pcre2 lays each out by itself */
};

struct by_regex {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    int64_t steps, steps_max; /* of the text under way */
    size_t seen_to;           /* where the last callout of the search under way was */
    size_t reached;           /* how far any search has come in this text */
    struct by_buf runs; /* by place in the pattern: what x{n} there may look at without a callout */
};

/* ---- from Oniguruma to pcre2 ---- */

struct translator {
    struct by_str in;
    size_t i;
    struct by_buf *out;
    const char *trouble; /* what cannot be said in pcre2 */
    struct by_buf runs;  /* as by_regex has it */
};

#define SPACES \
    "\\t-\\r\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}" \
    "\\x{3000}"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORDS \
    WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" /* \w takes these six; [\w] and [:word:] do not */
#define BEHIND "(?<=[" WORDS "])"
#define NOT_BEHIND "(?<![" WORDS "])"
#define AHEAD "(?=[" WORDS "])"
#define NOT_AHEAD "(?![" WORDS "])"

static char peek(const struct translator *t, size_t ahead) {
    return t->i + ahead < t->in.n ? t->in.p[t->i + ahead] : '\0';
}

/* {…}, if it stands here. */
static void braces(struct translator *t) {
    if (peek(t, 0) != '{') return;
    do
        by_buf_addc(t->out, t->in.p[t->i]);
    while (t->in.p[t->i++] != '}' && t->i < t->in.n);
}

/* A backslash and what belongs to it. */
static void escape(struct translator *t, bool is_in_class) {
    char c = peek(t, 1);
    t->i += 2;
    switch (c) {
    case 's':
        by_buf_addz(t->out, is_in_class ? SPACES : "[" SPACES "]");
        return;
    case 'w':
        by_buf_addz(t->out, is_in_class ? WORD : "[" WORDS "]");
        return;
    case 'h':
        by_buf_addz(t->out, is_in_class ? "0-9A-Fa-f" : "[0-9A-Fa-f]");
        return;
    case 'S':
    case 'W':
    case 'H':
        if (is_in_class) /* pcre2's own is all but the same: U+180E apart */
            by_buf_addf(t->out, "\\%c", c);
        else
            by_buf_addf(t->out, "[^%s]", c == 'S' ? SPACES : c == 'W' ? WORDS : "0-9A-Fa-f");
        if (is_in_class && c != 'S')
            t->trouble = c == 'H' ? "\\H inside a class" : "\\W inside a class";
        return;
    case 'b':
    case 'B':
        if (is_in_class)
            by_buf_addf(t->out, "\\%c", c);
        else if (c == 'b')
            by_buf_addz(t->out, "(?:" BEHIND NOT_AHEAD "|" NOT_BEHIND AHEAD ")");
        else
            by_buf_addz(t->out, "(?:" BEHIND AHEAD "|" NOT_BEHIND NOT_AHEAD ")");
        return;
    case 'p':
    case 'P': /* without braces: the letter */
        if (peek(t, 0) == '{') by_buf_addc(t->out, '\\');
        by_buf_addc(t->out, c);
        braces(t);
        return;
    case 'X':
        t->trouble = "\\X";
        return;
    case 'u':
        by_buf_addz(t->out, "\\x{");
        for (int k = 0; k < 4; k++)
            by_buf_addc(t->out, t->i < t->in.n ? t->in.p[t->i++] : '?');
        by_buf_addc(t->out, '}');
        return;
    case '\0':
        t->trouble = "a backslash at the end";
        return;
    case 'x':
    case 'o':
        by_buf_addf(t->out, "\\%c", c);
        braces(t);
        return;
    default:
        by_buf_addc(t->out, '\\');
        by_buf_addc(t->out, c);
    }
}

/* [:name:], whose names mean other sets in pcre2. */
static void posix_class(struct translator *t) {
    static const char *const sets[][2] = {{"[:alpha:]", "\\p{Alphabetic}"},
                                          {"[:alnum:]", "\\p{Alphabetic}\\p{Nd}"},
                                          {"[:punct:]", "\\p{P}\\p{S}"},
                                          {"[:upper:]", "\\p{Uppercase}"},
                                          {"[:lower:]", "\\p{Lowercase}"},
                                          {"[:digit:]", "\\p{Nd}"},
                                          {"[:xdigit:]", "0-9A-Fa-f"},
                                          {"[:cntrl:]", "\\p{Cc}"},
                                          {"[:blank:]", "\\p{Zs}\\t"},
                                          {"[:space:]", SPACES},
                                          {"[:word:]", WORD}};
    struct by_str rest = by_str_sub(t->in, t->i, t->in.n);
    for (size_t i = 0; i < BY_COUNTOF(sets); i++) {
        if (!by_str_starts(rest, by_str_of(sets[i][0]))) continue;
        by_buf_addz(t->out, sets[i][1]);
        t->i += strlen(sets[i][0]);
        return;
    }
    t->trouble = "this [:class:]";
}

/* The inside of a class from behind its '[' (and '^') up to its ']', which is taken. Nested classes that are not
 * negated are flattened. False at "&&", which is left for the caller. */
static bool class_inside(struct translator *t, unsigned depth) {
    bool is_first = true;
    while (t->i < t->in.n && !t->trouble) {
        char c = peek(t, 0);
        if (c == ']' && !is_first) {
            t->i++;
            return true;
        }
        if (c == '&' && peek(t, 1) == '&') return false;
        if (c == '\\') {
            escape(t, true);
        } else if (c == '[' && peek(t, 1) == ':') {
            posix_class(t);
        } else if (c == '[') {
            t->i++;
            if (peek(t, 0) == '^') t->trouble = "a negated class inside a class";
            if (depth + 1 >= NESTING_MAX) t->trouble = "classes nested too deeply";
            if (!t->trouble && !class_inside(t, depth + 1)) t->trouble = "&& inside a nested class";
        } else {
            if (c == ']') by_buf_addc(t->out, '\\');
            by_buf_addc(t->out, c);
            t->i++;
        }
        is_first = false;
    }
    if (!t->trouble) t->trouble = "a class without its end";
    return true;
}

/* [A&&B&&C] ─▶ (?:(?=[A])(?=[B])[C]);  B may be written [^b] or [b]. */
static void char_class(struct translator *t) {
    struct by_buf parts;
    by_buf_init(&parts, BY_REGEX_BYTES_MAX * 8);
    struct by_buf *whole = t->out;
    bool is_negated = peek(t, 1) == '^';
    t->i += is_negated ? 2 : 1;
    bool has_and = false;
    for (;;) {
        struct by_buf one;
        by_buf_init(&one, BY_REGEX_BYTES_MAX * 4);
        t->out = &one;
        bool is_done;
        bool is_bracketed = has_and && peek(t, 0) == '[' && peek(t, 1) != ':';
        if (is_bracketed) {
            bool is_part_negated = peek(t, 1) == '^';
            t->i += is_part_negated ? 2 : 1;
            by_buf_addz(&one, is_part_negated ? "[^" : "[");
            if (!class_inside(t, 1)) t->trouble = "&& inside a nested class";
            is_done = peek(t, 0) == ']';
            if (is_done)
                t->i++;
            else if (!(peek(t, 0) == '&' && peek(t, 1) == '&'))
                t->trouble = "something between ] and && or ] in a class";
        } else {
            by_buf_addz(&one, "[");
            is_done = class_inside(t, 0);
        }
        if (!is_done) t->i += 2;
        bool is_only = is_done && !has_and;
        if (is_only && is_negated)
            by_buf_addf(&parts, "[^%.*s]", (int)one.n - 1, one.p + 1);
        else
            by_buf_addf(&parts, is_done ? "%.*s]" : "(?=%.*s])", (int)one.n, one.p);
        by_buf_release(&one);
        has_and |= !is_done;
        if (is_done || t->trouble) break;
    }
    t->out = whole;
    if (has_and && is_negated) t->trouble = "a negated class with &&";
    if (has_and) by_buf_addz(whole, "(?:");
    by_buf_add_str(whole, by_buf_str(&parts));
    if (has_and) by_buf_addc(whole, ')');
    by_buf_release(&parts);
}

/* (?imx-imx): m is what pcre2 calls s, that a dot is any character. */
static void group_options(struct translator *t) {
    by_buf_addz(t->out, "(?");
    for (t->i += 2; t->i < t->in.n && memchr("imx-", t->in.p[t->i], 4); t->i++)
        by_buf_addc(t->out, t->in.p[t->i] == 'm' ? 's' : t->in.p[t->i]);
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* x{n}, x{n,} or x{n,m}; how far pcre2 may look at x before the next step is counted is noted for its place. */
static void put_counted(struct translator *t, struct by_str x, size_t n, struct by_str more) {
    while (t->runs.n < t->out->n)
        by_buf_addc(&t->runs, 0);
    by_buf_addc(&t->runs, (char)n);
    by_buf_add_str(t->out, x);
    by_buf_addf(t->out, "{%zu", n);
    by_buf_add_str(t->out, more);
    by_buf_addc(t->out, '}');
}

/* What {n}, {n,} or {n,m} says of x, which stands from `atom` on in the output. A long one goes in blocks, (?:x{4}){32}x{0,},
 * between which steps are counted. A + or ? behind repeats what is before it, (?:x{n})+, where pcre2 means possession and
 * laziness (the latter here, too, with a comma). */
static void interval(struct translator *t, size_t atom) {
    uint64_t n = 0, m = 0;
    struct by_str rest = by_str_sub(t->in, t->i + 1, SIZE_MAX), count, low;
    bool has_end = by_str_split(&rest, '}', &count);
    t->i = t->in.n - rest.n;
    struct by_str high = count;
    bool has_comma = by_str_split(&high, ',', &low);
    bool is_repeated = peek(t, 0) == '+' || (peek(t, 0) == '?' && !has_comma);
    if (!has_end || !by_str_to_u64(low, &n) || n > COUNT_MAX ||
        (has_comma && high.n && (!by_str_to_u64(high, &m) || m < n))) {
        t->trouble = "this {n}";
    } else if (atom == SIZE_MAX) { /* a group: its items are counted one by one */
        if (is_repeated) t->trouble = "{n}+ or {n}? behind a group";
        by_buf_addf(t->out, "{%.*s}", (int)count.n, count.p);
    } else {
        struct by_buf more;
        by_buf_init(&more, 32);
        struct by_str x = {.n = t->out->n - atom};
        char *copy = by_strndup(t->out->p + atom, x.n);
        x.p = copy;
        t->out->n = atom;
        size_t block = n > 1024 ? LONG_BLOCK : BLOCK, blocks = n > block ? n / block : 0;
        if (has_comma) by_buf_addc(&more, ',');
        if (has_comma && high.n) by_buf_add_u64(&more, m - blocks * block);
        if (is_repeated) by_buf_addz(t->out, "(?:");
        if (blocks) {
            by_buf_addz(t->out, "(?:");
            put_counted(t, x, block, BY_STR(""));
            by_buf_addf(t->out, "){%zu}", blocks);
        }
        put_counted(t, x, n - blocks * block, by_buf_str(&more));
        if (is_repeated) by_buf_addc(t->out, ')');
        by_free(copy);
        by_buf_release(&more);
    }
}

static int translate(struct by_str in, struct by_buf *out, struct by_buf *runs,
                     struct by_err *err) {
    struct translator t = {.in = in, .out = out};
    by_buf_init(&t.runs, BY_REGEX_BYTES_MAX * 8 + 1);
    size_t atom = SIZE_MAX;
    while (t.i < in.n && !t.trouble) {
        char c = peek(&t, 0);
        size_t at = out->n;
        if (c == '\\')
            escape(&t, false);
        else if (c == '[')
            char_class(&t);
        else if (c == '(' && peek(&t, 1) == '?')
            group_options(&t);
        else if (c == '{' && is_digit(peek(&t, 1)))
            interval(&t, atom);
        else
            by_buf_addc(out, in.p[t.i++]);
        bool is_inside = ((unsigned char)c & 0xC0) == 0x80; /* of a character of several bytes */
        if (!is_inside) atom = c == ')' ? SIZE_MAX : at;
    }
    while (!t.trouble && t.runs.n <= out->n)
        by_buf_addc(&t.runs, 0);
    *runs = t.runs; /* given to the caller */
    if (t.trouble)
        return by_fail(err, BY_EUNSUPPORTED, "regular expression %.*s: %s is not supported",
                       (int)BY_MIN(in.n, (size_t)200), in.p, t.trouble);
    if (out->is_full || runs->is_full)
        return by_fail(err, BY_ELIMIT, "regular expression too long");
    return 0;
}

/* ---- */

/* What the searches may take grows with what they have come to see, not with what lies behind. */
static void reach(struct by_regex *r, size_t at) {
    if (at <= r->reached) return;
    r->steps_max += (int64_t)(at - r->reached) * STEPS_A_BYTE;
    r->steps_max = BY_MIN(r->steps_max, (int64_t)STEPS_MAX);
    r->reached = at;
}

/* Before each item of the pattern, wherever the search tries it. What lies between two of these was looked at. */
static int count_steps(pcre2_callout_block *at, void *ctx) {
    struct by_regex *r = ctx;
    size_t moved = at->current_position > r->seen_to ? at->current_position - r->seen_to : 0;
    r->seen_to = at->current_position;
    reach(r, at->current_position);
    r->steps += (int64_t)(1 + moved + (unsigned char)r->runs.p[at->pattern_position]);
    return r->steps > r->steps_max ? PCRE2_ERROR_MATCHLIMIT : 0;
}

int by_regex_new(struct by_regex **out, struct by_str pattern, struct by_err *err) {
    if (pattern.n > BY_REGEX_BYTES_MAX)
        return by_fail(err, BY_ELIMIT, "regular expression of %zu bytes: at most %d", pattern.n,
                       BY_REGEX_BYTES_MAX);
    struct by_regex *r = by_alloc(sizeof *r);
    struct by_buf text;
    by_buf_init(&text, BY_REGEX_BYTES_MAX * 8);
    int rc = translate(pattern, &text, &r->runs, err);
    if (rc) goto done;
    int number;
    PCRE2_SIZE offset;
    r->code = pcre2_compile((PCRE2_SPTR)(text.p ? text.p : ""), text.n,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_AUTO_CALLOUT |
                                PCRE2_NEVER_BACKSLASH_C,
                            &number, &offset, NULL);
    if (!r->code) {
        char why[128];
        pcre2_get_error_message(number, (PCRE2_UCHAR *)why, sizeof why);
        rc = by_fail(err, BY_EFORMAT, "regular expression %.*s: %s",
                     (int)BY_MIN(pattern.n, (size_t)200), pattern.p, why);
        goto done;
    }
    r->match = pcre2_match_data_create_from_pattern(r->code, NULL);
    r->limits = pcre2_match_context_create(NULL);
    if (!r->match || !r->limits) {
        rc = by_fail(err, BY_ENOMEM, "no memory for a regular expression");
        goto done;
    }
    pcre2_set_match_limit(r->limits, UINT32_MAX); /* of each start by itself: no bound */
    pcre2_set_depth_limit(r->limits, DEPTH_MAX);
    pcre2_set_heap_limit(r->limits, HEAP_KIB_MAX);
    pcre2_set_callout(r->limits, count_steps, r);
    by_regex_begin(r);
    *out = r;
    r = NULL;
done:
    by_buf_release(&text);
    by_regex_free(r);
    return rc;
}

void by_regex_free(struct by_regex *r) {
    if (!r) return;
    pcre2_match_context_free(r->limits);
    pcre2_match_data_free(r->match);
    pcre2_code_free(r->code);
    by_buf_release(&r->runs);
    by_free(r);
}

void by_regex_begin(struct by_regex *r) {
    r->steps = 0;
    r->steps_max = STEPS_BASE;
    r->reached = 0;
}

void by_regex_next_part(struct by_regex *r) {
    r->reached = 0;
}

uint64_t by_regex_steps(const struct by_regex *r) {
    return (uint64_t)r->steps;
}

int by_regex_find(struct by_regex *r, struct by_str s, size_t from, size_t *start, size_t *end,
                  struct by_err *err) {
    r->seen_to = from;
    reach(r, from);
    int n = pcre2_match(r->code, (PCRE2_SPTR)(s.p ? s.p : ""), s.n, from, PCRE2_NO_UTF_CHECK,
                        r->match, r->limits);
    if (n == PCRE2_ERROR_NOMATCH) return 0;
    if (n < 0) {
        char why[128];
        pcre2_get_error_message(n, (PCRE2_UCHAR *)why, sizeof why);
        return by_fail(
            err, BY_ELIMIT,
            "the tokenizer's regular expression gave up on this text (%s); send a shorter text, or "
            "mend the pattern in tokenizer.json",
            why);
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(r->match);
    *start = at[0];
    *end = BY_MAX(at[1], at[0]); /* \K may put the start behind the end */
    return 1;
}

int by_regex_replace(struct by_regex *r, struct by_str text, struct by_str with, struct by_buf *out,
                     struct by_err *err) {
    size_t done = 0, at = 0, start, end, last_end = SIZE_MAX;
    by_regex_next_part(r);
    while (at <= text.n) {
        int rc = by_regex_find(r, text, at, &start, &end, err);
        if (rc < 0) return rc;
        if (rc == 0) break;
        size_t len = 1;
        if (end < text.n) by_utf8_decode(text.p + end, text.n - end, &len);
        at = end > start ? end : end + len;
        if (end == start && end == last_end) continue; /* an empty match right behind one is none */
        by_buf_add(out, text.p + done, start - done);
        by_buf_add_str(out, with);
        done = last_end = end;
    }
    by_buf_add(out, text.p + done, text.n - done);
    return 0;
}
