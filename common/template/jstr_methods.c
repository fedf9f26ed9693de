/* jstr_methods.c - what a template may call on a text, by name. */
#include "common/base/utf8.h"
#include "common/template/jchar.h"
#include "common/template/jops.h"
#include "common/template/jstr.h"

enum { V = BY_JFUNC_PARAMS_MAX };

static int64_t int_or(struct by_jrun *r, const struct by_jval *v, int64_t otherwise) {
    if (v->type == BY_J_ABSENT || v->type == BY_J_NONE) return otherwise;
    if (v->type == BY_J_INT) return v->i;
    if (v->type == BY_J_BOOL) return v->b;
    by_jrun_fail(r, BY_EINVAL, "'%s' object cannot be interpreted as an integer",
                 by_jval_type_name(v));
    return otherwise;
}

static struct by_jval str_strip(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    return by_jstr_strip(r, self, &v[0], 3);
}
static struct by_jval str_lstrip(struct by_jrun *r, struct by_jval self,
                                 const struct by_jval v[V]) {
    return by_jstr_strip(r, self, &v[0], 1);
}
static struct by_jval str_rstrip(struct by_jrun *r, struct by_jval self,
                                 const struct by_jval v[V]) {
    return by_jstr_strip(r, self, &v[0], 2);
}

static struct by_jval str_replace(struct by_jrun *r, struct by_jval self,
                                  const struct by_jval v[V]) {
    if (!by_jstr_need(r, &v[0], "replace") || !by_jstr_need(r, &v[1], "replace"))
        return (struct by_jval){0};
    return by_jstr_replace(r, self, v[0], v[1], int_or(r, &v[2], -1));
}

static struct by_jval str_upper(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    (void)v;
    return by_jstr_case(r, self, BY_JSTR_UPPER);
}
static struct by_jval str_lower(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    (void)v;
    return by_jstr_case(r, self, BY_JSTR_LOWER);
}
static struct by_jval str_title(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    (void)v;
    return by_jstr_case(r, self, BY_JSTR_TITLE);
}
static struct by_jval str_capitalize(struct by_jrun *r, struct by_jval self,
                                     const struct by_jval v[V]) {
    (void)v;
    return by_jstr_case(r, self, BY_JSTR_CAPITALIZE);
}
static struct by_jval str_swapcase(struct by_jrun *r, struct by_jval self,
                                   const struct by_jval v[V]) {
    (void)v;
    return by_jstr_case(r, self, BY_JSTR_SWAP);
}

/* Words between blanks; at most `max` cuts, the rest stays whole, blanks at its end too. */
static struct by_jval split_blanks(struct by_jrun *r, struct by_jval self, int64_t max,
                                   struct by_jval out) {
    struct by_str s = by_jval_bytes(&self);
    for (size_t at = by_jchar_skip_space(s, 0); at < s.n && !r->code;) {
        by_jrun_charge(r, 1);
        size_t end = at, len = 0;
        if (max-- <= 0) {
            by_jval_push(r, out.list, by_jval_cut(self, at, s.n));
            break;
        }
        for (; end < s.n; end += len)
            if (by_jchar_is_space(by_utf8_decode(s.p + end, s.n - end, &len))) break;
        by_jval_push(r, out.list, by_jval_cut(self, at, end));
        at = by_jchar_skip_space(s, end);
    }
    return out;
}

static struct by_jval str_split(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    int64_t max = int_or(r, &v[1], -1);
    if (max < 0) max = INT64_MAX;
    struct by_jval out = by_jval_list(r, BY_J_LIST, 0);
    by_jrun_charge(r, 1 + self.n / 64);
    if (r->code) return out;
    if (v[0].type == BY_J_ABSENT || v[0].type == BY_J_NONE) return split_blanks(r, self, max, out);
    if (!by_jstr_need(r, &v[0], "split")) return out;
    if (v[0].n == 0) return by_jrun_fail(r, BY_EINVAL, "empty separator");
    struct by_str s = by_jval_bytes(&self), sep = by_jval_bytes(&v[0]);
    size_t from = 0, at;
    while (max-- > 0 && !r->code) {
        at = by_str_find(s, sep, from);
        if (at == SIZE_MAX) break;
        by_jrun_charge(r, 1);
        by_jval_push(r, out.list, by_jval_cut(self, from, at));
        from = at + sep.n;
    }
    if (!r->code) by_jval_push(r, out.list, by_jval_cut(self, from, s.n));
    return out;
}

