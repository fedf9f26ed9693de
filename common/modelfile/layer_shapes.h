/* layer_shapes.h - what a config says of layers that are not alike (Gemma 4).
 *
 *     window  window  window  full  window  window  window  full
 *     |--------- keys of their own --------|-- keys of the last of their kind before --|
 *
 * Always: heads of all layers with a window are alike, and those of all others; other ways to differ are refused.
 * Owner: no state. */
#ifndef COMMON_MODELFILE_LAYER_SHAPES_H
#define COMMON_MODELFILE_LAYER_SHAPES_H

#include "common/modelfile/config.h"
#include "common/modelfile/model_info.h"

/* Reads them where the family knows such keys; layer_flags are set already. A fault is c->rc. */
void by_layer_shapes_read(struct by_config *c, struct by_model_info *m);
/* "proportional": the first pairs of a head turn as if all did, the rest do not. */
void by_layer_shapes_fill_proportional(struct by_rope *r, double part);

#endif
