/* routes.h - the one table of what the router answers: method, path, handler, who may, what it asks for and what it answers.
 * The OpenAPI file, a page of the docs and tests are made from it.
 *
 * Always: a known path with the wrong method is 405 with Allow, an unknown one 404; keys are checked before the body is
 * looked at.
 * Owner: nobody; constant. */
#ifndef ROUTER_ROUTES_H
#define ROUTER_ROUTES_H

#include "router/api.h"
#include "router/forms.h"

enum route_level { ROUTE_OPEN, ROUTE_KEY, ROUTE_ADMIN };

struct route {
    enum http1_method method;
    const char *path; /* ending in "*": everything below */
    api_handler *handler;
    enum route_level level;
    const char *help;
    const struct form *asks;    /* the body; a GET's query; NULL: nothing is read */
    const struct form *answers; /* with 200 */
};

extern const struct route routes[];
extern const size_t n_routes;
bool routes_handle(void *router, struct conn *c, const struct http1_request *req, bool is_whole);
/* On --admin-socket: who can open it is an admin, with or without a key. */
bool routes_handle_admin(void *router, struct conn *c, const struct http1_request *req,
                         bool is_whole);

#endif
