/* unicode_age.h - which characters are younger than the tables that the reference was built with.
 *
 * Hugging Face's tokenizers takes categories for BertNormalizer, BertPreTokenizer and Punctuation from Unicode 8, and
 * the normal forms and StripAccents from Unicode 9 or so. A mark that came later is no mark to it, and stays.
 *
 * Always: only characters whose treatment differs from utf8proc's are listed (found by asking the reference for each
 * of the 1,112,064).
 * Owner: nobody; constant. */
#ifndef COMMON_TEXT_UNICODE_AGE_H
#define COMMON_TEXT_UNICODE_AGE_H

#include "common/base/base.h"

enum by_uni_age {
    BY_UNI_NEW_CATEGORY = 1, /* its category is unknown to the Unicode 8 tables */
    BY_UNI_NEW_FORM = 2,     /* its normal form, and that it is a mark, to the Unicode 9 ones */
};

uint8_t by_uni_age(uint32_t cp); /* flags */

#endif
