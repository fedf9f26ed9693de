/* jexec.h - runs a parsed template: globals in, the prompt out.
 *
 *     {{ a + b }}     a and b go to the output as they are found, not as one text that is built first
 *
 * `if` opens no scope, a loop's body a new one each round, a macro sees the scope it was made in.
 * Always: every statement costs a step of the budget; nesting of macros is bounded; the first failure ends the run.
 * Owner: the run. */
#ifndef COMMON_TEMPLATE_JEXEC_H
#define COMMON_TEMPLATE_JEXEC_H

#include "common/template/jval.h"

/* r->globals and r->out are set by the caller. Look at r->code afterwards. */
void by_jexec_run(struct by_jrun *r);

#endif
