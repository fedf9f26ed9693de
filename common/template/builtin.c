#include "common/template/builtin.h"

/* The text of a message: a string, or the text parts of a list. */
#define TEXT \
    "{%- macro text(c) -%}{%- if c is string -%}{{ c }}{%- elif c -%}{%- for p in c -%}" \
    "{%- if p is string -%}{{ p }}{%- elif p.type == 'text' -%}{{ p.text }}{%- else -%}" \
    "{{ raise_exception('this chat template takes text only, not ' ~ p.type) }}{%- endif -%}" \
    "{%- endfor -%}{%- endif -%}{%- endmacro -%}"

/* Those with one place for the system's words: `system` is they, `rest` the other messages, user and assistant in turn. */
#define SPLIT_SYSTEM \
    "{%- set ns = namespace(system='', rest=messages) -%}" \
    "{%- if messages and messages[0].role in ['system', 'developer'] -%}" \
    "{%- set ns.system = text(messages[0].content) -%}{%- set ns.rest = messages[1:] -%}{%- " \
    "endif -%}" \
    "{%- for m in ns.rest -%}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}" \
    "{{ raise_exception('user and assistant must take turns, the user first') }}" \
    "{%- endif -%}{%- endfor -%}"

/* Hermes' way to offer and report tools, in ChatML. */
#define CHATML \
    TEXT \
        "{%- if tools -%}{{ '<|im_start|>system\\n' }}" \
        "{%- if messages and messages[0].role == 'system' -%}{{ text(messages[0].content) ~ " \
        "'\\n\\n' }}" \
        "{%- endif -%}" \
        "{{ 'You may call functions. Their signatures stand within <tools></tools>:\\n<tools>' }}" \
        "{%- for tool in tools -%}{{ '\\n' ~ (tool | tojson) }}{%- endfor -%}" \
        "{{ '\\n</tools>\\nFor each call answer with a JSON object within " \
        "<tool_call></tool_call>:\\n" \
        "<tool_call>\\n{\"name\": <function>, \"arguments\": " \
        "<object>}\\n</tool_call><|im_end|>\\n' }}" \
        "{%- endif -%}" \
        "{%- for m in messages -%}" \
        "{%- if not (tools and loop.first and m.role == 'system') -%}" \
        "{%- if m.role == 'tool' -%}" \
        "{{ '<|im_start|>user\\n<tool_response>\\n' ~ text(m.content) ~ " \
        "'\\n</tool_response><|im_end|>\\n' }}" \
        "{%- else -%}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ text(m.content) }}" \
        "{%- for call in m.tool_calls or [] -%}{%- set f = call.function or call -%}" \
        "{{ ('\\n' if m.content or not loop.first else '') ~ '<tool_call>\\n{\"name\": ' ~ " \
        "(f.name | tojson) ~ " \
        "', \"arguments\": ' ~ (f.arguments if f.arguments is string else f.arguments | tojson) " \
        "~ " \
        "'}\\n</tool_call>' }}" \
        "{%- endfor -%}{{ '<|im_end|>\\n' }}{%- endif -%}{%- endif -%}{%- endfor -%}" \
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"

#define LLAMA2 \
    TEXT SPLIT_SYSTEM \
        "{%- for m in ns.rest -%}" \
        "{%- if m.role == 'user' -%}{%- set words = text(m.content) -%}" \
        "{%- if loop.first and ns.system -%}" \
        "{%- set words = '<<SYS>>\\n' ~ ns.system ~ '\\n<</SYS>>\\n\\n' ~ words -%}{%- endif -%}" \
        "{{ bos_token ~ '[INST] ' ~ words.strip() ~ ' [/INST]' }}" \
        "{%- else -%}{{ ' ' ~ text(m.content).strip() ~ ' ' ~ eos_token }}{%- endif -%}{%- " \
        "endfor -%}"

#define LLAMA3 \
    TEXT "{{ bos_token }}{%- for m in messages -%}" \
         "{{ '<|start_header_id|>' ~ ('ipython' if m.role == 'tool' else m.role) ~ " \
         "'<|end_header_id|>\\n\\n' ~ " \
         "text(m.content).strip() ~ '<|eot_id|>' }}{%- endfor -%}" \
         "{%- if add_generation_prompt -%}{{ " \
         "'<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}" \
         "{%- endif -%}"

#define LLAMA4 \
    TEXT "{{ bos_token }}{%- for m in messages -%}" \
         "{{ '<|header_start|>' ~ m.role ~ '<|header_end|>\\n\\n' ~ text(m.content).strip() ~ " \
         "'<|eot|>' }}" \
         "{%- endfor -%}{%- if add_generation_prompt -%}{{ " \
         "'<|header_start|>assistant<|header_end|>\\n\\n' }}" \
         "{%- endif -%}"

