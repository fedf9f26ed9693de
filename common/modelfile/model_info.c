#include "common/modelfile/model_info.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define GEMMA4_DEFAULTS \
    "\"rms_norm_eps\":1e-6,\"num_key_value_heads\":4,\"head_dim\":256,\"global_head_dim\":512," \
    "\"hidden_activation\":\"gelu_pytorch_tanh\",\"_embed_sqrt\":true,\"attention_multiplier\":1," \
    "\"sliding_window_pattern\":6,\"rope_parameters\":{\"full_attention\":{\"rope_type\":" \
    "\"proportional\",\"partial_rotary_factor\":0.25,\"rope_theta\":1000000}," \
    "\"sliding_attention\":{\"rope_theta\":10000}},\"tie_word_embeddings\":true"

/* What transformers assumes for a key that config.json leaves out, as far as it decides a result. Keys with a leading
 * underscore are ours: facts that no file writes down. */
static const struct by_family families[] = {
    {"llama", "llama", false, true, 4096, 11008, 32, 32, 32000, 2048,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"tie_word_embeddings\":false}"},
    {"iquestcoder", NULL, false, true, 5120, 27648, 80, 40, 76800, 131072,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"num_key_value_heads\":8,\"head_dim\":128,"
     "\"tie_word_embeddings\":false}"},
    {"cwm", NULL, false, true, 6144, 21504, 64, 48, 128256, 131072,
     "{\"rms_norm_eps\":1e-5,\"num_key_value_heads\":8,\"head_dim\":128,\"sliding_window\":8192,"
     "\"sliding_window_pattern\":4,\"_first_sees_all\":true,"
     "\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":1000000,\"factor\":16,"
     "\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":8192},"
     "\"tie_word_embeddings\":false}"},
    {"mistral", "mistral", false, true, 4096, 14336, 32, 32, 32000, 131072,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"num_key_value_heads\":8,"
     "\"sliding_window\":4096,\"tie_word_embeddings\":false}"},
    {"ministral", NULL, false, true, 4096, 14336, 32, 32, 32000, 131072,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"num_key_value_heads\":8,"
     "\"sliding_window\":4096,\"tie_word_embeddings\":false}"},
    {"ministral3", "mistral3", false, true, 4096, 14336, 34, 32, 131072, 262144,
     "{\"rms_norm_eps\":1e-5,\"num_key_value_heads\":8,\"head_dim\":128,\"sliding_window\":null,"
     "\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":1000000,\"factor\":16,"
     "\"original_max_position_embeddings\":16384,\"beta_fast\":32,\"beta_slow\":1,"
     "\"mscale\":1,\"mscale_all_dim\":1,\"llama_4_scaling_beta\":0.1},"
     "\"tie_word_embeddings\":false}"},
    {"mixtral", NULL, false, true, 4096, 14336, 32, 32, 32000, 131072,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":1000000,\"num_key_value_heads\":8,"
     "\"num_local_experts\":8,\"num_experts_per_tok\":2,\"norm_topk_prob\":true,"
     "\"sliding_window\":null,\"tie_word_embeddings\":false}"},
    {"qwen2", "qwen2", false, false, 4096, 22016, 32, 32, 151936, 32768,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"num_key_value_heads\":32,\"qkv_bias\":true,"
     "\"use_sliding_window\":false,\"sliding_window\":4096,\"max_window_layers\":28,"
     "\"tie_word_embeddings\":false}"},
    {"qwen2_moe", "qwen2moe", false, false, 2048, 5632, 24, 16, 151936, 32768,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"num_key_value_heads\":16,\"qkv_bias\":true,"
     "\"use_sliding_window\":false,\"sliding_window\":4096,\"max_window_layers\":28,"
     "\"decoder_sparse_step\":1,\"num_experts\":60,\"num_experts_per_tok\":4,"
     "\"moe_intermediate_size\":1408,\"shared_expert_intermediate_size\":5632,"
     "\"norm_topk_prob\":false,\"_shared_gate\":true,\"tie_word_embeddings\":false}"},
    {"qwen3", "qwen3", false, false, 4096, 22016, 32, 32, 151936, 32768,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"num_key_value_heads\":32,\"head_dim\":128,"
     "\"use_sliding_window\":false,\"sliding_window\":4096,\"max_window_layers\":28,"
     "\"tie_word_embeddings\":false}"},
    {"qwen3_moe", "qwen3moe", false, false, 2048, 6144, 24, 32, 151936, 32768,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"num_key_value_heads\":4,"
     "\"use_sliding_window\":false,\"sliding_window\":4096,\"max_window_layers\":28,"
     "\"decoder_sparse_step\":1,\"num_experts\":128,\"num_experts_per_tok\":8,"
     "\"moe_intermediate_size\":768,\"norm_topk_prob\":false,\"tie_word_embeddings\":false}"},
    {"mellum", NULL, false, false, 2304, 7168, 28, 32, 98304, 131072,
     "{\"rms_norm_eps\":1e-6,\"num_key_value_heads\":4,\"head_dim\":128,\"num_experts\":64,"
     "\"num_experts_per_tok\":8,\"moe_intermediate_size\":896,\"norm_topk_prob\":true,"
     "\"sliding_window\":1024,\"sliding_window_pattern\":1,\"mlp_layer_types\":null,"
     "\"rope_parameters\":{\"full_attention\":{\"rope_theta\":500000},"
     "\"sliding_attention\":{\"rope_theta\":10000}},\"tie_word_embeddings\":false}"},
    {"qwen2_vl", "qwen2vl", false, false, 8192, 29568, 80, 64, 152064, 32768,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":1000000,\"num_key_value_heads\":8,\"qkv_bias\":true,"
     "\"use_sliding_window\":false,\"sliding_window\":4096,\"max_window_layers\":80,"
     "\"tie_word_embeddings\":false}"},
    {"qwen2_5_vl", NULL, false, false, 8192, 29568, 80, 64, 152064, 32768,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":1000000,\"num_key_value_heads\":8,\"qkv_bias\":true,"
     "\"use_sliding_window\":false,\"sliding_window\":4096,\"max_window_layers\":80,"
     "\"tie_word_embeddings\":false}"},
    {"qwen3_vl", "qwen3vl", false, false, 4096, 22016, 32, 32, 151936, 128000,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":500000,\"num_key_value_heads\":32,\"head_dim\":128,"
     "\"tie_word_embeddings\":false}"},
    {"qwen3_vl_moe", "qwen3vlmoe", false, false, 2048, 5632, 24, 16, 151936, 128000,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":500000,\"num_key_value_heads\":16,"
     "\"decoder_sparse_step\":1,\"num_experts\":60,\"num_experts_per_tok\":4,"
     "\"moe_intermediate_size\":1408,\"norm_topk_prob\":true,\"tie_word_embeddings\":true}"},
    {"qwen3_5", "qwen35", false, false, 4096, 12288, 32, 16, 248320, 32768,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"partial_rotary_factor\":0.25,"
     "\"num_key_value_heads\":4,\"head_dim\":256,\"_attn_gate\":true,\"layer_types\":null,"
     "\"full_attention_interval\":4,\"linear_conv_kernel_dim\":4,\"linear_key_head_dim\":128,"
     "\"linear_value_head_dim\":128,\"linear_num_key_heads\":16,"
     "\"linear_num_value_heads\":32,\"tie_word_embeddings\":false}"},
    {"qwen3_5_moe", "qwen35moe", false, false, 2048, 512, 40, 16, 248320, 32768,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"partial_rotary_factor\":0.25,"
     "\"num_key_value_heads\":2,\"head_dim\":256,\"_attn_gate\":true,\"layer_types\":null,"
     "\"full_attention_interval\":4,\"linear_conv_kernel_dim\":4,\"linear_key_head_dim\":128,"
     "\"linear_value_head_dim\":128,\"linear_num_key_heads\":16,"
     "\"linear_num_value_heads\":32,\"num_experts\":256,\"num_experts_per_tok\":8,"
     "\"moe_intermediate_size\":512,\"shared_expert_intermediate_size\":512,"
     "\"norm_topk_prob\":true,\"_shared_gate\":true,\"tie_word_embeddings\":false}"},
    {"qwen3_next", "qwen3next", false, false, 2048, 5632, 48, 16, 151936, 32768,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"partial_rotary_factor\":0.25,"
     "\"num_key_value_heads\":2,\"head_dim\":256,\"_attn_gate\":true,\"layer_types\":null,"
     "\"full_attention_interval\":4,\"linear_conv_kernel_dim\":4,\"linear_key_head_dim\":128,"
     "\"linear_value_head_dim\":128,\"linear_num_key_heads\":16,"
     "\"linear_num_value_heads\":32,\"decoder_sparse_step\":1,\"num_experts\":512,"
     "\"num_experts_per_tok\":10,\"moe_intermediate_size\":512,"
     "\"shared_expert_intermediate_size\":512,\"norm_topk_prob\":true,\"_shared_gate\":true,"
     "\"tie_word_embeddings\":false}"},
    {"gemma", "gemma", false, false, 3072, 24576, 28, 16, 256000, 8192,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"num_key_value_heads\":16,\"head_dim\":256,"
     "\"hidden_act\":\"gelu_pytorch_tanh\",\"_embed_sqrt\":true,\"tie_word_embeddings\":true}"},
    {"gemma2", "gemma2", false, false, 2304, 9216, 26, 8, 256000, 8192,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"num_key_value_heads\":4,\"head_dim\":256,"
     "\"hidden_activation\":\"gelu_pytorch_tanh\",\"_embed_sqrt\":true,\"sliding_window\":4096,"
     "\"sliding_window_pattern\":2,\"query_pre_attn_scalar\":256,\"attn_logit_softcapping\":50,"
     "\"final_logit_softcapping\":30,\"tie_word_embeddings\":true}"},
    {"vaultgemma", NULL, false, false, 2304, 9216, 26, 8, 256000, 8192,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"num_key_value_heads\":4,\"head_dim\":256,"
     "\"hidden_activation\":\"gelu_pytorch_tanh\",\"_embed_sqrt\":true,\"sliding_window\":4096,"
     "\"sliding_window_pattern\":2,\"query_pre_attn_scalar\":256,\"attn_logit_softcapping\":50,"
     "\"final_logit_softcapping\":30,\"tie_word_embeddings\":true}"},
    {"gemma3_text", "gemma3", false, false, 2304, 9216, 26, 8, 262208, 131072,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":1000000,\"rope_local_base_freq\":10000,"
     "\"num_key_value_heads\":4,\"head_dim\":256,\"hidden_activation\":\"gelu_pytorch_tanh\","
     "\"_embed_sqrt\":true,\"sliding_window\":4096,\"sliding_window_pattern\":6,"
     "\"query_pre_attn_scalar\":256,\"tie_word_embeddings\":true}"},
    {"gemma4", "gemma4", false, false, 2304, 9216, 30, 8, 262144, 131072,
     "{\"sliding_window\":512,\"hidden_size_per_layer_input\":256,"
     "\"vocab_size_per_layer_input\":262144,\"enable_moe_block\":false,\"num_experts\":null,"
     "\"top_k_experts\":null,\"moe_intermediate_size\":null,\"norm_topk_prob\":"
     "true," GEMMA4_DEFAULTS "}"},
    {"gemma4_unified", NULL, false, false, 2304, 9216, 30, 8, 262144, 262144,
     "{\"sliding_window\":1024," GEMMA4_DEFAULTS "}"},
    {"helium", NULL, true, true, 2560, 7040, 24, 20, 48000, 4096,
     "{\"rms_norm_eps\":1e-8,\"rope_theta\":100000,\"num_key_value_heads\":20,\"head_dim\":128,"
     "\"tie_word_embeddings\":false}"},
    {"smollm3", "smollm3", false, true, 2048, 11008, 36, 16, 128256, 32768,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":2000000,\"num_key_value_heads\":4,"
     "\"no_rope_layer_interval\":4,\"use_sliding_window\":false,\"sliding_window\":null,"
     "\"tie_word_embeddings\":true}"},
    {"granite", "granite", false, true, 4096, 11008, 32, 32, 32000, 2048,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"attention_multiplier\":1,"
     "\"tie_word_embeddings\":false}"},
    {"hunyuan_v1_dense", "hunyuan-dense", false, false, 4096, 11008, 32, 32, 290943, 2048,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"tie_word_embeddings\":false}"},
    {"hyperclovax", NULL, false, false, 4096, 11008, 32, 32, 32000, 2048,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"tie_word_embeddings\":false}"},
    {"seed_oss", "seed_oss", false, false, 4096, 27648, 64, 80, 155136, 524288,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"num_key_value_heads\":8,\"head_dim\":128,"
     "\"attention_bias\":true,\"tie_word_embeddings\":false}"},
    {"ernie4_5", "ernie4_5", true, true, 1024, 3072, 18, 16, 103424, 131072,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":500000,\"num_key_value_heads\":2,\"head_dim\":128,"
     "\"tie_word_embeddings\":true}"},
    {"arcee", "arcee", false, true, 2560, 18432, 32, 32, 32000, 4096,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"hidden_act\":\"relu2\","
     "\"tie_word_embeddings\":false}"},
    {"olmo2", "olmo2", false, false, 4096, 11008, 32, 32, 50304, 2048,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"tie_word_embeddings\":false}"},
    {"olmo3", NULL, false, false, 4096, 11008, 32, 32, 50304, 2048,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":500000,\"sliding_window\":4096,"
     "\"sliding_window_pattern\":4,\"_local_unscaled\":true,\"tie_word_embeddings\":false}"},
    {"exaone", "exaone", false, false, 4096, 14336, 32, 32, 102400, 4096,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":500000,\"num_key_value_heads\":8,"
     "\"tie_word_embeddings\":false}"},
    {"exaone4", "exaone4", false, false, 4096, 16384, 32, 32, 102400, 2048,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"num_key_value_heads\":32,"
     "\"sliding_window\":4096,\"sliding_window_pattern\":4,\"_rope_in_windows\":true,"
     "\"tie_word_embeddings\":false}"},
    {"cohere", "command-r", true, true, 8192, 22528, 40, 64, 256000, 8192,
     "{\"layer_norm_eps\":1e-5,\"rope_theta\":500000,\"logit_scale\":0.0625,"
     "\"parallel_attn\":true,\"tie_word_embeddings\":true}"},
    {"glm4", "glm4", true, true, 4096, 13696, 40, 32, 151552, 131072,
     "{\"rms_norm_eps\":1.5625e-7,\"rope_theta\":10000,\"num_key_value_heads\":2,"
     "\"head_dim\":128,\"partial_rotary_factor\":0.5,\"tie_word_embeddings\":false}"},
    {"cohere2", "cohere2", true, true, 8192, 22528, 40, 64, 256000, 8192,
     "{\"layer_norm_eps\":1e-5,\"rope_theta\":10000,\"logit_scale\":0.0625,"
     "\"parallel_attn\":true,\"sliding_window\":4096,\"sliding_window_pattern\":4,"
     "\"_rope_in_windows\":true,\"tie_word_embeddings\":true}"},
    {"glm", "chatglm", true, true, 4096, 13696, 40, 32, 151552, 131072,
     "{\"rms_norm_eps\":1.5625e-7,\"rope_theta\":10000,\"num_key_value_heads\":2,"
     "\"head_dim\":128,\"partial_rotary_factor\":0.5,\"tie_word_embeddings\":false}"},
    {"phi3", "phi3", false, false, 3072, 8192, 32, 32, 32064, 4096,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"original_max_position_embeddings\":4096,"
     "\"sliding_window\":null,\"tie_word_embeddings\":false}"},
    {"stablelm", "stablelm", false, false, 2560, 6912, 32, 32, 50304, 4096,
     "{\"layer_norm_eps\":1e-5,\"rope_theta\":10000,\"num_key_value_heads\":32,"
     "\"partial_rotary_factor\":0.25,\"tie_word_embeddings\":false}"},
    {"phi", "phi2", false, false, 2048, 8192, 24, 32, 51200, 2048,
     "{\"layer_norm_eps\":1e-5,\"rope_theta\":10000,\"partial_rotary_factor\":0.5,"
     "\"hidden_act\":\"gelu_new\",\"parallel_attn\":true,\"attention_bias\":true,"
     "\"mlp_bias\":true,\"tie_word_embeddings\":false}"},
    {"nemotron", "nemotron", false, false, 6144, 24576, 32, 48, 256000, 4096,
     "{\"norm_eps\":1e-5,\"rope_theta\":10000,\"partial_rotary_factor\":0.5,"
     "\"hidden_act\":\"relu2\",\"tie_word_embeddings\":false}"},
    {"jais2", "jais2", false, false, 3328, 26624, 32, 26, 150272, 8192,
     "{\"layer_norm_eps\":1e-5,\"rope_theta\":10000,\"hidden_act\":\"relu2\","
     "\"attention_bias\":true,\"mlp_bias\":true,\"tie_word_embeddings\":false}"},
    {"starcoder2", "starcoder2", false, false, 3072, 12288, 30, 24, 49152, 4096,
     "{\"norm_epsilon\":1e-5,\"rope_theta\":10000,\"num_key_value_heads\":2,\"use_bias\":true,"
     "\"sliding_window\":null,\"hidden_act\":\"gelu_pytorch_tanh\",\"tie_word_embeddings\":true}"},
    {"gpt2", "gpt2", false, false, 768, 0, 12, 12, 50257, 1024,
     "{\"layer_norm_epsilon\":1e-5,\"activation_function\":\"gelu_new\",\"attention_bias\":true,"
     "\"mlp_bias\":true,\"_no_rope\":true,\"tie_word_embeddings\":true}"},
    {"gpt_bigcode", "starcoder", false, false, 768, 0, 12, 12, 50257, 1024,
     "{\"layer_norm_epsilon\":1e-5,\"activation_function\":\"gelu_pytorch_tanh\","
     "\"multi_query\":true,\"attention_bias\":true,\"mlp_bias\":true,\"_no_rope\":true,"
     "\"tie_word_embeddings\":true}"},
    {"gpt_neox", "gptneox", false, false, 6144, 24576, 44, 64, 50432, 2048,
     "{\"layer_norm_eps\":1e-5,\"hidden_act\":\"gelu\",\"rotary_pct\":0.25,"
     "\"rotary_emb_base\":10000,\"use_parallel_residual\":true,\"attention_bias\":true,"
     "\"mlp_bias\":true,\"tie_word_embeddings\":false}"},
    {"opt", NULL, false, false, 768, 3072, 12, 12, 50272, 2048,
     "{\"layer_norm_eps\":1e-5,\"activation_function\":\"relu\",\"enable_bias\":true,"
     "\"do_layer_norm_before\":true,\"_pos_offset\":2,\"_no_rope\":true,"
     "\"tie_word_embeddings\":true}"},
    {"falcon", "falcon", false, false, 4544, 0, 32, 71, 65024, 2048,
     "{\"layer_norm_epsilon\":1e-5,\"activation\":\"gelu\",\"rope_theta\":10000,"
     "\"multi_query\":true,\"parallel_attn\":true,\"bias\":false,\"alibi\":false,"
     "\"new_decoder_architecture\":false,\"tie_word_embeddings\":true}"},
    {"deepseek_v2", "deepseek2", true, true, 4096, 11008, 32, 32, 102400, 2048,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"topk_method\":\"greedy\","
     "\"norm_topk_prob\":false,\"routed_scaling_factor\":1,"
     "\"n_routed_experts\":64,\"n_shared_experts\":2,\"moe_intermediate_size\":1407,"
     "\"first_k_dense_replace\":0,\"kv_lora_rank\":512,\"q_lora_rank\":1536,"
     "\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,"
     "\"tie_word_embeddings\":false}"},
    {"deepseek_v3", NULL, true, true, 7168, 18432, 61, 128, 129280, 4096,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"_sigmoid\":true,\"_choice_bias\":true,"
     "\"norm_topk_prob\":true,\"routed_scaling_factor\":2.5,"
     "\"n_group\":8,\"topk_group\":4,\"n_routed_experts\":256,\"n_shared_experts\":1,"
     "\"num_experts_per_tok\":8,\"moe_intermediate_size\":2048,\"first_k_dense_replace\":3,"
     "\"kv_lora_rank\":512,\"q_lora_rank\":1536,\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,"
     "\"v_head_dim\":128,\"tie_word_embeddings\":false}"},
    {"olmoe", "olmoe", false, false, 2048, 2048, 16, 16, 50304, 4096,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"num_experts\":64,\"num_experts_per_tok\":8,"
     "\"norm_topk_prob\":false,\"tie_word_embeddings\":false}"},
    {"flex_olmo", NULL, false, false, 4096, 11008, 32, 32, 100352, 4096,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":500000,\"num_experts\":7,\"num_experts_per_tok\":5,"
     "\"norm_topk_prob\":false,\"tie_word_embeddings\":false}"},
    {"granitemoe", "granitemoe", false, true, 4096, 11008, 32, 32, 32000, 2048,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"attention_multiplier\":1,"
     "\"num_local_experts\":8,\"num_experts_per_tok\":2,\"norm_topk_prob\":true,"
     "\"tie_word_embeddings\":false}"},
    {"granitemoeshared", NULL, false, true, 4096, 11008, 32, 32, 32000, 2048,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"attention_multiplier\":1,"
     "\"num_local_experts\":8,\"num_experts_per_tok\":2,\"norm_topk_prob\":true,"
     "\"tie_word_embeddings\":false}"},
    /* A layer that is not said to be attention is Mamba's. */
    {"granitemoehybrid", NULL, false, true, 4096, 11008, 32, 32, 32000, 2048,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"attention_multiplier\":1,"
     "\"num_local_experts\":8,\"num_experts_per_tok\":2,\"norm_topk_prob\":true,"
     "\"shared_intermediate_size\":1024,\"position_embedding_type\":null,"
     "\"layers_block_type\":[\"mamba\"],\"tie_word_embeddings\":false}"},
    {"hy_v3", NULL, false, false, 4096, 13312, 80, 64, 120832, 131072,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":11158840,\"num_key_value_heads\":8,\"head_dim\":128,"
     "\"_sigmoid\":true,\"_choice_bias\":true,\"norm_topk_prob\":true,"
     "\"router_scaling_factor\":2.826,\"num_experts\":192,\"num_experts_per_tok\":8,"
     "\"num_shared_experts\":1,\"moe_intermediate_size\":1536,\"first_k_dense_replace\":1,"
     "\"mlp_layer_types\":null,\"tie_word_embeddings\":false}"},
    {"hunyuan_v1_moe", "hunyuan-moe", false, false, 4096, 11008, 32, 32, 290943, 2048,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"num_experts\":1,\"moe_topk\":1,"
     "\"_experts_as_dense\":true,\"norm_topk_prob\":true,\"tie_word_embeddings\":false}"},
    {"ernie4_5_moe", "ernie4_5-moe", true, true, 2560, 12288, 28, 20, 103424, 131072,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":500000,\"num_key_value_heads\":4,"
     "\"moe_num_experts\":64,\"moe_k\":6,\"moe_num_shared_experts\":2,"
     "\"moe_intermediate_size\":1536,\"moe_layer_start_index\":1,\"moe_layer_end_index\":-1,"
     "\"moe_layer_interval\":1,\"_choice_bias\":true,\"norm_topk_prob\":true,"
     "\"tie_word_embeddings\":true}"},
    {"minimax_m2", "minimax-m2", false, false, 3072, 1536, 62, 48, 200064, 196608,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":5000000,\"num_key_value_heads\":8,\"head_dim\":128,"
     "\"rotary_dim\":null,\"num_local_experts\":256,\"num_experts_per_tok\":8,"
     "\"_sigmoid\":true,\"_choice_bias\":true,\"norm_topk_prob\":true,"
     "\"tie_word_embeddings\":false}"},
    {"exaone_moe", "exaone-moe", false, false, 4096, 16384, 32, 32, 102400, 2048,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"num_key_value_heads\":32,"
     "\"sliding_window\":4096,\"sliding_window_pattern\":4,\"_rope_in_windows\":true,"
     "\"_sigmoid\":true,\"_choice_bias\":true,\"norm_topk_prob\":true,"
     "\"routed_scaling_factor\":2.5,\"num_experts\":64,\"num_experts_per_tok\":8,"
     "\"num_shared_experts\":1,\"moe_intermediate_size\":1024,\"first_k_dense_replace\":1,"
     "\"mlp_layer_types\":null,\"tie_word_embeddings\":false}"},
    {"glm4_moe", "glm4moe", false, false, 4096, 10944, 46, 96, 151552, 131072,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"num_key_value_heads\":8,"
     "\"partial_rotary_factor\":0.5,\"use_qk_norm\":false,\"_sigmoid\":true,"
     "\"_choice_bias\":true,\"norm_topk_prob\":true,\"n_routed_experts\":128,"
     "\"n_shared_experts\":1,\"num_experts_per_tok\":8,\"moe_intermediate_size\":1408,"
     "\"first_k_dense_replace\":1,\"tie_word_embeddings\":false}"},
    {"glm4_moe_lite", NULL, true, true, 2048, 10240, 47, 20, 154880, 202752,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"_sigmoid\":true,\"_choice_bias\":true,"
     "\"norm_topk_prob\":true,\"routed_scaling_factor\":1.8,\"n_routed_experts\":64,"
     "\"n_shared_experts\":1,\"num_experts_per_tok\":4,\"moe_intermediate_size\":1536,"
     "\"first_k_dense_replace\":1,\"mlp_layer_types\":null,\"kv_lora_rank\":512,"
     "\"q_lora_rank\":768,\"qk_nope_head_dim\":192,\"qk_rope_head_dim\":64,"
     "\"v_head_dim\":256,\"tie_word_embeddings\":false}"},
    {"solar_open", NULL, false, false, 4096, 1280, 48, 64, 196608, 131072,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":1000000,\"num_key_value_heads\":8,"
     "\"head_dim\":128,\"_sigmoid\":true,\"_choice_bias\":true,\"norm_topk_prob\":true,"
     "\"n_routed_experts\":128,\"n_shared_experts\":1,\"num_experts_per_tok\":8,"
     "\"moe_intermediate_size\":1280,\"tie_word_embeddings\":false}"},
    {"dots1", "dots1", false, false, 4608, 10944, 62, 32, 152064, 2048,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"num_key_value_heads\":32,"
     "\"sliding_window\":4096,\"max_window_layers\":62,\"_sigmoid\":true,"
     "\"_choice_bias\":true,\"norm_topk_prob\":false,\"moe_intermediate_size\":1408,"
     "\"first_k_dense_replace\":0,\"tie_word_embeddings\":false}"},
    {"minicpm3", "minicpm3", false, false, 2560, 6400, 62, 40, 73448, 32768,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"num_key_value_heads\":40,\"kv_lora_rank\":256,"
     "\"q_lora_rank\":768,\"qk_nope_head_dim\":64,\"qk_rope_head_dim\":32,\"scale_emb\":12,"
     "\"scale_depth\":1.4,\"dim_model_base\":256,\"tie_word_embeddings\":true}"},
    {"youtu", NULL, true, true, 2048, 6144, 32, 16, 128256, 131072,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"num_key_value_heads\":16,\"kv_lora_rank\":512,"
     "\"q_lora_rank\":1536,\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,"
     "\"tie_word_embeddings\":true}"},
    {"gpt_oss", "gpt-oss", false, false, 2880, 2880, 36, 64, 201088, 131072,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":150000,\"num_key_value_heads\":8,\"head_dim\":64,"
     "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":32,\"beta_fast\":32,\"beta_slow\":1,"
     "\"truncate\":false,\"original_max_position_embeddings\":4096},\"sliding_window\":128,"
     "\"sliding_window_pattern\":2,\"num_local_experts\":128,\"num_experts_per_tok\":4,"
     "\"attention_bias\":true,\"norm_topk_prob\":true,\"tie_word_embeddings\":false}"},
    {"bert", "bert", false, false, 768, 3072, 12, 12, 30522, 512,
     "{\"layer_norm_eps\":1e-12,\"hidden_act\":\"gelu\",\"type_vocab_size\":2,"
     "\"attention_bias\":true,\"mlp_bias\":true,\"_no_rope\":true}"},
};

