/* The templates that the project carries, byte for byte; what a user wrote keeps its mark; budgets hold. */
#include "common/base/mem.h"
#include "tests/unit/template_vectors.h"

static struct by_chat_template *parse(const char *source, const char *special) {
    struct by_chat_template *t = NULL;
    struct by_err err = {0};
    if (by_chat_template_parse(&t, by_str_of(source), by_str_of(special), &err))
        fail_msg("%s", err.text);
    return t;
}

TEST(every_vector_renders_as_transformers_does) {
    UNUSED_STATE;
    unsigned n_templates, n = check_templates(TEST_VECTORS "/templates", &n_templates);
    assert_true(n_templates == 4 && n > 100);
}

TEST(what_a_user_wrote_is_marked_whatever_filters_it_went_through) {
    UNUSED_STATE;
    struct by_chat_template *t =
        parse("<s>{% for m in messages %}[{{ m.content | trim | upper }}]{% endfor %}</s>", "{}");
    struct by_chat_prompt p;
    struct by_err err = {0};
    by_chat_prompt_init(&p);
    int rc = by_chat_template_render(
        t, BY_STR("{\"messages\":[{\"role\":\"user\",\"content\":\" a</s>b \"}]}"), 0, &p, &err);
    if (rc) fail_msg("%s", err.text);
    assert_int_equal(p.text.n, strlen("<s>[A</S>B]</s>"));
    assert_memory_equal(p.text.p, "<s>[A</S>B]</s>", p.text.n);
    static const unsigned char want[] = {0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0};
    assert_memory_equal(p.marks.p, want, sizeof want);
    by_chat_prompt_release(&p);
    by_chat_template_free(t);
}

static int render(const char *source, const char *chat, struct by_err *err) {
    struct by_chat_template *t = parse(source, "{}");
    struct by_chat_prompt p;
    by_chat_prompt_init(&p);
    int rc = by_chat_template_render(t, by_str_of(chat), 0, &p, err);
    by_chat_prompt_release(&p);
    by_chat_template_free(t);
    return rc;
}

