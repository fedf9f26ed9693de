/* gguf_splits.c - the table of tokenizer.ggml.pre. */
#include "common/text/gguf_splits.h"

#include "common/base/base.h"
#include "common/text/split_patterns.h"

/* ---- steps ---- */

#define STEPS(list) "{\"type\":\"Sequence\",\"pretokenizers\":[" list "]}"
#define SPLIT(regex) \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex \
    "\"},\"behavior\":\"Isolated\",\"invert\":false},"
#define DIGITS "{\"type\":\"Digits\",\"individual_digits\":true},"
#define DIGIT_RUNS "{\"type\":\"Digits\",\"individual_digits\":false},"
#define BYTES "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define GPT2_BYTES "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define ONE(regex) STEPS(SPLIT(regex) BYTES)
#define NFC "{\"type\":\"NFC\"}"

/* ---- patterns ---- */

#define HAN "\\u4e00-\\u9fa5"
#define KANA "\\u3040-\\u309f\\u30a0-\\u30ff"
#define HAN_AND_KANA "[" HAN KANA "]+"
#define ASIAN "[" HAN "\\u0800-\\u4e00\\uac00-\\ud7ff]+"
/* Letters as a table of 2023 had them, and signs, ASCII's and wide ones. */
#define OLD_LETTERS \
    "\\\\s?[A-Za-z\\u00b5\\u00c0-\\u00d6\\u00d8-\\u00f6\\u00f8-\\u01ba\\u01bc-" \
    "\\u01bf\\u01c4-\\u0293\\u0295-\\u02af\\u0370-\\u0373\\u0376\\u0377\\u037b-" \
    "\\u037d\\u037f\\u0386\\u0388-\\u038a\\u038c\\u038e-\\u03a1\\u03a3-\\u03f5\\u03f7-" \
    "\\u0481\\u048a-\\u052f\\u0531-\\u0556\\u10a0-\\u10c5\\u13a0-" \
    "\\u13f5\\u13f8-\\u13fd\\u1c90-\\u1cba\\u1cbd-\\u1cbf\\u1d00-" \
    "\\u1d2b\\u1d6b-\\u1d77\\u1d79-\\u1d9a\\u1e00-\\u1f15\\u1f18-" \
    "\\u1f1d\\u1f20-\\u1f45\\u1f48-\\u1f4d\\u1f50-\\u1f57\\u1f59\\u1f5b\\u1f5d\\u1f5f-" \
    "\\u1f7d\\u1f80-\\u1fb4\\u1fb6-\\u1fbc\\u1fbe\\u1fc2-\\u1fc4\\u1fc6-" \
    "\\u1fcc\\u1fd0-\\u1fd3\\u1fd6-\\u1fdb\\u1fe0-\\u1fec\\u1ff2-" \
    "\\u1ff4\\u1ff6-\\u1ffc\\u2102\\u2107\\u210a-" \
    "\\u2113\\u2115\\u2119-\\u211d\\u2124\\u2126\\u2128\\u212a-" \
    "\\u212d\\u212f-\\u2134\\u2139\\u213c-\\u213f\\u2145-\\u2149\\u214e\\u2183\\u2184\\u2c00-" \
    "\\u2c7b\\u2c7e-\\u2ce4\\u2ceb-\\u2cee\\u2cf2\\u2cf3\\ua640-\\ua66d\\ua680-" \
    "\\ua69b\\ua722-\\ua76f\\ua771-\\ua787\\ua78b-\\ua78e\\uab70-" \
    "\\uabbf\\ufb00-\\ufb06\\ufb13-\\ufb17\\uff21-\\uff3a\\uff41-" \
    "\\uff5a\\ud801\\udc00-\\ud801\\udc4f\\ud801\\udcb0-" \
    "\\ud801\\udcd3\\ud801\\udcd8-\\ud801\\udcfb\\ud803\\udc80-" \
    "\\ud803\\udcb2\\ud803\\udcc0-\\ud803\\udcf2\\ud806\\udca0-" \
    "\\ud806\\udcdf\\ud83a\\udd00-\\ud83a\\udd43]+"
#define OLD_SIGNS "\\\\s?[!-/:-~\\uff01-\\uff0f\\uff1a-\\uff5e\\u2018-\\u201f\\u3000-\\u3002]+"

#define SIGN_AND_WORD "[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+"
#define MARKED_WORD "|[^\\r\\n\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{L}\\\\p{M}]+"
#define DEEPSEEK_WORDS \
    SIGN_AND_WORD MARKED_WORD \
        "| ?[\\\\p{P}\\\\p{S}]+[\\r\\n]*|\\\\s*[\\r\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define SPARK_WORDS \
    SIGN_AND_WORD MARKED_WORD "| ?[\\\\p{P}\\\\p{S}]+|[\\r\\n]|\\\\s+(?!\\\\S)|\\\\s+"
