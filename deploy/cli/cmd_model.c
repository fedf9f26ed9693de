#include "deploy/cli/cmd.h"
#include "common/base/mem.h"
#include "common/base/options.h"
#include "common/modelfile/model_dir.h"
#include "common/modelfile/native.h"
#include "deploy/cli/fetch_model.h"

#include <inttypes.h>
#include <stdio.h>

/* banyan model PATH: what is in this file or folder. */

static void print_info(const struct by_model_dir *d) {
    const struct by_model_info *m = by_model_dir_info(d);
    printf("family            %s (%s)\n", m->family, m->architecture);
    printf("layers            %u, hidden %u, heads %u query / %u key-value of %u\n", m->n_layers,
           m->hidden, m->n_heads, m->n_kv_heads, m->head_dim);
    printf("feed-forward      %u, %s\n", m->ffn, by_act_name(m->act));
    if (m->moe.n_experts)
        printf("experts           %u, %u a token, of %u\n", m->moe.n_experts, m->moe.n_used,
               m->moe.ffn);
    printf("rope              %s, base %g, %u dimensions\n", by_rope_kind_name(m->rope.kind),
           m->rope.theta, m->rope.n_rot);
    printf("vocabulary        %u%s\n", m->vocab,
           m->is_tied && !by_model_dir_unties(d) ? ", output tied to the embedding" : "");
    printf("context           %u tokens\n", m->context);
    if (m->sliding_window) printf("sliding window    %u\n", m->sliding_window);
    printf("end of text       ");
    for (uint32_t i = 0; i < m->n_eos; i++)
        printf("%s%u", i ? ", " : "", m->eos[i]);
    printf("\n");
    if (m->quant.method)
        printf("quantisation      %s, %u bits, groups of %u\n", m->quant.name, m->quant.bits,
               m->quant.group);
    if (m->has_custom_code)
        printf("custom code       yes: it needs --model-impl transformers --trust-remote-code\n");
}

static void print_dtypes(const struct by_model_dir *d) {
    uint64_t n[BY_N_DTYPES] = {0}, bytes[BY_N_DTYPES] = {0};
    for (size_t i = 0; i < by_model_dir_n_tensors(d); i++) {
        const struct by_tensor_info *t = by_model_dir_tensor(d, i);
        n[t->dtype]++;
        bytes[t->dtype] += t->n_bytes;
    }
    if (!by_model_dir_n_tensors(d)) return; /* what transformers runs was not looked into */
    printf("tensors           %zu, %.1f MB\n", by_model_dir_n_tensors(d),
           (double)by_model_dir_weight_bytes(d) / 1e6);
    for (int t = 0; t < BY_N_DTYPES; t++) {
        if (n[t])
            printf("    %-8s %6" PRIu64 " tensors %10.1f MB\n", by_dtype_name((enum by_dtype)t),
                   n[t], (double)bytes[t] / 1e6);
    }
}

static void print_memory(const struct by_model_dir *d) {
    const struct by_model_info *m = by_model_dir_info(d);
    uint64_t token = by_native_kv_bytes(m, 2);
    printf("memory            %.1f MB of weights; KV cache %.1f KB a token in 16 bits",
           (double)by_model_dir_weight_bytes(d) / 1e6, (double)token / 1e3);
    if (m->context)
        printf(", %.1f MB for a text of %u", (double)token * m->context / 1e6, m->context);
    if (m->state.kind)
        printf("; %.1f MB of states a sequence", (double)by_native_state_bytes(m) / 1e6);
    printf("\n");
}

/* Which worker --model-impl auto takes, and why. */
static void print_worker(const struct by_model_dir *d, const struct by_err *refusal) {
    const struct by_model_info *m = by_model_dir_info(d);
    struct by_err why = *refusal;
    if (!why.code && !by_native_check(m, by_model_dir_config(d), &why)) {
        printf("worker            native: the family and all it asks for are known\n");
    } else if (m && m->is_gguf) {
        printf("worker            none: %s, and transformers is not asked to read GGUF files\n",
               why.text);
    } else {
        const struct by_json *config = by_model_dir_config(d); /* of an unknown family, too */
        bool has_code = config && by_json_get(config, "auto_map");
        printf("worker            transformers%s: %s\n",
               has_code ? " with --trust-remote-code" : "", why.text);
    }
}

/* A model that only transformers may run (an unknown family, pickled weights) is described as far as its config goes; a
 * broken one is an error. */
static int open_model(struct by_model_dir **d, const char *path, struct by_err *refusal) {
    struct by_err second = {0};
    int rc = by_model_dir_open(d, path, refusal);
    if (rc != BY_EUNSUPPORTED && rc != BY_ENOTFOUND) return rc;
    if (by_model_dir_open_text(d, path, &second)) return rc;
    bool lacks_shard = rc == BY_ENOTFOUND && by_model_dir_has(*d, "model.safetensors.index.json");
    if (by_model_dir_kind(*d) == BY_MODEL_HF && !lacks_shard) return 0;
    by_model_dir_close(*d);
    return rc;
}

int cmd_model(int argc, char **argv) {
    static const struct by_options_program program = {.name = "banyan model",
                                                      .who = BY_FOR_TOOL,
                                                      .summary =
                                                          "says what is in a model file or folder",
                                                      .usage = "[MODEL-PATH]",
                                                      .n_words = 1};
    struct by_options o;
    struct by_err err = {0};
    struct by_model_dir *d = NULL;
    int rc = by_options_parse(&o, &program, argc, argv, &err);
    char *path = NULL;
    if (!rc) rc = cmd_take_model(&o, &err);
    if (!rc) rc = fetch_model(o.model_path, &o, FETCH_ALL, &path, &err);
    if (!rc) rc = open_model(&d, path, &err);
    by_free(path);
    if (rc) return cmd_fail("model", err.text);
    static const char *const kinds[] = {"GGUF file", "Hugging Face folder", "text only"};
    printf("%s\nkind              %s\n", by_model_dir_path(d), kinds[by_model_dir_kind(d)]);
    if (by_model_dir_info(d)) {
        print_info(d);
        print_memory(d);
    }
    print_worker(d, &err);
    print_dtypes(d);
    by_model_dir_close(d);
    by_options_release(&o);
    return 0;
}
