/* base64.h - base64 and back, as RFC 4648 has it: for character maps and token bytes that lie in text files.
 *
 *     "IQ==" ↔ 21        padding may be missing; nothing else may stand between
 *
 * Always: decoding what was encoded gives the same bytes.
 * Owner: no state. */
#ifndef COMMON_TEXT_BASE64_H
#define COMMON_TEXT_BASE64_H

#include "common/base/buf.h"

void by_base64_encode(struct by_str bytes, struct by_buf *out); /* appends */
/* Appends; false at a character that is none of the 64. */
BY_MUST_USE bool by_base64_decode(struct by_str text, struct by_buf *out);

#endif
