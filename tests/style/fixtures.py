"""fixtures.py - a small tree that breaks no rule, and for each rule a file that breaks it: check_style.py --self-test."""
ARCHITECTURE = """
| room | may include |
| --- | --- |
| `common/base` | – |
| `common/net` | common/base |
| `proto` | common/base, common/net (wire.c) |
| `router` | common/base, proto |
| `scheduler` | common/base, proto |
| `tests` | anything |

| library | header | its one door | why |
| --- | --- | --- | --- |
| libzmq | `<zmq.h>` | common/net | sockets |
"""
THING_H = """/* thing.h - counts things.
 *
 *     thing_at(3);
 *
 * Always: n >= 0.
 * Owner: nobody. */
#ifndef COMMON_BASE_THING_H
#define COMMON_BASE_THING_H
struct by_thing {
    int n; /* how many */
};
void by_thing_add(struct by_thing *t, int n);
#endif
"""
THING_C = """#include "common/base/thing.h"

#include <string.h>

static const char *const words[] = {"if (x) {", "TO" "DO"};

void by_thing_add(struct by_thing *t, int n) {
    if (n == 0 || n >= 7 || n != 3) t->n += n; /* because; nothing else fits */
    for (size_t i = 0; i < strlen(words[0]); i++)
        t->n = 1;
}
"""
GOOD = {"ARCHITECTURE.md": ARCHITECTURE, "README.md": "[how](ARCHITECTURE.md)", "router/README.md": "[up](../README.md), `by_thing_add` in `thing.{h,c}`\n```\n`x_y`\n```\n",
        "proto/x.md": "[x](x.md) `common/base/thing.h` `word`", "common/base/thing.h": THING_H, "common/base/thing.c": THING_C}
HEAD = "/* %s.h - x.\n * Always: x.\n * Owner: x. */\n"
MSG_H = HEAD % "msg" + "void msg_do(void);\n"
ROUTER_H = HEAD % "http" + "void http_do(void);\n"

# rule: [(files that break it), …]; each must be found, and by this rule alone.
BROKEN = {
    "F1": [{"router/long.c": "int x(void);\n" * 1001}, {"router/ask.c": "int x(void);\n" * 601}, {"router/util.c": ""},
           {"router/HttpParser.c": ""}],
    "arrow": [{"router/http.h": ROUTER_H, "scheduler/a.c": '#include "router/http.h"\nvoid a(void) {\n    http_do();\n}\n'},
              {"common/net/c.h": HEAD % "c" + "void by_c(void);\n",
               "proto/msg.c": '#include "common/net/c.h"\nvoid a(void) {\n    by_c();\n}\n'},
              {"attic/a.c": "int x(void);\n"}],
    "F2": [{"router/a.c": '#include "thing.h"\n'},
           {"router/a.c": '#include "common/base/thing.h"\n'},
           {"router/a.c": '#include <stdio.h>\n\n#include "common/base/thing.h"\nstruct by_thing t(void);\n'},
           {"router/http.h": ROUTER_H, "proto/msg.h": MSG_H,
            "router/http.c": '#include "proto/msg.h"\n#include "router/http.h"\nvoid a(void) {\n    msg_do();\n}\n'}],
    "F4": [{"router/a.c": "#include <zmq.h>\n"}, {"router/a.c": "#include <left_pad.h>\n"}],
    "H1": [{"router/a.h": "int a_x(void);\n"}, {"router/a.h": "/* a.h - x. Always: y. */\n"},
           {"router/a.h": "/* b.h - x. Always: y. Owner: z. */\n"}, {"router/a.h": "/* a.h - x. Owner: y. */\n"}],
    "N1": [{"router/a.h": HEAD % "a" + "int other(void);\n"}, {"router/a.c": "typedef struct a b;\n"},
           {"common/base/a.h": HEAD % "a" + "int a_x(void);\n"},
           {"router/a.h": HEAD % "a" + "struct same {\n};\n", "scheduler/a.h": HEAD % "a" + "struct same {\n};\n"}],
    "C1": [{"router/a.c": "/* " + "x" * 140 + " */\n"}],
    "C2": [{"router/a.c": "void a(\n    int x) {\n" + "    x++;\n" * 70 + "}\n"},
           {"tests/a.c": "TEST(name) {\n" + "    x++;\n" * 70 + "}\n"}],
    "C3": [{"router/a.c": "static int n;\n"}, {"router/a.c": "static struct x a[3] = {\n    1};\n"}],
    "forbidden": [{"router/a.c": "void a(void) {\n    %s\n}\n" % call}
                  for call in ("strcpy(a, b);", "x = malloc(3);", 'printf("x");', "exit(1);", "by(atoi(x));")],
    "condition": [{"router/a.c": "void a(int x) {\n    if (x = 3) a(x);\n}\n"},
                  {"router/a.c": "void a(int x) {\n    for (int i = 0; (x = 3); i++) a(x);\n}\n"},
                  {"router/a.c": "void a(int x) {\n    while ((x = b()) != 3) a(x);\n}\n"}],
    "ifdef": [{"router/a.c": "void a(int x) {\n#ifdef B\n    x++;\n#endif\n}\n"}],
    "dead": [{"router/a.c": "void a(int x) {\n    /* x = 3; */\n}\n"}, {"router/a.c": "\n/* if (x) {\n   y */\n"},
             {"router/a.c": "\n// return 3;\n"}],
    "doc": [{"router/README.md": "see [that](../no.md)"}, {"router/README.md": "`by_thing_sub` takes"},
            {"router/README.md": "read `thing.{h,c}` and `things.c`"}],
    "frames": [{"proto/messages.def": 'MESSAGE(lost, 1, "x")\n', "proto/README.md": "a frame"}],
    "todo": [{"router/a.c": "\n/* TO" "DO: later */\n"}, {"router/a.py": "# FIX" "ME\n"}],
}
ALLOWED = [  # allow.txt, the tree beside GOOD, how many findings
    ("N1 router/a.h other spoken of so in its RFC\n", {"router/a.h": HEAD % "a" + "int other(void);\n"}, 0),
    ("N1 router/a.h other\n", {"router/a.h": HEAD % "a" + "int other(void);\n"}, 2),
    ("N1 router/b.h other spoken of so in its RFC\n", {}, 1),
]


def self_test(check, rules):
    failures = [f"the good tree: {found}" for found in check(GOOD, "")]
    failures += [f"rule {name} has no fixture" for name in rules if name not in BROKEN]
    for name, trees in BROKEN.items():
        for files in trees:
            found = check(GOOD | files, "")
            if {f[0] for f in found} != {name}:
                failures.append(f"{name}: {list(files)} gives {found or 'nothing'}")
    for text, files, n in ALLOWED:
        found = check(GOOD | files, text)
        if len(found) != n:
            failures.append(f"allow {text!r}: {found}, not {n}")
    for failure in failures:
        print(failure)
    print(f"{sum(map(len, BROKEN.values()))} broken trees, {len(failures)} failures")
    return 1 if failures else 0
