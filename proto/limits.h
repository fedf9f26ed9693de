/* limits.h - every ceiling of the wire in one place. Decoding checks these before it allocates.
 *
 * Always: a frame within these limits decodes in memory of at most a few times its own size.
 * Owner: nobody. HTTP's own ceilings are options (options.def). */
#ifndef PROTO_LIMITS_H
#define PROTO_LIMITS_H

enum {
    LIMIT_FRAME_BYTES = 96 * 1024 * 1024, /* MAXMSGSIZE of every socket */
    LIMIT_STR_BYTES = 64 * 1024 * 1024,   /* one str or bin field */
    /* instance, endpoint, tenant, extra_key … stay far below */
    LIMIT_CONTROL_STR_BYTES = 64 * 1024,
    LIMIT_TOKENS = 16 * 1024 * 1024, /* ids in one u32s */
    LIMIT_LIST = 65536,              /* records of one list, strings of one strs */
    LIMIT_N = 128,                   /* samples a request */
    LIMIT_STOP_STRINGS = 32,
    LIMIT_STOP_BYTES = 1024, /* one stop string or pattern */
    LIMIT_STOP_REGEXES = 32,
    LIMIT_STOP_IDS = 1024,
    LIMIT_LOGIT_BIAS = 1024,
    LIMIT_TOP_LOGPROBS = 128,
    LIMIT_PEERS = 256,
    LIMIT_JSON_DEPTH = 64,
    LIMIT_JSON_VALUES = 1 << 20, /* of a request: reading a million takes a router 0.2 s */
    LIMIT_JSON_MEMBERS = 65536,
    LIMIT_CREDIT_BYTES = 256 * 1024 * 1024, /* window of one session: a few of the largest frames */
};

#endif
