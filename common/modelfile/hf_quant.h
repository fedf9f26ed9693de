/* hf_quant.h - quantization_config: how the weights of a Hugging Face folder are packed.
 *
 *     "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, …}     beside the sizes, or beside
 *     "text_config", for the text and the images alike
 *
 * Always: a method that is not known is kept with its name, for by_native_check to refuse.
 * Owner: no state. */
#ifndef COMMON_MODELFILE_HF_QUANT_H
#define COMMON_MODELFILE_HF_QUANT_H

#include "common/modelfile/config.h"
#include "common/modelfile/model_info.h"

/* As all readers of a by_config: what is wrong is left in c->rc. */
void by_hf_quant_read(struct by_config *c, struct by_model_info *m);
/* The same from the config around a text_config, unless that has said it. `where` begins an error. */
BY_MUST_USE int by_hf_quant_add(struct by_model_info *m, const struct by_json *outer,
                                const char *where, struct by_err *err);

#endif
