"""Broken and hostile model files: `banyan model` and `banyan tokenize` say one sentence and fail; they never crash or hang."""

import json
import os
import struct
import subprocess

import pytest
from harness import BIN, ROOT
from test_hub import CONFIG, safetensors

TINY = ROOT / "tests/vectors/tokenizers"
GGUF = (ROOT / "tests/fuzz/corpora/gguf/bpe").read_bytes()


def refused(command, path, *words, options=()):
    """One sentence that names the file, and a status of 1: no signal, no sanitizer, no half answer."""
    at = ["--model-path", str(path)] if command == "tokenize" else [str(path)]
    done = subprocess.run([BIN / "banyan", command, *at, *options], input=b'{"text":"a"}\n', capture_output=True, timeout=20)
    text = done.stderr.decode()
    assert done.returncode == 1, (done.returncode, text)
    assert done.stdout == b"" and len(text.splitlines()) == 1, text
    for word in words:
        assert word in text, text
    assert len(text) < 700
    return text


def folder(tmp_path, config=None, **files):
    config = CONFIG if config is None else config
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name, data in {"model.safetensors": safetensors({"a": 10}), **files}.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
    return tmp_path


# ---- paths ----


@pytest.mark.parametrize("command", ["model", "tokenize"])
def test_paths(command, tmp_path):
    refused(command, tmp_path / "none", "none")
    refused(command, tmp_path, str(tmp_path))
    refused(command, "/dev/null", "/dev/null")
    (tmp_path / "x.gguf").write_bytes(b"")
    refused(command, tmp_path / "x.gguf", "x.gguf")
    os.mkfifo(tmp_path / "y.gguf")
    refused(command, tmp_path / "y.gguf", "y.gguf")
    (tmp_path / "loop").symlink_to("loop")
    refused(command, tmp_path / "loop", "loop")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "x.gguf").write_bytes(GGUF)
    (tmp_path / "x.gguf").chmod(0)
    refused("model", tmp_path / "x.gguf", "x.gguf", "ermission")


# ---- GGUF ----


@pytest.mark.parametrize("n", [0, 1, 3, 4, 7, 8, 15, 16, 23, 24, 100, 500, 900, len(GGUF) - 200, len(GGUF) - 33])
def test_a_gguf_cut_short(tmp_path, n):
    (tmp_path / "cut.gguf").write_bytes(GGUF[:n])
    refused("model", tmp_path / "cut.gguf", "cut.gguf")


@pytest.mark.parametrize("at, value", [(4, 99), (8, 2**60), (16, 2**60), (8, 2**64 - 1), (24, 2**63)])
def test_a_gguf_whose_counts_lie(tmp_path, at, value):
    data = bytearray(GGUF)
    data[at:at + 8] = struct.pack("<Q", value)
    (tmp_path / "lie.gguf").write_bytes(data)
    refused("model", tmp_path / "lie.gguf", "lie.gguf")


# ---- config.json ----


@pytest.mark.parametrize("change", [
    {"head_dim": 2**20}, {"num_hidden_layers": 0}, {"num_hidden_layers": 2**31}, {"num_attention_heads": 0},
    {"num_attention_heads": 3, "num_key_value_heads": 2}, {"hidden_size": 0},
    {"hidden_size": 2**31}, {"vocab_size": 0}, {"vocab_size": 2**32}, {"hidden_size": -1}, {"hidden_size": "8"},
    {"hidden_size": 1.5}, {"intermediate_size": 2**40}, {"rms_norm_eps": "small"}, {"max_position_embeddings": -5}, {"eos_token_id": "x"},
    {"rope_theta": 0}, {"rope_scaling": {"rope_type": "linear", "factor": 0}},
], ids=str)
def test_sizes_that_cannot_be(tmp_path, change):
    refused("model", folder(tmp_path, {**CONFIG, **change}), "config.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"model_type": 5}', '{"model_type": "llama", "hidden_size": 0}',
                                  "[" * 1000, '{"a":' * 200 + "1" + "}" * 200, '{"model_type": "llama"} x'])
def test_a_config_that_is_none(tmp_path, text):
    refused("model", folder(tmp_path, text), "config.json")


def test_a_huge_config_is_not_read(tmp_path):
    folder(tmp_path)
    with open(tmp_path / "config.json", "wb") as f:
        f.truncate(2**40)
    refused("model", tmp_path, "config.json")


# ---- safetensors ----


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\xff" * 8, struct.pack("<Q", 2**40) + b"{}", struct.pack("<Q", 2) + b"[]",
                                  struct.pack("<Q", 5) + b"{}", b"PK\3\4" + b"\0" * 100], ids=lambda b: f"{len(b)} bytes")
def test_weights_that_are_none(tmp_path, data):
    refused("model", folder(tmp_path, **{"model.safetensors": data}), "model.safetensors")


@pytest.mark.parametrize("name", ["../../x.safetensors", "/etc/passwd", "missing.safetensors", "..", ""])
def test_an_index_that_points_elsewhere(tmp_path, name):
    index = json.dumps({"weight_map": {"a": name}}).encode()
    refused("model", folder(tmp_path, **{"model.safetensors": None, "model.safetensors.index.json": index}), "index.json")


@pytest.mark.parametrize("text", [b"{", b"{}", b'{"weight_map": []}', b'{"weight_map": {"a": 5}}'])
def test_an_index_that_is_none(tmp_path, text):
    refused("model", folder(tmp_path, **{"model.safetensors": None, "model.safetensors.index.json": text}), "index.json")


