#include "deploy/cli/cmd.h"
#include "common/base/mem.h"
#include "common/base/options.h"
#include "common/text/stream_decode.h"
#include "common/text/tokenizer.h"
#include "deploy/cli/bench_tokenize.h"
#include "deploy/cli/fetch_model.h"
#include "deploy/cli/json_lines.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* banyan tokenize --model-path DIR < lines:  {"text", "text_pair"?, "add_special_tokens"?: true} -> {"ids", "pair_at"?}
 * with --decode:                             {"ids", "skip_special_tokens"?: false, "stream"?: false} -> {"text", "pieces"?}
 * with --bench: how fast loading, encoding and decoding are, on the text of stdin or a sample of its own */

enum { IDS_MAX = 64 << 20 };

struct tool {
    struct by_tokenizer *tokenizer;
    struct by_ids ids;
    struct by_buf text;
};

static int encode(void *ctx, struct by_str line, const struct by_json *args, struct by_buf *out,
                  struct by_err *err) {
    struct tool *t = ctx;
    struct by_str text = {0}, pair = {0};
    uint32_t pair_at = 0;
    struct by_encode_options o = {.add_special_tokens = true, .allow_special = true};
    (void)line;
    int rc = by_json_get_str(args, "", "text", &text, err);
    if (!rc && !by_json_get(args, "text")) rc = by_fail(err, BY_EINVAL, "text: a string is needed");
    if (!rc) rc = by_json_get_str(args, "", "text_pair", &pair, err);
    if (!rc) rc = by_json_get_bool(args, "", "add_special_tokens", &o.add_special_tokens, err);
    by_ids_clear(&t->ids);
    if (rc) return rc;
    rc = pair.p ? by_tokenizer_encode_pair(t->tokenizer, text, pair, &o, &t->ids, &pair_at, err)
                : by_tokenizer_encode(t->tokenizer, text, &o, &t->ids, err);
    if (rc) return rc;
    by_buf_addz(out, "{\"ids\":[");
    for (size_t i = 0; i < t->ids.n; i++)
        by_buf_addf(out, i ? ",%u" : "%u", t->ids.p[i]);
    by_buf_addc(out, ']');
    if (pair.p) by_buf_addf(out, ",\"pair_at\":%u", pair_at);
    by_buf_addc(out, '}');
    return 0;
}

/* What each id lets go of, and in the end what was kept back. */
static void add_pieces(struct tool *t, const struct by_decode_options *o, struct by_buf *out) {
    struct by_stream_decode s;
    by_stream_decode_init(&s, t->tokenizer, o);
    by_buf_addz(out, ",\"pieces\":[");
    for (size_t i = 0; i <= t->ids.n; i++) {
        by_buf_clear(&t->text);
        if (i < t->ids.n)
            by_stream_decode_push(&s, t->ids.p[i], &t->text);
        else
            by_stream_decode_finish(&s, &t->text);
        if (i) by_buf_addc(out, ',');
        by_buf_add_json_str(out, by_buf_str(&t->text));
    }
    by_buf_addc(out, ']');
    by_stream_decode_release(&s);
}

static int decode(void *ctx, struct by_str line, const struct by_json *args, struct by_buf *out,
                  struct by_err *err) {
    struct tool *t = ctx;
    const struct by_json *list = NULL;
    struct by_decode_options o = {0};
    int64_t id;
    bool is_stream = false;
    (void)line;
    int rc = by_json_get_array(args, "", "ids", &list, err);
    if (!rc && !list) rc = by_fail(err, BY_EINVAL, "ids: a list of token ids is needed");
    if (!rc) rc = by_json_get_bool(args, "", "skip_special_tokens", &o.skip_special_tokens, err);
    if (!rc) rc = by_json_get_bool(args, "", "stream", &is_stream, err);
    by_ids_clear(&t->ids);
    for (const struct by_json *it = rc ? NULL : by_json_first(list); it; it = by_json_next(it)) {
        if (!by_json_to_i64(it, &id) || id < 0 || id > UINT32_MAX)
            return by_fail(err, BY_EINVAL, "ids: %g is no token id", by_json_f64(it));
        by_ids_add(&t->ids, (uint32_t)id);
    }
    if (rc) return rc;
    by_buf_clear(&t->text);
    by_tokenizer_decode(t->tokenizer, t->ids.p, t->ids.n, &o, &t->text);
    by_buf_addz(out, "{\"text\":");
    by_buf_add_json_str(out, by_buf_str(&t->text));
    if (is_stream) add_pieces(t, &o, out);
    by_buf_addc(out, '}');
    return 0;
}

static int bench(const struct by_model_dir *dir, struct by_err *err) {
    struct by_buf text;
    char chunk[65536];
    by_buf_init(&text, BY_TEXT_BYTES_MAX);
    for (size_t n; !isatty(STDIN_FILENO) && (n = fread(chunk, 1, sizeof chunk, stdin)) > 0;)
        by_buf_add(&text, chunk, n);
    int rc = text.is_full ? by_fail(err, BY_ELIMIT, "at most %d bytes of text", BY_TEXT_BYTES_MAX)
                          : bench_tokenize(dir, by_buf_str(&text), err);
    by_buf_release(&text);
    return rc;
}

int cmd_tokenize(int argc, char **argv) {
    static const struct by_options_program program = {
        .name = "banyan tokenize",
        .who = BY_FOR_TOOL,
        .summary =
            "reads JSON lines {\"text\", \"text_pair\"?, \"add_special_tokens\"?} and writes "
            "{\"ids\"}; with --decode "
            "{\"ids\", \"skip_special_tokens\"?, \"stream\"?} to {\"text\"}",
        .usage = "[MODEL-PATH] [--decode] < LINES | --bench [< TEXT]",
        .n_words = 1};
    struct by_options o;
    struct by_err err = {0};
    struct by_model_dir *dir = NULL;
    struct tool t = {0};
    bool decodes = cmd_take_word(&argc, argv, "--decode");
    bool is_bench = cmd_take_word(&argc, argv, "--bench");
    int rc = by_options_parse(&o, &program, argc, argv, &err);
    char *path = NULL;
    if (!rc) rc = cmd_take_model(&o, &err);
    if (!rc)
        rc = fetch_model(o.tokenizer_path ? o.tokenizer_path : o.model_path, &o, FETCH_TEXT, &path,
                         &err);
    if (!rc) rc = by_model_dir_open_text(&dir, path, &err);
    by_free(path);
    if (!rc) rc = is_bench ? bench(dir, &err) : by_tokenizer_open_cached(&t.tokenizer, dir, &err);
    by_model_dir_close(dir);
    if (rc) return cmd_fail("tokenize", err.text);
    if (is_bench) {
        by_options_release(&o);
        return 0;
    }
    by_ids_init(&t.ids, IDS_MAX);
    by_buf_init(&t.text, (size_t)IDS_MAX);
    int status = json_lines_run(decodes ? decode : encode, &t);
    by_ids_release(&t.ids);
    by_buf_release(&t.text);
    by_tokenizer_close(t.tokenizer);
    by_options_release(&o);
    return status;
}
