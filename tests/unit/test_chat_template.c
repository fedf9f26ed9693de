/* The templates that the project carries, byte for byte; what a user wrote keeps its mark; budgets hold. */
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

TESTS(RUN(every_vector_renders_as_transformers_does),
      RUN(what_a_user_wrote_is_marked_whatever_filters_it_went_through),
      RUN(a_template_that_does_not_end_is_ended),
      RUN(a_refusal_of_the_template_is_told_in_its_words),
      RUN(what_is_not_supported_is_refused_by_name_when_parsed));
