"""`banyan config check` and `banyan doctor`: what is wrong is named before anything starts."""

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

import tiny_llama
from harness import BIN, TINY, environment


def run(*words, **env):
    done = subprocess.run([str(BIN / "banyan"), *map(str, words)], capture_output=True, text=True, timeout=60, env=environment(**env))
    return done.returncode, done.stdout + done.stderr


# ---- config check ----


def test_a_good_file_is_shown(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("port: 8080\ndp-size: 2\nlog_json: true\napi_key: hidden-word\n")
    rc, said = run("config", "check", path)
    assert rc == 0
    assert re.search(r"^  port +8080$", said, re.M) and re.search(r"^  dp-size +2$", said, re.M)
    assert "hidden-word" not in said and re.search(r"^  api-key +\(set\)$", said, re.M)
    assert "max-connections" not in said  # a default


def test_flags_win_over_the_environment_over_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("port: 1\npage_size: 2\nhost: a\n")
    rc, said = run("config", "check", "--config", path, "--port", "3", BANYAN_PORT="4", BANYAN_PAGE_SIZE="5")
    assert rc == 0
    assert [re.search(rf"^  {n} +(\S+)$", said, re.M)[1] for n in ("port", "page-size", "host")] == ["3", "5", "a"]


@pytest.mark.parametrize("text, words", [
    ("prot: 1\n", "prot: there is no such option (did you mean --port?)"),
    ("max_model_len: 1\n", "there is no such option; here it is --context-length"),
    ("port: 70000\n", "70000"),
    ("port: [1]\n", "c.yaml"),
    ("port: 1\nhost: a\nport: 2\n", "port: it is given twice"),
    ("model: a\nmodel-path: b\n", "model-path: it is given twice"),
    ("schedule_policy: best\n", "not one of"),
    ("chat_template: /nowhere/x.jinja\n", "/nowhere/x.jinja"),
    ("scheduler_endpoint: tcp://h:1\nbind: tcp://h:2\n", "--curve-key-file"),
    ("curve_key_file: /nowhere/keys\n", "/nowhere/keys"),
    ("scheduler_endpoint: h:1\n", "neither tcp"),
])
def test_what_is_wrong_is_named(tmp_path, text, words):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    rc, said = run("config", "check", path)
    assert rc == 1 and words in said, said


def test_a_variable_that_is_nearly_one_is_told():
    """It set nothing, and nobody said so."""
    for words in (["config", "check"], ["doctor"]):
        rc, said = run(*words, BANYAN_PROT="8080")
        assert "BANYAN_PROT sets nothing (did you mean BANYAN_PORT?)" in said, said


def test_flags_behind_the_file_count_and_a_word_more_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("page_size: 32\n")
    rc, said = run("config", "check", path, "--port", "3")
    assert rc == 0 and re.search(r"^  port +3$", said, re.M) and re.search(r"^  page-size +32$", said, re.M), said
    rc, said = run("config", "check", path, "more")
    assert rc == 1 and "'more' is one word too many" in said


# ---- doctor ----


def verdicts(said):
    return {m[2].strip(): m[1].strip() for m in re.finditer(r"^(ok  |note|BAD )  (.{15})", said, re.M)}


@pytest.fixture
def whole(tmp_path):
    """A machine where nothing is missing: all programs in one folder, and a model."""
    for program in BIN.iterdir():
        shutil.copy(program, tmp_path)
    if not (tmp_path / "banyan-gpu-worker").exists():
        shutil.copy("/bin/true", tmp_path / "banyan-gpu-worker")
    return tmp_path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def doctor(folder, *words):
    done = subprocess.run([str(folder / "banyan"), "doctor", "--port", str(free_port()), *map(str, words)], capture_output=True,
                          text=True, timeout=60, env=environment())
    return done.returncode, done.stdout, verdicts(done.stdout)


def test_a_whole_machine_may_serve(whole):
    rc, said, v = doctor(whole)
    assert rc == 0 and "BAD" not in v.values(), said
    assert {"options", "programs", "processors", "memory", "port", "run directory", "keys", "model"} <= set(v)


def test_a_port_in_use_is_named(whole):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        rc, said, v = doctor(whole, "--port", s.getsockname()[1])
    assert rc == 1 and v["port"] == "BAD" and "stop what has it" in said


def test_the_remedy_is_that_of_the_fault(whole, tmp_path):
    """A port that needs a right was to be freed of what has it; a socket's folder was not looked at; MODEL alone was one word too many."""
    rc, said, v = doctor(whole, "--host", "192.0.2.1")
    assert rc == 1 and v["port"] == "BAD" and "no address of this machine" in said, said
    rc, said, v = doctor(whole, "--uds", tmp_path / "no/x.sock")
    assert rc == 1 and v["socket"] == "BAD" and f"{tmp_path}/no: No such file" in said, said
    assert doctor(whole, "--uds", tmp_path / "x.sock")[2]["socket"] == "ok"
    rc, said, v = doctor(whole, "/nowhere/model")
    assert rc == 1 and v["model"] == "BAD" and "/nowhere/model" in said, said
    assert "two models" in doctor(whole, "/nowhere/a", "--model-path", "/nowhere/b")[1]


def test_a_missing_program_is_named(whole):
    (whole / "banyan-detokenizer").unlink()
    rc, said, v = doctor(whole)
    assert rc == 1 and v["programs"] == "BAD" and "banyan-detokenizer" in said


def test_a_model_that_is_none_is_named(whole):
    rc, said, v = doctor(whole, "--model-path", TINY)  # a tokenizer without weights
    assert rc == 1 and v["model"] == "BAD" and str(TINY) in said


def test_a_file_that_git_lfs_left_out_is_named(whole, tmp_path):
    """"no safetensors file (its header would have 2336927755350992246 bytes)": a clone without git-lfs holds texts in place of large files."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "4" + "\nsize 12345\n"
    model = tiny_llama.write(tmp_path / "model", 1)
    for name in ("model.safetensors", "tokenizer.json"):
        file = Path(model) / name
        before = file.read_bytes()
        file.write_text(pointer)
        rc, said, v = doctor(whole, model)
        assert rc == 1 and v["model"] == "BAD" and f"{name}: it is a Git LFS pointer" in said and "git lfs pull" in said, said
        file.write_bytes(before)
    assert doctor(whole, model)[2]["model"] == "ok"
    (tmp_path / "x.gguf").write_text(pointer)
    assert "x.gguf: it is a Git LFS pointer" in doctor(whole, tmp_path / "x.gguf")[1]


def test_a_run_directory_that_cannot_be_is_named(whole):
    rc, said, v = doctor(whole, "--run-dir", "/proc/nowhere/x")
    assert rc == 1 and v["run directory"] == "BAD" and "--run-dir" in said
    rc, said, v = doctor(whole, "--run-dir", "/tmp/" + 100 * "a")
    assert rc == 1 and v["run directory"] == "BAD" and "80 are possible" in said


def test_a_wrong_option_is_named(whole):
    rc, said, v = doctor(whole, "--dp-size", "0")
    assert rc == 1 and v["options"] == "BAD" and "--dp-size" in said
