/* options_text.h - what a person reads of the options: --help, the manual page (--man), the page in deploy/docs.
 *
 * Always: made from options.def alone, so that none of them can be stale.
 * Owner: the caller, as the buffer. */
#ifndef COMMON_BASE_OPTIONS_TEXT_H
#define COMMON_BASE_OPTIONS_TEXT_H

#include "common/base/buf.h"
#include "common/base/options.h"

void by_options_text_help(struct by_buf *out, const struct by_options_program *prog);
void by_options_text_man(struct by_buf *out, const struct by_options_program *prog); /* roff */
void by_options_text_doc(struct by_buf *out); /* deploy/docs/options.md: all programs */

#endif
