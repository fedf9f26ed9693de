#include "common/base/options_row.h"

#include <stdio.h>

#define AT(name) offsetof(struct by_options, name)
const struct by_options_row by_options_rows[] = {
#define OPT_STR(name, deflt, who, help) \
    {KIND_STR, #name, help, NULL, deflt, 0, 0, 0, who, AT(name)},
#define OPT_CHOICE(name, deflt, words, who, help) \
    {KIND_CHOICE, #name, help, words, deflt, 0, 0, 0, who, AT(name)},
#define OPT_INT(name, deflt, min, max, who, help) \
    {KIND_INT, #name, help, NULL, NULL, deflt, min, max, who, AT(name)},
#define OPT_NUM(name, deflt, min, max, who, help) \
    {KIND_NUM, #name, help, NULL, NULL, deflt, min, max, who, AT(name)},
#define OPT_FLAG(name, who, help) {KIND_FLAG, #name, help, NULL, NULL, 0, 0, 0, who, AT(name)},
#define OPT_ALIAS(alias, name, who) {KIND_ALIAS, #alias, #name, NULL, NULL, 0, 0, 0, who, 0},
#define OPT_SECTION(title) {KIND_SECTION, title, NULL, NULL, NULL, 0, 0, 0, 0, 0},
#include "common/base/options.def"
#undef OPT_STR
#undef OPT_CHOICE
#undef OPT_INT
#undef OPT_NUM
#undef OPT_FLAG
#undef OPT_ALIAS
#undef OPT_SECTION
};
const size_t by_options_n_rows = BY_COUNTOF(by_options_rows);

bool by_options_row_is_value(const struct by_options_row *r) {
    return r->kind != KIND_SECTION && r->kind != KIND_ALIAS;
}

bool by_options_row_is_read(const struct by_options_row *r, uint32_t who) {
    if (who & BY_FOR_SERVE) who |= BY_FOR_DAEMONS;
    return (r->who & who) != 0;
}

void by_options_row_flag(const char *name, char out[FLAG_MAX]) {
    snprintf(out, FLAG_MAX, "--%s", name);
    for (char *p = out; *p; p++) {
        if (*p == '_') *p = '-';
    }
}

const struct by_options_row *by_options_row_find(struct by_str name, uint32_t who) {
    char want[FLAG_MAX];
    if (name.n >= sizeof want) return NULL;
    for (size_t i = 0; i < name.n; i++)
        want[i] = name.p[i] == '-' ? '_' : name.p[i];
    want[name.n] = '\0';
    for (size_t i = 0; i < by_options_n_rows; i++) {
        if (by_options_rows[i].kind == KIND_SECTION || strcmp(by_options_rows[i].name, want) != 0)
            continue;
        if (!by_options_row_is_read(&by_options_rows[i], who)) return NULL;
        return by_options_rows[i].kind == KIND_ALIAS
                   ? by_options_row_find(by_str_of(by_options_rows[i].help), who)
                   : &by_options_rows[i];
    }
    return NULL;
}
