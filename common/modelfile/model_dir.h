/* model_dir.h - opens whatever --model-path names, and says what is in it.
 *
 *     model.gguf                                        ─▶ BY_MODEL_GGUF
 *     folder/{config.json, *.safetensors, tokenizer.*}  ─▶ BY_MODEL_HF
 *     folder/ with one .gguf and no config.json         ─▶ BY_MODEL_GGUF
 *     folder/ with a tokenizer or template alone        ─▶ BY_MODEL_TEXT (only with by_model_dir_open_text)
 *
 * Always: tensors keep the names of their file; they, the JSON and the strings are borrowed until close. Files are
 * mapped, so an open model costs address space and what was read of it.
 * Owner: whoever opened; one thread opens, any may read. */
#ifndef COMMON_MODELFILE_MODEL_DIR_H
#define COMMON_MODELFILE_MODEL_DIR_H

#include "common/base/buf.h"
#include "common/modelfile/gguf.h"
#include "common/modelfile/model_info.h"

enum by_model_kind { BY_MODEL_GGUF, BY_MODEL_HF, BY_MODEL_TEXT };

struct by_model_dir;

/* For who needs the weights. */
BY_MUST_USE int by_model_dir_open(struct by_model_dir **out, const char *path, struct by_err *err);
/* For who needs the tokenizer, the template or the sizes: weights are not opened and may be missing, and so may
 * config.json (then kind is BY_MODEL_TEXT and info is NULL). A path to a tokenizer's file (.json, .model, .tiktoken) means
 * its folder. */
BY_MUST_USE int by_model_dir_open_text(struct by_model_dir **out, const char *path,
                                       struct by_err *err);
void by_model_dir_close(struct by_model_dir *d); /* NULL is fine */

enum by_model_kind by_model_dir_kind(const struct by_model_dir *d);
const char *by_model_dir_path(const struct by_model_dir *d); /* the GGUF file or the folder */
const struct by_model_info *by_model_dir_info(const struct by_model_dir *d);
const struct by_gguf *by_model_dir_gguf(const struct by_model_dir *d); /* NULL for other kinds */
/* config.json, or its text_config; NULL in a GGUF */
const struct by_json *by_model_dir_config(const struct by_model_dir *d);
/* A model around a text_config may tie the output to the embedding for it: it says so, or does not say that it does not. */
bool by_model_dir_may_tie(const struct by_model_dir *d);
/* It says that it does not, whatever the text_config has (Qwen3-VL-MoE's default is true). */
bool by_model_dir_unties(const struct by_model_dir *d);

/* Tensors under their own names; none when opened for text (a GGUF lists them all the same). */
size_t by_model_dir_n_tensors(const struct by_model_dir *d);
const struct by_tensor_info *by_model_dir_tensor(const struct by_model_dir *d, size_t i);
/* NULL: not there */
const struct by_tensor_info *by_model_dir_find(const struct by_model_dir *d, const char *name);
uint64_t by_model_dir_weight_bytes(const struct by_model_dir *d);

/* A file of the folder, such as "tokenizer.json", into text (text->max is the ceiling). BY_ENOTFOUND when it is not
 * there or the model is a single GGUF file. */
BY_MUST_USE int by_model_dir_read(const struct by_model_dir *d, const char *name,
                                  struct by_buf *text, struct by_err *err);
bool by_model_dir_has(const struct by_model_dir *d, const char *name);

#endif
