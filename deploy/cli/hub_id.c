#include "deploy/cli/hub_id.h"
#include "common/base/map.h"
#include "common/base/mem.h"
#include "common/base/utf8.h"

enum { ID_PART_MAX = 96, REVISION_MAX = 256 };

#define INDEX "model.safetensors.index.json"
#define ONE "model.safetensors"

/* ---- names ---- */

static bool is_word(struct by_str s) {
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!alnum && c != '-' && c != '_' && c != '.') return false;
    }
    return s.n > 0 && s.n <= ID_PART_MAX && s.p[0] != '.' && s.p[0] != '-' &&
           by_str_find(s, BY_STR("--"), 0) == SIZE_MAX &&
           by_str_find(s, BY_STR(".."), 0) == SIZE_MAX;
}

bool hub_name_is_safe(struct by_str name) {
    if (!name.n || name.n > HUB_NAME_BYTES_MAX || !by_utf8_valid(name.p, name.n)) return false;
    for (size_t i = 0; i < name.n; i++) {
        unsigned char c = (unsigned char)name.p[i];
        if (c < 0x20 || c == 0x7f || c == '\\') return false;
    }
    struct by_str rest = name, part;
    for (bool more = true; more;) {
        more = by_str_split(&rest, '/', &part);
        if (!part.n || part.n > 255 || by_str_eqz(part, ".") || by_str_eqz(part, ".."))
            return false;
    }
    return true;
}

bool hub_is_commit(struct by_str s) {
    for (size_t i = 0; i < s.n; i++) {
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f'))) return false;
    }
    return s.n == 40;
}

bool hub_id_parse(struct hub_id *out, const char *text) {
    struct by_str rest = by_str_of(text), org, name;
    *out = (struct hub_id){.revision = BY_STR("main")};
    struct by_str path = rest, head;
    if (by_str_split(&rest, '@', &head)) {
        out->revision = rest;
        path = head;
    }
    if (!hub_name_is_safe(out->revision) || out->revision.n > REVISION_MAX) return false;
    struct by_str left = path;
    if (!by_str_split(&left, '/', &org)) return false;
    bool has_file = by_str_split(&left, '/', &name);
    if (has_file) out->file = left;
    out->repo = by_str_sub(path, 0, org.n + 1 + name.n);
    if (has_file && (!hub_name_is_safe(left) || !by_str_ends(left, BY_STR(".gguf")))) return false;
    return is_word(org) && is_word(name);
}

/* ---- which files ---- */

void hub_files_add(struct hub_files *f, struct by_str name, int64_t size) {
    if (!hub_name_is_safe(name)) return;
    if (f->n == f->cap) {
        f->cap = f->cap ? f->cap * 2 : 64;
        f->at = by_realloc_array(f->at, f->cap, sizeof *f->at);
    }
    f->at[f->n++] = (struct hub_file){name, size};
}

static bool is_top(struct by_str name) {
    return by_str_find(name, BY_STR("/"), 0) == SIZE_MAX;
}

static bool ends(struct by_str name, const char *end) {
    return by_str_ends(name, by_str_of(end));
}

/* Configuration, tokenizer and templates: small, and what every engine asks for. */
static bool is_text(struct by_str name) {
    static const char *const ends_of_top[] = {".json", ".jinja", ".model", ".tiktoken"};
    static const char *const plain[] = {"vocab.txt", "merges.txt"};
    static const char *const deep[] = {"additional_chat_templates/", "1_Pooling/"};
    if (ends(name, ".safetensors.index.json") || ends(name, ".bin.index.json")) return false;
    for (size_t i = 0; i < BY_COUNTOF(ends_of_top); i++)
        if (is_top(name) && ends(name, ends_of_top[i])) return true;
    for (size_t i = 0; i < BY_COUNTOF(plain); i++)
        if (by_str_eqz(name, plain[i])) return true;
    for (size_t i = 0; i < BY_COUNTOF(deep); i++)
        if (by_str_starts(name, by_str_of(deep[i])) &&
            (ends(name, ".jinja") || ends(name, ".json")))
            return true;
    return false;
}

/* pytorch_model.bin, pytorch_model-00001-of-00002.bin and their index */
static bool is_pickle(struct by_str name) {
    return is_top(name) && by_str_starts(name, BY_STR("pytorch_model")) &&
           (ends(name, ".bin") || ends(name, ".bin.index.json"));
}

int hub_files_read(struct hub_files *all, const struct by_json *info, struct by_err *err) {
    const struct by_json *list = NULL;
    int rc = by_json_get_array(info, "", "siblings", &list, err);
    if (!rc && !list) rc = by_fail(err, BY_EFORMAT, "there is no list of files (siblings)");
    for (const struct by_json *it = rc ? NULL : by_json_first(list); it; it = by_json_next(it)) {
        int64_t size;
        if (all->n == HUB_FILES_MAX)
            return by_fail(err, BY_ELIMIT, "more than %d files are listed", HUB_FILES_MAX);
        if (!by_json_to_i64(by_json_get(it, "size"), &size) || size < 0) size = -1;
        hub_files_add(all, by_json_str(by_json_get(it, "rfilename")), size);
    }
    return rc;
}

