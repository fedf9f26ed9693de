/* file.h - files: map, read whole, join paths, make private folders.
 *
 * Always: a mapped file is read-only; sizes are checked before anything is allocated; errors name the path and
 * what the system said.
 * Owner: the caller; by_map_file / by_unmap_file in pairs. */
#ifndef COMMON_BASE_FILE_H
#define COMMON_BASE_FILE_H

#include "common/base/buf.h"
#include "common/base/err.h"

struct by_mapped {
    const uint8_t *p; /* NULL for an empty file */
    size_t n;
};
BY_MUST_USE int by_file_map(struct by_mapped *out, const char *path, struct by_err *err);
void by_file_unmap(struct by_mapped *m);
/* out->max is the ceiling */
BY_MUST_USE int by_file_read(struct by_buf *out, const char *path, struct by_err *err);
/* A file of keys: one that other users of this machine can read is refused. */
BY_MUST_USE int by_file_read_secret(struct by_buf *out, const char *path, struct by_err *err);
/* Writes to path.RANDOM.tmp, fsyncs, renames: readers see the old file or the whole new one. */
BY_MUST_USE int by_file_write(const char *path, struct by_str bytes, struct by_err *err);
bool by_file_exists(const char *path);
bool by_file_is_dir(const char *path);
/* with parents; existing is fine */
BY_MUST_USE int by_dir_make(const char *path, unsigned mode, struct by_err *err);
/* For as long as this process lives, however it ends; nothing is written into it. BY_EAGAIN: another process has it. */
BY_MUST_USE int by_dir_lock(const char *path, struct by_err *err);
/* a run directory: its plain files and sockets, then itself; not recursive, and nothing behind a link */
void by_dir_remove(const char *path);
BY_MUST_USE char *by_path_join(const char *dir, const char *name); /* yours */
/* yours; "." when there is none */
BY_MUST_USE char *by_path_dir(const char *path);
const char *by_path_base(const char *path); /* borrowed */
/* $HOME, else as the user database says; borrowed */
const char *by_path_home(void);
/* $BANYAN_CACHE, $XDG_CACHE_HOME/banyan or ~/.cache/banyan; yours */
BY_MUST_USE char *by_path_cache(void);

#endif
