"""`banyan serve --impl transformers` as a whole: answers of each tier, recovery, and what it refuses at the start."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from banyan_hf_worker import folder, loader, parallel
from banyan_hf_worker.__main__ import prepare

import models
from harness import BIN, ROOT, Serve, alive, can_gain_no_rights, environment, in_threads, is_shut_in, wait_for

START = ["--impl", "transformers", "--max-total-tokens", "8192", "--threads", "1"]
PROMPT = list(range(40, 90))


@contextmanager
def serve(path, *flags, program=None, env=None):
    """The venv that runs this test runs the worker too. A start of it takes a busy machine half a minute and more."""
    env = {"BANYAN_PYTHON": sys.executable, "BANYAN_BIN": str(BIN / "banyan"), "PYTHONPATH": str(ROOT / "deploy/python"), **(env or {})}
    s = Serve("--model-path", path, *START, *flags, env=env, program=program)
    try:
        s.wait_ready(280)
        s.client.timeout = 200
        yield s
    finally:
        s.stop()


@torch.inference_mode()
def generated(model, ids, n):
    """transformers' own greedy continuation; no token ends it."""
    out = model.generate(torch.tensor([ids]), max_new_tokens=n, do_sample=False, pad_token_id=0, eos_token_id=1 << 30)
    return out[0, len(ids):].tolist()


def greedy(server, ids, n):
    return server.generate(ids, n, sampling={"ignore_eos": True})


SAMPLED = {"top_p": 0.95, "top_k": 20, "temperature": 0.8, "max_new_tokens": 6}
HOW = {  # helium: `banyan serve … --host 0.0.0.0`; bloom: the same after python3 -m banyan.launch_server
    "helium": {"flags": ["--host", "0.0.0.0"]}, "bloom": {"program": [sys.executable, "-m", "banyan.launch_server"]},
    "custom-code": {"flags": ["--trust-remote-code"]},
}
ANSWERS = {"helium": "A", "bloom": "B", "lfm2": "C", "custom-code": "R"}


@pytest.mark.both_lines
@pytest.mark.parametrize("name", ANSWERS)
def test_each_tier_answers_as_transformers_does(name):
    how = HOW.get(name, {})
    want = generated(models.load(name), PROMPT, 12)
    with serve(models.path_of(name), "--dtype", "float32", *how.get("flags", []), program=how.get("program")) as s:
        assert greedy(s, PROMPT, 12)[1] == want
        text, ids, meta = greedy(s, PROMPT, 12)
        assert ids == want
        tier = "D" if models.IS_4 and name == "lfm2" else ANSWERS[name]
        assert meta["cached_tokens"] == (48 if tier in "ABC" else 0)
        info = s.get("/server_info").json
        assert f"tier {tier}: " in info["impl"] and info["impl"].startswith(f"transformers {models.transformers.__version__}")
        assert f"tier {tier}: " in s.logs()
        for who, pid in {**s.pids(), "serve": s.process.pid}.items():
            assert is_shut_in(pid, s.logs()) and can_gain_no_rights(pid), who
        chat = s.ok("/v1/completions", {"model": "x", "prompt": PROMPT, "max_tokens": 5, "temperature": 0})
        assert chat["usage"]["completion_tokens"] >= 1
        assert isinstance(s.ok("/generate", {"text": "The capital of France is", "sampling_params": SAMPLED})["text"], str)
    assert " error " not in s.said and "Traceback" not in s.said
    assert " warn  gpu-worker: lost the scheduler" not in s.said, "it was stopped as all were"


