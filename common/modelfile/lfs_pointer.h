/* lfs_pointer.h - files that Git LFS left out: a clone without git-lfs has three lines of text in place of each large one.
 *
 *     version https://git-lfs.github.com/spec/v1 LF oid sha256:4d7a… LF size 12345 LF
 *
 * Always: only the beginning of files under 1,024 bytes is read, as Git LFS itself tells a pointer.
 * Owner: nobody; reads files. */
#ifndef COMMON_MODELFILE_LFS_POINTER_H
#define COMMON_MODELFILE_LFS_POINTER_H

#include "common/base/err.h"

/* path: a file, or a folder of whose files each is looked at. Those that hold weights are passed over when only the text is wanted. */
BY_MUST_USE int by_lfs_pointer_refuse(const char *path, bool with_weights, struct by_err *err);

#endif
