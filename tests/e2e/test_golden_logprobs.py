"""Log probabilities over HTTP against transformers in float32 (the reference vectors beside the project), on float32 weights."""

import json

import pytest

from harness import ROOT, Serve

TINY = ROOT.parent / "shared/data/tiny"
NEAR = 0.02

pytestmark = pytest.mark.skipif(not TINY.is_dir(), reason="no ../shared/data: reference logits")


@pytest.fixture(scope="module")
def served():
    path = TINY / "llama-gqa"
    golden = json.loads((path / "golden.json").read_text())
    assert golden["weights_dtype"] == "float32"
    with Serve("--model-path", path, "--threads", "1", "--max-total-tokens", "4096") as s:
        yield s, golden["cases"]


@pytest.fixture(params=["len1", "len17", "len130"])
def case(request, served):
    return served[0], served[1][request.param]


def near(told, wanted):
    return all(abs(a - b) <= NEAR for a, b in zip(told, wanted)) and len(told) == len(wanted)


def steps_that_are_sure(c):
    """Greedy steps before the first that another rounding might take otherwise."""
    return next((i for i, margin in enumerate(c["greedy_margins"]) if margin < 2e-3), len(c["greedy_ids"]))


def test_native(case):
    s, c = case
    meta = s.ok("/generate", {"input_ids": c["prompt_ids"], "return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 3,
                              "sampling_params": {"temperature": 0, "max_new_tokens": 32, "ignore_eos": True}})["meta_info"]
    prompt = meta["input_token_logprobs"]
    assert [i for _, i, _ in prompt] == c["prompt_ids"] and prompt[0][0] is None
    assert near([x for x, _, _ in prompt[1:]], c["prompt_logprobs"][1:])
    n = steps_that_are_sure(c)
    output = meta["output_token_logprobs"][:n]
    assert [i for _, i, _ in output] == c["greedy_ids"][:n] and near([x for x, _, _ in output], c["greedy_logprobs"][:n])
    assert [top[0][1] for top in meta["output_top_logprobs"][:n]] == c["greedy_ids"][:n], "the likeliest is the greedy one"
    likeliest = [top[0][1] for top in meta["input_top_logprobs"][1:]]
    sure = [a == b for a, b in zip(likeliest, c["argmax_all"])]
    assert sum(sure) >= 0.95 * len(sure), "the likeliest at each place of the prompt"


def test_completions(case):
    s, c = case
    told = s.ok("/v1/completions", {"prompt": c["prompt_ids"], "echo": True, "logprobs": 1, "max_tokens": 32, "temperature": 0, "ignore_eos": True})
    logprobs = told["choices"][0]["logprobs"]["token_logprobs"]
    n_prompt, n = len(c["prompt_ids"]), steps_that_are_sure(c)
    assert logprobs[0] is None and near(logprobs[1:n_prompt], c["prompt_logprobs"][1:])
    assert near(logprobs[n_prompt : n_prompt + n], c["greedy_logprobs"][:n])


def test_a_continuation_is_scored(case):
    """What an evaluation harness does: the log-likelihood of an end, given a beginning, with and without the beginning cached."""
    s, c = case
    half = len(c["prompt_ids"]) // 2
    wanted = sum(x for x in c["prompt_logprobs"][half:] if x is not None)
    for _ in range(2):
        told = s.ok("/v1/completions", {"prompt": c["prompt_ids"], "echo": True, "logprobs": 0, "max_tokens": 0})["choices"][0]["logprobs"]
        scored = [x for x in told["token_logprobs"][half:] if x is not None]
        assert abs(sum(scored) - wanted) <= NEAR * max(len(scored), 1)
