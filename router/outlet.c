#include "router/outlet.h"

void outlet_set_owner(struct outlet *o, void *owner, void (*gone)(void *owner),
                      void (*drained)(void *owner)) {
    if (o->answer)
        resume_set_owner(o->answer, owner, gone, drained);
    else
        conn_set_owner(o->conn, owner, gone, drained);
}

void outlet_respond(struct outlet *o, int status, const char *content_type, struct by_str body,
                    const char *extra) {
    if (o->answer)
        resume_respond(o->answer, status, content_type, body, extra);
    else
        conn_respond(o->conn, status, content_type, body, extra);
    *o = (struct outlet){0};
}

void outlet_stream_begin(struct outlet *o, const char *content_type) {
    if (o->answer)
        resume_stream_begin(o->answer, content_type);
    else
        conn_stream_begin(o->conn, content_type);
}

void outlet_stream_write(struct outlet *o, struct by_str bytes) {
    if (o->answer)
        resume_stream_write(o->answer, bytes);
    else
        conn_stream_write(o->conn, bytes);
}

void outlet_stream_end(struct outlet *o, bool has_failed) {
    if (o->answer)
        resume_stream_end(o->answer, has_failed);
    else
        conn_stream_end(o->conn);
    *o = (struct outlet){0};
}

size_t outlet_n_pending(const struct outlet *o) {
    return o->answer ? resume_n_pending(o->answer) : conn_n_pending(o->conn);
}
