/* The built-in chat templates: each renders a conversation as its family's makers document it. */
#include "common/template/builtin.h"
#include "common/template/chat_template.h"
#include "tests/unit/test.h"

static const char chat[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"Be "
                           "brief.\"},{\"role\":\"user\",\"content\":\"Hi\"},"
                           "{\"role\":\"assistant\",\"content\":\"Hello\"},{\"role\":\"user\","
                           "\"content\":[{\"type\":\"text\",\"text\":"
                           "\"Why?\"}]}],\"add_generation_prompt\":true}";

#define SPECIAL "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}"

static const struct {
    const char *name, *want;
} documented[] = {
    {"chatml", "<|im_start|>system\nBe "
               "brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
               "Hello<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"},
    {"phi4", "<|im_start|>system<|im_sep|>Be "
             "brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>"
             "assistant<|im_sep|>Hello<|im_end|><|im_start|>user<|im_sep|>Why?<|im_end|><|im_start|"
             ">assistant"
             "<|im_sep|>"},
    {"llama3",
     "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user"
     "<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_"
     "id|>"
     "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant"
     "<|end_header_id|>\n\n"},
    {"llama4", "<s><|header_start|>system<|header_end|>\n\nBe "
               "brief.<|eot|><|header_start|>user<|header_end|>\n\n"
               "Hi<|eot|><|header_start|>assistant<|header_end|>\n\nHello<|eot|><|header_start|>"
               "user<|header_end|>"
               "\n\nWhy?<|eot|><|header_start|>assistant<|header_end|>\n\n"},
    {"gemma", "<s><start_of_turn>user\nBe "
              "brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
              "<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n"},
    {"phi3",
     "<|system|>\nBe "
     "brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n<|user|>\nWhy?<|end|>\n"
     "<|assistant|>\n"},
    {"deepseek",
     "<s>Be "
     "brief.<｜User｜>Hi<｜Assistant｜>Hello<｜end▁of▁sentence｜><｜User｜>Why?<｜Assistant｜>"},
    {"mistral-v7",
     "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hi[/INST]Hello</s>[INST]Why?[/INST]"},
    {"mistral", "<s>[INST] Hi[/INST] Hello</s>[INST] Be brief.\n\nWhy?[/INST]"},
    {"mistral-v1", "<s>[INST] Be brief.\n\nHi [/INST]Hello</s>[INST] Why? [/INST]"},
    {"command-r",
     "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be "
     "brief.<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|>"
     "<|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Hello"
     "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Why?<|END_OF_TURN_TOKEN|>"
     "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"},
    {"granite",
     "<|start_of_role|>system<|end_of_role|>Be "
     "brief.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>"
     "Hi<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>Hello<|end_of_text|>\n"
     "<|start_of_role|>user<|end_of_role|>Why?<|end_of_text|>\n<|start_of_role|>assistant"
     "<|end_of_role|>"},
    {"glm4", "[gMASK]<sop><|system|>\nBe "
             "brief.<|user|>\nHi<|assistant|>\nHello<|user|>\nWhy?<|assistant|>\n"},
    {"harmony",
     "<|start|>system<|message|>You are a helpful assistant.\nReasoning: medium\n\n# Valid "
     "channels: analysis, "
     "commentary, final. Channel must be included for every "
     "message.<|end|><|start|>developer<|message|># "
     "Instructions\n\nBe "
     "brief.\n\n<|end|><|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>final"
     "<|message|>Hello<|end|><|start|>user<|message|>Why?<|end|><|start|>assistant"},
    {"llama2",
     "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] Why? [/INST]"},
    {"zephyr",
     "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n<|user|>\nWhy?</s>\n"
     "<|assistant|>\n"},
    {"vicuna", "Be brief. USER: Hi ASSISTANT: Hello</s> USER: Why? ASSISTANT:"},
    {"alpaca",
     "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello</s>\n\n### Instruction:\nWhy?\n\n"
     "### Response:\n"},
};

static void check(const struct by_builtin_template *b, const char *messages, const char *want) {
    struct by_chat_template *t = NULL;
    struct by_chat_prompt p;
    struct by_err err = {0};
    by_chat_prompt_init(&p);
    if (by_chat_template_parse(&t, by_str_of(b->source), by_str_of(SPECIAL), &err) ||
        by_chat_template_render(t, by_str_of(messages), 0, &p, &err))
        fail_msg("%s: %s", b->name, err.text);
    if (!by_str_eqz(by_buf_str(&p.text), want))
        fail_msg("%s:\n" BY_STR_FMT "\nwanted:\n%s", b->name, BY_STR_ARG(by_buf_str(&p.text)),
                 want);
    /* What the request brought is marked, so that it cannot become a special token. */
    size_t at = by_str_find(by_buf_str(&p.text), BY_STR("Why?"), 0);
    if (at != SIZE_MAX) assert_memory_equal(p.marks.p + at, "\1\1\1\1", 4);
    by_chat_prompt_release(&p);
    by_chat_template_free(t);
}

TEST(each_renders_as_documented) {
    UNUSED_STATE;
    size_t n = 0;
    for (; by_builtin_template_at(n); n++) {
        const struct by_builtin_template *b = by_builtin_template_at(n);
        size_t i = 0;
        while (i < BY_COUNTOF(documented) && strcmp(documented[i].name, b->name) != 0)
            i++;
        if (i == BY_COUNTOF(documented)) fail_msg("%s is not documented here", b->name);
        check(b, chat, documented[i].want);
    }
    assert_int_equal(n, BY_COUNTOF(documented));
}

TEST(chatml_offers_tools_and_shows_calls) {
    UNUSED_STATE;
    check(by_builtin_template_named(BY_STR("chatml")),
          "{\"messages\":[{\"role\":\"user\",\"content\":\"Why?\"},{\"role\":\"assistant\","
          "\"content\":\"\",\"tool_calls\":[{"
          "\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1}}}]},{\"role\":\"tool\",\"content\":"
          "\"42\"}],\"tools\":[{\"type\":"
          "\"function\",\"function\":{\"name\":\"f\"}}]}",
          "<|im_start|>system\nYou may call functions. Their signatures stand within "
          "<tools></tools>:\n<tools>\n{\"type\": "
          "\"function\", \"function\": {\"name\": \"f\"}}\n</tools>\nFor each call answer with a "
          "JSON object within "
          "<tool_call></tool_call>:\n<tool_call>\n{\"name\": <function>, \"arguments\": "
          "<object>}\n</tool_call><|im_end|>\n"
          "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{\"name\": \"f\", "
          "\"arguments\": {\"x\": 1}}\n"
          "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n42\n</"
          "tool_response><|im_end|>\n");
}

TEST(turns_out_of_order_and_images_are_refused_in_words) {
    UNUSED_STATE;
    struct by_chat_template *t = NULL;
    struct by_chat_prompt p;
    struct by_err err = {0};
    by_chat_prompt_init(&p);
    const struct by_builtin_template *b = by_builtin_template_named(BY_STR("llama2"));
    assert_int_equal(by_chat_template_parse(&t, by_str_of(b->source), by_str_of(SPECIAL), &err), 0);
    assert_int_not_equal(
        by_chat_template_render(
            t, BY_STR("{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}"), 0, &p, &err),
        0);
    assert_non_null(strstr(err.text, "take turns"));
    assert_int_not_equal(
        by_chat_template_render(t,
                                BY_STR("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
                                       "\"image\"}]}]}"),
                                0, &p, &err),
        0);
    assert_non_null(strstr(err.text, "text only"));
    by_chat_prompt_release(&p);
    by_chat_template_free(t);
}

struct pieces {
    const char *at[4];
};

static bool has(void *ctx, struct by_str piece) {
    const struct pieces *p = ctx;
    for (size_t i = 0; i < BY_COUNTOF(p->at) && p->at[i]; i++) {
        if (by_str_eqz(piece, p->at[i])) return true;
    }
    return false;
}

static void check_family(struct pieces p, const char *want) {
    const struct by_builtin_template *b = by_builtin_template_for(has, &p);
    if (!want)
        assert_null(b);
    else
        assert_string_equal(b ? b->name : "none", want);
}

TEST(the_vocabulary_says_which_family) {
    UNUSED_STATE;
    check_family((struct pieces){{"<|im_start|>", "<|im_end|>"}}, "chatml");
    check_family((struct pieces){{"<|im_start|>", "<|im_sep|>", "<|im_end|>"}}, "phi4");
    check_family((struct pieces){{"[INST]", "[/INST]", "<unk>"}}, "mistral");
    check_family((struct pieces){{"[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"}},
                 "mistral-v7");
    check_family((struct pieces){{"<|im_start|>", "<unk>"}}, NULL);
    check_family((struct pieces){{NULL}}, NULL);
}

TESTS(RUN(each_renders_as_documented), RUN(chatml_offers_tools_and_shows_calls),
      RUN(turns_out_of_order_and_images_are_refused_in_words),
      RUN(the_vocabulary_says_which_family));
