/* choose_parsers.h - --tool-call-parser auto and --reasoning-parser auto: what the model's chat template speaks.
 *
 *     template has "<tool_call>"  ─▶  hermes          "[TOOL_CALLS]"  ─▶  mistral          "<think>"  ─▶  qwen3, or deepseek-r1 when
 *     the prompt ends with that …
 *
 * The router sees no model files, so `banyan serve` decides and gives it the names.
 * Always: what is not auto stays as it is; auto becomes a name of the table, "none" when the template shows nothing.
 * Owner: the command, before it starts the others. */
#ifndef DEPLOY_CLI_CHOOSE_PARSERS_H
#define DEPLOY_CLI_CHOOSE_PARSERS_H

#include "common/base/options.h"
#include "common/base/str.h"

void choose_parsers(struct by_options *o);
const char *choose_tool_parser(struct by_str template); /* for the text of one template */
/* A template is rendered, too: who finds the thought opened in the prompt does not open it. */
struct by_chat_template;
const char *choose_reasoning_parser(const struct by_chat_template *t);

#endif
