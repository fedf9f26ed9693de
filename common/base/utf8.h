/* utf8.h - UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
 *
 *     0xxxxxxx | 110xxxxx 10xxxxxx | 1110xxxx 10xxxxxx 10xxxxxx | 11110xxx 10xxxxxx 10xxxxxx 10xxxxxx
 *
 * Always: no function reads past n. No state.
 * Owner: the caller of each. */
#ifndef COMMON_BASE_UTF8_H
#define COMMON_BASE_UTF8_H

#include "common/base/base.h"

enum { BY_UTF8_BAD = 0xFFFFFFFFu };

/* The character at p (n >= 1 bytes readable). *len = its bytes; on bad input returns BY_UTF8_BAD and *len is the
 * length of the maximal ill-formed part (Unicode 3.9 "U+FFFD substitution of maximal subparts"), at least 1. */
uint32_t by_utf8_decode(const char *p, size_t n, size_t *len);
/* bytes written; U+FFFD for what is no character */
size_t by_utf8_encode(uint32_t cp, char out[4]);
bool by_utf8_valid(const char *p, size_t n);
/* The longest prefix that does not end inside a character that could still become valid. */
size_t by_utf8_clean_len(const char *p, size_t n);
size_t by_utf8_count(const char *p, size_t n); /* characters; each ill-formed part counts one */

#endif