@pytest.mark.parametrize("name", ["qwen3_5-text", "falcon-h1"])
def test_layers_with_state_reuse_what_they_have_seen(name):
    """A chat goes on within its last answer; of three who begin alike the third starts where they part; all at once as one by one."""
    model = models.load(name)
    with serve(models.path_of(name), "--dtype", "float32") as s:
        said, turns = PROMPT[:], []
        for turn in range(3):
            want = generated(model, said, 80)
            text, ids, meta = greedy(s, said, 80)
            cold = s.generate(said, 80, sampling={"ignore_eos": True}, cache_salt=f"turn {turn}")
            assert ids == want and cold[:2] == (text, ids) and cold[2]["cached_tokens"] == 0
            turns.append((said, want))
            # of 16 new ids, at most 64 of the answer and the rest of a page
            assert meta["cached_tokens"] >= len(said) - 96 if turn else meta["cached_tokens"] == 0
            said = said + ids + list(range(200 + turn, 216 + turn))
        common = list(range(300, 400))
        prompts = [common + [40 + i] * 40 for i in range(3)]
        answers = [greedy(s, p, 8) for p in prompts]
        assert [ids for _, ids, _ in answers] == [generated(model, p, 8) for p in prompts]
        assert [meta["cached_tokens"] for _, _, meta in answers] == [0, 0, 96]
        assert [ids for _, ids, _ in in_threads([lambda p=p: greedy(s, p, 80) for p, _ in turns])] == [want for _, want in turns]
        assert s.get("/v1/loads").json["loads"][0]["num_kept_states"] > 3
        assert "states=32 bytes_per_state=" in s.logs()


@pytest.mark.parametrize("name", ["llama-gqa", "gpt-oss", "falcon-newarch"])
def test_golden_answers(name):
    golden = models.golden(name)["cases"]
    fast = ["--hf-fast-linear"] if name == "llama-gqa" else []
    with serve(models.path_of(name), "--dtype", "float32", "--chunked-prefill-size", "32", *fast) as s:
        assert ("linear modules packed" in s.logs()) == bool(fast)
        jobs = [lambda c=c: greedy(s, c["prompt_ids"], 32)[1] for c in golden.values()]
        want = [c["greedy_ids"] for c in golden.values()]
        assert in_threads(jobs) == want
        assert [job() for job in jobs] == want, "from the cache"


# ---- SmolLM2-135M ----

QUESTIONS = ["The capital of France is", "Water boils at", "def fibonacci(n):", "Once upon a time", "1, 2, 3, 5, 8,",
             "The largest planet is", "A recipe for bread:", "Dear Sir or Madam,", "SELECT name FROM", "In the year 1969"]


def test_smollm2_equals_generate_cold_cached_chunked_and_batched(tmp_path):
    gguf = models.default_gguf()
    model = loader.load(gguf, dtype="float32")
    model.hf_quantizer = None  # it is plain float32 now
    model.config.__dict__.pop("quantization_config", None)
    model.save_pretrained(tmp_path)  # reading a GGUF file takes transformers 14 s, a folder 1 s
    with serve(tmp_path, "--tokenizer-path", gguf, "--chunked-prefill-size", "4") as s:
        prompts = [s.ok("/tokenize", {"prompt": q})["tokens"] for q in QUESTIONS]
        want = [generated(model, p, 32) for p in prompts]
        assert in_threads([lambda p=p: greedy(s, p, 32)[1] for p in prompts]) == want, "all in one batch"
        assert [greedy(s, p, 32)[1] for p in prompts[:3]] == want[:3], "alone"
        long = prompts[0] * 8
        cold, cached = greedy(s, long, 32), greedy(s, long, 32)
        assert cold[1] == cached[1] == generated(model, long, 32)
        assert cached[2]["cached_tokens"] >= 32


def test_a_gguf_file():
    folder = models.path_of("llama-gqa-gguf")
    golden = json.loads((folder / "llama-gqa-Q8_0.golden.json").read_text())
    with serve(folder / "llama-gqa-Q8_0.gguf", "--dtype", "float32") as s:
        for case in golden["cases"].values():
            assert greedy(s, case["prompt_ids"], 32)[1] == case["greedy_ids"]


# ---- recovery ----


@pytest.fixture(scope="module")
def llama():
    with serve(models.path_of("llama-gqa"), "--dtype", "float32") as s:
        yield s


def test_it_makes_embeddings_and_says_that_it_makes_no_scores(llama):
    (made,) = llama.ok("/v1/embeddings", {"input": PROMPT})["data"]
    assert len(made["embedding"]) == 64 and abs(sum(x * x for x in made["embedding"]) - 1) < 1e-5
    refused = llama.post("/v1/rerank", {"query": "a", "documents": ["b"]})
    assert refused.status == 400 and "makes no scores; it makes text" in refused.body.decode(), refused