static const struct {
    const char *name;
    enum by_act act;
} act_names[] = {
    {"silu", BY_ACT_SILU},
    {"swish", BY_ACT_SILU},
    {"gelu", BY_ACT_GELU},
    {"gelu_pytorch_tanh", BY_ACT_GELU_TANH},
    {"gelu_new", BY_ACT_GELU_TANH},
    {"gelu_fast", BY_ACT_GELU_TANH},
    {"relu", BY_ACT_RELU},
    {"relu2", BY_ACT_RELU2},
    {"quick_gelu", BY_ACT_QUICK_GELU},
};

const struct by_family *by_family_at(size_t i) {
    return i < BY_COUNTOF(families) ? &families[i] : NULL;
}

const struct by_family *by_family_find(struct by_str name) {
    static const char text[] = "_text"; /* the inside of a model that reads images, as of late */
    for (size_t i = 0; i < BY_COUNTOF(families); i++) {
        if (by_str_eqz(name, families[i].name)) return &families[i];
    }
    size_t n = sizeof text - 1;
    if (name.n <= n || memcmp(name.p + name.n - n, text, n) != 0) return NULL;
    return by_family_find((struct by_str){name.p, name.n - n});
}

const struct by_family *by_family_find_gguf(struct by_str architecture) {
    for (size_t i = 0; i < BY_COUNTOF(families); i++) {
        if (families[i].gguf && by_str_eqz(architecture, families[i].gguf)) return &families[i];
    }
    return NULL;
}

