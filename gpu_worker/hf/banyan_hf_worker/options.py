"""The options of options.def that a gpu worker reads, as an argparse parser: one table for C and Python.

Flags win over the environment (BANYAN_MODEL_PATH), that over the file that --config names, as in the C programs.
"""

import argparse
import os
import re
from types import SimpleNamespace

from . import tree

_ROW = re.compile(r'^OPT_(STR|INT|NUM|FLAG|CHOICE|ALIAS)\((\w+),\s*(.*?)\)\s*$', re.M | re.S)
_MINE = ("BY_FOR_WORKER", "BY_FOR_DAEMONS", "BY_FOR_ALL", "BY_FOR_SERVE")


def _rows():
    text = re.sub(r"/\*.*?\*/", "", tree("common", "base", "options.def").read_text(), flags=re.S)
    for chunk in re.split(r"\n(?=OPT_)", text):
        found = _ROW.match(chunk.strip())
        if found:
            yield found[1], found[2], _split(found[3])


def _split(inside):
    """Arguments of a macro: commas outside of string literals part them; adjacent literals join."""
    parts = re.findall(r'((?:"(?:[^"\\]|\\.)*"|[^,"])+)', inside)
    return [p.strip() for p in parts]


def _text(literal):
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literal)) if '"' in literal else None


def _config(argv):
    """{name: text} of the YAML file, if one is named."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", default=os.environ.get("BANYAN_CONFIG"))
    path = first.parse_known_args(argv)[0].config
    if not path:
        return {}
    import yaml

    with open(path) as text:
        read = yaml.safe_load(text) or {}
    return {str(name).replace("-", "_"): str(value).lower() if isinstance(value, bool) else str(value) for name, value in read.items()}


def parse(argv=None):
    """Namespace of the worker's options; exits with a sentence on a wrong one."""
    config = _config(argv)
    parser = argparse.ArgumentParser(
        prog="banyan_hf_worker", description="A gpu worker that runs transformers. `banyan serve` starts it for you."
    )
    for kind, name, args in _rows():
        who = args[-2] if kind != "ALIAS" else args[-1]
        if kind == "ALIAS" or not any(mine in who for mine in _MINE):
            continue
        flag, given = "--" + name.replace("_", "-"), os.environ.get("BANYAN_" + name.upper()) or config.get(name)
        aid = (_text(args[-1]) or "").replace("%", "%%")
        if kind == "FLAG":
            parser.add_argument(flag, action="store_true", default=given not in (None, "", "0", "false"), help=aid)
        elif kind in ("INT", "NUM"):
            number = int if kind == "INT" else float
            parser.add_argument(flag, type=number, default=number(given or args[0]), help=aid)
        elif kind == "CHOICE":
            choices = _text(args[1]).split("|")
            parser.add_argument(flag, choices=choices, default=given or _text(args[0]), help=aid)
        else:
            parser.add_argument(flag, default=given or _text(args[0]), help=aid)
    return parser.parse_args(argv, SimpleNamespace())
