/* parse_python.h - one Python call, as models write them, into a name and JSON arguments.
 *
 *     get(city="Paris", days=[1, -2.5], dry=True)   ─▶   get  {"city": "Paris", "days": [1, -2.5], "dry": true}
 *
 * Always: literals only (texts, numbers, True, False, None, lists, tuples, dicts with text keys), by name; anything else is no
 * call. Nothing is evaluated. What is said of a text is said of any longer one, but for UNSURE.
 * Owner: no state. */
#ifndef ROUTER_PARSE_PYTHON_H
#define ROUTER_PARSE_PYTHON_H

#include "common/base/buf.h"

enum parse_python { PARSE_PYTHON_CALL, PARSE_PYTHON_NONE, PARSE_PYTHON_UNSURE };

/* The call that begins at *at, which moves behind it, or to where it was none. arguments: JSON text, appended. UNSURE: the text
 * ends within it. */
enum parse_python parse_python_call(struct by_str s, size_t *at, struct by_str *name,
                                    struct by_buf *arguments);

#endif
