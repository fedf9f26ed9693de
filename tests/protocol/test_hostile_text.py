"""What is hostile in text, ids and templates, against a tokenizer worker that lives on: one clear error each, and it serves as before.

tests/bench/bad_input.py measures the same list; no test here looks at a clock."""

import json

import pytest

from harness import Daemons

BOMBS = {  # by the kwarg that lights them
    "loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "repeat": "{{ 'x' * 10**9 }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "doubling": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "nesting": "{% set ns = namespace(x=[]) %}{% for i in range(200) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
    "wide": "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    "compare": "{% set a = ('a' * 1000) * 500 %}{% set b = a ~ '' %}{% for i in range(90000) %}{% if a == b %}{% endif %}{% endfor %}",
    "search": "{% set a = ('a' * 1000) * 500 %}{{ (a ~ a).rfind(a ~ 'b') }}",
    "output": "{% for i in range(90000) %}" + "x" * 200 + "{% endfor %}",
    "walk": "{{ messages.__class__.__mro__ }}",
    "refuse": "{{ raise_exception('not so') }}",
}
TEMPLATE = "".join(f"{{% {'if' if i == 0 else 'elif'} kind == '{k}' %}}{t}" for i, (k, t) in enumerate(BOMBS.items())) + (
    "{% else %}{% for m in messages %}{{ m.content }}{% endfor %}{% endif %}")
SAYS = {"loop": "steps", "range": "range of more than", "repeat": "too large", "recursion": "deep", "doubling": "bytes", "nesting": "deep",
        "wide": "", "compare": "steps", "search": "steps", "output": "bytes", "walk": "unsafe", "refuse": "not so"}
HELLO = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"


def bomb(path, kind):
    return (f"template: {kind}, {path}", path, {"messages": HELLO, "chat_template_kwargs": {"kind": kind}}, SAYS[kind])


LONG = "a" * 1_000_000
HOSTILE = [
    *(bomb(path, kind) for kind in BOMBS for path in (CHAT, "/apply_template")),
    ("an id behind the vocabulary", "/generate", {"input_ids": [5, 640]}, "640"),
    ("an id of 2^31", "/generate", {"input_ids": [2**31]}, "input_ids"),
    ("an id of 2^63", "/generate", {"input_ids": [2**63]}, "input_ids"),
    ("an id below zero", "/generate", {"input_ids": [-1]}, "input_ids"),
    ("half an id", "/generate", {"input_ids": [1.5]}, "input_ids"),
    ("a prompt of ids, one too high", "/v1/completions", {"prompt": [640]}, "prompt"),
    ("detokenize: behind the vocabulary", "/detokenize", {"tokens": [640]}, "640"),
    ("detokenize: below zero", "/detokenize", {"tokens": [-1]}, "tokens"),
    ("detokenize: 1e300", "/detokenize", {"tokens": [1e300]}, "tokens"),
    ("detokenize: a text", "/detokenize", {"tokens": ["5"]}, "tokens"),
    ("tokenize: bytes that are no UTF-8", "/tokenize", b'{"prompt":"\xc3("}', "UTF-8"),
    ("tokenize: a lone surrogate", "/tokenize", b'{"prompt":"\\udfff"}', "surrogate"),
    ("a chat in bytes that are no UTF-8", CHAT, b'{"messages":[{"role":"user","content":"\xf5"}]}', "UTF-8"),
    ("a chat with a lone surrogate", CHAT, b'{"messages":[{"role":"user","content":"\\ud83d"}]}', "surrogate"),
    ("a chat with a surrogate in a key", "/apply_template", b'{"messages":[{"role":"user","content":"x","\\udc00":1}]}', "surrogate"),
    ("a chat nested 100 deep", "/apply_template", {"messages": HELLO, "chat_template_kwargs": json.loads("[" * 100 + "]" * 100)}, ""),
    ("a word of 1 MB", "/generate", {"text": LONG}, "longer than"),
    ("1 MB of combining marks", "/generate", {"text": "e" + "\u0301" * 500_000}, "longer than"),
    ("1 MB that NFKC makes 18 times as long", "/generate", {"text": "\ufdfa" * 333_000}, "longer than"),
    ("stop_regex: two stars", "/generate", {"text": "x", "sampling_params": {"stop_regex": "foo**"}}, "stop_regex"),
    ("stop_regex: a thousand times a thousand", "/generate", {"text": "x", "sampling_params": {"stop_regex": "(.{1,1000}){1,1000}"}}, "stop_regex"),
    ("stop_regex: brackets", "/generate", {"text": "x", "sampling_params": {"stop_regex": "(" * 5000 + ")" * 5000}}, "stop_regex"),
    ("stop_regex: a look back", "/generate", {"text": "x", "sampling_params": {"stop_regex": r"(a)\1"}}, "stop_regex"),
]


def bytes_of(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    template = tmp_path_factory.mktemp("hostile") / "bombs.jinja"
    template.write_text(TEMPLATE)
    with Daemons(tokenizer_worker=["--chat-template", str(template)]) as d:
        yield d


@pytest.mark.parametrize("path, body, says", [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE])
def test_one_error_and_the_worker_goes_on(server, path, body, says):
    worker = server.processes["tokenizer-worker"]
    answer = server.post(path, bytes_of(body))
    assert answer.status == 400 and says in answer.json["error"]["message"], answer
    assert len(answer.json["error"]["message"]) < 600
    assert worker.poll() is None
    assert server.ok("/tokenize", {"prompt": "hello"})["count"] > 0


def test_a_stop_regex_that_others_backtrack_over_is_an_automaton_like_any_other(server):
    text, ids, meta = server.generate(n=4, sampling={"stop_regex": "(a+)+b"})
    assert len(ids) == 4 and meta["finish_reason"]["type"] == "length"
