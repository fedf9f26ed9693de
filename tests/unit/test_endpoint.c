#include "proto/endpoint.h"

#include "tests/unit/test.h"

static int read_for(struct endpoint *out, struct by_options o, const char *kind,
                    struct by_err *err) {
    o.instance = (char *)(uintptr_t) "7";
    return endpoint_read(out, &o, kind, err);
}

#define WORD(text) ((char *)(uintptr_t)(text))

TEST(sockets_lie_in_the_run_directory) {
    UNUSED_STATE;
    struct endpoint at;
    struct by_options o = {.run_dir = WORD("/run/banyan")};
    assert_int_equal(read_for(&at, o, "tokenizer", NULL), 0);
    assert_string_equal(at.scheduler, "ipc:///run/banyan/scheduler.sock");
    assert_string_equal(at.mine, "ipc:///run/banyan/tokenizer-7.sock");
    assert_string_equal(endpoint_advertised(&o, at.mine), at.mine);
}

TEST(between_hosts_no_run_directory_is_needed) {
    UNUSED_STATE;
    struct endpoint at;
    struct by_options o = {.scheduler_endpoint = WORD("tcp://10.0.0.1:30100"),
                           .bind = WORD("tcp://0.0.0.0:0"),
                           .advertise = WORD("tcp://host:30110")};
    assert_int_equal(read_for(&at, o, "detokenizer", NULL), 0);
    assert_string_equal(at.scheduler, "tcp://10.0.0.1:30100");
    assert_string_equal(at.mine, "tcp://0.0.0.0:0");
    assert_string_equal(endpoint_advertised(&o, "tcp://0.0.0.0:4711"), "tcp://host:30110");
}

static void refused(struct by_options o, const char *says) {
    struct endpoint at;
    struct by_err err = {0};
    assert_true(read_for(&at, o, "tokenizer", &err) < 0);
    assert_non_null(strstr(err.text, says));
}

TEST(what_cannot_work_is_refused_by_name) {
    UNUSED_STATE;
    char path[200];
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    refused((struct by_options){0}, "--run-dir is needed");
    refused((struct by_options){.run_dir = path}, "107");
    refused((struct by_options){.scheduler_endpoint = WORD("10.0.0.1:30100")},
            "--scheduler-endpoint");
    refused((struct by_options){.scheduler_endpoint = WORD("pgm://x:1")}, "neither tcp");
    refused((struct by_options){.scheduler_endpoint = WORD("tcp://h:1")}, "--bind");
    refused((struct by_options){.run_dir = WORD("/r"), .bind = WORD("tcp://0.0.0.0:5")},
            "--advertise");
    refused((struct by_options){.run_dir = WORD("/r"), .bind = WORD("tcp://[::]:5")},
            "--advertise");
}

TESTS(RUN(sockets_lie_in_the_run_directory), RUN(between_hosts_no_run_directory_is_needed),
      RUN(what_cannot_work_is_refused_by_name));
