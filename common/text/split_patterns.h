/* split_patterns.h - the split patterns that several tokenizers share, as they stand inside of a JSON string.
 *
 *     PAT_O200K   OpenAI's of GPT-4o     PAT_CL100K   of GPT-4, and Llama 3's     PAT_QWEN   the same, digits one by one
 *     PAT_KIMI    o200k with Chinese apart           PAT_GPT2     of GPT-2
 *
 * Always: backslashes are doubled twice, for C and for JSON; the scanners of scan.c know these by their bytes.
 * Owner: no state. */
#ifndef COMMON_TEXT_SPLIT_PATTERNS_H
#define COMMON_TEXT_SPLIT_PATTERNS_H

#define PAT_CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define PAT_TAIL "|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define PAT_SIGNS "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*"
#define PAT_START "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"
#define PAT_UPPER "\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}"
#define PAT_LOWER "\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}"

/* Words whose case changes at most once, from upper to lower, with what is behind them. */
#define PAT_CASED(also, behind) \
    PAT_START "[" PAT_UPPER also "]*[" PAT_LOWER also "]+" behind "|" PAT_START "[" PAT_UPPER also \
              "]+[" PAT_LOWER also "]*" behind
#define PAT_CASED_SIGNS "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*"

#define PAT_GPT2 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| " \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+"
#define PAT_CL100K PAT_CONTRACTIONS "|" PAT_START "\\\\p{L}+|\\\\p{N}{1,3}" PAT_SIGNS PAT_TAIL
#define PAT_QWEN PAT_CONTRACTIONS "|" PAT_START "\\\\p{L}+|\\\\p{N}" PAT_SIGNS PAT_TAIL
#define PAT_O200K PAT_CASED("", PAT_CONTRACTIONS "?") "|\\\\p{N}{1,3}" PAT_CASED_SIGNS PAT_TAIL
#define PAT_TEKKEN PAT_CASED("", "") "|\\\\p{N}" PAT_CASED_SIGNS PAT_TAIL
#define PAT_KIMI \
    "[\\\\p{Han}]+|" PAT_CASED("&&[^\\\\p{Han}]", \
                               PAT_CONTRACTIONS "?") "|\\\\p{N}{1,3}" PAT_SIGNS PAT_TAIL

#endif
