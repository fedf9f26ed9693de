/* chat_template.h - a model's chat template: found, parsed once, rendered for each request.
 *
 *     folder: --chat-template FILE, else chat_template.jinja, else tokenizer_config.json's chat_template (one text, or a
 *     list of named ones: "tool_use" with tools, else "default")          GGUF: tokenizer.chat_template
 *     none of these: the built-in one of its family (builtin.h)
 *
 *     {messages, tools, documents, add_generation_prompt, continue_final_message, kwargs (or, as
 *     clients spell it, chat_template_kwargs)}                              ─▶ prompt, and who wrote each
 *     byte of it: mark 1 came with the request, mark 0 stands in the template (jval.h)
 *
 * needs_tools beside them: tools that the template would not show are BY_EUNSUPPORTED; else a warning, as in transformers.
 * The result is transformers 5's apply_chat_template, byte for byte, its own changes to the messages included
 * (reasoning_content and thinking fill each other; the tag of continue_final_message).
 * Always: a run is bounded in steps, bytes and depth; a template that refuses (raise_exception) is BY_EINVAL with its
 * words.
 * Owner: the tokenizer worker, one thread. */
#ifndef COMMON_TEMPLATE_CHAT_TEMPLATE_H
#define COMMON_TEMPLATE_CHAT_TEMPLATE_H

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/modelfile/model_dir.h"

struct by_chat_template;

/* name: a Jinja file or a built-in template to use instead of the model's own, or NULL. BY_ENOTFOUND: the model has no
 * template, and none is known for its family. */
BY_MUST_USE int by_chat_template_open(struct by_chat_template **out, const struct by_model_dir *dir,
                                      const char *name, struct by_err *err);
/* From text alone. special: a JSON object of variables (bos_token …), or empty. */
BY_MUST_USE int by_chat_template_parse(struct by_chat_template **out, struct by_str source,
                                       struct by_str special, struct by_err *err);
/* Its text; of several named ones the default. */
struct by_str by_chat_template_source(const struct by_chat_template *t);
void by_chat_template_free(struct by_chat_template *t); /* NULL is fine */

struct by_jrun;
struct by_jval;
struct by_chat_prompt {
    struct by_buf text;
    /* one byte for each of text, as by_encode_options.user_marks wants them; empty: all trusted */
    struct by_buf marks;
    /* memory that stays from prompt to prompt: the chat's values, the template's */
    struct by_jrun *chat_run, *run;
    struct by_jval *chat; /* as it was read */
};
void by_chat_prompt_init(struct by_chat_prompt *p);
void by_chat_prompt_release(struct by_chat_prompt *p);

/* Reads a chat, the JSON object drawn above, into p. Its texts are borrowed until p has been rendered for the last time. */
BY_MUST_USE int by_chat_prompt_read(struct by_chat_prompt *p, struct by_str chat,
                                    struct by_err *err);
/* The prompt of the chat that was read last; may be called again. clock_s is what strftime_now shows. */
BY_MUST_USE int by_chat_prompt_render(struct by_chat_prompt *p, const struct by_chat_template *t,
                                      uint64_t clock_s, struct by_err *err);
/* Gives the messages whose content is null, or which have none at all, an empty text in its place. False: there was nothing to do. */
bool by_chat_prompt_fill(struct by_chat_prompt *p, bool and_missing);
/* Reads and renders. */
BY_MUST_USE int by_chat_template_render(const struct by_chat_template *t, struct by_str chat,
                                        uint64_t clock_s, struct by_chat_prompt *out,
                                        struct by_err *err);

#endif
