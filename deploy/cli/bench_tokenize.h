/* bench_tokenize.h - how fast a tokenizer is here: what `banyan tokenize --bench` prints.
 *
 *     load 126 ms, from the cache 9 ms · encode 16 MB/s · 80 characters 4 µs · decode 130 MB/s
 *
 * Always: CPU time of one thread, the best of some rounds; decoding what was encoded must give the text, or it says so.
 * Owner: the command. */
#ifndef DEPLOY_CLI_BENCH_TOKENIZE_H
#define DEPLOY_CLI_BENCH_TOKENIZE_H

#include "common/modelfile/model_dir.h"

/* Prints to stdout. text: empty means a sample of prose, code and other scripts. */
BY_MUST_USE int bench_tokenize(const struct by_model_dir *dir, struct by_str text,
                               struct by_err *err);

#endif
