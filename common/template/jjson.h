/* jjson.h - JSON text into template values, exactly as Python's json.loads would give them.
 *
 *     1 -> int    1.0, 1e3 -> float    12345678901234567890 -> an integer that keeps its digits
 *
 * cJSON keeps every number as a double, so that 1.0 would print as 1 and long integers would change; a prompt must
 * not. Hence this reader, which goes straight to values and never builds a tree between.
 * Always: strict JSON: valid UTF-8, no lone surrogates, no raw control characters, no NaN, nothing behind the value,
 * depth up to BY_JVAL_DEPTH_MAX. The last of two equal keys wins. All strings are marked as a user's.
 * Owner: the run; strings without escapes point into the text, which must live as long. */
#ifndef COMMON_TEMPLATE_JJSON_H
#define COMMON_TEMPLATE_JJSON_H

#include "common/template/jval.h"

/* err (may be NULL) says what is wrong and at which byte; running out of memory fails the run as well. */
BY_MUST_USE int by_jjson_read(struct by_jrun *r, struct by_str text, struct by_jval *out,
                              struct by_err *err);

#endif
