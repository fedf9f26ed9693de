#include "common/text/post.h"

#include "common/base/mem.h"
#include "common/text/vocab.h"

/* The processors hand one another a list of encodings, each a row of ids or texts: TemplateProcessing makes one of each of
 * its pieces, BertProcessing and RobertaProcessing put their tokens around every one of them, not around the whole. */
enum { DEPTH_MAX = 8, ITEMS_MAX = 1024, ROWS_MAX = 256 };

struct item {
    bool is_text;
    uint32_t id; /* of a text: 0 the first, 1 the second */
    uint32_t type;
};

struct rows {
    struct item items[ITEMS_MAX];
    uint32_t ends[ROWS_MAX]; /* where each row ends */
    uint32_t n_items, n;
};

struct work {
    struct rows now, next;
    unsigned n_processors; /* that have put something */
    struct by_err *err;
};

static int too_much(struct work *w) {
    return by_fail(w->err, BY_ELIMIT, "post_processor makes too much of a text");
}

static int add_item(struct work *w, struct item item) {
    struct rows *r = &w->next;
    if (r->n_items == ITEMS_MAX) return too_much(w);
    r->items[r->n_items++] = item;
    return 0;
}

static int end_row(struct work *w) {
    struct rows *r = &w->next;
    if (r->n == ROWS_MAX) return too_much(w);
    r->ends[r->n++] = r->n_items;
    return 0;
}

static int add_id(struct work *w, int64_t id, uint32_t type) {
    if (id < 0 || id >= BY_VOCAB_IDS_MAX)
        return by_fail(w->err, BY_EFORMAT, "post_processor: a special token's id");
    return add_item(w, (struct item){.id = (uint32_t)id, .type = type});
}

enum { TYPE_KEPT = UINT32_MAX };

static int copy_row(struct work *w, uint32_t row, uint32_t type) {
    int rc = 0;
    for (uint32_t i = row ? w->now.ends[row - 1] : 0; i < w->now.ends[row] && !rc; i++) {
        struct item item = w->now.items[i];
        if (type != TYPE_KEPT) item.type = type;
        rc = add_item(w, item);
    }
    return rc;
}

/* ---- TemplateProcessing ---- */

static int add_special(struct work *w, struct by_str name, uint32_t type,
                       const struct by_json *specials) {
    const struct by_json *ids = NULL;
    int64_t id = -1;
    int rc = 0;
    for (const struct by_json *it = by_json_first(specials); it && !rc; it = by_json_next(it)) {
        if (by_str_eq(by_json_key(it), name))
            rc = by_json_get_array(it, "post_processor.special_tokens", "ids", &ids, w->err);
    }
    if (!rc && !ids)
        return by_fail(w->err, BY_EFORMAT, "post_processor: no special token '" BY_STR_FMT "'",
                       BY_STR_ARG(by_str_sub(name, 0, 100)));
    for (const struct by_json *it = by_json_first(ids); it && !rc; it = by_json_next(it))
        rc = add_id(w, by_json_to_i64(it, &id) ? id : -1, type);
    return rc;
}

/* {"SpecialToken": {"id": "[CLS]", "type_id": 0}} or {"Sequence": {"id": "A", "type_id": 0}} */
static int run_piece(struct work *w, const struct by_json *piece, const struct by_json *specials) {
    const struct by_json *special = by_json_get(piece, "SpecialToken"),
                         *text = by_json_get(piece, "Sequence"), *it = special ? special : text;
    struct by_str name = {0};
    int64_t type = 0;
    if (!it) return by_fail(w->err, BY_EFORMAT, "post_processor: a template piece of unknown kind");
    int rc = by_json_get_str(it, "post_processor.single", "id", &name, w->err);
    if (!rc)
        rc = by_json_get_i64(it, "post_processor.single", "type_id", 0, INT32_MAX, &type, w->err);
    if (rc) return rc;
    uint32_t row = by_str_eqz(name, "B");
    if (special)
        rc = add_special(w, name, (uint32_t)type, specials);
    else if (row < w->now.n)
        rc = copy_row(w, row, (uint32_t)type);
    else
        rc = by_fail(w->err, BY_EUNSUPPORTED, "post_processor: text B in the template of one text");
    return rc ? rc : end_row(w);
}

static int run_template(struct work *w, const struct by_json *j) {
    const struct by_json *list = NULL, *specials = NULL;
    const char *key = w->now.n == 1 ? "single" : "pair";
    if (w->now.n > 2)
        return by_fail(w->err, BY_EUNSUPPORTED,
                       "post_processor: TemplateProcessing behind what makes %u parts", w->now.n);
    int rc = by_json_get_array(j, "post_processor", key, &list, w->err);
    if (!rc) rc = by_json_get_object(j, "post_processor", "special_tokens", &specials, w->err);
    for (const struct by_json *it = by_json_first(list); it && !rc; it = by_json_next(it))
        rc = run_piece(w, it, specials);
    return rc;
}

/* ---- BertProcessing: [CLS] a [SEP] b [SEP]; RobertaProcessing: <s> a </s> </s> b </s>, all of one type ---- */

