#include "common/modelfile/hf_quant.h"

void by_hf_quant_read(struct by_config *c, struct by_model_info *m) {
    static const struct {
        const char *name;
        enum by_quant_method method;
    } methods[] = {{"awq", BY_QUANT_AWQ},
                   {"gptq", BY_QUANT_GPTQ},
                   {"fp8", BY_QUANT_FP8},
                   {"mxfp4", BY_QUANT_MXFP4},
                   {"compressed-tensors", BY_QUANT_COMPRESSED}};
    const struct by_json *q = by_config_find(c, "quantization_config|compression_config");
    if (!q) return;
    struct by_config o = {.config = q, .where = c->where, .err = c->err, .rc = c->rc};
    struct by_quant_info *x = &m->quant;
    struct by_str name = by_config_str(&o, "quant_method");
    by_config_copy(x->name, sizeof x->name, name);
    x->method = BY_QUANT_OTHER;
    for (size_t i = 0; i < BY_COUNTOF(methods); i++) {
        if (by_str_eqz(name, methods[i].name)) x->method = methods[i].method;
    }
    by_config_copy(x->format, sizeof x->format, by_config_str(&o, "format"));
    x->bits = by_config_u32(&o, "bits|w_bit", 0);
    const struct by_json *group = by_json_get(q, "group_size");
    int64_t n = 0;
    /* -1: one a row */
    if (group && by_json_to_i64(group, &n) && n > 0 && n <= BY_HIDDEN_MAX) x->group = (uint32_t)n;
    x->is_symmetric = by_config_bool(&o, "sym", x->method != BY_QUANT_AWQ);
    x->has_act_order = by_config_bool(&o, "desc_act", false);
    x->is_v2 = by_str_eqz(by_config_str(&o, "checkpoint_format"), "gptq_v2");
    x->is_float = x->method == BY_QUANT_FP8;
    const struct by_json *block = by_json_get(q, "weight_block_size");
    const struct by_json *rows = block ? by_json_first(block) : NULL,
                         *cols = rows ? by_json_next(rows) : NULL;
    if (cols && by_json_to_i64(rows, &n) && n > 0 && n <= 65536) x->block[0] = (uint32_t)n;
    if (cols && by_json_to_i64(cols, &n) && n > 0 && n <= 65536) x->block[1] = (uint32_t)n;
    c->rc = o.rc;
}

int by_hf_quant_add(struct by_model_info *m, const struct by_json *outer, const char *where,
                    struct by_err *err) {
    struct by_config c = {.config = outer, .where = where, .err = err};
    if (!m->quant.method) by_hf_quant_read(&c, m);
    return c.rc;
}
