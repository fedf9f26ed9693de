/* options_config.h - the one door to libyaml: reads a flat YAML map `name: scalar`.
 *
 * Always: nested maps, lists and anchors are refused with the line; nothing is executed or included.
 * Owner: options.c calls it once; no state. */
#ifndef COMMON_BASE_OPTIONS_CONFIG_H
#define COMMON_BASE_OPTIONS_CONFIG_H

#include "common/base/err.h"

/* Calls set for each pair in order, until one returns an error. */
BY_MUST_USE int by_options_read_config(const char *path,
                                       int (*set)(void *ctx, const char *key, const char *value,
                                                  struct by_err *err),
                                       void *ctx, struct by_err *err);

#endif
