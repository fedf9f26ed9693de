"""bench_template beside jinja2, as transformers sets it up: a chat of 20 messages, parsed templates, CPU time, the best of some rounds.

    ninja -C build bench_programs && .venv/bin/python tests/bench/bench_template.py [FOLDER…]

Like against like: values in memory to text on both sides; and, as a request comes in, JSON text to prompt, which is json.loads there.
Rows: name,template,ours,theirs,unit,times. A template that refuses the chat gets it without
its system message, or with a tool.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "tests/vectors/templates"
WORDS = "The tree grows where the road ends, and its roots have reached the river by now. Who planted it? Nobody knows. "
TOOL = {"type": "function", "function": {"name": "plant", "description": "Plants a tree.", "parameters": {"type": "object", "properties": {
    "where": {"type": "string", "description": "a place"}}, "required": ["where"]}}}
ROUNDS, TIMES = 20, 20
SHARED = ROOT.parent / "shared/data/templates"


def messages():
    out = [{"role": "system", "content": "Answer briefly and truthfully."}]
    for i in range(19):
        out.append({"role": "assistant" if i % 2 else "user", "content": WORDS * (1 + i % 3)})
    return out


def environment():
    def refuse(message):
        raise ValueError(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = lambda x, **_: json.dumps(x, ensure_ascii=False)
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = time.strftime
    return env


def render(template, names, chat):
    return template.render(messages=chat["messages"], tools=chat.get("tools"), documents=None, add_generation_prompt=True, **names)


def theirs(template, names, text):
    """µs from values, µs from JSON."""
    best, chat = [1e9, 1e9], json.loads(text)
    for _ in range(ROUNDS):
        for reads in (0, 1):
            start = time.process_time()
            for _ in range(TIMES):
                if reads:
                    chat = json.loads(text)
                render(template, names, chat)
            best[reads] = min(best[reads], (time.process_time() - start) / TIMES * 1e6)
    return best


def chat_for(template, names):
    """The first of these chats that the template takes, as JSON text: all messages, without the system's, with a tool."""
    for chat in ({"messages": messages()}, {"messages": messages()[1:]}, {"messages": messages(), "tools": [TOOL]}):
        try:
            render(template, names, chat)
            return json.dumps({**chat, "add_generation_prompt": True})
        except (ValueError, TypeError):
            continue
    raise SystemExit("a template that takes none of the chats")


def main():
    tops = [TEMPLATES, SHARED]
    found = {p.parent.name: p.parent for top in tops for p in sorted(top.glob("*/template.jinja"))}
    for folder in [Path(a) for a in sys.argv[1:]] or [found[name] for name in sorted(found)]:
        template = environment().from_string((folder / "template.jinja").read_text())
        names = json.loads((folder / "special_tokens.json").read_text())
        text = chat_for(template, names)
        with tempfile.NamedTemporaryFile("w") as f:
            f.write(text)
            f.flush()
            done = subprocess.run([ROOT / "build/bench/bench_template", folder, f.name], capture_output=True, text=True, check=True)
        for row, other in zip(done.stdout.splitlines(), theirs(template, names, text), strict=True):
            name, _, ours, unit = row.split(",")
            print(f"{name},{folder.name},{ours},{other:.4g},{unit},{other / float(ours):.1f}", flush=True)


if __name__ == "__main__":
    main()
