"""`banyan chat-template` beside jinja2, as transformers sets it up, on random templates and random chats.

Some thousand renderings, always the same; with BANYAN_TEST_LONG=yes (tests/run.sh --long) 100,000 new ones. A failure prints its seed; BANYAN_SEED takes it back.
"""

import json
import os
import random
import subprocess

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness import BIN, ROOT

LONG = os.environ.get("BANYAN_TEST_LONG") == "yes"
CHATS = 25
TEMPLATES = (100_000 if LONG else 2_500) // CHATS
SEED = int(os.environ.get("BANYAN_SEED", random.randrange(2**32) if LONG else 7))
WORDS = ["a", "Hello world", " two  spaces ", "línea\nnext", "日本", "x<y>&'\"", "</s>", "12", "-3", "", "ABC def", "{{ no }}", "tab\there"]


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return env


class Maker:
    """Random templates: every name is bound, every value printed in a way that both spell alike."""

    def __init__(self, rng):
        self.rng = rng
        self.n = 0

    def pick(self, *options):
        return self.rng.choice(options)

    def text(self, d):
        """An expression that is a text."""
        r, plain = self.rng.random(), self.pick("m.content", "m.role", "messages[0].content", "'a-b'", "'é 日'", "bos", '"q\'s"', "'x' ~ loop_i")
        if d == 0 or r < 0.2:
            return plain
        t = self.text(d - 1)
        return self.pick(
            f"({t}) | trim", f"({t}) | upper", f"({t}) | lower", f"({t}).strip()", f"({t}).split('o')[0]", f"({t}).split() | join('+')",
            f"({t}) | replace('o', '0')", f"({t}).replace(' ', '_')", f"({t}) ~ ({self.number(d - 1)})", f"({t}) + ({self.text(d - 1)})",
            f"({t})[{self.pick('1:', ':-1', '::2', '::-1', ':3', '-2:')}]", f"({t}) if {self.truth(d - 1)} else {self.text(d - 1)}",
            f"({t}) | default('none')", f"({t}) | capitalize", f"({t}).title()", f"({t}).lstrip()", f"({t}).rstrip('d')",
            f"({self.list(d - 1)}) | join(', ')", f"({t}) | tojson", f"({self.list(d - 1)}) | tojson", f"[{t}, 'z'] | first", f"['y', {t}] | last",
            f"({t}).split('</s>')[-1]", f"({t}) | title", f"({t}) | indent(2)", f"({t}).split(none, 1) | join('/')", f"({t}).rsplit('ll') | join('/')",
             f"({self.number(d - 1)}) | string", f"({t}) * 2", f"m.get('content', 'none')", f"({t}) | length | string")

    def number(self, d):
        n = self.pick("0", "1", "7", "loop_i", "messages | length", "m.content | length", "-2")
        if d == 0 or self.rng.random() < 0.3:
            return n
        return self.pick(f"({n}) + ({self.number(d - 1)})", f"({n}) - ({self.number(d - 1)})", f"({n}) * 3", f"({n}) // 2", f"({n}) % 5",
                         f"({self.text(d - 1)}) | length", f"({n}) | abs", f"[{n}, 4] | max", f"[{n}, 4] | min", f"({self.text(d - 1)}).count('a')",
                         f"({self.text(d - 1)}).find('o')", f"({self.text(d - 1)}) | wordcount", f"({self.text(d - 1)}) | int")

    def list(self, d):
        plain = self.pick("['a', 'b']", "[m.role, 'c']", "messages | map(attribute='role') | list", "m.content.split()", "[]", "['b', 'a', 'b']")
        if d == 0 or self.rng.random() < 0.3:
            return plain
        v = self.list(d - 1)
        return self.pick(f"({v})[1:]", f"({v}) + ['d']", f"({v}) | reverse | list", f"({v}) | map('upper') | list", f"({v}) | sort",
                         f"({v}) | unique | list", f"({v}) | select('ne', 'a') | list",
                         f"messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list",
                         f"messages | rejectattr('role', 'eq', 'user') | map(attribute='role') | list")

    def truth(self, d):
        plain = self.pick("true", "m.role == 'user'", "loop_i is odd", "m.content", "'a' in m.content", "nothing is defined", "m.content is string",
                          "loop_i > 1", "m.name is defined", "messages[-1].role != 'user'", "m is mapping", "none is none", "m.content is none")
        if d == 0 or self.rng.random() < 0.4:
            return plain
        return self.pick(f"not ({plain})", f"({plain}) and ({self.truth(d - 1)})", f"({plain}) or ({self.truth(d - 1)})",
                         f"({self.number(d - 1)}) <= ({self.number(d - 1)})", f"({self.text(d - 1)}) == ({self.text(d - 1)})",
                         f"({self.text(d - 1)}).startswith('a')", f"({self.text(d - 1)}) in ({self.list(d - 1)})")

    def body(self, d):
        return "".join(self.statement(d) for _ in range(self.rng.randrange(1, 4)))

    def statement(self, d):
        dash, end = self.pick("", "", "-", "+"), self.pick("", "", "-", "+")
        r = self.rng.random()
        if d == 0 or r < 0.35:
            return self.pick("{{" + dash + " " + self.text(2) + " " + self.pick("", "", "-") + "}}", "lit ", "\n", "  ", "<|im|>\n", "\n  ", " \n\n\t",
                             "{#" + dash + " none " + end + "#}", "\n  {#" + dash + " none " + end + "#}\n")
        if r < 0.5:
            return (f"{{%{dash} if {self.truth(1)} %}}{self.body(d - 1)}{{% elif {self.truth(1)} {end}%}}{self.body(d - 1)}"
                    f"{{%{dash} else %}}\n{self.body(d - 1)}{{% endif {end}%}}")
        if r < 0.65:
            self.n += 1
            name = f"v{self.n}"
            return f"{{%{dash} set {name} = {self.text(2)} {end}%}}[{{{{ {name} }}}}]"
        if r < 0.8:
            self.n += 1
            name = f"i{self.n}"
            tail = self.pick("{% else %}empty", "")
            stop = self.pick("", "{% if loop.index > 2 %}{% break %}{% endif %}", "{% if loop.first %}{% continue %}{% endif %}")
            return (f"{{% for {name} in {self.list(1)} {end}%}}{stop}{{{{ {name} }}}}{{{{ ';' if not loop.last }}}}"
                    f"{{{{ loop.index0 }}}}{{{{ loop.length }}}}{tail}{{%{dash} endfor %}}\n")
        self.n += 1
        name = f"f{self.n}"
        return (f"{{% macro {name}(x, y='d') %}}({{{{ x }}}}|{{{{ y }}}}){{% endmacro %}}{{{{ {name}({self.text(1)}) }}}}"
                f"{{{{ {name}({self.text(1)}, y={self.text(1)}) }}}}")

    def template(self):
        return ("{%- set loop_i = 3 -%}{%- set bos = '<s>' -%}{%- set m = messages[0] -%}" + self.body(1)
                + "{% for m in messages %}{% set loop_i = loop.index0 %}" + self.body(2) + "{% endfor %}"
                + "{% if add_generation_prompt %}go{% endif %}")


