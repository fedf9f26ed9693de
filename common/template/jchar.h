/* jchar.h - characters as Python's str methods see them: blanks, letters, upper and lower case.
 *
 *     by_jchar_next("ß…", upper) -> "SS"        one character may become up to three
 *
 * Case and class come from the C library's C.UTF-8 locale (the whole of Unicode, simple mappings); the few mappings
 * that give several characters stand in a table here. Without that locale only ASCII has case.
 * Always: no state but the locale, opened once. Positions are bytes, counts are characters.
 * Owner: nobody; thread safe after by_jchar_init. */
#ifndef COMMON_TEMPLATE_JCHAR_H
#define COMMON_TEMPLATE_JCHAR_H

#include "common/base/str.h"

enum by_jchar_case { BY_JCHAR_UPPER, BY_JCHAR_LOWER, BY_JCHAR_TITLE };

void by_jchar_init(void);            /* idempotent; called by by_jinja_parse */
bool by_jchar_is_space(uint32_t cp); /* str.isspace, strip() and split() */
bool by_jchar_is_print(uint32_t cp); /* str.isprintable, near enough for repr */
bool by_jchar_is_alpha(uint32_t cp);
bool by_jchar_is_digit(uint32_t cp); /* decimal digits of any script */
bool by_jchar_is_alnum(uint32_t cp);
bool by_jchar_is_line_end(uint32_t cp); /* where splitlines() cuts */
bool by_jchar_is_upper(uint32_t cp);
bool by_jchar_is_lower(uint32_t cp);
/* characters written: 1 to 3 */
size_t by_jchar_map(uint32_t cp, enum by_jchar_case to, uint32_t out[3]);
size_t by_jchar_count(struct by_str s); /* characters */
/* Byte offset of character number `at`; s.n when there are fewer. */
size_t by_jchar_offset(struct by_str s, size_t at);
/* first byte at or after from that is no blank */
size_t by_jchar_skip_space(struct by_str s, size_t from);
/* end of s[0, to) without blanks at its end */
size_t by_jchar_drop_space(struct by_str s, size_t to);

#endif