#define THREE_DIGITS SPLIT("\\\\p{N}{1,3}")
#define DEEPSEEK_V3 STEPS(THREE_DIGITS SPLIT(HAN_AND_KANA) SPLIT(DEEPSEEK_WORDS) BYTES)

/* Digits in threes from the right; pieces of 510 keep the looks ahead short. */
#define TRINITY_DIGITS \
    SPLIT("\\\\p{Nd}{1,510}(?=(?>\\\\p{Nd}{510})*(?:\\\\P{Nd}|$))|\\\\G\\\\p{Nd}{510}") \
    SPLIT("\\\\A\\\\p{Nd}{1,2}(?=\\\\p{Nd}{3}+\\\\z)") \
    SPLIT("\\\\A\\\\p{Nd}{3}|\\\\G\\\\p{Nd}{3}")
#define TRINITY_SCRIPTS \
    "(?:[\\u4e00-\\u9fff" KANA "\\u3400-\\u4dbf\\uf900-\\ufaff\\uff65-\\uff9f\\u2f00-\\u2fdf]+" \
    "|[\\u0e00-\\u0e7f]+|[\\u0e80-\\u0eff]+|[\\u1780-\\u17ff]+" \
    "|[\\u1000-\\u109f\\uaa60-\\uaa7f\\ua9e0-\\ua9ff]+|[\\uac00-\\ud7af\\u1100-\\u11ff]+)"

#define YOUTU_SCRIPTS \
    "[\\uac00-\\ud7a3\\u3131-\\u318e]+|[\\uff01\\u2026\\u201c\\u201d\\u2018\\u2019\\u2014\\uff1a" \
    "\\uff1b\\uff0c\\u3001-\\u303f\\ufe30-\\ufe4f]+|[\\u3105-\\u312f]+|" HAN_AND_KANA
#define YOUTU_WORDS PAT_CASED("", PAT_CONTRACTIONS "?") "|\\\\p{N}" PAT_CASED_SIGNS PAT_TAIL

#define MARKS_TOO \
    PAT_CONTRACTIONS "|" PAT_START "[\\\\p{L}\\\\p{M}]+|\\\\p{N}" \
                     "| ?[^\\\\s\\\\p{L}\\\\p{M}\\\\p{N}]+[\\\\r\\\\n]*" PAT_TAIL
#define EXAONE_MOE \
    PAT_CONTRACTIONS "|" PAT_START "(?:\\\\p{L}\\\\p{M}*(?: \\\\p{L}\\\\p{M}*)*)+|\\\\p{N}" \
                     "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]?" \
                     "|\\\\s*[\\\\r\\\\n]|\\\\s+(?!\\\\S)|\\\\s+"
#define LING \
    "'(?i:[sdmt]|ll|ve|re)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?+\\\\p{L}+|\\\\p{N}" \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]++[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]|\\\\s+(?!\\\\S)|\\\\s+"
#define SEED \
    PAT_CONTRACTIONS "|" PAT_START "\\\\p{L}+|\\\\p{N}{1}| ?[^\\\\s\\\\p{L}\\\\p{N}\\r\\n]+" \
                     "|\\\\s*[\\r\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define BLOOM " ?[^(\\\\s|[.,!?\\u2026\\u3002\\uff0c\\u3001\\u0964\\u06d4\\u060c])]+"
#define JAIS2 \
    PAT_CONTRACTIONS \
    "|" PAT_START "\\\\p{L}+|\\\\p{N}{1,3}" PAT_SIGNS \
    "|\\\\s*[\\\\r\\\\n]+|\\\\s{512}(?!\\\\S)|\\\\s{256}(?!\\\\S)" \
    "|\\\\s{128}(?!\\\\S)|\\\\s{64}(?!\\\\S)|\\\\s{32}(?!\\\\S)|\\\\s{16}(?!\\\\S)" \
    "|\\\\s{8}(?!\\\\S)|\\\\s{4}(?!\\\\S)|\\\\s{1,2}(?!\\\\S)|\\\\s{1}"

/* ---- the table ---- */