def chat(rng):
    messages = [{"role": rng.choice(["user", "assistant", "system"]), "content": rng.choice(WORDS) + rng.choice(WORDS)}
                for _ in range(rng.randrange(1, 4))]
    for m in messages:
        if rng.random() < 0.2:
            m["name"] = rng.choice(WORDS)
    return {"messages": messages, "add_generation_prompt": rng.random() < 0.5}


def expected(template, one):
    try:
        return {"prompt": template.render(**one, tools=None, documents=None)}
    except Exception:  # whatever jinja2 raises, we refuse too
        return "error"


def test_random_templates_render_alike(tmp_path):
    env, file = environment(), tmp_path / "t.jinja"
    for k in range(TEMPLATES):
        rng = random.Random(f"{SEED} {k}")
        source = Maker(rng).template()
        file.write_text(source)
        chats = [chat(rng) for _ in range(CHATS)]
        done = subprocess.run([BIN / "banyan", "chat-template", "--model-path", ROOT / "tests/vectors/tokenizers/tiny-bbpe-gpt2",
                               "--chat-template", file], input="".join(json.dumps(c) + "\n" for c in chats).encode(), capture_output=True,
                              timeout=120)
        template = env.from_string(source)
        got = [json.loads(line) for line in done.stdout.splitlines()] or [{"error": done.stderr.decode()}] * CHATS
        for one, answer in zip(chats, got, strict=True):
            want = expected(template, one)
            same = "error" in answer if want == "error" else answer == want
            assert same, f"BANYAN_SEED={SEED} template {k}:\n{source}\n{json.dumps(one)}\ngave {answer}\nwant {want}"
