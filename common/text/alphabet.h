/* alphabet.h - GPT-2's alphabet: each byte as a printable character, in which byte-level vocabularies spell their pieces.
 *
 *     20 68 69  ↔  "Ġhi"        ! … ~ ¡ … ÿ stand for themselves, the 68 other bytes follow from U+0100 on
 *
 * Always: 256 characters, one for each byte.
 * Owner: no state. */
#ifndef COMMON_TEXT_ALPHABET_H
#define COMMON_TEXT_ALPHABET_H

#include "common/base/str.h"

uint32_t by_alphabet_char(uint8_t byte);
int by_alphabet_byte(uint32_t cp); /* -1: not in the alphabet */
/* A piece's bytes; the piece itself when a character is not in the alphabet. out has room for piece.n bytes.
 * *is_spelled: all characters were in it. */
size_t by_alphabet_spell(struct by_str piece, char *out, bool *is_spelled);

#endif