bool by_act_parse(struct by_str name, enum by_act *out) {
    for (size_t i = 0; i < BY_COUNTOF(act_names); i++) {
        if (!by_str_eqz(name, act_names[i].name)) continue;
        *out = act_names[i].act;
        return true;
    }
    return false;
}

const char *by_act_name(enum by_act a) {
    for (size_t i = 0; i < BY_COUNTOF(act_names); i++) {
        if (act_names[i].act == a) return act_names[i].name;
    }
    return "?";
}

const char *by_rope_kind_name(enum by_rope_kind k) {
    static const char *const names[] = {"none", "plain",    "linear",  "llama3",
                                        "yarn", "longrope", "factors", "dynamic"};
    return (size_t)k < BY_COUNTOF(names) ? names[k] : "?";
}

void by_model_info_init(struct by_model_info *m) {
    *m = (struct by_model_info){
        .rope = {.kind = BY_ROPE_PLAIN, .factor = 1, .attention_factor = 0, .is_truncated = true},
        .embed_scale = 1,
        .residual_scale = 1,
        .logit_scale = 1,
        .norm_eps = 1e-5,
        .moe = {.n_groups = 1, .n_groups_used = 1, .routed_scale = 1},
        .bos = -1,
        .pad = -1,
    };
}

void by_model_info_add_eos(struct by_model_info *m, int64_t id) {
    if (id < 0 || id >= BY_VOCAB_MAX || m->n_eos == BY_EOS_MAX) return;
    for (uint32_t i = 0; i < m->n_eos; i++) {
        if (m->eos[i] == (uint32_t)id) return;
    }
    m->eos[m->n_eos++] = (uint32_t)id;
}

