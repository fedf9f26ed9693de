#!/usr/bin/env python3
"""check_style.py - the rules of common/STYLE.md that a program can check, over every file that git knows.

    tests/style/check_style.py              checks the tree; each finding is one line, and the exit status says if any
    tests/style/check_style.py --self-test  breaks every rule once on purpose: a rule that cannot fail is no rule

Who may include whom, and which file is a library's one door, is read from the two tables in ARCHITECTURE.md. An exception is
a line of allow.txt: RULE PATH WHAT reason. One without a reason, or that nothing needs any more, is a finding too.
"""
import fnmatch
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
C_LIBRARY = set("""assert ctype dirent errno fcntl inttypes limits locale math poll pthread pwd sched setjmp signal spawn
stdarg stdatomic stdbool stddef stdint stdio stdlib string strings time unistd wchar wctype dlfcn fnmatch glob netdb
sys/epoll sys/eventfd sys/file sys/ioctl sys/mman sys/prctl sys/random sys/resource sys/socket sys/stat sys/statvfs
sys/syscall sys/time sys/types sys/uio sys/un sys/wait sys/sysinfo netinet/in netinet/tcp arpa/inet termios
linux/futex float fenv malloc""".split())
FORBIDDEN = "sprintf strcpy strcat strncpy strtok gets atoi atol atof alloca setjmp longjmp".split()
DOORS_OF_CALLS = {  # calls that belong behind one door, and the files that are that door
    "malloc calloc realloc free strdup strndup": ["common/base/mem.c"],
    "printf fprintf vfprintf dprintf puts putchar fputs perror": ["common/base/log.c", "deploy/cli/*"],
    "exit _exit abort": ["common/base/check.c", "deploy/cli/*", "*/main.c"],
}
DRAWERS = {"util", "utils", "helper", "helpers", "misc", "common", "stuff", "tools"}
LINES_MAX, LINES_ASK, FUNCTION_MAX, CODE_COLUMNS, COMMENT_COLUMNS = 1000, 600, 70, 100, 140

TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.M)
ATTRIBUTE = re.compile(r"BY_PRINTF\([^)]*\)|__attribute__\(\(.*?\)\)+")
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.M)


def blank(match):
    """The same layout without what a comment or a string says."""
    text = match.group()
    return spaces(match) if text[0] == "/" else text[0] + re.sub(r"[^\n]", " ", text[1:-1]) + text[0]


def spaces(match):
    return re.sub(r"[^\n]", " ", match.group())


class File:
    def __init__(self, path, text):
        self.path, self.text = path, text
        self.room, _, self.name = path.rpartition("/")
        self.stem, _, self.kind = self.name.rpartition(".")
        self.is_c = self.kind in ("c", "h", "cu", "cuh")
        self.is_test = path.startswith("tests/")
        self.code = TOKEN.sub(blank, text) if self.is_c else ""

    def line_of(self, at):
        return self.text.count("\n", 0, at) + 1

    def comments(self):
        return [m for m in TOKEN.finditer(self.text) if m.group().startswith("/")] if self.is_c else []

    def functions(self):
        """(name, first line, last line) of each function's definition."""
        lines, start = self.code.split("\n"), None
        for i, line in enumerate(lines, 1):
            if start is None and re.match(r"[A-Za-z_]", line):
                start = i
            if line.startswith("}") and start is not None:
                head = " ".join(lines[start - 1 : i]).partition("{")[0]
                found = re.search(r"(\w+)\s*\(\s*(\w*)", head)
                if found and "=" not in head:
                    yield (found.group(2) if found.group(1) == "TEST" else found.group(1)), start, i
                start = None
            elif start is not None and line.rstrip().endswith(";") and not line.startswith(" "):
                start = None
            elif start is not None and line.rstrip().endswith(";") and "{" not in " ".join(lines[start - 1 : i]):
                start = None

    def exports(self):
        """Names that a header declares: functions, and tags of structs, enums and unions it defines."""
        code = ATTRIBUTE.sub(spaces, DIRECTIVE.sub(spaces, self.code))
        for m in re.finditer(r"^(?:struct|enum|union) (\w+) \{", code, re.M):
            yield m.group(1), self.line_of(m.start(1)), True
        for m in re.finditer(r"^[A-Za-z_][^;{}()]*?\b(\w+)\(", code, re.M):
            if m.group(1) not in ("static_assert", "sizeof"):
                yield m.group(1), self.line_of(m.start(1)), False


