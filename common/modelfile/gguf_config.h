/* gguf_config.h - a GGUF file's keys into struct by_model_info.
 *
 *     general.architecture = "qwen3moe"  ─▶ family "qwen3_moe";  keys are then "qwen3moe.block_count" and so on
 *
 * Always: what the keys do not say (activation, scale of the embedding) comes from the same table of families as for
 * config.json; what tensors say (tied or not, biases, rope factors) is read from them.
 * Owner: no state. */
#ifndef COMMON_MODELFILE_GGUF_CONFIG_H
#define COMMON_MODELFILE_GGUF_CONFIG_H

#include "common/modelfile/gguf.h"
#include "common/modelfile/model_info.h"

BY_MUST_USE int by_gguf_config_read(struct by_model_info *out, const struct by_gguf *g,
                                    const char *where, struct by_err *err);

#endif