/* Last position of needle that ends at or before `to`; SIZE_MAX when there is none. Charged by the bytes it looks at: a
 * text of one letter makes each place look like a beginning. */
static size_t find_last(struct by_jrun *r, struct by_str s, struct by_str needle, size_t to) {
    size_t looked = 0;
    for (size_t at = to >= needle.n ? to - needle.n + 1 : 0; at-- > 0 && !r->code;) {
        size_t n = 0;
        while (n < needle.n && s.p[at + n] == needle.p[n])
            n++;
        if (n == needle.n) return at;
        looked += n;
        if (looked < 4096) continue;
        by_jrun_charge_bytes(r, looked);
        looked = 0;
    }
    return SIZE_MAX;
}

static struct by_jval str_rsplit(struct by_jrun *r, struct by_jval self,
                                 const struct by_jval v[V]) {
    int64_t max = int_or(r, &v[1], -1);
    bool at_blanks = v[0].type == BY_J_ABSENT || v[0].type == BY_J_NONE;
    if (at_blanks && max < 0) return str_split(r, self, v);
    if (max < 0) max = INT64_MAX;
    if (!at_blanks && !by_jstr_need(r, &v[0], "rsplit")) return (struct by_jval){0};
    if (at_blanks)
        return by_jrun_fail(r, BY_EUNSUPPORTED,
                            "rsplit at blanks with a count is not supported: name a separator");
    if (v[0].n == 0) return by_jrun_fail(r, BY_EINVAL, "empty separator");
    struct by_jval back = by_jval_list(r, BY_J_LIST, 0), out = by_jval_list(r, BY_J_LIST, 0);
    struct by_str s = by_jval_bytes(&self), sep = by_jval_bytes(&v[0]);
    size_t to = s.n, at;
    by_jrun_charge(r, 1 + self.n / 8);
    while (max-- > 0 && !r->code) {
        at = find_last(r, s, sep, to);
        if (at == SIZE_MAX) break;
        by_jrun_charge(r, 1);
        by_jval_push(r, back.list, by_jval_cut(self, at + sep.n, to));
        to = at;
    }
    if (r->code) return out;
    by_jval_push(r, out.list, by_jval_cut(self, 0, to));
    for (uint32_t i = back.list->n; i-- > 0 && !r->code;)
        by_jval_push(r, out.list, back.list->at[i]);
    return out;
}

static struct by_jval str_splitlines(struct by_jrun *r, struct by_jval self,
                                     const struct by_jval v[V]) {
    bool keeps = by_jops_truth(&v[0]);
    struct by_jval out = by_jval_list(r, BY_J_LIST, 0);
    size_t from = 0, len;
    by_jrun_charge(r, 1 + self.n / 16);
    for (size_t i = 0; i < self.n && !r->code; i += len) {
        uint32_t cp = by_utf8_decode(self.s + i, self.n - i, &len);
        if (!by_jchar_is_line_end(cp)) continue;
        size_t end = i;
        if (cp == '\r' && i + 1 < self.n && self.s[i + 1] == '\n') len++;
        by_jval_push(r, out.list, by_jval_cut(self, from, keeps ? i + len : end));
        from = i + len;
    }
    if (from < self.n && !r->code) by_jval_push(r, out.list, by_jval_cut(self, from, self.n));
    return out;
}

