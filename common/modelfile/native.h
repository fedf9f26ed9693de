/* native.h - can the native engine run this model, and if not, why? What `banyan model` says and the gpu worker obeys.
 *
 *     family in the table of families.c, rope, quantisation and the family's own switches ─▶ yes, or one sentence
 *
 * Always: each family of that table has its file in gpu_worker/models (a test holds the two together). A yes is no
 * promise about the tensors: those are checked when they are loaded.
 * Owner: no state. */
#ifndef COMMON_MODELFILE_NATIVE_H
#define COMMON_MODELFILE_NATIVE_H

#include "common/base/json.h"
#include "common/modelfile/model_info.h"

/* BY_EUNSUPPORTED names the family or the feature. config: config.json, NULL for a GGUF. */
BY_MUST_USE int by_native_check(const struct by_model_info *m, const struct by_json *config,
                                struct by_err *err);
/* Bytes of KV cache for one token, all layers, numbers of number_bytes. */
uint64_t by_native_kv_bytes(const struct by_model_info *m, uint32_t number_bytes);
/* What layers with a state keep of a sequence, however long it is. */
uint64_t by_native_state_bytes(const struct by_model_info *m);

#endif
