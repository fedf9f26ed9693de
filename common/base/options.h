/* options.h - every option of every process, from one table (options.def).
 *
 *     defaults < config file (--config FILE.yaml) < environment (BANYAN_PORT) < flags (--port 30000)
 *
 * A row makes the parser, --help, the environment name, the config key, the docs page and the typed field
 * `opt->port`. A flag that this program does not read is refused by name with the nearest match; `banyan serve`
 * reads all of them and hands each child the ones it reads. A variable that none is named by is warned of (options_meant.h).
 * Always: a parsed struct holds values within the row's range. Strings are owned by the struct.
 * Owner: main; read only afterwards. */
#ifndef COMMON_BASE_OPTIONS_H
#define COMMON_BASE_OPTIONS_H

#include "common/base/err.h"

/* Who reads an option: a bit a program. */
enum {
    BY_FOR_SERVE = 1 << 0,
    BY_FOR_ROUTER = 1 << 1,
    BY_FOR_TOKENIZER = 1 << 2,
    BY_FOR_SCHEDULER = 1 << 3,
    BY_FOR_WORKER = 1 << 4,
    BY_FOR_DETOKENIZER = 1 << 5,
    BY_FOR_TOOL = 1 << 6,    /* banyan tokenize, chat-template, model */
    BY_FOR_INSPECT = 1 << 7, /* banyan inspect: what finds a server that runs */
    BY_FOR_DAEMONS =
        BY_FOR_ROUTER | BY_FOR_TOKENIZER | BY_FOR_SCHEDULER | BY_FOR_WORKER | BY_FOR_DETOKENIZER,
    BY_FOR_ALL = BY_FOR_DAEMONS | BY_FOR_SERVE | BY_FOR_TOOL | BY_FOR_INSPECT,
};

/* The field types: OPT_STR char * (NULL when unset and without default), OPT_INT int64_t, OPT_NUM double, OPT_FLAG bool,
 * OPT_CHOICE: char *, one of the row's words. */
struct by_options {
#define OPT_STR(name, deflt, who, help) char *name;
#define OPT_CHOICE(name, deflt, words, who, help) char *name;
#define OPT_INT(name, deflt, min, max, who, help) int64_t name;
#define OPT_NUM(name, deflt, min, max, who, help) double name;
#define OPT_FLAG(name, who, help) bool name;
#define OPT_ALIAS(alias, name, who)
#define OPT_SECTION(title)
#include "common/base/options.def"
#undef OPT_STR
#undef OPT_CHOICE
#undef OPT_INT
#undef OPT_NUM
#undef OPT_FLAG
#undef OPT_ALIAS
#undef OPT_SECTION
    char **rest; /* words that are no flags, in order; borrowed from argv */
    int n_rest;
};

struct by_options_program {
    const char *name;    /* "banyan-router" */
    uint32_t who;        /* BY_FOR_… bits of the options it reads */
    const char *summary; /* one line for --help */
    const char *usage;   /* "[options] PATH"; NULL means "[options]" */
    int n_words;         /* how many words beside flags it takes; one more is an error */
};

/* Answers --help, --man and --version itself and exits 0; every other problem is an error that names the flag. */
BY_MUST_USE int by_options_parse(struct by_options *out, const struct by_options_program *prog,
                                 int argc, char **argv, struct by_err *err);
void by_options_release(struct by_options *o);
/* The argv for a child that reads `who`: every set (non-default) option it reads, as --flag value. argv[0] = program.
 * NULL-terminated, yours: by_options_argv_free. Keys are left out, since all users see a command line. */
BY_MUST_USE char **by_options_argv(const struct by_options *o, const char *program, uint32_t who);
void by_options_argv_free(char **argv);
/* Takes the options out of the environment, so that in children, too, a flag that says the default stays stronger than the variable
 * that it overruled. What a child that reads `who` needs beside its argv, its keys, as NAME=value: NULL-terminated, yours
 * (by_options_argv_free). */
BY_MUST_USE char **by_options_hand_on(const struct by_options *o, uint32_t who);

#endif