class Tree:
    def __init__(self, files, names=()):
        self.names = set(names) | set(files)
        self.words = {w for path, text in files.items() if not path.endswith(".md") for w in re.findall(r"\w+", text)}
        self.files = {path: File(path, text) for path, text in files.items()}
        self._tags = {}
        rules = files.get("ARCHITECTURE.md", "")
        self.rooms = {cells[0]: entries(cells[1]) for cells in table(rules, "room", "may include")}
        libraries = table(rules, "library", "header", "its one door")
        self.doors = [(cells[1].split(), entries(cells[2])) for cells in libraries]

    def tags(self, f):
        if f.path not in self._tags:
            self._tags[f.path] = {name for name, _, is_tag in f.exports() if is_tag}
        return self._tags[f.path]

    def room_of(self, path):
        at = path
        while at and at not in self.rooms:
            at = at.rpartition("/")[0]
        return at


def table(text, *head):
    """Rows of the Markdown table whose header starts with these cells, backquotes and stars taken off."""
    rows, inside = [], False
    for line in text.split("\n"):
        cells = [c.strip().replace("`", "").replace("*", "") for c in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif inside and not set(line) <= set("|- :"):
            rows.append(cells)
        elif tuple(cells[: len(head)]) == head:
            inside = True
    return rows


def entries(cell):
    """'base, net (wire.c, x.c)' -> [('base', []), ('net', ['wire.c', 'x.c'])]"""
    return [(m.group(1), re.split(r",\s*", m.group(2)) if m.group(2) else [])
            for m in re.finditer(r"([\w./*-]+)\s*(?:\(([^)]*)\))?", cell) if m.group(1) not in ("–", "-")]


RULES = {}


def rule(name):
    def add(check):
        RULES.setdefault(name, []).append(check)
        return check
    return add


@rule("F1")
def sizes_and_names(f, tree):
    if not (f.is_c or f.kind in ("py", "sh", "def")):
        return
    n = f.text.count("\n")
    is_table = f.kind == "def" or f.stem.startswith(("kern_", "quant_"))
    if n > LINES_MAX and not is_table:
        yield n, "size", f"{n} lines; a file stops at {LINES_MAX}: two subjects are in it"
    elif n > LINES_ASK and not is_table and not f.is_test:
        yield n, "size", f"{n} lines; above {LINES_ASK} a file needs a reason in allow.txt"
    if not re.fullmatch(r"[a-z0-9_]+\.\w+", f.name) or f.stem in DRAWERS:
        yield 1, "name", f"'{f.name}': one subject a file, snake_case, and no drawers"


@rule("arrow")
def arrows(f, tree):
    if not f.is_c or f.is_test:
        return
    room = tree.room_of(f.path)
    if not room:
        yield 1, f.room, f"folder '{f.room}' is no room of ARCHITECTURE's table"
    for m in INCLUDE.finditer(f.text):
        target = m.group(2)
        if m.group(1) == "<" or "/" not in target or tree.room_of(target) == room or not room:
            continue
        reach = tree.room_of(target)
        if not any(to in (reach, target) and (not only or f.name in only) for to, only in tree.rooms[room]):
            yield f.line_of(m.start()), target, f"{room} may not include {reach or target} (ARCHITECTURE: who may include whom)"


@rule("F2")
def includes(f, tree):
    if not f.is_c:
        return
    last, own = 0, f"{f.room}/{f.stem}.h"
    for m in INCLUDE.finditer(f.text):
        kind, target = m.groups()
        line = f.line_of(m.start())
        if kind == '"' and target not in tree.files:
            yield line, target, f'"{target}": includes are relative to the root, and there is no such file'
        if target.endswith(".def"):
            continue
        order = 0 if target == own else 1 if kind == '"' else 2
        if order < last and not f.is_test:
            yield line, target, "own header first, then the project's, then the system's"
        last = max(last, order)
        if kind == '"' and target in tree.files and target != own and not uses(f, tree.files[target]):
            yield line, target, f"nothing of {target} is used"


def uses(f, header):
    names = {name for name, _, _ in header.exports()} | set(re.findall(r"#\s*define (\w+)", header.code))
    for body in re.findall(r"enum[^{;()]*\{([^}]*)\}", header.code):
        names |= set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", body))
    names |= set(re.findall(r"^(?:struct|enum|union) (\w+);", header.code, re.M))
    for declared in re.findall(r"^\w+ (\w+(?:, \w+)*);", header.code, re.M):
        names |= set(declared.split(", "))
    names |= set(re.findall(r"^(?:extern|typedef) .*?\b(\w+)(?:\(.*\)|\[.*\])?;", header.code, re.M))
    words = set(re.findall(r"\w+", f.code))
    if header.name == "base.h" and re.search(r"\b(?:u?int\d+_t|size_t|bool)\b", f.code):
        return True
    prefix = header.stem.split("_")[0] + "_"
    expands = re.search(r'"[^"]*\.def"', header.text) or not names
    return bool(words & names) or bool(expands and any(w.lower().startswith((prefix, "by_" + prefix)) for w in words))


@rule("F4")
def doors(f, tree):
    if not f.is_c or f.is_test:
        return
    for m in INCLUDE.finditer(f.text):
        kind, header = m.groups()
        if kind == '"' or header[:-2] in C_LIBRARY:
            continue
        owners = [door for headers, door in tree.doors if any(fnmatch.fnmatch(header, h.strip("<>,")) for h in headers)]
        if not owners:
            yield f.line_of(m.start()), header, f"<{header}> is of no library in ARCHITECTURE's table"
        elif not any(fnmatch.fnmatch(f.path, to) or f.path.startswith(to + "/") for door in owners for to, _ in door):
            yield f.line_of(m.start()), header, f"<{header}> has its one door elsewhere (ARCHITECTURE: libraries)"


@rule("H1")
def lesson(f, tree):
    if f.kind != "h" or f.stem in ("test",):
        return
    head = "\n".join(f.text.split("\n")[:45])
    first = re.match(r"/\*(.*?)\*/", head, re.S)
    if not first or not first.group(1).strip().startswith(f"{f.name} - "):
        yield 1, "opening", f"a header opens with /* {f.name} - what it is"
    for word in ("Always", "Owner") if not f.is_test else ():
        if first and not re.search(rf"\b{word}\b", first.group()):
            yield 1, word, f"the header's lesson has no line '{word}: …'"


@rule("N1")
def prefixes(f, tree):
    if not f.is_c:
        return
    for m in re.finditer(r"^typedef (?:struct|enum|union)\b", f.code, re.M):
        yield f.line_of(m.start()), "typedef", "no typedef for structs, enums or unions"
    if f.kind != "h" or f.is_test:
        return
    siblings = {g.stem for g in tree.files.values() if g.room == f.room and g.kind == "c"} | {f.stem}
    words = f.stem.split("_")
    siblings |= {"_".join(words[:n]) for n in range(1, len(words))} | {f.room.split("/")[0], f.stem.rstrip("s"), f.stem + "s"}
    for name, line, is_tag in f.exports():
        if is_tag:
            homes = {g.path for g in tree.files.values() if g.kind == "h" and name in tree.tags(g)}
            if len(homes) > 1:
                yield line, name, f"'{name}' is defined in {' and '.join(sorted(homes))}"
            if f.room.startswith("common/") and not name.startswith("by_"):
                yield line, name, f"'{name}': common's names begin with by_"
            continue
        good = name.startswith("by_") if f.room.startswith("common/") else any(
            name == s or name.startswith(s + "_") for s in siblings)
        if not good:
            yield line, name, f"'{name}' carries neither its file's prefix nor another one of its room"


@rule("C1")
def columns(f, tree):
    if not f.is_c and f.kind != "def":
        return
    code = f.code.split("\n") if f.is_c else []
    for i, line in enumerate(f.text.split("\n"), 1):
        if len(line) > COMMENT_COLUMNS and not (f.is_c and len(code[i - 1].rstrip()) > CODE_COLUMNS):
            yield i, "columns", f"{len(line)} columns; comments and tables end at {COMMENT_COLUMNS}"


@rule("C2")
def function_lengths(f, tree):
    for name, first, last in f.functions():
        if last - first + 1 > FUNCTION_MAX:
            yield first, name, f"{name}() has {last - first + 1} lines; at most {FUNCTION_MAX}"


@rule("C3")
def globals_(f, tree):
    if not f.is_c or f.is_test or f.name == "main.c" or f.path in ("common/base/log.c", "common/base/metrics.c"):
        return
    code = DIRECTIVE.sub(spaces, f.code)
    mutable = r"^(?!.*\bconst(?:expr)?\b)(?:static |extern |_Thread_local )+[\w\s*]*?\b(\w+)[\w\s,*]*(?:\[[^;]*)?[;=]"
    for m in re.finditer(mutable, code, re.M):
        name = re.search(r"(\w+)\s*(?:\[.*)?[,;=]", m.group(), re.S).group(1)
        yield f.line_of(m.start()), name, f"'{name}' is a mutable global"


@rule("forbidden")
def forbidden_calls(f, tree):
    for m in re.finditer(r"(?<![\w.>])(\w+)\s*\(", f.code):
        name = m.group(1)
        if name in FORBIDDEN:
            yield f.line_of(m.start()), name, f"{name}() is forbidden"
        for calls, doors_ in DOORS_OF_CALLS.items():
            if name in calls.split() and not f.is_test and not any(fnmatch.fnmatch(f.path, d) for d in doors_):
                yield f.line_of(m.start()), name, f"{name}() belongs behind {doors_[0]}"


@rule("condition")
def assignment_in_condition(f, tree):
    for m in re.finditer(r"\b(?:if|while|for) \(", f.code):
        depth, at = 1, m.end()
        while depth and at < len(f.code):
            depth += {"(": 1, ")": -1}.get(f.code[at], 0)
            at += 1
        inside = re.sub(r"\{[^{}]*\}", "", f.code[m.end() : at - 1])
        if m.group().startswith("for"):  # for (T *x; (x = next()) != NULL;) declares what it walks in its head
            inside = re.sub(r"\(\w+ = .*\) (?:[!=<>]=?) \w+", "", (inside.split(";") + [""])[1])
        if re.search(r"(?<![=!<>])=(?!=)", inside):
            yield f.line_of(m.start()), "=", "assignment in a condition"


@rule("ifdef")
def ifdef_in_function(f, tree):
    lines = f.code.split("\n")
    for name, first, last in f.functions():
        for i in range(first, last):
            if re.match(r"\s*#\s*(?:if|ifdef|ifndef|else|elif)\b", lines[i - 1]):
                yield i, name, f"#if inside {name}(): put it into a small function of its own"


@rule("dead")
def commented_out_code(f, tree):
    code = re.compile(r"\s*\**\s*(?:(?:if|for|while|switch)\s*\(.*[{;]|return\b.*;|"
                      r"\w[\w\s*>.\[\]-]*(?:\(.*\)|=.*);|#\s*(?:if|include|define)\b.*)\s*")
    for m in f.comments():
        if m.start() == 0:
            continue  # the lesson may show how the thing is used
        for i, line in enumerate(m.group().strip("/*").split("\n")):
            if code.fullmatch(line) and not line.startswith(" *     "):  # further in: a drawing, an example
                yield f.line_of(m.start()) + i, "code", f"commented-out code: {line.strip()[:50]}"


@rule("todo")
def todos(f, tree):
    if f.path.startswith("tests/style/") or f.kind in ("md", "json", "jsonl"):
        return
    for m in re.finditer(r"\b(?:TODO|FIXME|XXX|HACK)\b(?!\(\w)", f.text):
        yield f.line_of(m.start()), "TODO", "a TODO names its task: TODO(name)"


@rule("doc")
def documents(f, tree):
    """Links lead somewhere; a file or a name_of_ours between backquotes exists."""
    if f.kind != "md" or f.name in ("STYLE.md", "SPEED.md"):
        return
    prose = re.sub(r"^```.*?^```", spaces, f.text, flags=re.M | re.S)
    for m in re.finditer(r"\]\(([^)#:]+)\)", prose):
        to = re.sub(r"[^/]+/\.\./", "", f"{f.room}/{m.group(1)}".strip("/"))
        if not any(n == to or n.startswith(to.rstrip("/") + "/") for n in tree.names):
            yield f.line_of(m.start()), m.group(1), f"the link {m.group(1)} leads nowhere"
    for m in re.finditer(r"`([^`\n]+)`", prose):
        said = m.group(1)
        if re.fullmatch(r"[a-z0-9]+(?:_[a-z0-9]+)+", said) and said not in tree.words:
            yield f.line_of(m.start()), said, f"`{said}` is not in the code"
        if re.fullmatch(r"[\w./*-]+\.(?:\{h,c\}|[ch]|py|sh|def|md|txt|csv)", said):
            ends = "/" + said.replace("{h,c}", "h")
            if not any(fnmatch.fnmatch("/" + n, "*" + ends) for n in tree.names):
                yield f.line_of(m.start()), said, f"there is no file `{said}`"


@rule("frames")
def frames(f, tree):
    """proto/README.md tells the conversation; every frame has its place in it."""
    told = tree.files.get("proto/README.md")
    if f.path == "proto/messages.def" and told:
        for m in re.finditer(r"^MESSAGE\((\w+)", f.text, re.M):
            if not re.search(rf"\b{m.group(1)}\b", told.text):
                yield f.line_of(m.start()), m.group(1), f"proto/README.md does not say when {m.group(1)} is sent"


def check(files, allow_text, names=()):
    tree = Tree(files, names)
    findings, allowed = [], []
    for n, line in enumerate(allow_text.split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            parts = line.split(None, 3)
            if len(parts) < 4 or len(parts[3].split()) < 3:
                findings.append(("allow", f"tests/style/allow.txt:{n}", "needs RULE PATH WHAT and a reason in words"))
            else:
                allowed.append([n, parts, False])
    for path in sorted(tree.files):
        f = tree.files[path]
        for name, checks in RULES.items():
            for line, what, says in (x for c in checks for x in c(f, tree)):
                excuse = [a for a in allowed
                          if a[1][0] == name and fnmatch.fnmatch(path, a[1][1]) and fnmatch.fnmatch(what, a[1][2])]
                for a in excuse:
                    a[2] = True
                if not excuse:
                    findings.append((name, f"{path}:{line}", says))
    for n, parts, used in allowed:
        if not used:
            findings.append(("allow", f"tests/style/allow.txt:{n}", f"nothing needs '{' '.join(parts[:3])}' any more"))
    return findings


def tree_of_git():
    """Every file, and the text of those that have rules. Without git (an unpacked archive): what lies in the folders."""
    git = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard"], cwd=ROOT,
                         capture_output=True, text=True)
    names = git.stdout.split() if git.returncode == 0 else [
        str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if not re.match(r"(build|\.venv)", str(p.relative_to(ROOT)))]
    wanted = (".c", ".h", ".cu", ".cuh", ".def", ".py", ".sh", ".md")
    names = [n for n in names if (ROOT / n).is_file()]
    return {n: (ROOT / n).read_text(encoding="utf-8") for n in names if n.endswith(wanted)}, names


def main():
    if "--self-test" in sys.argv:
        from fixtures import self_test
        return self_test(check, RULES)
    files, names = tree_of_git()
    findings = check(files, (ROOT / "tests/style/allow.txt").read_text(encoding="utf-8"), names)
    for name, where, says in findings:
        print(f"{where}: {name}: {says}")
    print(f"{len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