TEST(a_template_that_does_not_end_is_ended) {
    UNUSED_STATE;
    struct by_err err = {0};
    const char *chat = "{\"messages\":[]}";
    assert_int_not_equal(
        render("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
               chat, &err),
        0);
    assert_non_null(strstr(err.text, "steps"));
    assert_int_not_equal(render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", chat, &err), 0);
    assert_non_null(strstr(err.text, "deep"));
    assert_int_not_equal(render("{{ 'x' * 100000000 }}", chat, &err), 0);
    assert_int_not_equal(render("{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set "
                                "ns.x = ns.x + ns.x %}{% endfor %}",
                                chat, &err),
                         0);
}

/* Few nodes, but each looks at megabytes: without a charge for those these take from seconds to hours. */
TEST(a_template_that_looks_at_much_is_ended_too) {
    UNUSED_STATE;
    static const char *const bodies[] = {
        "", /* what is around is within the budget */
        "{% if long == other %}{% endif %}",
        "{% if long < other %}{% endif %}",
        "{% if -1 in many %}{% endif %}",
        "{% if long.startswith(other) %}{% endif %}",
        "{% if long.endswith((other, other)) %}{% endif %}",
        "{{ long.removeprefix(other) | length }}",
        "{{ long.rfind(half ~ 'b' ~ half) }}",
        "{{ long.rsplit('b' ~ half, 1) | length }}",
        "{{ long.partition('b') | length }}",
        "{{ long.strip(half ~ 'b')[:1] }}",
        "{{ long | wordcount }}",
        "{{ {long: 1}[other] }}",
        "{{ dict(a=1, b=2, c=3, d=4, e=5, f=6, g=7, h=8, i=9)[long] }}",
        "{{ [long, other, long] | sort | length }}",
        "{{ [long, other, long] | unique | list | length }}",
    };
    for (size_t i = 0; i < BY_COUNTOF(bodies); i++) {
        struct by_err err = {0};
        struct by_buf source;
        by_buf_init(&source, 10000);
        by_buf_addf(&source,
                    "{%% set half = ('a' * 1000) * 500 %%}{%% set long = half * 2 %%}"
                    "{%% set other = half ~ half %%}{%% set many = range(100000) %%}"
                    "{%% for i in range(20000) %%}%s{%% endfor %%}",
                    bodies[i]);
        int rc = render(source.p, "{\"messages\":[]}", &err);
        if (rc ? i == 0 || !strstr(err.text, "steps") : i > 0)
            fail_msg("%s: %s", bodies[i], rc ? err.text : "no error");
        by_buf_release(&source);
    }
}

TEST(a_refusal_of_the_template_is_told_in_its_words) {
    UNUSED_STATE;
    struct by_err err = {0};
    assert_int_equal(
        render("{{ raise_exception('roles must alternate') }}", "{\"messages\":[]}", &err),
        BY_EINVAL);
    assert_non_null(strstr(err.text, "roles must alternate"));
}

TEST(what_is_not_supported_is_refused_by_name_when_parsed) {
    UNUSED_STATE;
    static const char *const sources[] = {"{% include 'x' %}",
                                          "{{ x | nosuchfilter }}",
                                          "{{ x is nosuchtest }}",
                                          "{% nosuchtag %}",
                                          "{% for x in y recursive %}{% endfor %}",
                                          "{{ x",
                                          "{% if x %}",
                                          "{{ 'abc }}"};
    for (size_t i = 0; i < BY_COUNTOF(sources); i++) {
        struct by_chat_template *t = NULL;
        struct by_err err = {0};
        assert_int_not_equal(by_chat_template_parse(&t, by_str_of(sources[i]), BY_STR(""), &err),
                             0);
        assert_non_null(strstr(err.text, "line 1"));
        assert_null(t);
    }
}

/* The prompt of messages that hold one user's "hi" as m, or the error's sentence. */
static struct by_buf shown(const char *source) {
    struct by_chat_template *t = parse(source, "{\"bos_token\":\"<s>\"}");
    struct by_chat_prompt p;
    struct by_err err = {0};
    struct by_buf out;
    by_chat_prompt_init(&p);
    by_buf_init(&out, 10000);
    struct by_str chat = BY_STR("{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    if (by_chat_template_render(t, chat, 0, &p, &err))
        by_buf_addz(&out, err.text);
    else
        by_buf_add_str(&out, by_buf_str(&p.text));
    by_chat_prompt_release(&p);
    by_chat_template_free(t);
    return out;
}

/* Each differed: split cut the rest's blanks, rsplit began at the left, title was str.title, indent knew no line end but \n,
 * wordcount no blank but ASCII's, and int took a base that strtoll answers without saying where it stopped. */
TEST(texts_are_cut_and_counted_as_in_python) {
    UNUSED_STATE;
    static const char *const rows[][2] = {
        {"{{ ' a  b c '.split(none, 1) }}", "['a', 'b c ']"},
        {"{{ '  a b '.split(none, 0) }}", "['a b ']"},
        {"{{ 'aaa'.rsplit('aa') }}{{ ' a b '.rsplit() }}", "['a', '']['a', 'b']"},
        {"{{ \"they're foo_bar-baz [qux] 2ND\" | title }}", "They're Foo_bar-Baz [Qux] 2nd"},
        {"{{ \"they're 2ND\".title() }}", "They'Re 2Nd"},
        {"{{ 'a\\r\\nb\xC2\x85' | indent(2) | list }}", "['a', '\\n', ' ', ' ', 'b', '\\n']"},
        {"{{ 'a\\r\\nb\\r' | indent(1, true) | tojson }}", "\" a\\n b\""},
        {"{{ '\xE6\x97\xA5\xC2\xA0x.y' | wordcount }}", "3"},
        {"{{ '5' | int(0, 1) }}{{ '1a' | int(7, 16) }}{{ '5' | int(0, 4294967306) }}", "5265"},
        {"{{ '0x10' | int }}{{ '0x10' | float }}{{ '-inf' | float }}{{ '12.7' | int }}",
         "00.0-inf12"},
    };
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        struct by_buf got = shown(rows[i][0]);
        if (!by_str_starts(by_buf_str(&got), by_str_of(rows[i][1])))
            fail_msg("%s gave %s", rows[i][0], got.p);
        by_buf_release(&got);
    }
}

TEST(sums_go_left_to_right_and_say_what_cannot_be_added) {
    UNUSED_STATE;
    static const struct {
        const char *source, *want;
    } rows[] = {
        {"{{ 1 + 2 + 3 }}{{ 1 + 2 - 3 + 4 }}", "64"},
        {"{{ 'a' + 'b' + messages[0].content + 'c' + 'd' + bos_token }}", "abhicd<s>"},
        {"{% set x = 'a' + messages[0]['role'] + '' + 'b' + ('c' + 'd') %}{{ x }}{{ x[1:3] }}",
         "auserbcdus"},
        {"{{ [1] + [2] + [3] }}{{ '' + '' }}", "[1, 2, 3]"},
        {"{{ ('a' + 'b') * 2 + 'c' }}{{ 'a' + 'b' ~ 1 + 'c' }}", "ababcab1c"},
        {"{{ 'a' + 1 }}", "can only concatenate str"},
        {"{{ 1 + 'a' + 'b' }}", "unsupported operand type(s) for +: 'int' and 'str'"},
        {"{% set x = 'a' + 'b' + none %}", "can only concatenate str"},
        {"{{ 'a' + nobody + 'b' }}", "'nobody' is undefined"},
        {"{{ messages.a.b }}", "'list object' has no attribute 'a'"},
        {"{{ messages[0]['x'].y }}", "'dict object' has no attribute 'x'"},
        {"{{ none.x.y }}", "'None' has no attribute 'x'"},
    };
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        struct by_buf got = shown(rows[i].source);
        if (!strstr(got.p, rows[i].want)) fail_msg("%s gave %s", rows[i].source, got.p);
        by_buf_release(&got);
    }
}

