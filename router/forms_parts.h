/* forms_parts.h - words that the schemas of forms_asked.c and forms_answered.c are written in.
 *
 *     {"stop", LIST_OF(STRING), "texts that end it", false}  ─▶  "stop": {"type": "array", "items": {"type": "string"}, "description": …}
 *
 * Always: a schema as a C string, with ' in place of ".
 * Owner: those two files; nobody else includes this. */
#ifndef ROUTER_FORMS_PARTS_H
#define ROUTER_FORMS_PARTS_H

#include "common/base/base.h"

#define WORD "{'type':['string','null']}"
#define OBJECT "{'type':['object','null']}"
#define LIST_OF(item) "{'type':'array','items':" item "}"
#define STRING "{'type':'string'}"
#define LISTED "{'type':'array'}"
#define TOKEN_ID "{'type':'integer','minimum':0,'maximum':4294967295}"
#define FIELDS(list) .fields = list, .n_fields = BY_COUNTOF(list)

#endif