uint32_t by_model_info_n_keyed(const struct by_model_info *m) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n_layers && i < BY_LAYERS_MAX; i++)
        n += !(m->layer_flags[i] & BY_LAYER_DELTA);
    return n;
}

uint32_t by_model_info_kv_layer(const struct by_model_info *m, uint32_t layer) {
    const uint32_t n_own = m->n_layers - m->n_kv_shared;
    if (layer < n_own) return layer;
    for (uint32_t i = n_own; i-- > 0;) {
        if (!((m->layer_flags[i] ^ m->layer_flags[layer]) & BY_LAYER_SLIDING)) return i;
    }
    return UINT32_MAX;
}

static int check_shared(const struct by_model_info *m, const char *where, struct by_err *err) {
    for (uint32_t i = 0; i < m->n_layers; i++) {
        if (m->n_kv_shared <= m->n_layers && by_model_info_kv_layer(m, i) != UINT32_MAX) continue;
        return by_fail(
            err, BY_EINVAL,
            "%s: the last %u of %u layers have no keys of their own, and none of the kind of "
            "layer %u before them has",
            where, m->n_kv_shared, m->n_layers, i);
    }
    return 0;
}

static int check_sizes(const struct by_model_info *m, const char *where, struct by_err *err) {
    const struct {
        const char *name;
        uint64_t value, max;
    } sizes[] = {
        {"number of layers", m->n_layers, BY_LAYERS_MAX},
        {"hidden size", m->hidden, BY_HIDDEN_MAX},
        {"number of attention heads", m->n_heads, BY_HEADS_MAX},
        {"number of key-value heads", m->n_kv_heads, BY_HEADS_MAX},
        {"head size", m->head_dim, BY_HEAD_DIM_MAX},
        {"number of key-value heads of full layers", m->full_kv_heads, BY_HEADS_MAX},
        {"head size of full layers", m->full_head_dim, BY_HEAD_DIM_MAX},
        {"feed-forward size", m->moe.n_experts ? m->moe.ffn : m->ffn, BY_FFN_MAX},
        {"vocabulary size", m->vocab, BY_VOCAB_MAX},
    };
    for (size_t i = 0; i < BY_COUNTOF(sizes); i++) {
        if (sizes[i].value > 0 && sizes[i].value <= sizes[i].max) continue;
        return by_fail(err, BY_EINVAL, "%s: the %s is %" PRIu64 "; 1 to %" PRIu64 " is possible",
                       where, sizes[i].name, sizes[i].value, sizes[i].max);
    }
    const uint32_t kv_heads[] = {m->n_kv_heads, m->full_kv_heads};
    for (size_t i = 0; i < BY_COUNTOF(kv_heads); i++) {
        if (m->n_heads % kv_heads[i] == 0) continue;
        return by_fail(err, BY_EINVAL, "%s: %u attention heads cannot share %u key-value heads",
                       where, m->n_heads, kv_heads[i]);
    }
    const uint64_t wide = BY_MAX(m->ffn, m->shared_ffn),
                   token = (uint64_t)m->per_layer * m->n_layers;
    if (wide <= BY_FFN_MAX && token <= BY_FFN_MAX) return 0;
    return by_fail(err, BY_EINVAL,
                   "%s: a feed-forward of %" PRIu64 ", %" PRIu64 " numbers of a token; "
                   "at most %d are possible",
                   where, wide, token, BY_FFN_MAX);
}

