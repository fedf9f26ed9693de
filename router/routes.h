/* routes.h - the one table of what the router answers: method, path, handler, who may.
 *
 * Always: a known path with the wrong method is 405 with Allow, an unknown one 404; keys are checked before the body is
 * looked at.
 * Owner: nobody; constant. */
#ifndef ROUTER_ROUTES_H
#define ROUTER_ROUTES_H

#include "router/api.h"

enum route_level { ROUTE_OPEN, ROUTE_KEY, ROUTE_ADMIN };

struct route {
    enum http1_method method;
    const char *path; /* ending in "*": everything below */
    api_handler *handler;
    enum route_level level;
    const char *help;
};

extern const struct route routes[];
extern const size_t n_routes;
void routes_handle(void *router, struct conn *c, const struct http1_request *req);

#endif
