"""banyan.Engine with a model: its ids, each tier, a worker that is killed, and who runs a model when nobody says."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
import torch

import banyan
import banyan.compat.sglang as sgl
import models
from harness import BIN
from test_serve import generated

OPTIONS = {"max_total_tokens": 8192, "threads": 1, "dtype": "float32"}
PROMPT = list(range(40, 90))
GREEDY = {"temperature": 0, "max_new_tokens": 8, "ignore_eos": True}
os.environ["BANYAN_PYTHON"] = sys.executable
os.environ["BANYAN_BIN"] = str(BIN / "banyan")


@pytest.fixture(scope="module")
def engine():
    with banyan.Engine(models.path_of("llama-gqa"), impl="transformers", **OPTIONS) as e:
        yield e


@pytest.mark.skipif(not (BIN / "banyan-gpu-worker").exists(), reason="no native engine in this build")
def test_native_and_transformers_agree(engine):
    cases = models.golden("llama-gqa")["cases"].values()
    prompts, params = [c["prompt_ids"] for c in cases] + [PROMPT], {**GREEDY, "max_new_tokens": 24}
    asked = {"input_ids": prompts, "sampling_params": params, "return_logprob": True, "logprob_start_len": 0}
    with banyan.Engine(models.path_of("llama-gqa"), impl="native", max_total_tokens=8192, threads=1) as native:
        assert native.get_server_info()["impl"].startswith("native")
        both = list(zip(engine.generate(**asked), native.generate(**asked)))
    for ours, theirs in both:
        assert ours["output_ids"] == theirs["output_ids"]
        for name in ("input_token_logprobs", "output_token_logprobs"):
            pairs = list(zip(ours["meta_info"][name], theirs["meta_info"][name]))
            assert pairs and len(ours["meta_info"][name]) == len(theirs["meta_info"][name])
            assert max((abs(a[0] - b[0]) for a, b in pairs if a[0] is not None), default=0) <= 1e-3
    assert [o["output_ids"] for o, _ in both[:3]] == [c["greedy_ids"][:24] for c in cases]


def test_its_ids_its_cache_and_a_killed_worker(engine):
    case = models.golden("llama-gqa")["cases"]["len130"]
    params, e = {**GREEDY, "max_new_tokens": 32}, engine
    e.flush_cache()
    assert "tier A" in e.get_server_info()["impl"]
    assert e.generate(input_ids=case["prompt_ids"], sampling_params=params)["output_ids"] == case["greedy_ids"]
    both = e.generate(input_ids=[case["prompt_ids"], PROMPT], sampling_params=[params, GREEDY])
    assert both[0]["output_ids"] == case["greedy_ids"] and both[0]["meta_info"]["cached_tokens"] == 128
    meta = e.generate(input_ids=PROMPT, sampling_params=GREEDY, return_logprob=True, logprob_start_len=0,
                      top_logprobs_num=2, token_ids_logprob=[5, 6])["meta_info"]
    assert len(meta["input_token_logprobs"]) == len(PROMPT) and len(meta["output_token_logprobs"]) == 8
    assert all(len(t) == 2 for t in meta["output_top_logprobs"])
    assert [p[1] for p in meta["output_token_ids_logprobs"][0]] == [5, 6]
    e.flush_cache()
    assert e.generate(input_ids=case["prompt_ids"], sampling_params=GREEDY)["meta_info"]["cached_tokens"] == 0

    children = Path(f"/proc/{e._process.pid}/task/{e._process.pid}/children").read_text().split()
    worker = next(int(p) for p in children if b"banyan_hf_worker" in Path(f"/proc/{p}/cmdline").read_bytes())
    prompts, params = [PROMPT[i:] for i in range(16)], {**GREEDY, "max_new_tokens": 60}
    want = e.generate(input_ids=prompts, sampling_params=params)
    e.flush_cache()
    timer = threading.Timer(0.15, os.kill, (worker, signal.SIGKILL))
    timer.start()
    got = e.generate(input_ids=prompts, sampling_params=params)
    timer.join()
    assert [g["output_ids"] for g in got] == [w["output_ids"] for w in want]


@torch.inference_mode()
def test_encode_gives_the_last_state(engine):
    model, ids = models.load("llama-gqa"), [PROMPT, PROMPT[:7]]
    for given, got in zip(ids, engine.encode(input_ids=ids)):
        want = model.model(input_ids=torch.tensor([given]), use_cache=False).last_hidden_state[0, -1]
        assert (torch.tensor(got["embedding"]) - want / want.norm()).abs().max() < 1e-5
    assert engine.get_model_info()["model_path"] and engine.get_server_info()["impl"].startswith("transformers ")


@pytest.mark.both_lines
@pytest.mark.parametrize("name", ["helium", "lfm2", "custom-code"])
def test_each_tier_answers(name):
    """bloom: below, when nobody names who runs it."""
    if models.IS_4 and name == "helium":
        pytest.skip("once is enough")
    remote = {"trust_remote_code": True} if name == "custom-code" else {}
    kind = sgl.Engine if name == "helium" else banyan.Engine
    with kind(model_path=models.path_of(name), impl="transformers", **OPTIONS, **remote) as e:
        assert isinstance(e.generate(["The capital of France is"], {"max_new_tokens": 5})[0]["text"], str)
        got = e.generate(input_ids=PROMPT, sampling_params=GREEDY)["output_ids"]
    assert got == generated(models.load(name), PROMPT, 8)


@pytest.mark.skipif(not (BIN / "banyan-gpu-worker").exists(), reason="no native engine in this build")
def test_auto_hands_over_what_the_native_engine_does_not_know():
    with banyan.Engine(models.path_of("bloom"), **OPTIONS) as e:  # impl is auto
        assert e.get_server_info()["impl"].startswith("transformers ")
        assert "transformers takes over" in Path(e.run_dir, "log").read_text()
        assert e.generate(input_ids=PROMPT, sampling_params=GREEDY)["output_ids"] == generated(models.load("bloom"), PROMPT, 8)
    with pytest.raises(banyan.BanyanError, match="bloom|Bloom"):
        banyan.Engine(models.path_of("bloom"), impl="native", **OPTIONS)


def test_a_refusal_reaches_the_program():
    with pytest.raises(banyan.BanyanError, match="trust-remote-code"):
        banyan.Engine(models.path_of("custom-code"), impl="transformers", **OPTIONS)