/* The system's words go to the first (v1) or last (v3) of the user's; `open` and `close` stand around these. */
#define MISTRAL(open, close, answer, which) \
    TEXT SPLIT_SYSTEM "{{ bos_token }}{%- for m in ns.rest -%}" \
                      "{%- if m.role == 'user' -%}" \
                      "{{ '" open "' ~ (ns.system ~ '\\n\\n' if ns.system and " which \
                      " else '') ~ text(m.content) ~ '" close "' }}" \
                      "{%- else -%}{{ '" answer \
                      "' ~ text(m.content) ~ eos_token }}{%- endif -%}{%- endfor -%}"

#define MISTRAL_V7 \
    TEXT SPLIT_SYSTEM "{{ bos_token }}{%- if ns.system -%}{{ '[SYSTEM_PROMPT]' ~ ns.system ~ " \
                      "'[/SYSTEM_PROMPT]' }}{%- endif -%}" \
                      "{%- for m in ns.rest -%}" \
                      "{%- if m.role == 'user' -%}{{ '[INST]' ~ text(m.content) ~ '[/INST]' }}" \
                      "{%- else -%}{{ text(m.content) ~ eos_token }}{%- endif -%}{%- endfor -%}"

#define GEMMA \
    TEXT SPLIT_SYSTEM \
        "{{ bos_token }}{%- for m in ns.rest -%}" \
        "{{ '<start_of_turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\\n' ~ " \
        "(ns.system ~ '\\n\\n' if loop.first and ns.system else '') ~ text(m.content).strip() ~ " \
        "'<end_of_turn>\\n' }}{%- endfor -%}" \
        "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"

#define PHI3 \
    TEXT "{%- for m in messages -%}{{ '<|' ~ m.role ~ '|>\\n' ~ text(m.content) ~ '<|end|>\\n' " \
         "}}{%- endfor -%}" \
         "{{ '<|assistant|>\\n' if add_generation_prompt else eos_token }}"

#define PHI4 \
    TEXT "{%- for m in messages -%}" \
         "{{ '<|im_start|>' ~ m.role ~ '<|im_sep|>' ~ text(m.content) ~ '<|im_end|>' }}{%- " \
         "endfor -%}" \
         "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant<|im_sep|>' }}{%- endif -%}"

#define DEEPSEEK \
    TEXT "{%- set ns = namespace(system='') -%}" \
         "{%- for m in messages -%}{%- if m.role == 'system' -%}" \
         "{%- set ns.system = (ns.system ~ '\\n\\n' if ns.system else '') ~ text(m.content) " \
         "-%}{%- endif -%}" \
         "{%- endfor -%}{{ bos_token ~ ns.system }}" \
         "{%- for m in messages -%}" \
         "{%- if m.role == 'user' -%}{{ '<｜User｜>' ~ text(m.content) }}" \
         "{%- elif m.role == 'assistant' -%}" \
         "{{ '<｜Assistant｜>' ~ text(m.content).split('</think>')[-1] ~ '<｜end▁of▁sentence｜>' " \
         "}}" \
         "{%- endif -%}{%- endfor -%}" \
         "{%- if add_generation_prompt -%}{{ '<｜Assistant｜>' }}{%- endif -%}"

#define ZEPHYR \
    TEXT "{%- for m in messages -%}{{ '<|' ~ m.role ~ '|>\\n' ~ text(m.content) ~ eos_token ~ " \
         "'\\n' }}" \
         "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}"

#define VICUNA \
    TEXT SPLIT_SYSTEM "{{ ns.system or 'A chat between a curious user and an artificial " \
                      "intelligence assistant. The assistant gives " \
                      "helpful, detailed, and polite answers to the user\\'s questions.' }}" \
                      "{%- for m in ns.rest -%}" \
                      "{%- if m.role == 'user' -%}{{ ' USER: ' ~ text(m.content).strip() }}" \
                      "{%- else -%}{{ ' ASSISTANT: ' ~ text(m.content).strip() ~ eos_token }}{%- " \
                      "endif -%}{%- endfor -%}" \
                      "{%- if add_generation_prompt -%}{{ ' ASSISTANT:' }}{%- endif -%}"

#define ALPACA \
    TEXT SPLIT_SYSTEM \
        "{{ (ns.system or 'Below is an instruction that describes a task. Write a response that " \
        "appropriately completes " \
        "the request.') ~ '\\n\\n' }}" \
        "{%- for m in ns.rest -%}" \
        "{%- if m.role == 'user' -%}{{ '### Instruction:\\n' ~ text(m.content).strip() ~ " \
        "'\\n\\n' }}" \
        "{%- else -%}{{ '### Response:\\n' ~ text(m.content).strip() ~ eos_token ~ '\\n\\n' " \
        "}}{%- endif -%}" \
        "{%- endfor -%}{%- if add_generation_prompt -%}{{ '### Response:\\n' }}{%- endif -%}"

#define COMMAND_R \
    TEXT "{{ bos_token }}{%- for m in messages -%}" \
         "{{ '<|START_OF_TURN_TOKEN|><|' ~ ('CHATBOT' if m.role == 'assistant' else m.role | " \
         "upper) ~ '_TOKEN|>' ~ " \
         "text(m.content).strip() ~ '<|END_OF_TURN_TOKEN|>' }}{%- endfor -%}" \
         "{%- if add_generation_prompt -%}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{%- " \
         "endif -%}"

