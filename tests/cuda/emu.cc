/* Fibers for emu.h: each CUDA thread of a block has a stack and runs until it waits. */
#include "tests/cuda/emu.h"

#include <stdio.h>
#include <sys/mman.h>
#include <vector>

enum { THREADS_MAX = 1024, STACK = 128 << 10, CANARY = 0x5a };
enum state { READY, AT_WARP, AT_BLOCK, PAUSED, DONE };

struct fiber {
    void *sp; /* first: its address tells whose it is */
    enum state state;
    uint32_t n_exchanges;
    bool has_begun;
};

struct emu_index threadIdx, blockIdx, blockDim, gridDim;

static struct {
    struct fiber fibers[THREADS_MAX];
    uint8_t *stacks;
    void *main_sp;
    uint32_t current;
    bool is_reversed;
    void (*kernel)(const void *);
    const void *args;
    uint8_t *shared;
    uint32_t shared_bytes;
    uint64_t n_blocks, n_events;
    uint64_t exchange[THREADS_MAX / 32][2][32];
    struct emu_fragments fragments[THREADS_MAX / 32];
    struct {
        uint32_t n_live, n_waiting;
    } warps[THREADS_MAX / 32];
} emu;

[[noreturn]] void emu_complain(const char *what) {
    fprintf(stderr, "emulator: %s; block %u %u %u, thread %u\n", what, blockIdx.x, blockIdx.y,
            blockIdx.z, emu.current);
    abort();
}

/* ---- switching ---- */

#if defined(__x86_64__)
extern "C" void emu_switch(void **save, void *to);
asm(".text\n.globl emu_switch\n.type emu_switch,@function\n"
    "emu_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size emu_switch, .-emu_switch\n");

static void prepare(struct fiber *f, uint8_t *stack, void (*entry)(void)) {
    void **sp = (void **)(stack + STACK) - 2; /* as after a call: 16-byte aligned before it */
    sp[0] = (void *)entry;
    sp[1] = NULL;
    for (int i = 0; i < 6; i++)
        *--sp = NULL;
    f->sp = sp;
}
#else
#include <ucontext.h>
static ucontext_t contexts[THREADS_MAX], main_context;

static void emu_switch(void **save, void *to) {
    ucontext_t *from =
        save == &emu.main_sp ? &main_context : &contexts[(struct fiber *)save - emu.fibers];
    if (save == &emu.main_sp) emu.main_sp = &main_context;
    swapcontext(from, (ucontext_t *)to);
}

static void prepare(struct fiber *f, uint8_t *stack, void (*entry)(void)) {
    ucontext_t *c = &contexts[f - emu.fibers];
    getcontext(c);
    c->uc_stack.ss_sp = stack;
    c->uc_stack.ss_size = STACK;
    c->uc_link = &main_context;
    makecontext(c, entry, 0);
    f->sp = c;
}
#endif

/* From the running fiber (NULL: the scheduler) to fiber i. */
static void go_to(void **save, uint32_t i) {
    emu.current = i;
    threadIdx = {i, 0, 0};
    emu_switch(save, emu.fibers[i].sp);
}

static void wait_for_block(void) {
    struct fiber *f = &emu.fibers[emu.current];
    f->state = AT_BLOCK;
    emu_switch(&f->sp, emu.main_sp);
}

/* The last lane to come lets all go on, itself first; another one goes to the next lane that can run, and only if there is
 * none to the scheduler, which sees what is wrong. */
static void wait_for_warp(void) {
    uint32_t me = emu.current, warp = me / 32;
    struct fiber *f = &emu.fibers[me];
    f->state = AT_WARP;
    if (++emu.warps[warp].n_waiting == emu.warps[warp].n_live) {
        emu.warps[warp].n_waiting = 0;
        for (uint32_t i = 32 * warp; i < 32 * warp + 32; i++)
            if (emu.fibers[i].state == AT_WARP) emu.fibers[i].state = READY;
        return;
    }
    for (uint32_t k = 1; k < 32; k++) {
        uint32_t i = 32 * warp + (me + (emu.is_reversed ? 32 - k : k)) % 32;
        if (emu.fibers[i].state != READY) continue;
        go_to(&f->sp, i);
        return;
    }
    emu_switch(&f->sp, emu.main_sp);
}

/* No frame that a sanitizer could mark: nobody ever returns from here. */
__attribute__((noinline)) static void run_kernel(void) {
    emu.kernel(emu.args);
}

__attribute__((no_sanitize("address", "undefined"))) static void entry(void) {
    run_kernel();
    if (!emu.fibers[emu.current].has_begun) emu_complain("a kernel without begin()");
    emu.fibers[emu.current].state = DONE;
    emu.n_events++;
    emu.warps[emu.current / 32].n_live--;
    for (;;)
        emu_switch(&emu.fibers[emu.current].sp, emu.main_sp);
}

/* ---- what kernels call ---- */

void begin(void) {
    emu.fibers[emu.current].has_begun = true;
}

void *emu_shared(void) {
    return emu.shared;
}

uint32_t emu_shared_size(void) {
    return emu.shared_bytes;
}

