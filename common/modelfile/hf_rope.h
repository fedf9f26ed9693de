/* hf_rope.h - how a Hugging Face config turns queries and keys: rope_theta, rope_scaling, rope_parameters, and the layers that
 * do not turn.
 *
 *     "rope_parameters": {"rope_type": "yarn", "factor": 4, …}     or one such object for each kind of layer
 *
 * Always: as of all readers of a by_config, what is wrong is left in c->rc, and rope is plain where nothing is said.
 * Owner: no state. */
#ifndef COMMON_MODELFILE_HF_ROPE_H
#define COMMON_MODELFILE_HF_ROPE_H

#include "common/modelfile/config.h"
#include "common/modelfile/model_info.h"

/* After the sizes. family: NULL for one that is not known. */
void by_hf_rope_read(struct by_config *c, struct by_model_info *m, const struct by_family *family);
void by_hf_rope_mark_no_rope(struct by_config *c, struct by_model_info *m);
/* After the windows. Of families where only layers with a window turn. */
void by_hf_rope_mark_in_windows(struct by_config *c, struct by_model_info *m);

#endif