static int check_moe(const struct by_moe_info *x, const char *where, struct by_err *err) {
    if (x->n_experts == 0) return 0;
    if (x->n_experts > BY_EXPERTS_MAX || x->n_groups > BY_EXPERT_GROUPS_MAX)
        return by_fail(err, BY_EUNSUPPORTED,
                       "%s: %u experts in %u groups are not supported natively (at most %d in %d)",
                       where, x->n_experts, x->n_groups, BY_EXPERTS_MAX, BY_EXPERT_GROUPS_MAX);
    if (x->n_used == 0 || x->n_used > x->n_experts) {
        return by_fail(err, BY_EINVAL, "%s: %u of %u experts a token is not possible", where,
                       x->n_used, x->n_experts);
    }
    if (x->n_groups == 0 || x->n_experts % x->n_groups != 0 || x->n_groups_used == 0 ||
        x->n_groups_used > x->n_groups) {
        return by_fail(err, BY_EINVAL,
                       "%s: %u experts do not divide into %u groups of which %u are used", where,
                       x->n_experts, x->n_groups, x->n_groups_used);
    }
    if (x->n_used > x->n_experts / x->n_groups * x->n_groups_used) {
        return by_fail(err, BY_EINVAL, "%s: %u experts a token are more than %u groups hold", where,
                       x->n_used, x->n_groups_used);
    }
    return 0;
}

