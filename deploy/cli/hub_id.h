/* hub_id.h - names on the Hub, and which files of a model are worth fetching. No network, no disk.
 *
 *     org/name                    the model, at its main branch
 *     org/name@revision           a branch, tag or commit
 *     org/name/FILE.gguf[@rev]    one GGUF file of several
 *
 * What the Hub lists is text from outside: a name is used only when hub_name_is_safe says so, which keeps it below the
 * folder it is put into.
 * Always: of a list, weights come last, so that a folder that has them has all the rest.
 * Owner: the cli; slices of a parsed id are borrowed from its text. */
#ifndef DEPLOY_CLI_HUB_ID_H
#define DEPLOY_CLI_HUB_ID_H

#include "common/base/json.h"

enum {
    HUB_NAME_BYTES_MAX = 512, /* a file's path inside a model */
    HUB_FILES_MAX = 100000,   /* files that a model may list; the largest have some thousands */
    HUB_SHARDS_MAX = 4096,
};

struct hub_id {
    struct by_str repo;     /* "org/name" */
    struct by_str revision; /* "main" when none was given */
    struct by_str file;     /* "FILE.gguf", or empty */
};

/* False: text is no Hub id (it may be a path). */
BY_MUST_USE bool hub_id_parse(struct hub_id *out, const char *text);
/* A path below some folder: no empty, "." or ".." part, no backslash, no control character, valid UTF-8, not long. */
bool hub_name_is_safe(struct by_str name);
bool hub_is_commit(struct by_str s); /* 40 hex digits */

struct hub_wants {
    struct by_str file; /* a GGUF chosen by name, or empty */
    bool text_only;     /* no weights, unless they hold the text (GGUF) */
    bool code, pickles; /* --trust-remote-code, --allow-pickle */
};

struct hub_file {
    struct by_str name; /* borrowed from where the list came from */
    int64_t size;       /* bytes; -1: not said */
};
struct hub_files {
    struct hub_file *at;
    size_t n, cap;
    /* model.safetensors.index.json is among them: ask for its shards with hub_files_add_shards */
    bool has_index;
    bool is_gguf; /* the one file is the model */
};

/* unsafe names are left out */
void hub_files_add(struct hub_files *f, struct by_str name, int64_t size);
/* The Hub's {"siblings": [{"rfilename", "size"}, …]}. */
BY_MUST_USE int hub_files_read(struct hub_files *all, const struct by_json *info,
                               struct by_err *err);
/* Of all files those that are worth having; BY_ENOTFOUND when there is nothing to run, in words that begin with repo. */
BY_MUST_USE int hub_files_choose(struct hub_files *out, const struct hub_files *all,
                                 struct by_str repo, const struct hub_wants *wants,
                                 struct by_err *err);
/* Adds the shards that model.safetensors.index.json names, with their sizes from `all`. */
BY_MUST_USE int hub_files_add_shards(struct hub_files *out, const struct hub_files *all,
                                     const struct by_json *index, struct by_err *err);
void hub_files_release(struct hub_files *f);

#endif
