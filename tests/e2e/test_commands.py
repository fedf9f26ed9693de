"""`banyan tokenize` and `banyan chat-template`: JSON lines in and out, over every vector at hand."""

import json
import re
import shutil
import subprocess

import pytest
from harness import BIN, ROOT

SHARED = ROOT.parent / "shared/data"
TOKENIZERS = {p.parent.name: p.parent for top in (SHARED / "tokenizers", ROOT / "tests/vectors/tokenizers")
              for p in sorted(top.glob("*/golden.jsonl"))}
TEMPLATES = {p.parent.name: p.parent for top in (SHARED / "templates", ROOT / "tests/vectors/templates")
             for p in sorted(top.glob("*/golden.jsonl"))}
CLOCK = "1751632496"  # 2025-07-04 12:34:56 UTC, which the templates were rendered at


def rows_of(folder):
    return [json.loads(line) for line in (folder / "golden.jsonl").read_bytes().splitlines()]


def lines(command, *options, given):
    """One answer for each object given; the status says whether one of them is an error."""
    text = given if isinstance(given, bytes) else "".join(json.dumps(x) + "\n" for x in given).encode()
    done = subprocess.run([BIN / "banyan", command, *options], input=text, capture_output=True, timeout=120)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == (1 if any("error" in a for a in answers) or not answers else 0), done.stderr.decode()
    return answers


def differences(given, got, want):
    assert len(got) == len(want)
    return [f"{g}: got {a}, want {w}" for g, a, w in zip(given, got, want) if a != w]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenize_gives_every_row(name):
    rows = rows_of(TOKENIZERS[name])
    encode = [r for r in rows if r["kind"] == "encode"]
    path = ("--model-path", TOKENIZERS[name])
    given = [{"text": r["text"], "add_special_tokens": False} for r in encode] + [{"text": r["text"]} for r in encode]
    want = [{"ids": r["ids"]} for r in encode] + [{"ids": r.get("ids_with_special", r["ids"])} for r in encode]
    wrong = differences(given, lines("tokenize", *path, given=given), want)
    given = [{"ids": r["ids"]} for r in rows] + [{"ids": r["ids"], "skip_special_tokens": True} for r in encode]
    want = [{"text": r.get("decoded", r["text"])} for r in rows]
    want += [{"text": r.get("decoded_skip_special", r["decoded"])} for r in encode]
    wrong += differences(given, lines("tokenize", *path, "--decode", given=given), want)
    assert not wrong, f"{len(wrong)} differences, the first: {wrong[0]}"
    assert len(rows) > 100


@pytest.mark.parametrize("name", TEMPLATES)
def test_chat_template_gives_every_row(name, tmp_path):
    """A folder with chat_template.jinja and special_tokens_map.json is enough."""
    rows = rows_of(TEMPLATES[name])
    shutil.copy(TEMPLATES[name] / "template.jinja", tmp_path / "chat_template.jinja")
    shutil.copy(TEMPLATES[name] / "special_tokens.json", tmp_path / "special_tokens_map.json")
    given = [{k: v for k, v in r.items() if k not in ("case", "rendered", "error") and v is not None} for r in rows]
    got = lines("chat-template", "--model-path", tmp_path, "--now", CLOCK, given=given)
    wrong = []
    for row, answer in zip(rows, got, strict=True):
        if "rendered" in row:
            right = answer == {"prompt": row["rendered"]}
        else:  # of an error, a template's own words are worth comparing
            right = set(answer) == {"error"} and (row["error"]["type"] != "TemplateError"
                                                  or row["error"]["message"] in answer["error"])
        if not right:
            wrong.append(f"{row['case']}: got {answer}, want {row.get('rendered', row.get('error'))}")
    assert not wrong, f"{len(wrong)} of {len(rows)} rows, the first: {wrong[0]}"


# ---- what a line may be ----

TINY = ROOT / "tests/vectors/tokenizers/tiny-bbpe-llama3"


def test_a_bad_line_is_told_and_the_next_one_goes_on():
    bad = [b"", b"nonsense", b"[1]", b"{}", b'{"text":5}', b'{"text":"\\ud800"}', b'{"text":"\xff"}',
           b'{"text":"a","add_special_tokens":1}', b'{"text":"a"']
    answers = lines("tokenize", "--model-path", TINY, given=b"\n".join(bad + [b'{"text":"a"}']))
    assert len(answers) == len(bad)  # an empty line is none
    assert all(set(a) == {"error"} for a in answers[:-1])
    assert "ids" in answers[-1]


def test_ids_that_are_none():
    given = [{"ids": x} for x in ([-1], [1.5], ["a"], [2**32], "x", None)]
    answers = lines("tokenize", "--model-path", TINY, "--decode", given=given + [{"ids": [4_000_000_000]}, {"ids": []}])
    assert all(set(a) == {"error"} for a in answers[:-2])
    assert answers[-2:] == [{"text": ""}, {"text": ""}]


def test_a_last_line_needs_no_end():
    given = b'{"text":"","add_special_tokens":false}'
    assert lines("tokenize", "--model-path", TINY, given=given) == [{"ids": []}]