static const struct by_gguf_split splits[] = {
    {"smollm starcoder refact codeshell exaone minerva-7b mellum2", "null",
     STEPS(DIGITS GPT2_BYTES), false, false},
    {"command-r", NFC, STEPS(DIGITS GPT2_BYTES), false, false},
    {"gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de jais gigachat a.x-4.0 mellum exaone4 "
     "trillion granite-docling",
     "null", GPT2_BYTES, false, false},
    {"mpt olmo modern-bert", NFC, GPT2_BYTES, false, false},
    {"llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", "null",
     ONE(PAT_CL100K), true, true},
    {"dbrx smaug-bpe chatglm-bpe", "null", ONE(PAT_CL100K), false, false},
    {"glm4 glm5", "null", ONE(PAT_CL100K), true, false},
    {"qwen2 stablelm2 megrez hunyuan deepseek-r1-qwen f2llmv2", NFC, ONE(PAT_QWEN), false, false},
    {"kormo grok-2 solar-open", "null", ONE(PAT_QWEN), false, false},
    {"qwen35", NFC, ONE(MARKS_TOO), false, false},
    {"ufakzeka", "null", ONE(PAT_START "\\\\p{L}+|\\\\p{N}" PAT_SIGNS PAT_TAIL), false, false},
    {"laguna", "null", STEPS(SPLIT("[^\\n]+|[\\n]+") SPLIT(PAT_QWEN) BYTES), false, false},
    {"minicpm5", "null",
     STEPS(THREE_DIGITS SPLIT(PAT_CONTRACTIONS "|" PAT_START
                                               "\\\\p{L}+|\\\\p{N}+" PAT_SIGNS PAT_TAIL) BYTES),
     true, false},
    {"jais-2", "null", ONE(JAIS2), false, false},
    {"seed-coder", "null", ONE(SEED), false, false},
    {"bailingmoe bailingmoe2 llada-moe", "null", ONE(LING), false, false},
    {"exaone-moe", "null", ONE(EXAONE_MOE), false, false},
    {"gpt-4o llama4 kanana2 talkie minimax-m2", "null", ONE(PAT_O200K), false, false},
    {"granite-embed-multi-97m", "null", ONE(PAT_O200K), true, false},
    {"tiny_aya cohere2moe", "null",
     STEPS(SPLIT("\\\\d{1,3}(?=(?:\\\\d{3})*\\\\b)") SPLIT(PAT_O200K) BYTES), false, false},
    {"tekken", "null", ONE(PAT_TEKKEN), true, true},
    {"kimi-k2", "null", ONE(PAT_KIMI), false, false},
    {"youtu", "null", STEPS(SPLIT(YOUTU_SCRIPTS) SPLIT(YOUTU_WORDS) BYTES), true, false},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4", "null", DEEPSEEK_V3, false, false},
    {"spark2_5", "null",
     STEPS(THREE_DIGITS SPLIT(HAN_AND_KANA) SPLIT(SPARK_WORDS) SPLIT("\\\\p{N}") BYTES), false,
     false},
    {"afmoe", "null", STEPS(TRINITY_DIGITS SPLIT(TRINITY_SCRIPTS) SPLIT(DEEPSEEK_WORDS) BYTES),
     false, false},
    {"deepseek-llm", "null",
     STEPS(SPLIT("[\\r\\n]") SPLIT(OLD_LETTERS) SPLIT(OLD_SIGNS) SPLIT("\\\\s+$") SPLIT(ASIAN)
               DIGITS BYTES),
     false, false},
    {"deepseek-coder", "null",
     STEPS(SPLIT("[\\r\\n]") SPLIT("\\\\s?\\\\p{L}+") SPLIT("\\\\s?\\\\p{P}+") SPLIT(ASIAN)
               DIGITS BYTES),
     false, false},
    {"falcon", "null",
     STEPS("{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}," GPT2_BYTES "," DIGIT_RUNS
           "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[0-9][0-9][0-9]\"},"
           "\"behavior\":\"Isolated\",\"invert\":false}"),
     false, false},
    {"bloom poro-chat gpt3-finnish", "null", ONE(BLOOM), false, false},
    {"viking", "null", STEPS(SPLIT(BLOOM) DIGITS BYTES), false, false},
    {"superbpe", "null", STEPS(SPLIT("\\\\p{N}+") SPLIT("(?=(\\\\d{3})+(?!\\\\d))") BYTES), false,
     false},
    {"chameleon", "null",
     STEPS(SPLIT("<sentinel:[0-9]+>") SPLIT("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z") SPLIT(
         "([\\\\t\\\\n]|    |  )") DIGITS SPLIT("[\\\\p{P}!-/:-@\\\\[-`{-~]") GPT2_BYTES),
     false, true},
};

static bool has_name(const char *names, struct by_str name) {
    struct by_str rest = by_str_of(names), one;
    bool is_more = true;
    while (is_more) {
        is_more = by_str_split(&rest, ' ', &one);
        if (by_str_eq(one, name)) return true;
    }
    return false;
}

const struct by_gguf_split *by_gguf_split_find(struct by_str pre) {
    for (size_t i = 0; i < BY_COUNTOF(splits); i++) {
        if (has_name(splits[i].names, pre)) return &splits[i];
    }
    return NULL;
}
