/* options_row.h - the table of options.def as rows, for those who read options and those who print them.
 *
 * Always: rows stand in the table's order; a section's row comes before its options.
 * Owner: nobody; constant. */
#ifndef COMMON_BASE_OPTIONS_ROW_H
#define COMMON_BASE_OPTIONS_ROW_H

#include "common/base/options.h"
#include "common/base/str.h"

enum by_options_row_kind {
    KIND_STR,
    KIND_CHOICE,
    KIND_INT,
    KIND_NUM,
    KIND_FLAG,
    KIND_ALIAS,
    KIND_SECTION
};

struct by_options_row {
    enum by_options_row_kind kind;
    const char *name;     /* with underscores; a section's title */
    const char *help;     /* an alias: the name it stands for */
    const char *words;    /* of a choice: "a|b" */
    const char *deflt;    /* of str and choice */
    double num, min, max; /* of int and num: default and range (all exact in a double) */
    uint32_t who;
    size_t at; /* offset in struct by_options */
};

enum { FLAG_MAX = 64 };

extern const struct by_options_row by_options_rows[];
extern const size_t by_options_n_rows;

/* The row with this name (underscores or hyphens) among those that `who` reads, aliases followed; NULL: none. */
const struct by_options_row *by_options_row_find(struct by_str name, uint32_t who);
/* serve hands options on, so it reads whatever a daemon reads. */
bool by_options_row_is_read(const struct by_options_row *r, uint32_t who);
bool by_options_row_is_value(const struct by_options_row *r);   /* no alias, no section */
void by_options_row_flag(const char *name, char out[FLAG_MAX]); /* model_path: --model-path */

#endif
