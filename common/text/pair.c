#include "common/text/pair.h"

#include "common/text/vocab.h"

enum { DEPTH_MAX = 8 };

static int add(struct by_pair_part *part, int64_t id, struct by_err *err) {
    if (id < 0 || id >= BY_VOCAB_IDS_MAX)
        return by_fail(err, BY_EFORMAT, "post_processor: a special token's id");
    if (part->n == BY_PAIR_IDS_MAX)
        return by_fail(err, BY_ELIMIT, "post_processor adds more than %d ids to a pair",
                       BY_PAIR_IDS_MAX);
    part->ids[part->n++] = (uint32_t)id;
    return 0;
}

static struct by_pair_part *part_at(struct by_pair *p, unsigned n_texts) {
    return n_texts == 0 ? &p->before : n_texts == 1 ? &p->between : &p->behind;
}

/* A special token of the template: its ids. */
static int add_special(struct by_pair *p, unsigned n_texts, const struct by_json *special,
                       const struct by_json *specials, bool is_second, struct by_err *err) {
    struct by_str name = by_json_str(by_json_get(special, "id"));
    const struct by_json *ids = NULL;
    int64_t id = -1;
    int rc = 0;
    for (const struct by_json *it = by_json_first(specials); it; it = by_json_next(it)) {
        if (by_str_eq(by_json_key(it), name)) ids = by_json_get(it, "ids");
    }
    if (!by_json_first(ids))
        return by_fail(err, BY_EFORMAT, "post_processor: no special token '" BY_STR_FMT "'",
                       BY_STR_ARG(by_str_sub(name, 0, 100)));
    for (const struct by_json *it = by_json_first(ids); it && !rc; it = by_json_next(it)) {
        rc = by_json_to_i64(it, &id) ? add(part_at(p, n_texts), id, err)
                                     : by_fail(err, BY_EFORMAT, "post_processor: an id");
        if (n_texts == 1 && !is_second) p->n_first = p->between.n;
    }
    return rc;
}

static int64_t type_of(const struct by_json *piece) {
    int64_t type = 0;
    return by_json_to_i64(by_json_get(piece, "type_id"), &type) ? type : 0;
}

/* [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, …] */
static int read_template(struct by_pair *p, const struct by_json *post, struct by_err *err) {
    const struct by_json *list = by_json_get(post, "pair"),
                         *specials = by_json_get(post, "special_tokens");
    unsigned n_texts = 0;
    int rc = 0;
    for (const struct by_json *it = by_json_first(list); it && !rc; it = by_json_next(it)) {
        const struct by_json *text = by_json_get(it, "Sequence"),
                             *special = by_json_get(it, "SpecialToken");
        if (text) {
            bool is_b = by_str_eqz(by_json_str(by_json_get(text, "id")), "B");
            if (is_b != (n_texts == 1)) return 0; /* not one after the other: no pair of ours */
            if (is_b) p->has_types = type_of(text) != 0;
            n_texts++;
        } else {
            rc = add_special(p, n_texts, special, specials, type_of(special) != 0, err);
        }
    }
    p->is_known = !rc && n_texts == 2;
    return rc;
}

/* ["[SEP]", 3] */
static int64_t token_of(const struct by_json *post, const char *key) {
    int64_t id = -1;
    const struct by_json *first = by_json_first(by_json_get(post, key));
    const struct by_json *second = first ? by_json_next(first) : NULL;
    return second && by_json_to_i64(second, &id) ? id : -1;
}

/* BERT: [CLS] a [SEP] b [SEP]. RoBERTa: <s> a </s> </s> b </s>, all of one type. */
static int read_named(struct by_pair *p, const struct by_json *post, bool is_bert,
                      struct by_err *err) {
    int64_t cls = token_of(post, "cls"), sep = token_of(post, "sep");
    int rc = add(&p->before, cls, err);
    if (!rc) rc = add(&p->between, sep, err);
    if (!rc && !is_bert) rc = add(&p->between, sep, err);
    if (!rc) rc = add(&p->behind, sep, err);
    p->n_first = p->between.n;
    p->has_types = is_bert;
    p->is_known = !rc;
    return rc;
}

static int read_any(struct by_pair *out, const struct by_json *post, unsigned depth,
                    unsigned *n_found, struct by_err *err) {
    struct by_str type = by_json_str(by_json_get(post, "type"));
    int rc = 0;
    if (by_str_eqz(type, "Sequence") && depth < DEPTH_MAX) {
        const struct by_json *list = by_json_get(post, "processors");
        for (const struct by_json *it = by_json_first(list); it && !rc; it = by_json_next(it))
            rc = read_any(out, it, depth + 1, n_found, err);
        return rc;
    }
    bool is_bert = by_str_eqz(type, "BertProcessing"),
         is_roberta = by_str_eqz(type, "RobertaProcessing"),
         is_template = by_str_eqz(type, "TemplateProcessing");
    if (!is_bert && !is_roberta && !is_template) return 0;
    if ((*n_found)++) { /* one around the other: nobody's pairs are made like that */
        *out = (struct by_pair){0};
        return 0;
    }
    return is_template ? read_template(out, post, err) : read_named(out, post, is_bert, err);
}

int by_pair_read(struct by_pair *out, const struct by_json *post, struct by_err *err) {
    unsigned n_found = 0;
    *out = (struct by_pair){0};
    return read_any(out, post, 0, &n_found, err);
}