@pytest.mark.parametrize("victim", ["gpu-worker", "scheduler", "detokenizer"])
def test_a_kill_under_16_streams_changes_no_answer(llama, victim):
    prompts = [[i + 20, *PROMPT] for i in range(16)]
    want = [greedy(llama, p, 40)[1] for p in prompts]
    seen, killed = [], []

    def on_event(event):
        seen.append(event)
        if len(seen) == 60 and not killed:
            killed.append(llama.pids()[victim])
            os.kill(killed[0], signal.SIGKILL)

    llama.post("/flush_cache")
    got = in_threads([lambda p=p: llama.client.generate(p, 40, on_event, sampling={"ignore_eos": True})[1] for p in prompts])
    assert killed and got == want
    wait_for("it to be back", lambda: llama.pids()[victim] != killed[0])
    assert greedy(llama, prompts[0], 40)[1] == want[0]


def test_two_ranks_answer_as_one_and_either_may_die():
    case = models.golden("llama-gqa")["cases"]["len17"]
    with serve(models.path_of("llama-gqa"), "--dtype", "float32", "--tp-size", "2") as s:
        assert greedy(s, case["prompt_ids"], 32)[1] == case["greedy_ids"]
        assert all(is_shut_in(pid, s.logs()) for pid in s.pids().values())
        assert "rank 1 of 2: " in s.logs() and "modules are shared out" in s.logs()
        for rank in (1, 0):
            name, killed = f"gpu-worker-0.{rank}", []

            def on_event(event):
                if not killed:
                    killed.append(s.pids()[name])
                    os.kill(killed[0], signal.SIGKILL)

            jobs = [lambda: s.client.generate(case["prompt_ids"], 32, on_event, sampling={"ignore_eos": True})[1]] * 4
            assert in_threads(jobs) == [case["greedy_ids"]] * 4 and killed
            wait_for("it to be back", lambda: s.pids()[name] != killed[0])


def test_sigterm_lets_requests_finish_and_leaves_nobody():
    with serve(models.path_of("llama-gqa"), "--dtype", "float32") as s:
        pids = s.pids().values()
        done = []

        def on_event(event):
            if not done:
                done.append(s.process.send_signal(signal.SIGTERM))

        ids = s.client.generate(PROMPT, 60, on_event, sampling={"ignore_eos": True})[1]
        assert len(ids) == 60 and s.wait() == 0
    assert not any(alive(pid) for pid in pids)


# ---- what it refuses ----


def refused(*flags, env=None):
    """What a start that must fail said."""
    done = subprocess.run([str(BIN / "banyan"), "serve", "--port", "0", *map(str, START), *map(str, flags)], timeout=280,
                          capture_output=True, text=True, env=environment(**{"BANYAN_PYTHON": sys.executable, **(env or {})}))
    assert done.returncode == 78, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


def copy(name, folder, **changes):
    """A copy of a model's folder with a changed config.json."""
    path = folder / name
    shutil.copytree(models.path_of(name), path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **changes}))
    return path


@pytest.mark.both_lines
def test_what_the_models_authors_recommend_is_told_and_holds(tmp_path):
    """top_k 1: every seed has the same text. The rest is as the native worker reads it (tests/e2e/test_sampling_defaults.py)."""
    path = copy("helium", tmp_path)
    (path / "generation_config.json").write_text('{"temperature": 0.7, "top_k": 1, "min_p": -1, "top_p": null, "eos_token_id": 2}')
    with serve(path) as s:
        told = {"temperature": 0.7, "top_k": 1, "top_p": 1, "min_p": 0, "repetition_penalty": 1}
        assert s.get("/model_info").json["default_sampling_params"] == told
        ask = {"prompt": PROMPT, "max_tokens": 8, "ignore_eos": True}
        assert len({s.ok("/v1/completions", {**ask, "seed": i})["choices"][0]["text"] for i in range(3)}) == 1


@pytest.mark.both_lines
def test_an_encoder_is_refused():
    assert "bert is an encoder" in refused("--model-path", models.path_of("bert-embed"))