uint64_t emu_block_number(void) {
    return emu.n_blocks;
}

uint32_t emu_thread(void) {
    return emu.current;
}

void emu_event(void) {
    emu.n_events++;
}

void emu_pause(void) {
    struct fiber *f = &emu.fibers[emu.current];
    f->state = PAUSED;
    emu_switch(&f->sp, emu.main_sp);
}

uint32_t emu_lane(void) {
    return emu.current % 32;
}

struct emu_fragments *emu_warp_fragments(void) {
    return &emu.fragments[emu.current / 32];
}

void __syncthreads(void) {
    wait_for_block();
}

void __syncwarp(void) {
    wait_for_warp();
}

/* Two rooms in turn: who writes the one for the next time has seen all lanes past this one. */
uint64_t emu_exchange(uint64_t v, uint32_t from) {
    uint32_t warp = emu.current / 32, turn = emu.fibers[emu.current].n_exchanges++ % 2;
    emu.exchange[warp][turn][emu.current % 32] = v;
    wait_for_warp();
    return emu.exchange[warp][turn][from];
}

uint32_t emu_ballot(bool is_yes) {
    uint32_t warp = emu.current / 32, turn = emu.fibers[emu.current].n_exchanges++ % 2, all = 0;
    emu.exchange[warp][turn][emu.current % 32] = is_yes;
    wait_for_warp();
    for (uint32_t i = 0; i < 32; i++)
        all |= (uint32_t)emu.exchange[warp][turn][i] << i;
    return all;
}

/* ---- a block ---- */

/* A warp until each of its lanes waits for others or is done. */
static void run_warp(uint32_t warp) {
    bool is_paused = false;
    for (bool has_run = true; has_run;) {
        has_run = false;
        for (uint32_t k = 0; k < 32; k++) {
            uint32_t i = 32 * warp + (emu.is_reversed ? 31 - k : k);
            if (emu.fibers[i].state != READY) continue;
            has_run = true;
            go_to(&emu.main_sp, i);
        }
    }
    for (uint32_t i = 32 * warp; i < 32 * warp + 32; i++)
        is_paused = is_paused || emu.fibers[i].state == PAUSED;
    if (emu.warps[warp].n_waiting && !is_paused)
        emu_complain("lanes of a warp wait at different barriers");
}

static void run_block(uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *stack = emu.stacks + (size_t)i * STACK;
        emu.fibers[i].state = READY;
        emu.fibers[i].n_exchanges = 0;
        emu.fibers[i].has_begun = false;
        *stack = CANARY;
        prepare(&emu.fibers[i], stack, entry);
    }
    for (uint32_t w = 0; w < n / 32; w++)
        emu.warps[w] = {32, 0};
    for (uint32_t n_live = n; n_live;) {
        uint64_t n_before = emu.n_events;
        uint32_t n_paused = 0;
        n_live = 0;
        for (uint32_t w = 0; w < n / 32; w++)
            run_warp(emu.is_reversed ? n / 32 - 1 - w : w);
        for (uint32_t i = 0; i < n; i++) {
            n_live += emu.fibers[i].state != DONE;
            n_paused += emu.fibers[i].state == PAUSED;
        }
        if (n_paused && emu.n_events == n_before) emu_complain("all wait for each other");
        for (uint32_t i = 0; i < n; i++)
            if (emu.fibers[i].state == (n_paused ? PAUSED : AT_BLOCK)) emu.fibers[i].state = READY;
    }
    for (uint32_t i = 0; i < n; i++)
        if (emu.stacks[(size_t)i * STACK] != CANARY) emu_complain("a stack has run over");
}

void emu_order(bool is_reversed) {
    emu.is_reversed = is_reversed;
}

bool emu_is_reversed(void) {
    return emu.is_reversed;
}

void emu_run(const void *kernel, const uint32_t grid[3], uint32_t block, uint32_t shared_bytes,
             const void *args) {
    if (!emu.stacks) {
        void *p = mmap(NULL, (size_t)THREADS_MAX * STACK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) emu_complain("no memory for stacks");
        emu.stacks = (uint8_t *)p;
    }
    if (block == 0 || block > THREADS_MAX || block % 32) emu_complain("a block is whole warps");
    if (shared_bytes > 227 << 10) emu_complain("more shared memory than a device has");
    if (!grid[0] || !grid[1] || !grid[2]) emu_complain("a grid without blocks");
    if (grid[0] > INT32_MAX || grid[1] > 65535 || grid[2] > 65535)
        emu_complain("more blocks than a grid may have");
    emu.kernel = (void (*)(const void *))kernel;
    emu.args = args;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block, 1, 1};
    for (uint32_t z = 0; z < grid[2]; z++)
        for (uint32_t y = 0; y < grid[1]; y++)
            for (uint32_t x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                emu.shared = (uint8_t *)aligned_alloc(16, (shared_bytes + 15) / 16 * 16 + 16);
                emu.shared_bytes = shared_bytes;
                emu.n_blocks++;
                memset(emu.shared, 0xff, shared_bytes); /* NaN */
                run_block(block);
                free(emu.shared);
            }
}