# ---- tokenizer.json ----

WORDS = {"a": 0, "b": 1, "ab": 2}


def tokenizer(vocab=None, merges=(), **more):
    return {"model": {"type": "BPE", "vocab": WORDS if vocab is None else vocab, "merges": list(merges)}, **more}


UNSOUND = [
    tokenizer({"a": 2**31}), tokenizer({"a": 2**31 - 1}), tokenizer({"a": 2**63}), tokenizer({"a": -1}), tokenizer({"a": 1.5}),
    tokenizer({"a": "0"}), tokenizer({"a": 0, "b": 0}), tokenizer(merges=["a"]), tokenizer(merges=["a c"]),
    tokenizer(merges=["b a"]), tokenizer(merges=[5]), tokenizer(merges=[["a"]]), tokenizer(merges=[["a", "b", "c"]]),
    tokenizer(vocab=[]), {"model": {"type": "Nonsense"}}, {"model": None}, {}, tokenizer(normalizer={"type": "Nonsense"}),
    tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}),
    tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(" * 1000 + ")" * 1000}, "behavior": "Isolated"}),
    tokenizer(added_tokens=[{"id": 2**31, "content": "x"}]), tokenizer(added_tokens=[{"id": -1, "content": "x"}]),
    tokenizer(added_tokens=5), {"model": {"type": "Unigram", "vocab": [["a", "x"]]}},
    {"model": {"type": "Unigram", "vocab": [["a", 0]], "unk_id": 9}},
    *(tokenizer(**{part: {"type": "Metaspace", "replacement": mark}}) for part in ("pre_tokenizer", "decoder") for mark in ("", "__")),
]


@pytest.mark.parametrize("what", UNSOUND, ids=lambda w: json.dumps(w)[:70])
def test_tokenizers_that_cannot_be(tmp_path, what):
    (tmp_path / "tokenizer.json").write_text(json.dumps(what))
    refused("tokenize", tmp_path, "tokenizer.json")


RUNAWAY = {
    "twice": tokenizer(merges=["a b", "a b"]),  # the same merge
    "loop": tokenizer({"a": 0, "aa": 1, "aaaa": 2}, ["a a", "aa aa", "a a"]),  # rounds that feed each other
    "bomb": tokenizer({"a": 0}, pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}),
    "bomb2": tokenizer({"a": 0}, pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a|a)*b"}, "behavior": "Removed"}),
    "square": tokenizer({"a": 0}, pre_tokenizer={"type": "Split", "pattern": {"Regex": "\\w+[0-9]"}, "behavior": "Isolated"}),
    "starts": tokenizer({"a": 0}, normalizer={"type": "Replace", "pattern": {"Regex": "a*a*a*[bd]"}, "content": "x"}),
    "grow": tokenizer({"a": 0}, normalizer={"type": "Replace", "pattern": {"Regex": "a|(?=a)"}, "content": "aa"}),
    "grow6": tokenizer({"a": 0}, normalizer={"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 50}] * 6}),
}
LETTERS = json.dumps({"text": "a" * 20000 + "c"}).encode() + b"\n"


@pytest.mark.parametrize("what", RUNAWAY.values(), ids=RUNAWAY)
def test_tokenizers_that_loop_end(tmp_path, what):
    """Accepted or refused, but answered: 20,000 letters by a tokenizer made to run away, and then a text it can take."""
    (tmp_path / "tokenizer.json").write_text(json.dumps(what))
    done = subprocess.run([BIN / "banyan", "tokenize", "--model-path", tmp_path], input=LETTERS + b'{"text": ""}\n', capture_output=True,
                          timeout=20)
    assert done.returncode in (0, 1), done
    if not done.stdout:
        assert len(done.stderr.splitlines()) == 1
        return
    long, empty = (json.loads(line) for line in done.stdout.splitlines())
    assert set(long) in ({"ids"}, {"error"}) and empty == {"ids": []}


# ---- templates ----


@pytest.mark.parametrize("text", ["{{", "{% if x %}", "{% include 'x' %}", "{{ x | nonsense }}", "{{ " + "(" * 5000,
                                  "{% for x in y %}" * 300, "\xff"], ids=lambda t: t[:20])
def test_templates_that_are_none(tmp_path, text):
    (tmp_path / "chat_template.jinja").write_bytes(text.encode("latin-1"))
    done = subprocess.run([BIN / "banyan", "chat-template", "--model-path", tmp_path], input=b'{"messages":[]}\n',
                          capture_output=True, timeout=20)
    assert done.returncode == 1 and done.stdout == b"" and b"chat_template.jinja" in done.stderr, done


@pytest.mark.parametrize("text", ["{% for i in range(99999999) %}{% endfor %}", "{{ 'x' * 999999999 }}",
                                  "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
                                  "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}"
                                  "{% endfor %}{{ ns.x }}"], ids=lambda t: t[:20])
def test_template_bombs(tmp_path, text):
    (tmp_path / "chat_template.jinja").write_text(text)
    done = subprocess.run([BIN / "banyan", "chat-template", "--model-path", tmp_path], input=b'{"messages":[]}\n',
                          capture_output=True, timeout=20)
    assert done.returncode == 1 and set(json.loads(done.stdout)) == {"error"}, done
