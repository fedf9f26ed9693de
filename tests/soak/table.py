"""What every check of a soak says: rows of a figure beside its bar, and the page that keeps them."""

import os
import platform
import re

CHECKS = {}  # name -> function(scale); the rows of one check are its section of the page
ROWS = {}
_now = [""]


def check(f):
    CHECKS[f.__name__.replace("_", "-")] = f
    return f


def row(what, done, figure, bar, is_good):
    ROWS.setdefault(_now[0], []).append((what, done, figure, bar, "pass" if is_good else "FAIL"))
    print(f"{'pass' if is_good else 'FAIL':<5} {what}: {figure} (bar: {bar}; {done})", flush=True)


def run(name, scale):
    _now[0] = name
    ROWS[name] = []
    try:
        CHECKS[name](scale)
    except Exception as e:  # noqa: BLE001 - the others go on; this one has failed
        said = str(e).splitlines()[0][:150] if str(e) else ""
        row("it ends", "", f"{type(e).__name__}: {said}", "it ends", False)


def failed():
    return [r for rows in ROWS.values() for r in rows if r[4] == "FAIL"]


def machine():
    model = re.search(r"^model name\s*: (.*)$", open("/proc/cpuinfo").read(), re.M)
    return f"{os.cpu_count()} cores of {model[1].strip() if model else platform.machine()}, Linux {platform.release().split('-')[0]}"


def section(name, scale):
    lines = [f"## {name}", "", CHECKS[name].__doc__.strip().splitlines()[0] + ("" if scale == 1 else f" Scale {scale:g}.") +
             f" On {machine()}.", "", "| what | done | seen | bar | |", "| --- | --- | --- | --- | --- |"]
    return "\n".join(lines + ["| " + " | ".join(c.replace("|", "\\|") for c in r) + " |" for r in ROWS[name]]) + "\n"


HEAD = """# What a long run saw

Made by `make soak` (tests/soak/soak.py): each section by its last run, `tests/soak/soak.py --page … NAME` makes one anew. A stand-in worker
computes where nothing else is said; everything else is as in production. What these faults are: [faults.md](faults.md).
"""


def update(page, scale):
    """Puts what has run into the page, and leaves the other sections."""
    old = page.read_text() if page.exists() else HEAD
    kept = {m[1]: m[0].rstrip() + "\n" for m in re.finditer(r"^## ([\w-]+)\n(?:(?!^## ).*\n?)*", old, re.M)}
    kept |= {name: section(name, scale) for name in ROWS}
    page.write_text("\n".join([HEAD, *(kept[name] for name in CHECKS if name in kept)]))