/* startswith/endswith: one str or a tuple of them. */
static struct by_jval test_end(struct by_jrun *r, struct by_jval self, const struct by_jval *what,
                               bool (*test)(struct by_str, struct by_str), const char *who) {
    if (what->type == BY_J_STR) by_jrun_charge_bytes(r, what->n);
    if (what->type != BY_J_TUPLE) {
        if (!by_jstr_need(r, what, who)) return (struct by_jval){0};
        return by_jval_bool(test(by_jval_bytes(&self), by_jval_bytes(what)));
    }
    for (uint32_t i = 0; i < what->list->n && !r->code; i++) {
        const struct by_jval *one = &what->list->at[i];
        by_jrun_charge(r, 1 + (one->type == BY_J_STR ? one->n / 64 : 0));
        if (by_jstr_need(r, one, who) && test(by_jval_bytes(&self), by_jval_bytes(one)))
            return by_jval_bool(true);
    }
    return by_jval_bool(false);
}

static struct by_jval str_startswith(struct by_jrun *r, struct by_jval self,
                                     const struct by_jval v[V]) {
    return test_end(r, self, &v[0], by_str_starts, "startswith");
}
static struct by_jval str_endswith(struct by_jrun *r, struct by_jval self,
                                   const struct by_jval v[V]) {
    return test_end(r, self, &v[0], by_str_ends, "endswith");
}

static struct by_jval str_removeprefix(struct by_jrun *r, struct by_jval self,
                                       const struct by_jval v[V]) {
    if (!by_jstr_need(r, &v[0], "removeprefix")) return (struct by_jval){0};
    by_jrun_charge_bytes(r, v[0].n);
    return by_str_starts(by_jval_bytes(&self), by_jval_bytes(&v[0]))
               ? by_jval_cut(self, v[0].n, self.n)
               : self;
}
static struct by_jval str_removesuffix(struct by_jrun *r, struct by_jval self,
                                       const struct by_jval v[V]) {
    if (!by_jstr_need(r, &v[0], "removesuffix")) return (struct by_jval){0};
    by_jrun_charge_bytes(r, v[0].n);
    return by_str_ends(by_jval_bytes(&self), by_jval_bytes(&v[0]))
               ? by_jval_cut(self, 0, self.n - v[0].n)
               : self;
}

static int64_t find_char(struct by_jrun *r, struct by_jval self, const struct by_jval *what,
                         bool is_last) {
    if (!by_jstr_need(r, what, "find")) return -1;
    by_jrun_charge(r, 1 + self.n / 64);
    struct by_str s = by_jval_bytes(&self), needle = by_jval_bytes(what);
    size_t at = is_last ? find_last(r, s, needle, s.n) : by_str_find(s, needle, 0);
    return at == SIZE_MAX ? -1 : (int64_t)by_jchar_count((struct by_str){s.p, at});
}

static struct by_jval str_find(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    return by_jval_int(find_char(r, self, &v[0], false));
}
static struct by_jval str_rfind(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    return by_jval_int(find_char(r, self, &v[0], true));
}
static struct by_jval str_index(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    int64_t at = find_char(r, self, &v[0], false);
    return at < 0 ? by_jrun_fail(r, BY_EINVAL, "substring not found") : by_jval_int(at);
}

static struct by_jval str_count(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    if (!by_jstr_need(r, &v[0], "count")) return (struct by_jval){0};
    struct by_str s = by_jval_bytes(&self), needle = by_jval_bytes(&v[0]);
    by_jrun_charge(r, 1 + s.n / 8);
    if (needle.n == 0) return by_jval_int((int64_t)by_jchar_count(s) + 1);
    int64_t n = 0;
    for (size_t at = 0; (at = by_str_find(s, needle, at)) != SIZE_MAX; at += needle.n)
        n++;
    return by_jval_int(n);
}

static struct by_jval str_join(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    const struct by_jlist *l = by_jops_iterate(r, &v[0]);
    struct by_jbuild *b = by_jrun_build(r);
    for (uint32_t i = 0; l && i < l->n && !r->code; i++) {
        if (i) by_jbuild_add(b, self);
        if (by_jstr_need(r, &l->at[i], "join")) by_jbuild_add(b, l->at[i]);
        by_jrun_charge(r, 1);
    }
    return by_jrun_built(r, b);
}

