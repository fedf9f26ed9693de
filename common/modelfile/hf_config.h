/* hf_config.h - config.json and generation_config.json into struct by_model_info.
 *
 *     "rope_theta": 1e4, "rope_scaling": {"type": "yarn", …}, "torch_dtype": …          transformers 4
 *     "rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn", …}, "dtype": …        transformers 5
 *     "rope_parameters": {"full_attention": {…}, "sliding_attention": {…}}              Gemma 3 in 5
 *
 * A key is looked up under every spelling its families use (n_embd, hidden_size, d_model), then in the family's
 * defaults. A model with a text_config is described by that part.
 * Always: the JSON is bounded before it is parsed; a bad value is refused with its key and the value.
 * Owner: no state. */
#ifndef COMMON_MODELFILE_HF_CONFIG_H
#define COMMON_MODELFILE_HF_CONFIG_H

#include "common/base/json.h"
#include "common/modelfile/model_info.h"

enum { BY_CONFIG_BYTES_MAX = 16 << 20, BY_CONFIG_DEPTH_MAX = 32 };

/* config: the parsed config.json; `where` (its path) begins every error. */
BY_MUST_USE int by_hf_config_read(struct by_model_info *out, const struct by_json *config,
                                  const char *where, struct by_err *err);
/* Adds generation_config.json: eos ids and sampling defaults. A value of the wrong type is an error. */
BY_MUST_USE int by_hf_config_add_generation(struct by_model_info *m,
                                            const struct by_json *generation, const char *where,
                                            struct by_err *err);
/* Reads and parses a JSON file of at most BY_CONFIG_BYTES_MAX; free with by_json_free. */
BY_MUST_USE int by_hf_config_load(struct by_json **out, const char *path, struct by_err *err);

#endif
