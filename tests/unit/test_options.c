#include "common/base/options_meant.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/base/file.h"
#include "common/base/options_text.h"
#include "tests/unit/test.h"

static const struct by_options_program router = {
    .name = "banyan-router", .who = BY_FOR_ROUTER, .summary = "test", .n_words = 1};

#define PARSE(o, err, ...) parse(o, err, (char *[]){"banyan-router", __VA_ARGS__, NULL})
static int parse(struct by_options *o, struct by_err *err, char **argv) {
    int argc = 0;
    while (argv[argc])
        argc++;
    return by_options_parse(o, &router, argc, argv, err);
}

TEST(flags_win_over_environment_over_file_over_default) {
    UNUSED_STATE;
    struct by_options o;
    struct by_err err;
    assert_int_equal(by_file_write("test_options.yaml",
                                   BY_STR("# comment\nport: 1001\nhost: a\npage_size: 32\n"), &err),
                     0);
    setenv("BANYAN_CONFIG", "test_options.yaml", 1);
    assert_int_equal(PARSE(&o, &err, "--max-body-bytes=4096"), 0);
    assert_int_equal(o.port, 1001);
    assert_int_equal(o.max_body_bytes, 4096);
    assert_int_equal(o.max_connections, 65536);
    by_options_release(&o);
    setenv("BANYAN_PORT", "1002", 1);
    assert_int_equal(PARSE(&o, &err, "--host", "b"), 0);
    assert_int_equal(o.port, 1002);
    assert_string_equal(o.host, "b");
    by_options_release(&o);
    assert_int_equal(PARSE(&o, &err, "--port", "1003", "word"), 0);
    assert_int_equal(o.port, 1003);
    assert_int_equal(o.n_rest, 1);
    assert_string_equal(o.rest[0], "word");
    by_options_release(&o);
    unsetenv("BANYAN_PORT");
    unsetenv("BANYAN_CONFIG");
    unlink("test_options.yaml");
}

TEST(an_ipv6_address_may_stand_in_brackets) {
    UNUSED_STATE;
    struct by_options o;
    struct by_err err;
    static const char *const rows[][2] = {
        {"[::1]", "::1"}, {"::1", "::1"}, {"[", "["}, {"[]", ""}, {"[x", "[x"}};
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        assert_int_equal(PARSE(&o, &err, "--host", (char *)(uintptr_t)rows[i][0]), 0);
        assert_string_equal(o.host, rows[i][1]);
        by_options_release(&o);
    }
}

TEST(mistakes_are_named) {
    UNUSED_STATE;
    struct by_options o;
    struct by_err err;
    assert_int_equal(PARSE(&o, &err, "--prot", "1"), BY_EINVAL);
    assert_non_null(strstr(err.text, "did you mean --port?"));
    assert_int_equal(PARSE(&o, &err, "--port", "70000"), BY_EINVAL);
    assert_non_null(strstr(err.text, "from 0 to 65535"));
    assert_int_equal(PARSE(&o, &err, "--port"), BY_EINVAL);
    assert_non_null(strstr(err.text, "needs a value"));
    assert_int_equal(PARSE(&o, &err, "--log-level", "loud"), BY_EINVAL);
    assert_non_null(strstr(err.text, "error|warn|warning|info|debug"));
    /* Python's word and SGLang's; the log knew it, and the table did not let it through */
    assert_int_equal(PARSE(&o, &err, "--log-level", "warning"), 0);
    assert_string_equal(o.log_level, "warning");
    by_options_release(&o);
    /* the gpu worker's, not ours */
    assert_int_equal(PARSE(&o, &err, "--page-size", "16"), BY_EINVAL);
    assert_int_equal(PARSE(&o, &err, "-x"), BY_EINVAL);
}

TEST(a_child_gets_what_differs_from_the_default) {
    UNUSED_STATE;
    static const struct by_options_program serve = {
        .name = "banyan serve", .who = BY_FOR_SERVE, .summary = "test"};
    char *argv[] = {"x", "--model", "m", "--port", "5", "--log-json", "--page-size=8", NULL};
    struct by_options o, again;
    struct by_err err;
    assert_int_equal(by_options_parse(&o, &serve, 7, argv, &err), 0);
    char **child = by_options_argv(&o, "banyan-router", BY_FOR_ROUTER);
    int n = 0;
    while (child[n])
        n++;
    assert_int_equal(n, 4); /* program, --port 5, --log-json */
    assert_int_equal(by_options_parse(&again, &router, n, child, &err), 0);
    assert_int_equal(again.port, 5);
    assert_true(again.log_json);
    by_options_argv_free(child);
    by_options_release(&o);
    by_options_release(&again);
}