static struct by_jval partition(struct by_jrun *r, struct by_jval self, const struct by_jval *sep,
                                bool is_last) {
    if (!by_jstr_need(r, sep, "partition")) return (struct by_jval){0};
    if (sep->n == 0) return by_jrun_fail(r, BY_EINVAL, "empty separator");
    struct by_str s = by_jval_bytes(&self), needle = by_jval_bytes(sep);
    by_jrun_charge_bytes(r, s.n);
    size_t at = is_last ? find_last(r, s, needle, s.n) : by_str_find(s, needle, 0);
    struct by_jval out = by_jval_list(r, BY_J_TUPLE, 3), empty = by_jval_lit("");
    if (r->code) return out;
    bool is_found = at != SIZE_MAX;
    by_jval_push(r, out.list, is_found ? by_jval_cut(self, 0, at) : is_last ? empty : self);
    by_jval_push(r, out.list, is_found ? *sep : empty);
    by_jval_push(r, out.list,
                 is_found  ? by_jval_cut(self, at + sep->n, s.n)
                 : is_last ? self
                           : empty);
    return out;
}
static struct by_jval str_partition(struct by_jrun *r, struct by_jval self,
                                    const struct by_jval v[V]) {
    return partition(r, self, &v[0], false);
}
static struct by_jval str_rpartition(struct by_jrun *r, struct by_jval self,
                                     const struct by_jval v[V]) {
    return partition(r, self, &v[0], true);
}

static bool is_all(struct by_jval str, bool (*is)(uint32_t cp)) {
    for (size_t i = 0, len; i < str.n; i += len)
        if (!is(by_utf8_decode(str.s + i, str.n - i, &len))) return false;
    return str.n > 0;
}

static struct by_jval str_isdigit(struct by_jrun *r, struct by_jval self,
                                  const struct by_jval v[V]) {
    (void)v;
    by_jrun_charge(r, self.n / 16);
    return by_jval_bool(is_all(self, by_jchar_is_digit));
}
static struct by_jval str_isalpha(struct by_jrun *r, struct by_jval self,
                                  const struct by_jval v[V]) {
    (void)v;
    by_jrun_charge(r, self.n / 16);
    return by_jval_bool(is_all(self, by_jchar_is_alpha));
}
static struct by_jval str_isalnum(struct by_jrun *r, struct by_jval self,
                                  const struct by_jval v[V]) {
    (void)v;
    by_jrun_charge(r, self.n / 16);
    return by_jval_bool(is_all(self, by_jchar_is_alnum));
}
static struct by_jval str_isspace(struct by_jrun *r, struct by_jval self,
                                  const struct by_jval v[V]) {
    (void)v;
    by_jrun_charge(r, self.n / 16);
    return by_jval_bool(is_all(self, by_jchar_is_space));
}

/* Has cased characters, and none of the other case. */
static bool is_case(struct by_jval str, bool (*wanted)(uint32_t), bool (*other)(uint32_t)) {
    bool found = false;
    for (size_t i = 0, len; i < str.n; i += len) {
        uint32_t cp = by_utf8_decode(str.s + i, str.n - i, &len);
        if (other(cp)) return false;
        found |= wanted(cp);
    }
    return found;
}
static struct by_jval str_isupper(struct by_jrun *r, struct by_jval self,
                                  const struct by_jval v[V]) {
    (void)v;
    by_jrun_charge(r, self.n / 16);
    return by_jval_bool(is_case(self, by_jchar_is_upper, by_jchar_is_lower));
}
static struct by_jval str_islower(struct by_jrun *r, struct by_jval self,
                                  const struct by_jval v[V]) {
    (void)v;
    by_jrun_charge(r, self.n / 16);
    return by_jval_bool(is_case(self, by_jchar_is_lower, by_jchar_is_upper));
}

