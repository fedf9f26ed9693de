/* openapi.h - the route table as an OpenAPI 3.1 document: GET /openapi.json, and deploy/docs/openapi.json by `make docs`.
 *
 * Always: what it says comes from routes.c, forms_*.c and params.c alone, so it cannot tell of a route that is not there.
 * Owner: nobody; a pure function of constant tables. */
#ifndef ROUTER_OPENAPI_H
#define ROUTER_OPENAPI_H

#include "common/base/buf.h"

void openapi_write(struct by_buf *out);

#endif