TEST(keys_go_to_children_by_the_environment) {
    UNUSED_STATE;
    struct by_options o, child;
    struct by_err err;
    assert_int_equal(PARSE(&o, &err, "--api-key", "secret-word", "--port", "5"), 0);
    char **argv = by_options_argv(&o, "banyan-router", BY_FOR_ROUTER);
    int n = 0;
    for (; argv[n]; n++)
        assert_null(strstr(argv[n], "secret-word"));
    char **none = by_options_hand_on(&o, BY_FOR_WORKER),
         **env = by_options_hand_on(&o, BY_FOR_ROUTER);
    assert_null(none[0]); /* it may run a model's own code */
    assert_string_equal(env[0], "BANYAN_API_KEY=secret-word");
    assert_null(env[1]);
    putenv(env[0]);
    assert_int_equal(by_options_parse(&child, &router, n, argv, &err), 0);
    assert_string_equal(child.api_key, "secret-word");
    unsetenv("BANYAN_API_KEY");
    by_options_argv_free(none);
    by_options_argv_free(env);
    by_options_argv_free(argv);
    by_options_release(&o);
    by_options_release(&child);
}

/* A flag that says the default is on no child's command line; the variable that it overruled came through once. */
TEST(a_flag_that_says_the_default_wins_in_children_too) {
    UNUSED_STATE;
    static const struct by_options_program serve = {
        .name = "banyan serve", .who = BY_FOR_SERVE | BY_FOR_DAEMONS, .summary = "test"};
    static const struct by_options_program worker = {
        .name = "banyan-gpu-worker", .who = BY_FOR_WORKER, .summary = "test"};
    char *argv[] = {"x", "--device", "cpu", NULL};
    struct by_options o, child;
    struct by_err err;
    setenv("BANYAN_DEVICE", "cuda", 1);
    setenv("BANYAN_THREADS", "3", 1);
    assert_int_equal(by_options_parse(&o, &serve, 3, argv, &err), 0);
    by_options_argv_free(by_options_hand_on(&o, BY_FOR_WORKER));
    char **words = by_options_argv(&o, "banyan-gpu-worker", BY_FOR_WORKER);
    int n = 0;
    while (words[n])
        n++;
    assert_int_equal(by_options_parse(&child, &worker, n, words, &err), 0);
    assert_string_equal(child.device, "cpu");
    assert_int_equal(child.threads, 3);
    by_options_argv_free(words);
    by_options_release(&o);
    by_options_release(&child);
}

TEST(help_fits_a_terminal) {
    UNUSED_STATE;
    struct by_buf out;
    by_buf_init(&out, 1 << 20);
    by_options_text_help(&out, &router);
    struct by_str text = by_buf_str(&out), line;
    while (by_str_split(&text, '\n', &line)) {
        /* completion wants it whole */
        bool is_list = by_str_find(line, BY_STR("|"), 0) != SIZE_MAX;
        if (line.n > 80 && !is_list) fail_msg("%.*s", (int)line.n, line.p);
        if (by_str_ends(line, BY_STR(" "))) fail_msg("ends in a blank: %.*s", (int)line.n, line.p);
    }
    by_buf_release(&out);
}

TEST(help_lists_only_what_is_read) {
    UNUSED_STATE;
    struct by_buf out;
    by_buf_init(&out, 1 << 20);
    by_options_text_help(&out, &router);
    assert_non_null(strstr(out.p, "--port N"));
    assert_null(strstr(out.p, "--page-size"));
    by_buf_release(&out);
}

TEST(the_manual_page_is_roff_with_every_option) {
    UNUSED_STATE;
    struct by_buf out;
    by_buf_init(&out, 1 << 20);
    by_options_text_man(&out, &router);
    assert_true(by_str_starts(by_buf_str(&out), BY_STR(".TH banyan-router 1 ")));
    assert_non_null(strstr(out.p, ".TP\n.B \\-\\-max\\-body\\-bytes \\fIn\\fR\n"));
    assert_non_null(strstr(out.p, ".SS HTTP\n"));
    assert_null(strstr(out.p, "page\\-size")); /* the gpu worker's */
    by_buf_release(&out);
}

