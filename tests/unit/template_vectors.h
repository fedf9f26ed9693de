/* template_vectors.h - a folder of chat templates against what transformers rendered with them (golden.jsonl).
 *
 *     FOLDER/NAME/{template.jinja, special_tokens.json, golden.jsonl} ─▶ check_templates(FOLDER)
 *
 * Always: every row is rendered; a row that transformers refuses must be refused.
 * Owner: the test that includes it. */
#ifndef TESTS_UNIT_TEMPLATE_VECTORS_H
#define TESTS_UNIT_TEMPLATE_VECTORS_H

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/template/chat_template.h"
#include "tests/unit/test.h"

#include <dirent.h>

enum { CLOCK = 1751632496 }; /* 2025-07-04 12:34:56 UTC, which the vectors were made at */

static void add_member(struct by_buf *out, const struct by_json *row, const char *from,
                       const char *to) {
    const struct by_json *v = by_json_get(row, from);
    if (!v || by_json_type(v) == BY_JSON_NULL) return;
    by_buf_addf(out, "%s\"%s\":", out->n > 1 ? "," : "", to);
    by_json_print(v, out);
}

/* cJSON prints 1.0 as 1: where a row has such a number the comparison would be of our test, not of the template. */
static void check_row(const struct by_chat_template *t, const char *name, struct by_str line,
                      unsigned number) {
    const struct by_json_limits lim = {.bytes_max = 1 << 20, .depth_max = 64};
    struct by_json *row = NULL;
    struct by_err err = {0};
    struct by_buf chat;
    struct by_chat_prompt got;
    assert_int_equal(by_json_parse(&row, line, &lim, &err), 0);
    by_buf_init(&chat, 1 << 20);
    by_chat_prompt_init(&got);
    by_buf_addc(&chat, '{');
    add_member(&chat, row, "messages", "messages");
    add_member(&chat, row, "tools", "tools");
    add_member(&chat, row, "add_generation_prompt", "add_generation_prompt");
    add_member(&chat, row, "continue_final_message", "continue_final_message");
    add_member(&chat, row, "kwargs", "kwargs");
    by_buf_addc(&chat, '}');
    const struct by_json *want = by_json_get(row, "rendered");
    int rc = by_chat_template_render(t, by_buf_str(&chat), CLOCK, &got, &err);
    if (want && rc) fail_msg("%s row %u: %s", name, number, err.text);
    if (!want && !rc) fail_msg("%s row %u: transformers refuses, we rendered", name, number);
    if (want && !by_str_eq(by_json_str(want), by_buf_str(&got.text)))
        fail_msg("%s row %u:\nwant <<%.*s>>\ngot  <<%.*s>>", name, number, (int)by_json_str(want).n,
                 by_json_str(want).p, (int)got.text.n, got.text.p);
    if (want && got.marks.n) assert_int_equal(got.marks.n, got.text.n);
    by_chat_prompt_release(&got);
    by_buf_release(&chat);
    by_json_free(row);
}

static unsigned check_template(const char *folder, const char *name) {
    char path[512];
    struct by_buf source, special, rows;
    struct by_err err = {0};
    unsigned n = 0;
    by_buf_init(&source, 1 << 20);
    by_buf_init(&special, 1 << 20);
    by_buf_init(&rows, 64 << 20);
    snprintf(path, sizeof path, "%.300s/%.100s/template.jinja", folder, name);
    if (by_file_read(&source, path, &err)) fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%.300s/%.100s/special_tokens.json", folder, name);
    if (by_file_read(&special, path, &err)) fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%.300s/%.100s/golden.jsonl", folder, name);
    if (by_file_read(&rows, path, &err)) fail_msg("%s", err.text);
    struct by_chat_template *t = NULL;
    if (by_chat_template_parse(&t, by_buf_str(&source), by_buf_str(&special), &err))
        fail_msg("%s: %s", name, err.text);
    struct by_str rest = by_buf_str(&rows), line;
    for (bool more = true; more;) {
        more = by_str_split(&rest, '\n', &line);
        if (line.n) check_row(t, name, line, ++n);
    }
    by_chat_template_free(t);
    by_buf_release(&source);
    by_buf_release(&special);
    by_buf_release(&rows);
    return n;
}

/* Each template of the folder; how many rows there were. */
static unsigned check_templates(const char *folder, unsigned *n_templates) {
    unsigned n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    *n_templates = 0;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        if (e->d_name[0] == '.' || strcmp(e->d_name, "README.md") == 0) continue;
        n += check_template(folder, e->d_name);
        ++*n_templates;
    }
    closedir(dir);
    print_message("%u rows of %u templates\n", n, *n_templates);
    return n;
}

#endif
