/* base.h - the words every file uses: fixed-width integers, a few macros, what we assume of the platform.
 *
 * Always: little endian, 64-bit pointers, IEEE floats; checked here once so that no other file asks.
 * Owner: nobody; there is no state. */
#ifndef COMMON_BASE_BASE_H
#define COMMON_BASE_BASE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define BY_MUST_USE __attribute__((warn_unused_result))
#define BY_PRINTF(fmt_at, args_at) __attribute__((format(printf, fmt_at, args_at)))
#define BY_NORETURN __attribute__((noreturn))
#define BY_LIKELY(x) __builtin_expect(!!(x), 1)
#define BY_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#error "Banyan needs gcc or clang"
#endif

#define BY_COUNTOF(a) (sizeof(a) / sizeof((a)[0]))
#define BY_MIN(a, b) ((a) < (b) ? (a) : (b))
#define BY_MAX(a, b) ((a) > (b) ? (a) : (b))
#define BY_ALIGN_UP(x, to) (((x) + (to)-1) / (to) * (to))
#define BY_DIV_UP(x, by) (((x) + (by)-1) / (by))
/* The struct that holds `member`, from a pointer to the member (intrusive lists and heaps). */
#define BY_CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#ifndef __cplusplus
static_assert(sizeof(void *) == 8, "64-bit only");
static_assert(sizeof(size_t) == 8, "64-bit only");
static_assert(sizeof(float) == 4 && sizeof(double) == 8, "IEEE floats");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "files and frames are little endian and read in place");
#endif

#endif
