"""bench_template beside jinja2, as transformers sets it up: a chat of 20 messages, parsed templates, CPU time, the best of some rounds.

    ninja -C build bench_programs && .venv/bin/python tests/bench/bench_template.py [FOLDER…]

Ours includes reading the chat's JSON; jinja2 gets Python objects. Rows: name,template,ours,theirs,unit,times.
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
ROUNDS, TIMES = 20, 20


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


def theirs(folder, chat):
    template = environment().from_string((folder / "template.jinja").read_text())
    names = json.loads((folder / "special_tokens.json").read_text())
    best = 1e9
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(TIMES):
            template.render(messages=chat, tools=None, documents=None, add_generation_prompt=True, **names)
        best = min(best, (time.process_time() - start) / TIMES)
    return best * 1e6


def main():
    chat = messages()
    with tempfile.NamedTemporaryFile("w") as f:
        json.dump({"messages": chat, "add_generation_prompt": True}, f)
        f.flush()
        for folder in [Path(a) for a in sys.argv[1:]] or sorted(p.parent for p in TEMPLATES.glob("*/template.jinja")):
            done = subprocess.run([ROOT / "build/bench/bench_template", folder, f.name], capture_output=True, text=True, check=True)
            ours, other = float(done.stdout.split(",")[2]), theirs(folder, chat)
            print(f"render 20 messages,{folder.name},{ours:.4g},{other:.4g},us,{other / ours:.1f}", flush=True)


if __name__ == "__main__":
    main()
