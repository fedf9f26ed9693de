/* fetch_hub.h - a model of the Hub on this machine: org/name[@revision] ─▶ a folder (or GGUF file) of the Hub's cache.
 *
 *     /api/models/org/name/revision/main ─▶ commit, files ─▶ choose ─▶ for each: HEAD ─▶ blob ─▶ link ─▶ refs/main
 *
 * Always: a second start asks one question and fetches nothing. With HF_HUB_OFFLINE, or when the Hub cannot be reached, what
 * the cache has whole is used. Two starts at once share one transfer.
 * Owner: the cli, before any child runs. May block for as long as a model takes; a stop signal ends it. */
#ifndef DEPLOY_CLI_FETCH_HUB_H
#define DEPLOY_CLI_FETCH_HUB_H

#include "deploy/cli/hub_id.h"

BY_MUST_USE int fetch_hub(const struct hub_id *id, const struct hub_wants *wants, char **out,
                          struct by_err *err); /* *out is yours (by_free) */

#endif
