#include "gpu_worker/models/family.h"

/* Llama 1 to 3.3, SmolLM2 and all that took over their names: RMS norms before, a gated feed-forward, rope. What these
 * families have besides (windows, layers without rope, scales) is in by_model_info. */
const struct family family_llama = {.name = "llama"};
const struct family family_mistral = {.name = "mistral"};
const struct family family_ministral = {.name = "ministral"};
const struct family family_smollm3 = {.name = "smollm3"};
const struct family family_granite = {.name = "granite"};
const struct family family_helium = {.name = "helium"};
const struct family family_ernie4_5 = {.name = "ernie4_5"};
const struct family family_seed_oss = {
    .name = "seed_oss",
    .gguf = {{ROLE_FFN_NORM, "post_attention_norm"}},
};
const struct family family_arcee = {.name = "arcee", .is_ungated = true};