static int check_mla(const struct by_mla_info *x, const char *where, struct by_err *err) {
    if (x->kv_rank == 0) return 0;
    bool fits = x->kv_rank <= BY_HEAD_DIM_MAX && x->q_rank <= BY_HIDDEN_MAX && x->rope_dim > 0 &&
                x->rope_dim % 2 == 0 && x->v_dim > 0 && x->v_dim <= BY_HEAD_DIM_MAX &&
                x->nope_dim <= BY_HEAD_DIM_MAX && x->nope_dim + x->rope_dim <= BY_HEAD_DIM_MAX;
    if (fits) return 0;
    return by_fail(
        err, BY_EINVAL,
        "%s: latent attention with rank %u and head parts %u + %u and %u is not possible", where,
        x->kv_rank, x->nope_dim, x->rope_dim, x->v_dim);
}

static int check_delta(const struct by_delta_info *x, const char *where, struct by_err *err) {
    if (x->n_v_heads == 0) return 0;
    bool fits = x->n_k_heads > 0 && x->n_k_heads <= BY_HEADS_MAX && x->n_v_heads <= BY_HEADS_MAX &&
                x->n_v_heads % x->n_k_heads == 0 && x->k_dim > 0 && x->k_dim <= BY_HEAD_DIM_MAX &&
                x->v_dim > 0 && x->v_dim <= BY_HEAD_DIM_MAX && x->conv > 0 &&
                x->conv <= BY_CONV_MAX;
    if (fits && (uint64_t)x->n_v_heads * x->k_dim * x->v_dim <= BY_STATE_NUMBERS_MAX) return 0;
    return by_fail(err, BY_EINVAL,
                   "%s: linear attention with %u key heads of %u, %u value heads of %u and a "
                   "convolution of %u is not possible",
                   where, x->n_k_heads, x->k_dim, x->n_v_heads, x->v_dim, x->conv);
}

