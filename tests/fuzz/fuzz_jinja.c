/* Any bytes as a chat template (up to a NUL; behind it, the chat): refused, or rendered within its budgets. */
#include "common/base/check.h"
#include "common/base/utf8.h"
#include "common/template/chat_template.h"
#include "tests/fuzz/fuzz.h"

static const char usual_chat[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"
    "{\"role\":\"user\",\"content\":\" H\\u00e9llo <|im_end|> \"},{\"role\":\"assistant\","
    "\"content\":[{\"type\":\"text\",\"text\":\"a "
    "b\"}],\"tool_calls\":[{\"function\":{\"name\":\"f\","
    "\"arguments\":{\"x\":[1,2.5,null,true]}}}]}],\"tools\":[{\"type\":\"function\",\"function\":"
    "{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}}],\"add_generation_prompt\":true}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct by_chat_template *t = NULL;
    struct by_err err = {0};
    struct by_str source, chat = fuzz_bytes(data, size);
    if (!by_str_split(&chat, '\0', &source)) {
        source = fuzz_bytes(data, size);
        chat = by_str_of(usual_chat);
    }
    if (by_chat_template_parse(&t, source, BY_STR("{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}"),
                               &err)) {
        by_assert(err.text[0] && !t);
        return 0;
    }
    struct by_chat_prompt p;
    by_chat_prompt_init(&p);
    if (by_chat_template_render(t, chat, 1751632496, &p, &err)) {
        by_assert(err.text[0]);
    } else {
        by_assert(by_utf8_valid(p.text.p, p.text.n));
        by_assert(!p.marks.n || p.marks.n == p.text.n);
    }
    by_chat_prompt_release(&p);
    by_chat_template_free(t);
    return 0;
}
