/* config.h - values of a config.json by any of the names that families have for them.
 *
 *     by_config_u32(c, "num_hidden_layers|n_layer", 0)      the config first, then the family's defaults, then 0
 *
 * Always: the first error stays in rc, and reads after it give what they are told to give otherwise. null is missing, and
 * says so: it outweighs the default (Mistral's "sliding_window": null is no window).
 * Owner: the caller; the JSON is borrowed. */
#ifndef COMMON_MODELFILE_CONFIG_H
#define COMMON_MODELFILE_CONFIG_H

#include "common/base/json.h"

struct by_config {
    const struct by_json *config, *defaults; /* defaults: NULL without a family */
    const char *where;                       /* the file, for errors */
    struct by_err *err;
    int rc;
    char key[64]; /* under which the last value was found */
};

/* A key that the family does not know means nothing: it was left behind by another one. */
bool by_config_knows(const struct by_config *c, const char *key);
/* keys: "a|b|c", tried in this order. NULL: none is there. */
const struct by_json *by_config_find(struct by_config *c, const char *keys);
bool by_config_has(struct by_config *c, const char *keys);
/* A list gives its first: some families say it once a layer. */
uint32_t by_config_u32(struct by_config *c, const char *keys, uint32_t otherwise);
double by_config_f64(struct by_config *c, const char *keys, double otherwise);
bool by_config_bool(struct by_config *c, const char *keys, bool otherwise);
struct by_str by_config_str(struct by_config *c, const char *keys); /* empty: none */
/* What is too long is cut. */
void by_config_copy(char *to, size_t cap, struct by_str s);
/* rc, unless it is set: "where: key: expected `want`, got what v is". */
void by_config_fail(struct by_config *c, const char *key, const char *want,
                    const struct by_json *v);

#endif
