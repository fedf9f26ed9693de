/* cpu_backend.h - the op table of backend.h on a CPU.
 *
 *     portable C (the truth) ◀─bit for bit in the integer paths─▶ AVX2 ◀─▶ AVX-512 (VNNI, BF16)
 *
 * Always: one packed form of a weight serves every instruction set; the set is chosen once, by cpuid and --cpu-isa.
 * Owner: the gpu worker's main thread, which is lane 0; the others are the backend's own. */
#ifndef GPU_WORKER_CPU_CPU_BACKEND_H
#define GPU_WORKER_CPU_CPU_BACKEND_H

#include "gpu_worker/backend.h"

enum cpu_isa { CPU_ISA_PORTABLE, CPU_ISA_AVX2, CPU_ISA_AVX512 };

struct cpu_options {
    uint32_t n_threads; /* 0: the CPUs this process may use */
    enum cpu_isa isa;   /* highest set to use; lowered to what the machine has */
    /* tests only: f32 activations against dequantised weights, no int8 and no bf16 products */
    bool exact_activations;
    bool exact_bf16; /* --cpu-bf16 exact: bf16 weights times f32 activations */
};

/* cpu_isa_best: what this machine has. */
enum cpu_isa cpu_isa_best(void);
BY_MUST_USE int cpu_backend_new(struct backend **out, const struct cpu_options *o,
                                struct by_err *err);

#endif