/* ["</s>", 2] */
static int64_t token_of(const struct by_json *j, const char *key) {
    int64_t id = -1;
    const struct by_json *first = by_json_first(by_json_get(j, key));
    const struct by_json *second = first ? by_json_next(first) : NULL;
    return second && by_json_to_i64(second, &id) ? id : -1;
}

static int run_named(struct work *w, const struct by_json *j, bool is_bert) {
    int64_t cls = token_of(j, "cls"), sep = token_of(j, "sep");
    int rc = 0;
    for (uint32_t row = 0; row < w->now.n && !rc; row++) {
        if (row == 0)
            rc = add_id(w, cls, 0);
        else if (!is_bert)
            rc = add_id(w, sep, 0);
        if (!rc) rc = copy_row(w, row, is_bert ? TYPE_KEPT : 0);
        if (!rc) rc = add_id(w, sep, row > 0 && is_bert);
        if (!rc) rc = end_row(w);
    }
    return rc;
}

static int run_any(struct work *w, const struct by_json *j, unsigned depth) {
    struct by_str type = {0};
    const struct by_json *list = NULL;
    int rc = by_json_get_str(j, "post_processor", "type", &type, w->err);
    if (rc) return rc;
    if (depth > DEPTH_MAX) return by_fail(w->err, BY_ELIMIT, "post_processor: nested too deeply");
    if (by_str_eqz(type, "ByteLevel")) return 0; /* offsets only */
    if (by_str_eqz(type, "Sequence")) {
        rc = by_json_get_array(j, "post_processor", "processors", &list, w->err);
        for (const struct by_json *it = by_json_first(list); it && !rc; it = by_json_next(it))
            rc = run_any(w, it, depth + 1);
        return rc;
    }
    w->next.n = w->next.n_items = 0;
    if (by_str_eqz(type, "TemplateProcessing"))
        rc = run_template(w, j);
    else if (by_str_eqz(type, "BertProcessing") || by_str_eqz(type, "RobertaProcessing"))
        rc = run_named(w, j, by_str_eqz(type, "BertProcessing"));
    else
        return by_fail(w->err, BY_EUNSUPPORTED, "post_processor '" BY_STR_FMT "' is not supported",
                       BY_STR_ARG(type));
    w->now = w->next;
    w->n_processors++;
    return rc;
}

/* ---- what came of it ---- */

static int read_one(struct work *w, struct by_post_frame *f) {
    const struct rows *r = &w->now;
    uint32_t n_texts = 0;
    for (uint32_t i = 0; i < r->n_items; i++) {
        if (r->items[i].is_text) {
            n_texts++;
            continue;
        }
        uint32_t *n = n_texts ? &f->n_behind : &f->n_before;
        if (*n == BY_POST_IDS_MAX)
            return by_fail(w->err, BY_ELIMIT, "post_processor adds more than %d ids",
                           BY_POST_IDS_MAX);
        (n_texts ? f->behind : f->before)[(*n)++] = r->items[i].id;
    }
    if (n_texts != 1)
        return by_fail(w->err, BY_EUNSUPPORTED,
                       "post_processor: the text occurs %u times in its template", n_texts);
    return 0;
}

/* False: not one text after the other, or types other than 0…0 1…1. */
static bool read_two(const struct rows *r, struct by_pair *p) {
    uint32_t n_texts = 0, type = 0;
    for (uint32_t i = 0; i < r->n_items; i++) {
        struct item it = r->items[i];
        struct by_pair_part *part = n_texts == 0   ? &p->before
                                    : n_texts == 1 ? &p->between
                                                   : &p->behind;
        if (it.type < type || it.type > 1 || (it.type == 1 && n_texts == 0)) return false;
        if (it.type == 1 && n_texts == 2 && !p->has_types) return false;
        type = it.type;
        if (it.is_text) {
            if (it.id != n_texts++ || n_texts > 2) return false;
            p->has_types = it.type == 1;
        } else {
            if (part->n == BY_PAIR_IDS_MAX) return false;
            part->ids[part->n++] = it.id;
            if (n_texts == 1 && type == 0) p->n_first = part->n;
        }
    }
    return n_texts == 2;
}

static int run_on(struct work *w, uint32_t n_texts, const struct by_json *post,
                  struct by_err *err) {
    w->err = err;
    w->n_processors = 0;
    w->next.n = w->next.n_items = 0;
    for (uint32_t i = 0; i < n_texts; i++) {
        int rc = add_item(w, (struct item){.is_text = true, .id = i, .type = i});
        if (!rc) rc = end_row(w);
        if (rc) return rc;
    }
    w->now = w->next;
    return run_any(w, post, 0);
}

int by_post_read(struct by_post_frame *one, struct by_pair *two, const struct by_json *post,
                 struct by_err *err) {
    *one = (struct by_post_frame){.n_before = 0};
    *two = (struct by_pair){.is_known = false};
    if (!post || by_json_type(post) == BY_JSON_NULL) return 0;
    struct work *w = by_alloc(sizeof *w);
    struct by_err unused;
    int rc = run_on(w, 1, post, err);
    if (!rc) rc = read_one(w, one);
    if (!rc && run_on(w, 2, post, &unused) == 0 && w->n_processors)
        two->is_known = read_two(&w->now, two);
    if (!two->is_known) *two = (struct by_pair){.is_known = false};
    by_free(w);
    return rc;
}