/* -p was answered "did you mean --dp?", and --nnodes "did you mean --model?"; who came from vLLM with --max-model-len got nothing. */
TEST(what_other_servers_call_it_is_translated_and_nothing_far_is_guessed) {
    UNUSED_STATE;
    struct by_options o;
    struct by_err err;
    assert_int_equal(PARSE(&o, &err, "--max-model-len", "1"), BY_EINVAL);
    assert_non_null(strstr(err.text, "no option --max-model-len; here it is --context-length"));
    assert_int_equal(PARSE(&o, &err, "--enable-metrics"), BY_EINVAL);
    assert_non_null(strstr(err.text, "leave it out: GET /metrics is always there"));
    assert_int_equal(PARSE(&o, &err, "-p", "1"), BY_EINVAL);
    assert_null(strstr(err.text, "did you mean"));
    assert_int_equal(PARSE(&o, &err, "--nnodes", "1"), BY_EINVAL);
    assert_null(strstr(err.text, "did you mean"));
    assert_int_equal(PARSE(&o, &err, "--node-rank", "1"),
                     BY_EINVAL); /* it was taken for --dp-rank */
    assert_non_null(strstr(err.text, "deploy/README.md, Several hosts"));
    assert_int_equal(PARSE(&o, &err, "-m", "x"), BY_EINVAL);
    assert_non_null(strstr(err.text, "here it is --model-path"));
    assert_int_equal(PARSE(&o, &err, "--hots", "x"), BY_EINVAL);
    assert_non_null(strstr(err.text, "did you mean --host?"));
}

static char told[512];

static void take(const char *text) {
    snprintf(told + strlen(told), sizeof told - strlen(told), "%s\n", text);
}

/* BANYAN_PROT=8080 was passed over: the server came up on another port than the one that was written down for it. */
TEST(a_variable_that_is_nearly_an_option_is_told) {
    UNUSED_STATE;
    static const char *const strange[] = {"BANYAN_PROT", "BANYAN_MAX_MODEL_LEN", "BANYAN_TP"};
    static const char *const quiet[] = {
        "BANYAN_PORT",  "BANYAN_BIN",  "BANYAN_TEST_LONG", "BANYAN_",     "BANYAN_IMAGE_TAG",
        "BANYAN_BUILD", "BANYAN_CUDA", "BANYAN_VERSION",   "BANYAN_HOME", "MY_BANYAN_PROT"};
    for (size_t i = 0; i < BY_COUNTOF(strange); i++)
        setenv(strange[i], "1", 1);
    for (size_t i = 0; i < BY_COUNTOF(quiet); i++)
        setenv(quiet[i], "1", 1);
    setenv("BANYAN_HOTS", "", 1); /* no value, no wish */
    by_options_strange_env(take);
    assert_non_null(strstr(told, "BANYAN_PROT sets nothing (did you mean BANYAN_PORT?)\n"));
    assert_non_null(
        strstr(told, "BANYAN_MAX_MODEL_LEN sets nothing; here it is --context-length\n"));
    assert_non_null(strstr(told, "BANYAN_TP sets nothing (did you mean BANYAN_TP_SIZE?)\n"));
    size_t n_lines = 0;
    for (const char *at = told; (at = strchr(at, '\n')) != NULL; at++)
        n_lines++;
    for (size_t i = 0; i < BY_COUNTOF(strange); i++)
        unsetenv(strange[i]);
    for (size_t i = 0; i < BY_COUNTOF(quiet); i++)
        unsetenv(quiet[i]);
    unsetenv("BANYAN_HOTS");
    told[0] = '\0';
    /* a Service called banyan, one called banyan-host; and those whose variables are not ours */
    setenv("BANYAN_PORT_30000_TCP", "tcp://10.0.0.1:30000", 1);
    setenv("BANYAN_HOST_PORT", "tcp://10.0.0.1:30000", 1);
    setenv("BANYAN_SERVICE_HOST", "10.0.0.1", 1);
    setenv("BANYAN_SERVICE_PORT", "30000", 1);
    setenv("BANYAN_PORT_30000_TCP_PROTO", "tcp", 1);
    setenv("BANYAN_PORT_30000_TCP_ADDR", "10.0.0.1", 1);
    by_options_strange_env(take);
    assert_string_equal(told, "");
    assert_int_equal(n_lines, BY_COUNTOF(strange));
}

