/* jeval.h - runs a parsed template: globals in, the prompt out.
 *
 *     scopes:  globals [name number -> value]  ◀─ macro's scope ◀─ loop's scope   (assignments go to the innermost)
 *
 * `if` opens no scope, a loop's body a new one each round, a macro sees the scope it was made in.
 * Always: every node costs a step of the budget; nesting of macros is bounded; the first failure ends the run.
 * Owner: the run. */
#ifndef COMMON_TEMPLATE_JEVAL_H
#define COMMON_TEMPLATE_JEVAL_H

#include "common/template/jval.h"

/* r->globals and r->out are set by the caller. Look at r->code afterwards. */
void by_jeval_run(struct by_jrun *r);

#endif