@pytest.mark.parametrize("given", [b'{"messages":5}', b'{"messages":[5]}', b"{}", b'{"messages":[],"kwargs":5}'])
def test_messages_that_are_none(given, tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    for answer in lines("chat-template", "--model-path", tmp_path, given=given):
        assert set(answer) <= {"error", "prompt"}


def test_the_clock_is_the_one_given(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y %H:%M:%S') }}")
    given = [{"messages": []}]
    for now in (["--now", CLOCK], [f"--now={CLOCK}"]):
        assert lines("chat-template", "--model-path", tmp_path, *now, given=given) == [{"prompt": "04 Jul 2025 12:34:56"}]
    today = lines("chat-template", "--model-path", tmp_path, given=given)[0]["prompt"]
    assert re.fullmatch(r"\d\d \w{3} 20\d\d .*", today)
    done = subprocess.run([BIN / "banyan", "chat-template", "--model-path", tmp_path, "--now", "noon"],
                          capture_output=True, text=True)
    assert done.returncode == 1 and "--now" in done.stderr and "noon" in done.stderr


@pytest.mark.parametrize("command", ["tokenize", "chat-template"])
def test_a_folder_without_what_is_needed(command, tmp_path):
    done = subprocess.run([BIN / "banyan", command, "--model-path", tmp_path], capture_output=True, text=True, input="")
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and str(tmp_path) in done.stderr


@pytest.mark.parametrize("command", ["tokenize", "chat-template", "model", "serve"])
def test_every_command_helps(command):
    done = subprocess.run([BIN / "banyan", command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--model-path" in done.stdout
    assert subprocess.run([BIN / "banyan", "help", command], capture_output=True, text=True).stdout == done.stdout


@pytest.mark.parametrize("command, line", [("tokenize", {"text": "x"}), ("chat-template", {"messages": []}), ("model", {})])
def test_the_model_may_be_a_bare_word(command, line, tmp_path):
    """serve and model took it; tokenize and chat-template said that it was one word too many, and their name twice."""
    words = [BIN / "banyan", command, "/nowhere/m"]
    for more, said in (([], "/nowhere/m: there is no such file"), (["--model-path", "/nowhere/n"], "two models are named: /nowhere/m, and"),
                       (["more"], "'more' is one word too many")):
        done = subprocess.run([*words, *more], capture_output=True, text=True, input=json.dumps(line) + "\n")
        assert done.returncode == 1 and said in done.stderr and f"banyan {command}: banyan" not in done.stderr, done


@pytest.mark.parametrize("command, has, has_not", [("keys", "SERVERS-FILE", "--model-path"), ("inspect", "--run-dir", "--model-path"),
                                                   ("tokenize", "--tokenizer-path", "--run-dir")])
def test_help_shows_what_the_command_reads(command, has, has_not):
    said = subprocess.run([BIN / "banyan", command, "--help"], capture_output=True, text=True).stdout
    assert has in said and has_not not in said
    done = subprocess.run([BIN / "banyan", command, has_not, "x"], capture_output=True, text=True, input="")
    assert done.returncode == 1 and f"has no option {has_not}" in done.stderr


def test_tools_that_a_template_passes_over_are_told(tmp_path):
    """They were silently unused: the client waited for calls of functions that its model had never seen."""
    ask = json.dumps({"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "function", "function": {"name": "f"}}]})
    for template, is_told in (("{{ messages[0].content }}", True), ("{{ tools | length }}", False)):
        (tmp_path / "chat_template.jinja").write_text(template)
        done = subprocess.run([BIN / "banyan", "chat-template", "--model-path", tmp_path], capture_output=True, text=True, input=ask + "\n")
        assert done.returncode == 0 and ("the chat template knows no tools" in done.stderr) == is_told, done.stderr


def test_model_says_that_own_code_needs_leave(tmp_path):
    """It named the family only: that the folder's code has to be allowed was left for the server to say."""
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}}')
    done = subprocess.run([BIN / "banyan", "model", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0 and re.search(r"^worker +transformers with --trust-remote-code: ", done.stdout, re.M), done


@pytest.mark.parametrize("flag", ["--tp", "--tensor-parallel-size", "--dp", "--data-parallel-size"])
def test_sglangs_other_spellings_of_parallel_sizes(flag):
    """`--tp 2` was unknown, and --impl was proposed for it."""
    done = subprocess.run([BIN / "banyan", "config", "check", flag, "2"], capture_output=True, text=True)
    assert done.returncode == 0 and re.search(rf"{flag[2]}p.size", done.stdout), done


@pytest.mark.parametrize("typed, meant", [("srve", "serve"), ("tokenise", "tokenize"), ("configs", "config"), ("frobnicate", None), ("t", None)])
def test_a_typo_gets_one_line(typed, meant):
    """The line that says so stood above a whole page of help."""
    done = subprocess.run([BIN / "banyan", typed], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert typed in done.stderr and (f"did you mean {meant}?" in done.stderr if meant else "did you mean" not in done.stderr)


def test_version_as_a_word():
    assert subprocess.check_output([BIN / "banyan", "version"], text=True) == subprocess.check_output([BIN / "banyan", "--version"], text=True)