/* --api-key "$KEY" without a KEY opened the server to all, and --model-path "$MODEL" served the default model. */
TEST(a_value_that_is_empty_is_refused) {
    UNUSED_STATE;
    struct by_options o;
    struct by_err err;
    static const char *const flags[] = {"--api-key", "--served-model-name", "--host"};
    for (size_t i = 0; i < BY_COUNTOF(flags); i++) {
        assert_int_equal(PARSE(&o, &err, (char *)(uintptr_t)flags[i], ""), BY_EINVAL);
        assert_non_null(strstr(err.text, flags[i]));
        assert_non_null(strstr(err.text, "its value is empty"));
    }
    assert_int_equal(PARSE(&o, &err, "--api-key="), BY_EINVAL);
    setenv("BANYAN_SERVED_MODEL_NAME", "", 1); /* as everywhere: an empty variable is none */
    assert_int_equal(PARSE(&o, &err, "--port", "5"), 0);
    assert_null(o.served_model_name);
    unsetenv("BANYAN_SERVED_MODEL_NAME");
    by_options_release(&o);
}

/* BANYAN_API_KEY: ${KEY} of a compose file in which KEY is not set was no key, and a server that anybody may use. */
TEST(an_empty_variable_of_a_key_is_refused) {
    UNUSED_STATE;
    struct by_options o;
    struct by_err err;
    static const char *const names[] = {"BANYAN_API_KEY", "BANYAN_ADMIN_API_KEY",
                                        "BANYAN_API_KEY_FILE"};
    static const struct by_options_program scheduler = {
        .name = "banyan-scheduler", .who = BY_FOR_SCHEDULER, .summary = "test"};
    for (size_t i = 0; i < BY_COUNTOF(names); i++) {
        setenv(names[i], "", 1);
        assert_int_equal(PARSE(&o, &err, "--port", "5"), BY_EINVAL);
        assert_non_null(strstr(err.text, names[i]));
        assert_non_null(strstr(err.text, ": its value is empty; leave it out, or give one"));
        /* who asks for no key does not mind */
        assert_int_equal(by_options_parse(&o, &scheduler, 1, (char *[]){"x", NULL}, &err), 0);
        by_options_release(&o);
        unsetenv(names[i]);
    }
    /* YAML's words for nothing were keys of their own: ~ was asked for */
    static const char *const nothing[] = {"api_key:\n", "api_key: ~\n", "api_key: null\n",
                                          "api_key: ''\n"};
    for (size_t i = 0; i < BY_COUNTOF(nothing); i++) {
        assert_int_equal(by_file_write("test_options.yaml", by_str_of(nothing[i]), &err), 0);
        assert_int_equal(PARSE(&o, &err, "--config", "test_options.yaml"), BY_EINVAL);
        assert_non_null(strstr(err.text, "api_key: its value is empty"));
    }
    assert_int_equal(by_file_write("test_options.yaml", BY_STR("api_key: 'null'\n"), &err), 0);
    assert_int_equal(PARSE(&o, &err, "--config", "test_options.yaml"), 0);
    assert_string_equal(o.api_key, "null");
    by_options_release(&o);
    unlink("test_options.yaml");
}

/* deploy/kubernetes has a Service called banyan: each pod got BANYAN_PORT=tcp://…, and ended with "is not a whole number". */
TEST(what_kubernetes_says_of_a_service_is_no_port) {
    UNUSED_STATE;
    struct by_options o;
    struct by_err err;
    setenv("BANYAN_PORT", "tcp://10.96.0.12:80", 1);
    assert_int_equal(PARSE(&o, &err, "--host", "0.0.0.0"), 0);
    assert_int_equal(o.port, 30000);
    by_options_release(&o);
    setenv("BANYAN_PORT", "10.96.0.12:80", 1);
    assert_int_equal(PARSE(&o, &err, "--host", "0.0.0.0"), BY_EINVAL);
    unsetenv("BANYAN_PORT");
}

TESTS(RUN(flags_win_over_environment_over_file_over_default), RUN(mistakes_are_named),
      RUN(what_kubernetes_says_of_a_service_is_no_port), RUN(a_value_that_is_empty_is_refused),
      RUN(an_empty_variable_of_a_key_is_refused), RUN(a_variable_that_is_nearly_an_option_is_told),
      RUN(what_other_servers_call_it_is_translated_and_nothing_far_is_guessed),
      RUN(an_ipv6_address_may_stand_in_brackets), RUN(a_child_gets_what_differs_from_the_default),
      RUN(keys_go_to_children_by_the_environment),
      RUN(a_flag_that_says_the_default_wins_in_children_too), RUN(help_lists_only_what_is_read),
      RUN(help_fits_a_terminal), RUN(the_manual_page_is_roff_with_every_option));
