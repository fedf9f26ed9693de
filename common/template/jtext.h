/* jtext.h - values as text, the way Python writes them: str(), repr() and json.dumps().
 *
 *     1.0 -> "1.0"   1e16 -> "1e+16"   None -> "None"   ["it's"] -> ["it's"] in double quotes, as Python's repr picks
 *     tojson: {"a": [1, "é"]}                with indent 2: newlines, and no blank after the comma
 *
 * Always: what a user wrote keeps its mark, escapes included. Nesting past BY_JVAL_DEPTH_MAX fails the run.
 * Owner: the run. */
#ifndef COMMON_TEMPLATE_JTEXT_H
#define COMMON_TEMPLATE_JTEXT_H

#include "common/template/jval.h"

struct by_jtext_json {
    struct by_str item_sep, key_sep; /* ", " and ": " */
    struct by_str indent;            /* one level; used when has_indent */
    bool has_indent, ensure_ascii, sort_keys;
};

enum { BY_JTEXT_FLOAT_MAX = 40 };
/* Python's repr of a float; bytes written */
size_t by_jtext_float(double f, char out[BY_JTEXT_FLOAT_MAX]);

void by_jtext_str(struct by_jrun *r, struct by_jbuild *b, const struct by_jval *v);
void by_jtext_repr(struct by_jrun *r, struct by_jbuild *b, const struct by_jval *v);
void by_jtext_json(struct by_jrun *r, struct by_jbuild *b, const struct by_jval *v,
                   const struct by_jtext_json *how);
struct by_jval by_jtext_to_str(struct by_jrun *r, struct by_jval v); /* str(v); a str is itself */

#endif
