/* request_log.h - one JSON line for each request that a model was asked, when it is over (--log-requests).
 *
 *     {"ts":…,"msg":"request","rid":…,"route":"/generate","key":"alice","status":200,"finish_reason":"stop","prompt_tokens":…,
 *      "cached_tokens":…,"output_tokens":…,"ttft_s":…,"e2e_s":…}      499: the client left; no text unless --log-requests-text
 *
 * Always: at most one line a request; with the names of keys, never a key.
 * Owner: the loop's thread. */
#ifndef ROUTER_REQUEST_LOG_H
#define ROUTER_REQUEST_LOG_H

struct request;

/* While its prompts are still in the journal. code: 0, or why it failed (errors.def). */
void request_log(const struct request *q, int code);

#endif
