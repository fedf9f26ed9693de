#include "gpu_worker/cuda/proven.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/str.h"

#include <stdlib.h>

enum { BYTES_MAX = 64 << 10 };

static const struct {
    const char *name;
    enum proven_way way;
} ways[] = {{"windows", PROVEN_WINDOWS},
            {"fp8", PROVEN_F8},
            {"fp8-blocks", PROVEN_F8_BLOCKS},
            {"wgmma", PROVEN_WGMMA},
            {"overlap", PROVEN_OVERLAP}};

static uint32_t way_of(struct by_str name) {
    uint32_t bits = 0;
    for (size_t i = 0; i < BY_COUNTOF(ways); i++) {
        if (by_str_eqz(name, ways[i].name) || by_str_eqz(name, "all")) bits |= ways[i].way;
    }
    return bits;
}

const char *const proven_versions = BANYAN_PROVEN_WAYS;

static bool is_version_of(struct by_str version, struct by_str name) {
    struct by_str rest = by_str_of(proven_versions), way, of;
    for (bool has_more = true; has_more;) {
        has_more = by_str_split(&rest, ',', &way);
        if (by_str_split(&way, ' ', &of) && by_str_eq(of, name)) return by_str_eq(way, version);
    }
    return false;
}

/* Lines of a way's name, its version, a card's name. What is no such line is passed over. */
static uint32_t ways_in(struct by_str text, const char *device) {
    struct by_str line, name, version;
    uint32_t bits = 0;
    while (by_str_split(&text, '\n', &line)) /* a line without an end is torn */
        if (by_str_split(&line, ' ', &name) && by_str_split(&line, ' ', &version) &&
            by_str_eqz(line, device) && is_version_of(version, name))
            bits |= way_of(name);
    return bits;
}

uint32_t proven_ways(const char *device) {
    const char *instead = getenv("BANYAN_TEST_CUDA_WAYS");
    struct by_err err;
    struct by_buf text;
    uint32_t bits = 0;
    if (instead) {
        struct by_str rest = by_str_of(instead), name;
        for (bool has_more = true; has_more; bits |= way_of(name))
            has_more = by_str_split(&rest, ',', &name);
        return bits;
    }
    char *folder = by_path_cache(), *path = by_path_join(folder, "cuda-proven");
    by_buf_init(&text, BYTES_MAX);
    if (by_file_exists(path) && !by_file_read(&text, path, &err))
        bits = ways_in(by_buf_str(&text), device);
    by_buf_release(&text);
    by_free(path);
    by_free(folder);
    return bits;
}
