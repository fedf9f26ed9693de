/* The words of copies.cuh and wgmma.cuh on the emulator: copies and products that are done when somebody waits for them (lanes
 * backward) or at once (forward), and barriers in shared memory. What a device would only sometimes forgive is told. */
#include "tests/cuda/emu.h"

#include <vector>

enum { THREADS_MAX = 1024, SHARED_FROM = 1024 + 16, MAGIC = 0x600d };

/* Eight bytes of shared memory. */
struct barrier {
    uint16_t magic, n_each, n_left, phase;
};

struct copy {
    uint32_t to, n;
    const void *from;
};

struct product {
    float (*d)[4];
    const uint32_t *a;
    uint64_t b;
    bool is_turned, adds;
    float (*number)(uint16_t);
};

/* Work of a thread in the order in which it was given; a group ends where its number of works was when it was committed. */
template <class Work> struct line {
    std::vector<Work> works;
    std::vector<size_t> ends;
    size_t n_done; /* works */
};

static struct thread {
    uint64_t block; /* of which this is; older: nothing is known yet */
    struct line<copy> copies;
    struct line<product> products;
    bool is_fenced; /* products may be given */
    bool is_told;   /* that what was copied is there for products */
} threads[THREADS_MAX];

static struct thread &own(void) {
    struct thread &t = threads[emu_thread()];
    if (t.block == emu_block_number()) return t;
    if (t.copies.n_done < t.copies.works.size() || t.products.n_done < t.products.works.size())
        emu_complain("an earlier block has ended before its copies or products were waited for");
    t = {};
    t.block = emu_block_number();
    t.is_told = true;
    return t;
}

/* ---- shared memory by number ---- */

uint32_t shared_address(const void *p) {
    return SHARED_FROM + (uint32_t)((const uint8_t *)p - (const uint8_t *)emu_shared());
}

static uint8_t *at_shared(uint32_t at, uint32_t n) {
    if (at < SHARED_FROM || at - SHARED_FROM + n > emu_shared_size())
        emu_complain("an address outside of shared memory");
    if (at % n) emu_complain("an address that is not aligned");
    return (uint8_t *)emu_shared() + (at - SHARED_FROM);
}

/* ---- lines ---- */

template <class Work>
static void carry_out(struct line<Work> &l, size_t to, void (*one)(const Work &)) {
    while (l.n_done < to)
        one(l.works[l.n_done++]);
}

template <class Work>
static void give(struct line<Work> &l, const Work &w, void (*one)(const Work &)) {
    l.works.push_back(w);
    if (!emu_is_reversed()) carry_out(l, l.works.size(), one);
}

/* All but the newest n_open groups; what was not committed is not waited for. */
template <class Work>
static void wait_for(struct line<Work> &l, uint32_t n_open, void (*one)(const Work &)) {
    size_t n = l.ends.size();
    if (n > n_open) carry_out(l, l.ends[n - 1 - n_open], one);
}

/* ---- copies ---- */

static void do_copy(const struct copy &c) {
    uint8_t *to = at_shared(c.to, 16);
    if ((uintptr_t)c.from % 16) emu_complain("a copy from an address that is not aligned");
    memset(to, 0, 16);
    memcpy(to, c.from, c.n);
}

void copy16(uint32_t to, const void *from, uint32_t n) {
    struct thread &t = own();
    if (n != 0 && n != 16) emu_complain("a copy of part of 16 bytes");
    t.is_told = false;
    give(t.copies, {to, n, from}, do_copy);
}

void copies_commit(void) {
    struct thread &t = own();
    t.copies.ends.push_back(t.copies.works.size());
}

void emu_copies_wait(uint32_t n_open) {
    struct thread &t = own();
    wait_for(t.copies, n_open, do_copy);
    t.is_told = false;
}

void fence_async(void) {
    own().is_told = true;
}

/* ---- barriers ---- */

static struct barrier *barrier_at(uint32_t at) {
    struct barrier *b = (struct barrier *)at_shared(at, 8);
    if (b->magic != MAGIC) emu_complain("a barrier that nobody has made");
    return b;
}

void barrier_init(uint32_t at, uint32_t n) {
    *(struct barrier *)at_shared(at, 8) = {MAGIC, (uint16_t)n, (uint16_t)n, 0};
}

void barrier_arrive(uint32_t at) {
    struct barrier *b = barrier_at(at);
    if (!own().is_told) emu_complain("an arrival without fence_async after copies");
    if (--b->n_left) return;
    b->n_left = b->n_each;
    b->phase++;
    emu_event();
}

void barrier_wait(uint32_t at, uint32_t parity) {
    while (barrier_at(at)->phase % 2 == parity)
        emu_pause();
}

/* ---- products ---- */

/* Where number k of row n of b lies (turned: number n of row k), by its descriptor. */
static uint16_t number_at(const struct product &p, uint32_t n, uint32_t k) {
    const uint32_t start = (uint32_t)(p.b & 0x3fff) << 4, eight = (uint32_t)(p.b >> 32 & 0x3fff)
                                                                  << 4;
    uint32_t row = p.is_turned ? k : n, col = p.is_turned ? n : k;
    uint32_t at = start + row / 8 * eight + row % 8 * 128 + 2 * col;
    at ^= (at >> 7 & 7) << 4;
    return *(const uint16_t *)at_shared(at, 2);
}

/* By the whole warp: each lane has what mma.cuh draws, of its warp's 16 rows. */
static void do_product(const struct product &p) {
    struct emu_fragments *f = emu_warp_fragments();
    const uint32_t lane = emu_lane();
    float a[2][16];
    memcpy(f->a[lane], p.a, sizeof f->a[lane]);
    __syncwarp();
    for (uint32_t h = 0; h < 2; h++)
        for (uint32_t k = 0; k < 16; k++)
            a[h][k] = p.number(
                (uint16_t)(f->a[lane / 4 * 4 + k % 8 / 2][h + 2 * (k / 8)] >> (16 * (k % 2))));
    for (uint32_t n = 0; n < 64; n++) {
        if (n % 8 / 2 != lane % 4) continue;
        float *d = p.d[n / 8] + n % 2, b[16];
        for (uint32_t k = 0; k < 16; k++)
            b[k] = p.number(number_at(p, n, k));
        for (uint32_t h = 0; h < 2; h++)
            d[2 * h] = emu_tensor_sum(p.adds ? d[2 * h] : 0, a[h], b, 16, 2);
    }
    __syncwarp();
}

void wgmma_fence(void) {
    own().is_fenced = true;
}

void emu_wgmma(float (*d)[4], const uint32_t *a, uint64_t b, bool is_turned, bool adds,
               float (*number)(uint16_t)) {
    struct thread &t = own();
    if (!t.is_fenced) emu_complain("a product without wgmma_fence");
    if (b >> 62 != 1 || b & UINT64_C(0x3fffc000c000c000))
        emu_complain("not a descriptor of panels");
    if ((emu_thread() | 127) >= blockDim.x) emu_complain("a product by less than a warpgroup");
    give(t.products, {d, a, b, is_turned, adds, number}, do_product);
}

void wgmma_commit(void) {
    struct thread &t = own();
    t.products.ends.push_back(t.products.works.size());
    t.is_fenced = false;
}

void emu_wgmma_wait(uint32_t n_open) {
    wait_for(own().products, n_open, do_product);
}
