#include "gpu_worker/kernels/kernels.h"

#include "common/base/sandbox.h"
#include "gpu_worker/cpu/cpu_features.h"
#include "gpu_worker/cpu/slot_attention.h"
#include "gpu_worker/kv.h"
#include "gpu_worker/sampler.h"
#include "proto/limits.h"

#include <string.h>

enum { KERNELS_VERSION = 6 };

static_assert(BY_COUNTOF(((struct banyan_pick *)0)->top_ids) == LIMIT_TOP_LOGPROBS,
              "a pick holds every top_logprobs");

uint32_t banyan_kernels_version(void) {
    return KERNELS_VERSION;
}

int banyan_attention_run(const struct banyan_attention *a, int n_threads) {
    return slot_attention_run(a, n_threads);
}

struct sampler *banyan_sampler_new(uint32_t n_vocab) {
    return sampler_new(n_vocab);
}

void banyan_sampler_free(struct sampler *s) {
    sampler_free(s);
}

static struct msg_sampling params_of(const struct banyan_sampling *p) {
    return (struct msg_sampling){
        .temperature = p->temperature,
        .top_p = p->top_p,
        .top_k = p->top_k,
        .min_p = p->min_p,
        .frequency_penalty = p->frequency_penalty,
        .presence_penalty = p->presence_penalty,
        .repetition_penalty = p->repetition_penalty,
        .seed = p->seed,
        .n = 1,
        .min_new_tokens = p->min_new_tokens,
        .stop_ids = {p->stop_ids, p->n_stop_ids},
        .bias_ids = {p->bias_ids, p->n_bias},
        .bias_values = {p->bias_values, p->n_bias},
        .logprobs = p->logprobs != 0,
        .top_logprobs = p->top_logprobs,
        .logprob_ids = {p->logprob_ids, p->n_logprob_ids},
    };
}

static void give(const struct sampler_pick *from, struct banyan_pick *to, float *chosen) {
    to->id = from->id;
    to->logprob = from->logprob;
    to->n_top = from->top.n;
    for (uint32_t i = 0; i < from->top.n; i++) {
        to->top_ids[i] = from->top.ids[i];
        to->top_logprobs[i] = from->top.logprobs[i];
    }
    if (chosen && from->chosen.n)
        memcpy(chosen, from->chosen.logprobs, from->chosen.n * sizeof *chosen);
}

int banyan_sampler_pick(struct sampler *s, const struct banyan_sampling *p, float *logits,
                        struct banyan_pick *out, float *chosen) {
    struct msg_sampling params = params_of(p);
    struct sampler_seq q;
    struct sampler_pick pick;
    sampler_seq_init(&q, &params, p->sample);
    for (uint32_t i = 0; p->output_ids && i < p->n_output_ids; i++)
        sampler_seq_note(&q, p->output_ids[i]);
    q.n_output = p->n_output_ids;
    int rc = sampler_pick(s, &q, logits, &pick);
    if (!rc) give(&pick, out, chosen);
    sampler_seq_release(&q);
    return rc ? -1 : 0;
}

int banyan_sampler_score(struct sampler *s, const struct banyan_sampling *p, const float *logits,
                         uint32_t id, struct banyan_pick *out, float *chosen) {
    struct msg_sampling params = params_of(p);
    struct sampler_pick pick;
    if (id >= sampler_n_vocab(s) || sampler_score(s, &params, logits, id, &pick)) return -1;
    give(&pick, out, chosen);
    return 0;
}

void banyan_sampler_pick_all(struct sampler *s, const struct banyan_sampling *const *p,
                             float *logits, struct banyan_pick *out, float *const *chosen,
                             uint8_t *failed, uint32_t n) {
    for (uint32_t r = 0; r < n; r++)
        failed[r] = banyan_sampler_pick(s, p[r], logits + (size_t)r * sampler_n_vocab(s), &out[r],
                                        chosen[r]) != 0;
}

int banyan_shut_in(int may_call) {
    return by_sandbox_install(may_call ? BY_SANDBOX_NETWORK : BY_SANDBOX_LOCAL);
}

uint32_t banyan_n_cores(void) {
    return cpu_features_n_cores();
}

uint64_t banyan_free_memory(void) {
    return kv_free_memory();
}