struct seen { /* what a first look at the list finds; a pointer is into the list */
    const struct hub_file *index, *one, *config, *gguf;
    size_t n_pickles, n_ggufs;
};

static struct seen look(const struct hub_files *all, const struct hub_wants *wants) {
    struct seen s = {0};
    for (size_t i = 0; i < all->n; i++) {
        const struct hub_file *f = &all->at[i];
        if (by_str_eqz(f->name, INDEX)) s.index = f;
        if (by_str_eqz(f->name, ONE)) s.one = f;
        if (by_str_eqz(f->name, "config.json")) s.config = f;
        s.n_pickles += is_pickle(f->name);
        bool is_wanted = wants->file.n ? by_str_eq(f->name, wants->file) : is_top(f->name);
        if (is_wanted && ends(f->name, ".gguf") && !s.n_ggufs++) s.gguf = f;
    }
    return s;
}

static int refuse(const struct seen *s, struct by_str repo, const struct hub_wants *wants,
                  struct by_err *err) {
    int n = (int)repo.n;
    const char *r = repo.p;
    if (wants->file.n)
        return by_fail(err, BY_ENOTFOUND, "%.*s has no file " BY_STR_FMT, n, r,
                       BY_STR_ARG(wants->file));
    if (s->n_ggufs > 1)
        return by_fail(err, BY_ENOTFOUND,
                       "%.*s holds %zu GGUF files; name one of them: --model-path %.*s/" BY_STR_FMT,
                       n, r, s->n_ggufs, n, r, BY_STR_ARG(s->gguf->name));
    if (s->n_pickles)
        return by_fail(err, BY_ENOTFOUND,
                       "%.*s has its weights as pickle files only, which can run code; "
                       "--model-impl transformers --allow-pickle takes them all the same",
                       n, r);
    return by_fail(err, BY_ENOTFOUND,
                   "%.*s has neither model.safetensors nor a GGUF file: there is nothing to serve",
                   n, r);
}

int hub_files_choose(struct hub_files *out, const struct hub_files *all, struct by_str repo,
                     const struct hub_wants *wants, struct by_err *err) {
    struct seen s = look(all, wants);
    bool has_weights = s.config && (s.index || s.one),
         takes_pickles = s.n_pickles && wants->pickles,
         has_text = wants->text_only && (s.config || !s.n_ggufs);
    if (wants->file.n || (!has_weights && !takes_pickles && !has_text)) {
        if (s.n_ggufs != 1) return refuse(&s, repo, wants, err);
        out->is_gguf = true; /* which holds its text itself */
        hub_files_add(out, s.gguf->name, s.gguf->size);
        return 0;
    }
    for (size_t i = 0; i < all->n; i++) {
        const struct hub_file *f = &all->at[i];
        bool is_code = wants->code && is_top(f->name) && ends(f->name, ".py");
        bool is_weight = !wants->text_only && !has_weights && is_pickle(f->name);
        if (is_text(f->name) || is_code || is_weight) hub_files_add(out, f->name, f->size);
    }
    if (wants->text_only || !has_weights) return 0;
    out->has_index = s.index != NULL;
    const struct hub_file *last = s.index ? s.index : s.one;
    hub_files_add(out, last->name, last->size);
    return 0;
}

static int64_t size_of(const struct hub_files *all, struct by_str name) {
    for (size_t i = 0; i < all->n; i++)
        if (by_str_eq(all->at[i].name, name)) return all->at[i].size;
    return -1;
}

int hub_files_add_shards(struct hub_files *out, const struct hub_files *all,
                         const struct by_json *index, struct by_err *err) {
    const struct by_json *map = NULL;
    struct by_strmap seen;
    uint64_t unused;
    int rc = by_json_get_object(index, "", "weight_map", &map, err);
    if (!rc && !map) rc = by_fail(err, BY_EFORMAT, "there is no weight_map");
    by_strmap_init(&seen);
    for (const struct by_json *it = rc ? NULL : by_json_first(map); it && !rc;
         it = by_json_next(it)) {
        struct by_str name = by_json_str(it);
        if (by_strmap_get(&seen, name, &unused)) continue;
        if (!hub_name_is_safe(name) || !is_top(name) || !ends(name, ".safetensors"))
            rc = by_fail(err, BY_EFORMAT, "weight_map: \"%.*s\" is no file name of a shard",
                         (int)BY_MIN(name.n, (size_t)64), name.p ? name.p : "");
        else if (seen.n == HUB_SHARDS_MAX)
            rc = by_fail(err, BY_ELIMIT, "weight_map: more than %d shards", HUB_SHARDS_MAX);
        if (rc) break;
        by_strmap_put(&seen, name, 1);
        hub_files_add(out, name, size_of(all, name));
    }
    by_strmap_release(&seen);
    return rc ? by_fail_prefix(err, INDEX) : 0;
}

void hub_files_release(struct hub_files *f) {
    by_free(f->at);
    *f = (struct hub_files){0};
}
