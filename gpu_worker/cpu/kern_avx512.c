/* The kernels on AVX-512 with VNNI. 32 registers: 12 rows of a tile, 8 where a format needs more room. Of plain numbers, one
 * or two rows take four strips at once (kern_avx2.c); quantised strips are read faster one after the other. */
#if defined(__AVX512VNNI__)
#include "gpu_worker/cpu/vec_avx512.h"

#define KERN_WIDE 12
#define KERN_BYTES 12
#define KERN_NARROW 8
#define KERN_FLOAT 12
#define KERN_TWO 12
#define KERN_FOUR 0
#define KERN_FLOAT_FOUR 2
#define KERN_ATTEND 12
#define KERN_DELTA 2
#define KERN_GROUPS(R) ((R) <= 3 ? 4 : (R) <= 6 ? 2 : 1)
#define KERN_PANEL(R) ((R) <= 2 ? 8 : (R) <= 6 ? 4 : 2)
#include "gpu_worker/cpu/kern_table.h"

const struct cpu_kernels cpu_kernels_avx512 = KERN_ALL("avx512-vnni");
#endif
