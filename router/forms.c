#include "router/forms.h"

#include "router/params.h"

void form_write_quoted(const char *text, struct by_buf *out) {
    for (; *text; text++)
        by_buf_addc(out, *text == '\'' ? '"' : *text);
}

static void write_field(const struct form_field *f, struct by_buf *out) {
    by_buf_addf(out, "\"%s\":", f->name);
    form_write_quoted(f->schema, out);
    if (!f->help) return;
    out->n--; /* into the object */
    if (out->p[out->n - 1] != '{') by_buf_addc(out, ',');
    by_buf_addz(out, "\"description\":");
    by_buf_add_json_str(out, by_str_of(f->help));
    by_buf_addc(out, '}');
}

void form_write_schema(const struct form *s, struct by_buf *out) {
    bool is_first = true;
    if (s->schema) {
        form_write_quoted(s->schema, out);
        return;
    }
    by_buf_addz(out, "{\"type\":\"object\",\"description\":");
    by_buf_add_json_str(out, by_str_of(s->help));
    by_buf_addz(out, ",\"properties\":{");
    for (size_t i = 0; i < s->n_fields; i++) {
        if (i) by_buf_addc(out, ',');
        write_field(&s->fields[i], out);
    }
    if (s->params != FORM_NO_PARAMS) {
        if (s->n_fields) by_buf_addc(out, ',');
        params_write_schema(s->params == FORM_OPENAI_PARAMS, out);
    }
    by_buf_addz(out, "},\"required\":[");
    for (size_t i = 0; i < s->n_fields; i++) {
        if (!s->fields[i].is_needed) continue;
        by_buf_addf(out, "%s\"%s\"", is_first ? "" : ",", s->fields[i].name);
        is_first = false;
    }
    by_buf_addz(out, s->params == FORM_NATIVE_PARAMS ? "],\"additionalProperties\":false}" : "]}");
}
