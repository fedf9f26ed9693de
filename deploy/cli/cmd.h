/* cmd.h - the sub-commands of `banyan`.
 * Always: each gets the words from its own name on and returns the exit status.
 * Owner: banyan.c's table. */
#ifndef DEPLOY_CLI_CMD_H
#define DEPLOY_CLI_CMD_H

#include "common/base/options.h"

int cmd_serve(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_chat_template(int argc, char **argv);
int cmd_model(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_keys(int argc, char **argv);
int cmd_config(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_top(int argc, char **argv); /* in_python.c */

int cmd_inspect(int argc, char **argv);
int cmd_trace(int argc, char **argv);

/* A word that only one command knows, such as --decode: taken out before the table of options sees the rest. */
bool cmd_take_word(int *argc, char **argv, const char *word);
/* The model as a bare word, as all commands take it that read one: becomes o->model_path. Two are refused. */
BY_MUST_USE int cmd_take_model(struct by_options *o, struct by_err *err);
/* "banyan COMMAND: why" on stderr, once where the sentence names the command itself; returns the exit status. */
int cmd_fail(const char *command, const char *why);

#endif
