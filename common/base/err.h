/* err.h - error codes and the sentence that goes with them.
 *
 *     int rc = gguf_open(&g, path, err);      rc: 0 or a negative BY_E… from errors.def
 *     if (rc) goto done;                      err->text: names the thing, the value, the remedy
 *
 * Always: a function that takes `struct by_err *` and fails has filled it (NULL means the caller does not care).
 * Owner: the caller of the outermost function; the text is a copy, nothing to free. */
#ifndef COMMON_BASE_ERR_H
#define COMMON_BASE_ERR_H

#include "common/base/base.h"

enum by_code {
    BY_OK = 0,
#define ERROR(name, code, http, type, sentence) name = code,
#include "common/base/errors.def"
#undef ERROR
};

enum { BY_ERR_TEXT_MAX = 512 };

struct by_err {
    int code;                   /* BY_OK or BY_E… */
    char text[BY_ERR_TEXT_MAX]; /* one sentence, no newline, valid UTF-8, always terminated */
};

/* Fills err (if not NULL) and returns code, so that a failure is one line: return by_fail(err, BY_EIO, "…"). */
BY_PRINTF(3, 4) int by_fail(struct by_err *err, int code, const char *fmt, ...);
/* Puts "fmt: " before the text that a lower layer left in err; returns err's code. */
BY_PRINTF(2, 3) int by_fail_prefix(struct by_err *err, const char *fmt, ...);

const char *by_err_name(int code);     /* "BY_EIO"; "BY_E?" for a code that is not in the table */
const char *by_err_sentence(int code); /* the table's sentence */
const char *by_err_type(int code);     /* OpenAI's error type */
int by_err_http(int code);             /* HTTP status; 500 for unknown codes */
/* is this a code of the table? (codes also come from the wire) */
bool by_err_known(int code);

#endif