static int check_rope(const struct by_model_info *m, const char *where, struct by_err *err) {
    const struct by_rope *r = &m->rope;
    if (r->kind == BY_ROPE_NONE) return 0;
    const struct {
        uint32_t n_rot, room;
    } turns[] = {{r->n_rot, m->mla.kv_rank ? m->mla.rope_dim : m->full_head_dim},
                 {r->n_rot_local, m->head_dim}};
    for (size_t i = 0; i < (r->theta_local > 0 ? 2u : 1u); i++) {
        if (turns[i].n_rot && turns[i].n_rot % 2 == 0 && turns[i].n_rot <= turns[i].room) continue;
        return by_fail(err, BY_EUNSUPPORTED,
                       "%s: rope over %u dimensions of a head of %u; an even number up to the head "
                       "is needed",
                       where, turns[i].n_rot, turns[i].room);
    }
    if (!(r->theta >= 1 && r->theta <= 1e15) || !(r->theta_local == 0 || r->theta_local >= 1)) {
        return by_fail(err, BY_EINVAL, "%s: rope base %g (local %g); at least 1 is needed", where,
                       r->theta, r->theta_local);
    }
    if (!(r->factor > 0 && r->factor <= 1e6) || !isfinite(r->attention_factor)) {
        return by_fail(err, BY_EINVAL, "%s: rope factor %g with attention factor %g", where,
                       r->factor, r->attention_factor);
    }
    bool needs_original =
        r->kind == BY_ROPE_LLAMA3 || r->kind == BY_ROPE_YARN || r->kind == BY_ROPE_LONGROPE;
    if (needs_original && (r->original_context == 0 || r->original_context > BY_CONTEXT_MAX)) {
        return by_fail(err, BY_EINVAL, "%s: rope kind %s needs the original context length", where,
                       by_rope_kind_name(r->kind));
    }
    if (r->kind == BY_ROPE_LLAMA3 && !(r->low_freq > 0 && r->high_freq > r->low_freq)) {
        return by_fail(err, BY_EINVAL, "%s: rope frequency factors %g and %g must grow", where,
                       r->low_freq, r->high_freq);
    }
    bool needs_factors = r->kind == BY_ROPE_LONGROPE || r->kind == BY_ROPE_FACTORS;
    if (needs_factors && r->n_factors != r->n_rot / 2) {
        return by_fail(err, BY_EINVAL, "%s: %u rope factors for %u pairs of dimensions", where,
                       r->n_factors, r->n_rot / 2);
    }
    for (uint32_t i = 0; needs_factors && i < r->n_factors; i++) {
        bool fits = r->long_factors[i] > 0 && isfinite(r->long_factors[i]) &&
                    (r->kind == BY_ROPE_FACTORS ||
                     (r->short_factors[i] > 0 && isfinite(r->short_factors[i])));
        if (!fits) return by_fail(err, BY_EINVAL, "%s: rope factor %u is not above 0", where, i);
    }
    return 0;
}

