/* model-logits FOLDER CHUNK ID…: what the native engine makes of a model. Logits of all rows to stdout, f32 [n ids, n vocab].
 * Exit status BY_EXIT_UNSUPPORTED: the model is refused, and stderr says why. tests/hf/test_configs.py asks it. */
#include "common/base/proc.h"
#include "gpu_worker/cpu/cpu_backend.h"
#include "gpu_worker/models/model.h"

#include <stdio.h>
#include <stdlib.h>

enum { PAGE = 16, IDS_MAX = 512 };

static int open_model(struct model **out, struct backend *b, const char *path, uint32_t n_ids,
                      struct by_err *err) {
    struct by_model_dir *dir = NULL;
    const struct model_options o = {
        .page_size = PAGE, .kv_dtype = KV_F32, .rows_max = n_ids, .logit_rows_max = n_ids};
    int rc = by_model_dir_open(&dir, path, err);
    if (!rc) rc = model_open(out, dir, b, &o, err);
    if (!rc) rc = model_kv_new(*out, IDS_MAX / PAGE, 1, 0, err);
    by_model_dir_close(dir);
    return rc;
}

/* `chunk` ids a step, then their logits. */
static int print_logits(struct model *m, const uint32_t *ids, uint32_t n_ids, uint32_t chunk) {
    uint32_t pages[IDS_MAX / PAGE], positions[IDS_MAX], rows[IDS_MAX];
    for (uint32_t i = 0; i < BY_COUNTOF(pages); i++)
        pages[i] = (i * 5 + 3) % BY_COUNTOF(pages);
    for (uint32_t i = 0; i < n_ids; i++)
        positions[i] = i;
    for (uint32_t i = 0; i < chunk; i++)
        rows[i] = i;
    for (uint32_t at = 0; at < n_ids; at += chunk) {
        uint32_t n = BY_MIN(chunk, n_ids - at);
        const struct seq_rows seq = {.n = n, .position = at, .pages = pages};
        int rc = model_forward(m, &(struct model_step){.ids = ids + at,
                                                       .positions = positions + at,
                                                       .n_rows = n,
                                                       .seqs = &seq,
                                                       .n_seqs = 1});
        if (rc) return rc;
        size_t n_numbers = (size_t)n * model_n_vocab(m);
        if (fwrite(model_logits(m, rows, n), sizeof(float), n_numbers, stdout) != n_numbers)
            return BY_EIO;
    }
    return 0;
}

int main(int argc, char **argv) {
    static uint32_t ids[IDS_MAX];
    struct backend *b = NULL;
    struct model *m = NULL;
    struct by_err err = {0};
    uint32_t n_ids = argc > 3 ? (uint32_t)argc - 3 : 0;
    if (!n_ids || n_ids > IDS_MAX) return 2;
    for (uint32_t i = 0; i < n_ids; i++)
        ids[i] = (uint32_t)strtoul(argv[i + 3], NULL, 10);
    uint32_t chunk = BY_MAX(1u, BY_MIN((uint32_t)strtoul(argv[2], NULL, 10), n_ids));
    const struct cpu_options o = {
        .n_threads = 1, .isa = cpu_isa_best(), .exact_activations = true, .exact_bf16 = true};
    int rc = cpu_backend_new(&b, &o, &err);
    if (!rc) rc = open_model(&m, b, argv[1], n_ids, &err);
    if (!rc) rc = print_logits(m, ids, n_ids, chunk);
    if (rc) fprintf(stderr, "%s\n", err.text);
    model_close(m);
    if (b) b->close(b);
    return rc == BY_EUNSUPPORTED ? BY_EXIT_UNSUPPORTED : rc ? 1 : 0;
}
