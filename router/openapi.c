#include "router/openapi.h"

#include "router/routes.h"
#include "router/forms.h"

#include <ctype.h>
#include <string.h>

static void add(struct by_buf *out, const char *quoted) {
    form_write_quoted(quoted, out);
}

static void add_member(struct by_buf *out, const char *key, const char *value) {
    by_buf_addf(out, "\"%s\":", key);
    by_buf_add_json_str(out, by_str_of(value));
}

/* "/v1/models/" + "*" is written /v1/models/{id}. */
static bool has_id(const struct route *r) {
    return r->path[strlen(r->path) - 1] == '*';
}

static void write_path(const struct route *r, struct by_buf *out) {
    by_buf_addf(out, "\"%.*s%s\":{", (int)(strlen(r->path) - has_id(r)), r->path,
                has_id(r) ? "{id}" : "");
}

static void write_ref(const struct form *s, struct by_buf *out) {
    by_buf_addf(out, "{\"$ref\":\"#/components/schemas/%s\"}", s->name);
}

/* A GET's fields are its query. */
static void write_parameters(const struct route *r, struct by_buf *out) {
    bool has_query = r->asks && r->method == HTTP1_GET, is_first = true;
    if (!has_query && !has_id(r)) return;
    add(out, ",'parameters':[");
    if (has_id(r)) add(out, "{'name':'id','in':'path','required':true,'schema':{'type':'string'}}");
    is_first = !has_id(r);
    for (size_t i = 0; has_query && i < r->asks->n_fields; i++, is_first = false) {
        const struct form_field *f = &r->asks->fields[i];
        by_buf_addf(out, "%s{\"name\":\"%s\",\"in\":\"query\",\"required\":%s,\"schema\":",
                    is_first ? "" : ",", f->name, f->is_needed ? "true" : "false");
        add(out, f->schema);
        by_buf_addc(out, ',');
        add_member(out, "description", f->help);
        by_buf_addc(out, '}');
    }
    by_buf_addc(out, ']');
}

static void write_body(const struct route *r, struct by_buf *out) {
    if (!r->asks || r->method == HTTP1_GET) return;
    by_buf_addf(out,
                ",\"requestBody\":{\"required\":%s,\"content\":{\"application/json\":{\"schema\":",
                r->asks->schema ? "false" : "true");
    write_ref(r->asks, out);
    by_buf_addz(out, "}}}");
}

static void write_answers(const struct route *r, struct by_buf *out) {
    const struct form *s = r->answers;
    add(out, ",'responses':{'200':{");
    add_member(out, "description", s->help);
    if (!s->media || *s->media) {
        by_buf_addf(out,
                    ",\"content\":{\"%s\":{\"schema\":", s->media ? s->media : "application/json");
        write_ref(s, out);
        by_buf_addc(out, '}');
        if (s->stream) by_buf_addf(out, ",\"%s\":{}", s->stream);
        by_buf_addc(out, '}');
    }
    add(out, "},'4XX':{'$ref':'#/components/responses/Refused'},"
             "'5XX':{'$ref':'#/components/responses/Failed'}}");
}

static void write_operation(const struct route *r, struct by_buf *out) {
    static const char *const keys[] = {"", "the API key", "an admin's key"};
    by_buf_addc(out, '"');
    for (const char *m = http1_method_name(r->method); *m; m++)
        by_buf_addc(out, (char)tolower((unsigned char)*m));
    by_buf_addz(out, "\":{");
    add_member(out, "summary", r->help);
    if (r->level == ROUTE_OPEN) {
        add(out, ",'security':[]");
    } else {
        add(out, ",'security':[{'key':[]}],");
        add_member(out, "description", keys[r->level]);
    }
    write_parameters(r, out);
    write_body(r, out);
    write_answers(r, out);
    by_buf_addc(out, '}');
}

/* All methods of the path of routes[at]; nothing when an earlier row had that path. */
static void write_paths_of(size_t at, struct by_buf *out) {
    bool is_first = true;
    for (size_t i = 0; i < at; i++) {
        if (strcmp(routes[i].path, routes[at].path) == 0) return;
    }
    if (at) by_buf_addc(out, ',');
    write_path(&routes[at], out);
    for (size_t i = at; i < n_routes; i++) {
        if (strcmp(routes[i].path, routes[at].path) != 0) continue;
        if (!is_first) by_buf_addc(out, ',');
        is_first = false;
        write_operation(&routes[i], out);
    }
    by_buf_addc(out, '}');
}

static bool is_listed(const struct form *const *list, size_t n, const struct form *s) {
    for (size_t i = 0; i < n; i++) {
        if (list[i] == s) return true;
    }
    return false;
}

static void write_schemas(struct by_buf *out) {
    enum { FORMS_MAX = 256 };
    const struct form *done[FORMS_MAX] = {&form_model, &form_sampling_params};
    size_t n = 2;
    for (size_t i = 0; i < n_routes; i++) {
        const struct form *both[] = {routes[i].asks, routes[i].answers};
        for (size_t k = 0; k < 2; k++) {
            bool is_query = k == 0 && routes[i].method == HTTP1_GET;
            if (both[k] && !is_query && n < FORMS_MAX && !is_listed(done, n, both[k]))
                done[n++] = both[k];
        }
    }
    for (size_t i = 0; i < n; i++) {
        by_buf_addf(out, "%s\"%s\":", i ? "," : "", done[i]->name);
        form_write_schema(done[i], out);
    }
}

void openapi_write(struct by_buf *out) {
    add(out, "{'openapi':'3.1.0','info':{'title':'Banyan','version':'" BANYAN_VERSION "',"
             "'description':'A server for language models. Made from router/routes.c.'},'paths':{");
    for (size_t i = 0; i < n_routes; i++)
        write_paths_of(i, out);
    add(out,
        "},'components':{'securitySchemes':{'key':{'type':'http','scheme':'bearer'}},"
        "'responses':{'Refused':{'description':'the request is at fault: its message names the "
        "field and the remedy','content':{'application/json':{'schema':{'$ref':"
        "'#/components/schemas/Error'}}}},'Failed':{'description':'not now, or not ever: 503 has "
        "Retry-After','content':{'application/json':{'schema':{'$ref':"
        "'#/components/schemas/Error'}}}}},'schemas':{'Error':{'type':'object','required':"
        "['error'],'properties':{'error':{'anyOf':[{'type':'string'},{'type':'object',"
        "'required':['message','type'],'properties':{'message':{'type':'string'},'type':{'type':"
        "'string'},'param':{'type':['string','null']},'code':{'type':['integer','string']}}}]}}},");
    write_schemas(out);
    by_buf_addz(out, "}}}");
}