static double yarn_mscale(double factor, double m) {
    return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

/* The formulas of transformers' modeling_rope_utils. */
static void fill_rope(struct by_model_info *m) {
    struct by_rope *r = &m->rope;
    uint32_t room = m->mla.kv_rank ? m->mla.rope_dim : m->full_head_dim;
    if (r->kind == BY_ROPE_NONE) return;
    if (r->n_rot == 0) r->n_rot = room;
    if (r->n_rot_local == 0) r->n_rot_local = BY_MIN(r->n_rot, m->head_dim);
    if (r->attention_factor != 0) return;
    r->attention_factor = 1;
    if (r->kind == BY_ROPE_YARN) {
        r->attention_factor =
            r->mscale != 0 && r->mscale_all != 0
                ? yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all)
                : yarn_mscale(r->factor, 1);
    }
    if (r->kind == BY_ROPE_LONGROPE && r->factor > 1 && r->original_context > 1)
        r->attention_factor = sqrt(1 + log(r->factor) / log((double)r->original_context));
}

static void fill_attention(struct by_model_info *m) {
    if (m->n_kv_heads == 0) m->n_kv_heads = m->n_heads;
    if (m->mla.kv_rank && m->mla.nope_dim <= BY_HEAD_DIM_MAX && m->mla.rope_dim <= BY_HEAD_DIM_MAX)
        m->head_dim = m->mla.nope_dim + m->mla.rope_dim;
    if (m->head_dim == 0 && m->n_heads) m->head_dim = m->hidden / m->n_heads;
    if (m->full_kv_heads == 0) m->full_kv_heads = m->n_kv_heads;
    if (m->full_head_dim == 0) m->full_head_dim = m->head_dim;
    if (m->attn_scale != 0 || m->head_dim == 0) return;
    m->attn_scale = 1 / sqrt((double)m->head_dim);
    if (m->mla.kv_rank && m->rope.kind == BY_ROPE_YARN && m->rope.mscale_all != 0) {
        double s = yarn_mscale(m->rope.factor, m->rope.mscale_all);
        m->attn_scale *= s * s;
    }
}

static int check_scales(const struct by_model_info *m, const char *where, struct by_err *err) {
    const struct {
        const char *name;
        double value;
    } scales[] = {
        {"attention scale", m->attn_scale},    {"embedding scale", m->embed_scale},
        {"residual scale", m->residual_scale}, {"logit scale", m->logit_scale},
        {"expert scale", m->moe.routed_scale}, {"growth of queries", m->query_growth},
    };
    for (size_t i = 0; i < BY_COUNTOF(scales); i++) {
        if (isfinite(scales[i].value) && fabs(scales[i].value) <= 1e6) continue;
        return by_fail(err, BY_EINVAL, "%s: the %s is %g", where, scales[i].name, scales[i].value);
    }
    if (!(m->norm_eps >= 0 && m->norm_eps <= 1))
        return by_fail(err, BY_EINVAL, "%s: the norm's epsilon is %g", where, m->norm_eps);
    if (!(m->attn_softcap >= 0) || !(m->final_softcap >= 0))
        return by_fail(err, BY_EINVAL, "%s: a softcap is below 0", where);
    return 0;
}

int by_model_info_finish(struct by_model_info *m, const char *where, struct by_err *err) {
    fill_attention(m);
    fill_rope(m);
    if (m->moe.n_experts && m->moe.ffn == 0) m->moe.ffn = m->ffn;
    int rc = check_sizes(m, where, err);
    if (!rc) rc = check_shared(m, where, err);
    if (!rc) rc = check_moe(&m->moe, where, err);
    if (!rc) rc = check_mla(&m->mla, where, err);
    if (!rc) rc = check_delta(&m->delta, where, err);
    if (!rc) rc = check_rope(m, where, err);
    if (!rc) rc = check_scales(m, where, err);
    return rc;
}