#define GRANITE \
    TEXT "{%- for m in messages -%}" \
         "{{ '<|start_of_role|>' ~ m.role ~ '<|end_of_role|>' ~ text(m.content) ~ " \
         "'<|end_of_text|>\\n' }}" \
         "{%- endfor -%}{%- if add_generation_prompt -%}{{ " \
         "'<|start_of_role|>assistant<|end_of_role|>' }}" \
         "{%- endif -%}"

#define GLM4 \
    TEXT "{{ '[gMASK]<sop>' }}{%- for m in messages -%}{{ '<|' ~ m.role ~ '|>\\n' ~ " \
         "text(m.content) }}" \
         "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}"

#define HARMONY \
    TEXT "{{ '<|start|>system<|message|>You are a helpful assistant.\\nReasoning: ' ~ " \
         "(reasoning_effort or 'medium') ~ " \
         "'\\n\\n# Valid channels: analysis, commentary, final. Channel must be included for " \
         "every message.<|end|>' }}" \
         "{%- for m in messages -%}" \
         "{%- if m.role in ['system', 'developer'] -%}" \
         "{{ '<|start|>developer<|message|># Instructions\\n\\n' ~ text(m.content) ~ " \
         "'\\n\\n<|end|>' }}" \
         "{%- elif m.role == 'assistant' -%}" \
         "{{ '<|start|>assistant<|channel|>final<|message|>' ~ text(m.content) ~ '<|end|>' }}" \
         "{%- else -%}{{ '<|start|>' ~ m.role ~ '<|message|>' ~ text(m.content) ~ '<|end|>' " \
         "}}{%- endif -%}" \
         "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|start|>assistant' }}{%- endif -%}"

static const struct by_builtin_template table[] = {
    {"phi4", "Phi-4", {"<|im_start|>", "<|im_sep|>", "<|im_end|>"}, PHI4},
    {"chatml", "Qwen, SmolLM, Hermes, Yi and others", {"<|im_start|>", "<|im_end|>"}, CHATML},
    {"llama3", "Llama 3, 3.1, 3.2, 3.3", {"<|start_header_id|>", "<|eot_id|>"}, LLAMA3},
    {"llama4", "Llama 4", {"<|header_start|>", "<|eot|>"}, LLAMA4},
    {"gemma", "Gemma 1, 2, 3", {"<start_of_turn>", "<end_of_turn>"}, GEMMA},
    {"phi3", "Phi-3, Phi-3.5", {"<|user|>", "<|assistant|>", "<|end|>"}, PHI3},
    {"deepseek", "DeepSeek V2.5, V3, R1", {"<｜User｜>", "<｜Assistant｜>"}, DEEPSEEK},
    {"mistral-v7",
     "Mistral's from the v7 tokenizer on",
     {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]"},
     MISTRAL_V7},
    {"mistral",
     "Mistral's and Mixtral with the v2 and v3 tokenizers",
     {"[INST]", "[/INST]"},
     MISTRAL("[INST] ", "[/INST]", " ",
             "loop.index0 >= ns.rest | length - 2 + ns.rest | length % 2")},
    {"command-r", "Command R, Aya", {"<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"}, COMMAND_R},
    {"granite", "Granite 3", {"<|start_of_role|>", "<|end_of_role|>"}, GRANITE},
    {"glm4", "GLM-4", {"[gMASK]", "<sop>", "<|user|>"}, GLM4},
    {"harmony", "gpt-oss", {"<|start|>", "<|message|>", "<|channel|>"}, HARMONY},
    {"llama2", "Llama 2, Code Llama", {NULL}, LLAMA2},
    {"mistral-v1",
     "Mistral and Mixtral with the v1 tokenizer",
     {NULL},
     MISTRAL("[INST] ", " [/INST]", "", "loop.first")},
    {"zephyr", "Zephyr, TinyLlama, StableLM Zephyr", {NULL}, ZEPHYR},
    {"vicuna", "Vicuna, LLaVA", {NULL}, VICUNA},
    {"alpaca", "Alpaca and those trained like it", {NULL}, ALPACA},
};

const struct by_builtin_template *by_builtin_template_at(size_t i) {
    return i < BY_COUNTOF(table) ? &table[i] : NULL;
}

const struct by_builtin_template *by_builtin_template_named(struct by_str name) {
    for (size_t i = 0; i < BY_COUNTOF(table); i++) {
        if (by_str_eqz(name, table[i].name)) return &table[i];
    }
    return NULL;
}

const struct by_builtin_template *
by_builtin_template_for(bool (*has_piece)(void *ctx, struct by_str piece), void *ctx) {
    for (size_t i = 0; i < BY_COUNTOF(table); i++) {
        const struct by_builtin_template *b = &table[i];
        bool fits = b->markers[0] != NULL;
        for (size_t k = 0; fits && k < BY_COUNTOF(b->markers) && b->markers[k]; k++)
            fits = has_piece(ctx, by_str_of(b->markers[k]));
        if (fits) return b;
    }
    return NULL;
}
