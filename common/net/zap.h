/* zap.h - who may come in over tcp://: libzmq asks for each handshake, a thread of ours says yes or no.
 *
 *     peer ──CURVE handshake──▶ libzmq's I/O thread ──its public key (ZAP, inproc)──▶ is it in the list? 200 : 400
 *
 * Always: a peer without CURVE, or with a key that is not in the list, never reaches a socket's owner.
 * Owner: started once a process, before the first socket with keys binds; it ends with the process. */
#ifndef COMMON_NET_ZAP_H
#define COMMON_NET_ZAP_H

#include "common/net/keys.h"

/* context: libzmq's. The allowed keys are copied. */
BY_MUST_USE int by_zap_start(void *context, const struct by_keys *keys, struct by_err *err);

#endif