def test_remote_code_is_refused_without_the_flag(tmp_path):
    """At once: torch was imported first, which took a small machine 17 s. Here it cannot be."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    said = refused("--model-path", models.path_of("custom-code"), env={"PYTHONPATH": str(tmp_path)})
    assert "brings its own Python code" in said and "--trust-remote-code" in said and "torch was" not in said


def test_own_code_of_a_class_that_transformers_has_is_passed_over(tmp_path):
    """Many a folder on the Hub still brings the code of a class that is in transformers by now."""
    path = copy("llama-gqa", tmp_path, auto_map={"AutoModelForCausalLM": "modeling_old.Old"})
    folder.check(path)
    with pytest.raises(folder.LoadError, match="brings its own Python code"):
        folder.check(copy("qwen2", tmp_path, auto_map={"AutoModelForCausalLM": "modeling_old.Old"}, architectures=["OldForCausalLM"]))


def test_pickle_is_refused_without_the_flag():
    said = refused("--model-path", models.path_of("gpt2-bin"))
    assert "pickle" in said and "--allow-pickle" in said
    with serve(models.path_of("gpt2-bin"), "--allow-pickle") as s:
        assert len(greedy(s, PROMPT, 4)[1]) == 4


def test_ranks_are_refused_for_a_model_without_a_plan():
    asked = SimpleNamespace(hf_fast_linear=False)
    with pytest.raises(loader.LoadError, match="--tp-size 2: transformers has no tensor parallel plan for GPT2LMHeadModel; --dp-size"):
        prepare(asked, models.load("gpt2"), parallel.Ranks(0, 2), 1)


def load_error(path):
    """What start() makes a line of the log and an exit; here without a process."""
    with pytest.raises(loader.LoadError) as said:
        loader.load(path, dtype="float32")
    return str(said.value)


def test_a_folder_without_a_config_is_refused(tmp_path):
    path = copy("llama-gqa", tmp_path)
    (path / "config.json").unlink()
    assert "there is no config.json" in load_error(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"hidden_size": 72}, "llama-gqa"), ({"model_type": "nosuch", "architectures": ["NoSuch"]}, "nosuch"),
     ({"num_hidden_layers": 9}, "llama-gqa")],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, changes, words):
    assert words in load_error(copy("llama-gqa", tmp_path, **changes))


def test_broken_weights_are_refused(tmp_path):
    path = copy("llama-gqa", tmp_path)
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "SafetensorError" in load_error(path)


def test_a_folder_without_weights_and_one_with_a_broken_config_are_refused(tmp_path):
    path = copy("llama-gqa", tmp_path)
    (path / "model.safetensors").unlink()
    assert "there are no weights" in load_error(path)
    (path / "config.json").write_text("{")
    assert "is not JSON" in load_error(path)


def test_a_transformers_that_is_too_old_is_refused(monkeypatch):
    monkeypatch.setattr(models.transformers, "__version__", "4.52.4")
    said = load_error(models.path_of("llama-gqa"))
    assert "transformers 4.52.4 is older than 4.53; run deploy/setup.sh --transformers" in said


def test_without_torch_the_remedy_is_named(tmp_path):
    bare = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    said = refused("--model-path", models.make("bloom"), env={"BANYAN_PYTHON": str(bare / "bin/python")})
    assert "deploy/setup.sh --transformers" in said


def test_a_remote_model_that_lies_of_itself_gets_the_tier_that_is_right_and_may_raise(tmp_path):
    """Its class says that it supports attention backends, and its attention does not call one; and it cannot stand 7."""
    path = copy("custom-code", tmp_path)
    file = path / "modeling_tinycustom.py"
    text = file.read_text().replace("    _no_split_modules", "    _supports_attention_backend = True\n    _no_split_modules")
    head, signature, body = text.rpartition("    def forward(self, input_ids")
    at = body.index(":\n") + 2
    file.write_text(head + signature + body[:at] + "        if (input_ids == 7).any():\n            raise RuntimeError('no sevens')\n" + body[at:])
    with serve(path, "--trust-remote-code") as s:
        assert "tier R: eager attention; tier A: only 0 of its 2 layers call the paged attention" in s.get("/server_info").json["impl"]
        before = s.pids()
        answer = s.post("/generate", {"input_ids": [9, 7, 9], "sampling_params": {"max_new_tokens": 4}})
        assert answer.status == 500 and "RuntimeError: no sevens" in s.logs(), answer
        assert len(greedy(s, PROMPT, 4)[1]) == 4 and s.pids() == before, "it and its worker live on"
