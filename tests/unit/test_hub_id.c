/* Names of the Hub: what is an id, which names may become files, which files of a model are fetched. */
#include "deploy/cli/hub_id.h"

#include "tests/unit/test.h"

static struct hub_id parsed(const char *text) {
    struct hub_id id;
    if (!hub_id_parse(&id, text)) fail_msg("%s is an id", text);
    return id;
}

TEST(an_id_has_a_revision_and_may_have_a_file) {
    UNUSED_STATE;
    struct hub_id id = parsed("Org-1/name_2.5");
    assert_true(by_str_eqz(id.repo, "Org-1/name_2.5") && by_str_eqz(id.revision, "main"));
    id = parsed("a/b@refs/pr/1");
    assert_true(by_str_eqz(id.repo, "a/b") && by_str_eqz(id.revision, "refs/pr/1"));
    id = parsed("a/b/q4/x.gguf@v1");
    assert_true(by_str_eqz(id.repo, "a/b") && by_str_eqz(id.file, "q4/x.gguf") &&
                by_str_eqz(id.revision, "v1"));
}

TEST(what_is_no_id_is_a_path) {
    UNUSED_STATE;
    static const char *const texts[] = {
        "",          "a",    "/a/b",  "./a/b",         "../b",     "a/",        "a/b/c",
        "a/b@",      "a/..", "a//b",  "a b/c",         "a/b@../x", "a/b--c",    "a/.b",
        "a/b/x.bin", "~/b",  "a/b\n", "a/b/../x.gguf", "a\\b/c",   "a/b@x/../y"};
    struct hub_id id;
    for (size_t i = 0; i < BY_COUNTOF(texts); i++)
        if (hub_id_parse(&id, texts[i])) fail_msg("'%s' passed for an id", texts[i]);
}

TEST(names_stay_below_their_folder) {
    UNUSED_STATE;
    static const char *const good[] = {"config.json", "a/b/c.json", ".gitattributes", "größe.json",
                                       "a..b"};
    static const char *const bad[] = {"",     "..",  "a/../b", "/a",   "a/",
                                      "a//b", "./a", "a\\b",   "a\nb", "\xff"};
    for (size_t i = 0; i < BY_COUNTOF(good); i++)
        assert_true(hub_name_is_safe(by_str_of(good[i])));
    for (size_t i = 0; i < BY_COUNTOF(bad); i++)
        assert_false(hub_name_is_safe(by_str_of(bad[i])));
}

/* The choice as one text, names joined by blanks. */
static void check_choice(const char *names, struct hub_wants wants, const char *want) {
    struct hub_files all = {0}, files = {0};
    struct by_str rest = by_str_of(names), name;
    struct by_err err = {0};
    struct by_buf got;
    by_buf_init(&got, 4096);
    for (bool more = true; more;) {
        more = by_str_split(&rest, ' ', &name);
        hub_files_add(&all, name, 1);
    }
    int rc = hub_files_choose(&files, &all, BY_STR("a/b"), &wants, &err);
    for (size_t i = 0; i < files.n; i++)
        by_buf_addf(&got, i ? " " BY_STR_FMT : BY_STR_FMT, BY_STR_ARG(files.at[i].name));
    if (rc) by_buf_addz(&got, err.text);
    if (rc ? !strstr(got.p, want) : strcmp(got.n ? got.p : "", want) != 0)
        fail_msg("of '%s': got '%s', want '%s'", names, got.p, want);
    by_buf_release(&got);
    hub_files_release(&files);
    hub_files_release(&all);
}

TEST(text_first_then_weights) {
    UNUSED_STATE;
    struct hub_wants plain = {0}, text = {.text_only = true}, code = {.code = true},
                     pickles = {.pickles = true}, one = {.file = BY_STR("q/y.gguf")};
    const char *usual = "model.safetensors README.md config.json tokenizer.json x.py a/b.json "
                        "pytorch_model.bin consolidated.safetensors vocab.txt";
    check_choice(usual, plain, "config.json tokenizer.json vocab.txt model.safetensors");
    check_choice(usual, text, "config.json tokenizer.json vocab.txt");
    check_choice(usual, code, "config.json tokenizer.json x.py vocab.txt model.safetensors");
    check_choice(usual, pickles, "config.json tokenizer.json vocab.txt model.safetensors");
    check_choice("config.json pytorch_model.bin", pickles, "config.json pytorch_model.bin");
    check_choice("config.json pytorch_model.bin", plain, "pickle");
    check_choice("tokenizer.json README.md", text, "tokenizer.json");
    check_choice("README.md x.gguf", plain, "x.gguf");
    check_choice("README.md x.gguf", text, "x.gguf");
    check_choice("config.json x.gguf", plain, "x.gguf");
    check_choice("x.gguf y.gguf", plain, "2 GGUF files");
    check_choice("x.gguf q/y.gguf", plain, "x.gguf");
    check_choice("x.gguf q/y.gguf config.json model.safetensors", one, "q/y.gguf");
    check_choice("README.md", plain, "nothing to serve");
}

TESTS(RUN(an_id_has_a_revision_and_may_have_a_file), RUN(what_is_no_id_is_a_path),
      RUN(names_stay_below_their_folder), RUN(text_first_then_weights));
