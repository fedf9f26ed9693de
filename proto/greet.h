/* greet.h - the first words of a session: what hello and welcome say, and who is refused, in which words.
 *
 *     connector ── hello: version, role, instance, epoch, attempt, endpoint, model, capacity ──▶ binder
 *               ◀── welcome: session and credit, or a sentence why not, or neither: there is no session ──
 *
 * Always: nothing is sent or remembered here; strings of a made message are borrowed from the options.
 * Owner: the wire. */
#ifndef PROTO_GREET_H
#define PROTO_GREET_H

#include "proto/wire.h"

struct msg greet_hello(const struct wire_options *o, uint32_t attempt);
/* Without a session, until the caller puts one in. attempt: of the hello it answers; 0: of none. */
struct msg greet_welcome(const struct wire_options *o, uint32_t attempt);
/* Does this binder take that connector? */
BY_MUST_USE int greet_check_hello(const struct wire_options *o, const struct msg_hello *h,
                                  struct by_err *err);
/* Was this connector taken, by one it can speak with? */
BY_MUST_USE int greet_check_welcome(const struct wire_options *o, const struct msg_welcome *m,
                                    struct by_err *err);

#endif
