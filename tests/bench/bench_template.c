/* bench_template TEMPLATE_FOLDER CHAT_FILE: how long a chat prompt takes to render, from values that were read before and
 * from JSON text as a request brings it; one thread, CPU time, the best of some rounds. bench_template.py makes the chat and
 * runs this beside jinja2. */
#include "common/base/mem.h"
#include "common/base/file.h"
#include "common/template/chat_template.h"
#include "tests/bench/bench.h"

#include <time.h>

enum { ROUNDS = 100, TIMES = 200 };

static double cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void die(const struct by_err *err) {
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

int main(int argc, char **argv) {
    struct by_buf source, special, chat;
    struct by_chat_template *t = NULL;
    struct by_chat_prompt p;
    struct by_err err = {0};
    double best[2] = {1e9, 1e9};
    if (argc != 3) return 2;
    by_buf_init(&source, 1 << 20);
    by_buf_init(&special, 1 << 20);
    by_buf_init(&chat, 1 << 20);
    by_chat_prompt_init(&p);
    char *path = by_path_join(argv[1], "template.jinja"),
         *names = by_path_join(argv[1], "special_tokens.json");
    if (by_file_read(&source, path, &err) || by_file_read(&special, names, &err) ||
        by_file_read(&chat, argv[2], &err) ||
        by_chat_template_parse(&t, by_buf_str(&source), by_buf_str(&special), &err))
        die(&err);
    for (int i = 0; i < 2 * ROUNDS; i++) {
        bool reads = i % 2;
        double from = cpu_us();
        for (int k = 0; k < TIMES; k++) {
            if ((reads || !p.chat) && by_chat_prompt_read(&p, by_buf_str(&chat), &err)) die(&err);
            if (by_chat_prompt_render(&p, t, 1751632496, &err)) die(&err);
        }
        best[reads] = BY_MIN(best[reads], (cpu_us() - from) / TIMES);
    }
    bench_row("render 20 messages", by_path_base(argv[1]), best[0], "us");
    bench_row("render 20 messages from JSON", by_path_base(argv[1]), best[1], "us");
    by_free(names);
    by_free(path);
    by_chat_prompt_release(&p);
    by_chat_template_free(t);
    by_buf_release(&chat);
    by_buf_release(&special);
    by_buf_release(&source);
    return 0;
}
