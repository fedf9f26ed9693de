#include "common/modelfile/model_info.h"

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
     "\"_norm_topk\":true,\"_shared_gate\":true,\"tie_word_embeddings\":false}"},
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
    {"granitemoehybrid", "granitehybrid", false, true, 4096, 11008, 32, 32, 32000, 2048,
     "{\"rms_norm_eps\":1e-6,\"rope_theta\":10000,\"attention_multiplier\":1,"
     "\"num_local_experts\":8,\"num_experts_per_tok\":2,\"norm_topk_prob\":true,"
     "\"shared_intermediate_size\":1024,\"position_embedding_type\":null,"
     "\"layer_types\":null,\"mamba_n_heads\":128,\"mamba_n_groups\":1,\"mamba_d_state\":256,"
     "\"mamba_d_head\":\"auto\",\"mamba_d_conv\":4,\"mamba_expand\":2,\"mamba_conv_bias\":true,"
     "\"mamba_proj_bias\":false,\"time_step_limit\":null,\"tie_word_embeddings\":false}"},
    {"bamba", NULL, false, true, 4096, 14336, 32, 32, 128000, 262144,
     "{\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"partial_rotary_factor\":0.5,"
     "\"num_key_value_heads\":8,\"attn_layer_indices\":null,\"mamba_n_heads\":128,\"mamba_n_"
     "groups\":1,\"mamba_d_state\":256,"
     "\"mamba_d_head\":\"auto\",\"mamba_d_conv\":4,\"mamba_expand\":2,\"mamba_conv_bias\":true,"
     "\"mamba_proj_bias\":false,\"time_step_limit\":null,\"tie_word_embeddings\":false}"},
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
    {"lfm2", "lfm2", false, false, 2560, 12288, 32, 32, 65536, 128000,
     "{\"norm_eps\":1e-5,\"rope_theta\":1000000,\"num_key_value_heads\":8,\"layer_types\":null,"
     "\"full_attn_idxs\":null,\"conv_L_cache\":3,\"conv_bias\":false,"
     "\"block_auto_adjust_ff_dim\":true,\"block_ffn_dim_multiplier\":1,\"block_multiple_of\":256,"
     "\"tie_word_embeddings\":true}"},
    {"lfm2_moe", "lfm2moe", false, false, 2048, 7168, 32, 32, 65536, 128000,
     "{\"norm_eps\":1e-5,\"rope_theta\":1000000,\"num_key_value_heads\":8,\"layer_types\":null,"
     "\"conv_L_cache\":3,\"conv_bias\":false,\"num_dense_layers\":2,\"num_experts\":32,"
     "\"num_experts_per_tok\":4,\"moe_intermediate_size\":1792,\"_sigmoid\":true,"
     "\"use_expert_bias\":true,\"norm_topk_prob\":true,\"tie_word_embeddings\":true}"},
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

bool by_model_is(const struct by_model_info *m, const char *family) {
    return strcmp(m->family, family) == 0;
}

bool by_model_is_gemma4(const struct by_model_info *m) {
    return by_model_is(m, "gemma4") || by_model_is(m, "gemma4_unified");
}

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