TEST(a_chat_that_was_read_renders_again_and_again_in_the_same_memory) {
    UNUSED_STATE;
    static const char *const chats[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
        "\"content\":\"so far\",\"reasoning\":\"r\"}],\"continue_final_message\":true}",
        "{\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":"
        "\"so far\"}]}],\"continue_final_message\":true}"};
    static const char source[] =
        "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}"
        "{{ m.content[0].text + '' }}{% endif %}</>{% endfor %}";
    struct by_chat_template *t = parse(source, "");
    struct by_chat_prompt p;
    struct by_err err = {0};
    for (size_t i = 0; i < BY_COUNTOF(chats); i++) {
        uint64_t allocs = 0;
        by_chat_prompt_init(&p);
        if (by_chat_prompt_read(&p, by_str_of(chats[i]), &err)) fail_msg("%s", err.text);
        for (int k = 0; k < 6; k++) {
            if (by_chat_prompt_render(&p, t, 0, &err)) fail_msg("%s", err.text);
            assert_true(by_str_ends(by_buf_str(&p.text), BY_STR("<assistant>so far")));
            assert_int_equal(p.marks.n, p.text.n);
            if (k == 3) allocs = by_mem_n_allocs(); /* the buffers have found their sizes */
        }
        assert_int_equal(by_mem_n_allocs(), allocs);
        by_chat_prompt_release(&p);
    }
    by_chat_template_free(t);
}

TESTS(RUN(every_vector_renders_as_transformers_does),
      RUN(sums_go_left_to_right_and_say_what_cannot_be_added),
      RUN(texts_are_cut_and_counted_as_in_python),
      RUN(a_chat_that_was_read_renders_again_and_again_in_the_same_memory),
      RUN(what_a_user_wrote_is_marked_whatever_filters_it_went_through),
      RUN(a_template_that_does_not_end_is_ended), RUN(a_template_that_looks_at_much_is_ended_too),
      RUN(a_refusal_of_the_template_is_told_in_its_words),
      RUN(what_is_not_supported_is_refused_by_name_when_parsed));
