/* The truth: every kernel over vectors of plain C. */
#include "gpu_worker/cpu/vec_portable.h"

#define KERN_WIDE 1
#define KERN_BYTES 1
#define KERN_NARROW 1
#define KERN_FLOAT 1
#define KERN_TWO 0
#define KERN_FOUR 0
#define KERN_FLOAT_FOUR 0
#define KERN_ATTEND 1
#define KERN_DELTA 1
#define KERN_GROUPS(R) 1
#define KERN_PANEL(R) 1
#include "gpu_worker/cpu/kern_table.h"

const struct cpu_kernels cpu_kernels_portable = KERN_ALL("portable");