static struct by_jval pad(struct by_jrun *r, struct by_jval self, const struct by_jval v[V],
                          int sides) {
    struct by_jval fill = v[1].type == BY_J_ABSENT ? by_jval_lit(" ") : v[1];
    if (!by_jstr_need(r, &fill, "the fill character")) return (struct by_jval){0};
    if (by_jchar_count(by_jval_bytes(&fill)) != 1)
        return by_jrun_fail(r, BY_EINVAL, "the fill character must be exactly one character long");
    int64_t len = (int64_t)by_jchar_count(by_jval_bytes(&self)), width = int_or(r, &v[0], 0);
    int64_t room = width > len ? width - len : 0;
    if (sides != 3) return by_jstr_pad(r, self, sides == 1 ? room : 0, sides == 2 ? room : 0, fill);
    /* CPython gives the odd blank to the left of an odd width */
    int64_t left = room / 2 + (room & width & 1);
    return by_jstr_pad(r, self, left, room - left, fill);
}
static struct by_jval str_rjust(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    return pad(r, self, v, 1);
}
static struct by_jval str_ljust(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    return pad(r, self, v, 2);
}
static struct by_jval str_center(struct by_jrun *r, struct by_jval self,
                                 const struct by_jval v[V]) {
    return pad(r, self, v, 3);
}

static struct by_jval str_zfill(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    int64_t room = int_or(r, &v[0], 0) - (int64_t)by_jchar_count(by_jval_bytes(&self));
    bool has_sign = self.n && (self.s[0] == '-' || self.s[0] == '+');
    if (room <= 0 || !has_sign) return by_jstr_pad(r, self, room, 0, by_jval_lit("0"));
    struct by_jval rest = by_jstr_pad(r, by_jval_cut(self, 1, self.n), room, 0, by_jval_lit("0"));
    struct by_jval sign = by_jval_cut(self, 0, 1);
    return r->code ? rest : by_jops_binary(r, BY_JOP_ADD, &sign, &rest);
}

const struct by_jmethod by_jstr_methods[] = {
    {"strip", "chars", 0, str_strip},
    {"lstrip", "chars", 0, str_lstrip},
    {"rstrip", "chars", 0, str_rstrip},
    {"split", "sep maxsplit", 0, str_split},
    {"rsplit", "sep maxsplit", 0, str_rsplit},
    {"splitlines", "keepends", 0, str_splitlines},
    {"startswith", "prefix", 1, str_startswith},
    {"endswith", "suffix", 1, str_endswith},
    {"replace", "old new count", 2, str_replace},
    {"upper", "", 0, str_upper},
    {"lower", "", 0, str_lower},
    {"title", "", 0, str_title},
    {"capitalize", "", 0, str_capitalize},
    {"swapcase", "", 0, str_swapcase},
    {"removeprefix", "prefix", 1, str_removeprefix},
    {"removesuffix", "suffix", 1, str_removesuffix},
    {"find", "sub", 1, str_find},
    {"rfind", "sub", 1, str_rfind},
    {"index", "sub", 1, str_index},
    {"count", "sub", 1, str_count},
    {"join", "iterable", 1, str_join},
    {"partition", "sep", 1, str_partition},
    {"rpartition", "sep", 1, str_rpartition},
    {"isdigit", "", 0, str_isdigit},
    {"isdecimal", "", 0, str_isdigit},
    {"isnumeric", "", 0, str_isdigit},
    {"isalpha", "", 0, str_isalpha},
    {"isalnum", "", 0, str_isalnum},
    {"isspace", "", 0, str_isspace},
    {"isupper", "", 0, str_isupper},
    {"islower", "", 0, str_islower},
    {"ljust", "width fillchar", 1, str_ljust},
    {"rjust", "width fillchar", 1, str_rjust},
    {"center", "width fillchar", 1, str_center},
    {"zfill", "width", 1, str_zfill},
    {NULL, NULL, 0, NULL},
};
