/* iq_grids.h - the codebooks of ggml's IQ1, IQ2 and IQ3 types: which magnitudes 8 (IQ3: 4) columns have together.
 *
 *     iq1, iq2: 2 bits a column from bit 0 on; iq3: 4 bits, of which 3 are used. What they stand for: super_iq.c
 *
 * The numbers are those of gguf 0.19.0 (PyPI, MIT licence), which has them from ggml (MIT licence, the ggml authors).
 * Always: no column of iq1 and iq2 has the number 3.
 * Owner: super_iq.c alone. */
#ifndef COMMON_MODELFILE_IQ_GRIDS_H
#define COMMON_MODELFILE_IQ_GRIDS_H

#include <stdint.h>

extern const uint16_t by_iq2_xxs_grid[256];
extern const uint16_t by_iq2_xs_grid[512];
extern const uint16_t by_iq2_s_grid[1024];
extern const uint16_t by_iq3_xxs_grid[256];
extern const uint16_t by_iq3_s_grid[512];
extern const uint16_t by_iq1_grid[2048];

#endif
