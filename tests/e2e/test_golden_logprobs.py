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


# ---- a multiple-choice evaluation, as harnesses run it against /v1/completions ----


def choices_of(c, n):
    """The likeliest end by transformers' own greedy run, and three others; which is right is not always the first."""
    right = c["greedy_ids"][:n]
    others = [right[1:] + right[:1], [(i + 7) % 100 + 20 for i in right], c["prompt_ids"][:n] if len(c["prompt_ids"]) >= n else [30] * n]
    at = len(c["prompt_ids"]) % 4
    return [*others[:at], right, *others[at:]], at


def log_likelihood(choice, n_context):
    """What an evaluation harness makes of an answer: the sum over the end, and whether greedy decoding would have said it."""
    told = choice["logprobs"]
    n = len(told["token_logprobs"])
    greedy = all(told["tokens"][i] == max(told["top_logprobs"][i], key=told["top_logprobs"][i].get) for i in range(n_context, n))
    return sum(told["token_logprobs"][n_context:]), greedy


def test_multiple_choice_by_log_likelihood(served):
    """Four ends for each beginning, all in one request: the one that float32 transformers finds likeliest wins, by its figure."""
    s, cases = served
    cases = [c for c in cases.values() if steps_that_are_sure(c) >= 4 and c["prompt_ids"]][:6]
    assert len(cases) >= 3
    prompts, rights = [], []
    for c in cases:
        ends, right = choices_of(c, 4)
        prompts += [c["prompt_ids"] + end for end in ends]
        rights.append(right)
    answer = s.ok("/v1/completions", {"prompt": prompts, "echo": True, "logprobs": 1, "max_tokens": 0})
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(prompts)))
    assert answer["usage"]["prompt_tokens"] == sum(map(len, prompts)) and answer["usage"]["completion_tokens"] == 0
    for i, c in enumerate(cases):
        scores = [log_likelihood(choice, len(c["prompt_ids"])) for choice in answer["choices"][4 * i : 4 * i + 4]]
        likeliest = max(range(4), key=lambda k: scores[k][0])
        assert likeliest == rights[i] and scores[likeliest][1], (scores, rights[i])
        assert abs(scores[likeliest][0] - sum(c["greedy_logprobs"][:4])) <= 4 * NEAR
    again = s.ok("/v1/completions", {"prompt": prompts, "echo": True, "logprobs": 1, "max_tokens": 1})["choices"]
    for a, b in zip(answer["choices"], again):  # with max_tokens 1, as older harnesses ask: the last one is not of the prompt
        assert near(b["logprobs"]["token_logprobs"][1:-1], a["logprobs"]["token_logprobs"][1:])
