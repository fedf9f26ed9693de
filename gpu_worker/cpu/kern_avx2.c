/* The kernels on AVX2 with FMA and F16C. 16 registers: the sums of a block of 8 rows stay in them, totals need not. One row
 * takes four strips at once: of four streams the processor fetches more ahead than of one. Two rows lose more than they
 * gain. */
#if defined(__AVX2__)
#include "gpu_worker/cpu/vec_avx2.h"

#define KERN_WIDE 8
#define KERN_BYTES 8
#define KERN_NARROW 8
#define KERN_FLOAT 6
#define KERN_TWO 2
#define KERN_FOUR 1
#define KERN_FLOAT_FOUR 1
#define KERN_ATTEND 6
#define KERN_DELTA 1
#define KERN_GROUPS(R) ((R) == 1 ? 4 : (R) <= 3 ? 2 : 1)
#define KERN_PANEL(R) ((R) == 1 ? 8 : (R) <= 3 ? 4 : 2)
#include "gpu_worker/cpu/kern_table.h"

const struct cpu_kernels cpu_kernels_avx2 = KERN_ALL("avx2");
#endif
