"""Tensor parallel: two processes share a model out, say what it says whole, in the same bits, and neither hangs on a dead one."""

import copy
import hashlib
import os
import pickle
import signal
from contextlib import suppress

import numpy as np
import pytest
from banyan_hf_worker import fast_linear, parallel, probe

import models
from driver import Driver, error_of, make_worker, reference

LIMIT = 1e-4
IDS = np.random.default_rng(5).integers(3, 600, 40).tolist()


def rank_of(model, ranks, is_fast=False):
    """(driver of this rank's part of a copy of the model, modules that were cut)."""
    model = copy.deepcopy(model)
    verdict, check = probe.choose(model), parallel.Check(model)
    n_vocab = model.get_output_embeddings().weight.shape[0]
    n = parallel.split(model, ranks)
    if is_fast:
        fast_linear.use(model, 1)
    worker = make_worker(model, verdict.way, n_vocab=n_vocab, n_states=8, ranks=ranks, check=check)
    return Driver(worker), n


def on_ranks(play, world=2):
    """[play(ranks) of rank 0, of rank 1 …]: rank 0 here, the others forked."""
    first = parallel.Ranks(0, world)
    address, children = first.open(), []
    for rank in range(1, world):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if not pid:
            other = parallel.Ranks(rank, world)
            try:
                other.join(address)
                answer = play(other)
            except BaseException as failure:
                answer = failure
            try:
                with os.fdopen(write_end, "wb") as stream:
                    pickle.dump(answer, stream)
            finally:
                os._exit(0)
        os.close(write_end)
        children.append((pid, os.fdopen(read_end, "rb")))
    try:
        answers = [play(first)]
        return answers + [pickle.load(stream) for _, stream in children]
    finally:
        first.close()  # who still waits for us ends
        for pid, stream in children:
            stream.close()
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def life(d):
    """Chunks, a shared prefix, mixed steps and decodes of two sequences: (ids, log probabilities by position) of each."""
    d.admit("a", IDS[:37])
    d.run(("a", 21))
    d.run(("a", 16))
    d.admit("b", IDS[:16] + IDS[20:31], prefix=("a", 16))
    d.run(("b", 7), ("a", 1))
    d.run(("a", 1), ("b", 4))
    for _ in range(4):
        d.run(("b", 1), ("a", 1))
    return [(d.sequences[name].ids, d.sequences[name].rows) for name in ("a", "b")]


CUT = ["llama-gqa", "qwen3", "gemma2", "mixtral", "helium", "phi3", "olmo2", "qwen3-moe", "qwen3_5-text"]


@pytest.mark.both_lines
@pytest.mark.parametrize("name", CUT)
def test_two_ranks_say_what_one_says_in_the_same_bits(name):
    model = models.load(name)

    def play(ranks):
        d, n = rank_of(model, ranks, is_fast=name == "llama-gqa")
        seen = life(d)
        text = b"".join(rows[p].tobytes() for _, rows in seen for p in sorted(rows))
        return seen, n, hashlib.sha256(text).hexdigest(), sum(p.numel() for p in d.worker.runner.model.parameters())

    first, second = on_ranks(play)
    assert not isinstance(second, BaseException), second
    assert first[2] == second[2] and [s[0] for s in first[0]] == [s[0] for s in second[0]]
    for ids, rows in first[0]:
        want = reference(model, ids)
        limit = 10 * LIMIT if name == "qwen3_5-text" else LIMIT  # as in test_tiers.py
        assert max(float(np.abs(row - want[p - 1]).max()) for p, row in rows.items()) <= limit
    assert first[1] >= 4 and first[3] < 0.8 * sum(p.numel() for p in model.parameters())


def test_a_rank_that_dies_ends_the_session_of_the_others():
    model = models.load("llama-gqa")

    def play(ranks):
        d, _ = rank_of(model, ranks)
        d.admit("a", IDS)
        d.run(("a", 9))
        if ranks.rank:
            os._exit(0)
        with pytest.raises(parallel.GroupLost, match="another rank"):
            for _ in range(3):
                d.run(("a", 1))
        return True

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who is not waited for still counts as alive
    try:
        with pytest.raises(EOFError):  # what the dead one said
            on_ranks(play)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_model_that_raises_on_a_rank_ends_the_session(monkeypatch):
    """The others wait in the middle of their model: no answer of this rank could be right, nor any next step."""
    ranks = parallel.Ranks(0, 2)
    d, _ = rank_of(models.load("llama-gqa"), ranks)
    ranks.open()
    d.worker.is_checked = True
    monkeypatch.setattr(d.worker.runner, "logits", lambda *a: (_ for _ in ()).throw(MemoryError("no room")))
    d.admit("a", IDS)
    with pytest.raises(MemoryError):
        d.worker.step(d.frame(("a", 9)))
    ranks.close()


def test_a_step_before_the_group_has_met_is_none():
    d, _ = rank_of(models.load("llama-gqa"), parallel.Ranks(1, 2))
    d.admit("a", IDS)
    with pytest.raises(Exception, match="before the group has met"):
        d.worker.step(d.frame(("a", 9)))


def test_a_plan_that_is_wrong_is_found_out(monkeypatch):
    model = models.load("llama-gqa")
    plan = {k: v for k, v in parallel.plan_of(model).items() if "up_proj" not in k}  # gate is cut, up is whole
    wrong = {**plan, "model.layers.*.mlp.down_proj": "rowwise_split_input", "model.layers.*.mlp.gate_proj": "colwise_gather_output",
             "model.layers.*.mlp.up_proj": "rowwise_split_input"}
    real = parallel.Ranks.sum
    monkeypatch.setattr(parallel, "plan_of", lambda _: wrong)
    monkeypatch.setattr(parallel.Ranks, "sum", lambda self, x: real(self, x) * 0.9)

    def play(ranks):
        d, _ = rank_of(model, ranks)
        d.admit("a", IDS)
        with pytest.raises(parallel.Wrong, match="serve it without --tp-size"):
            d.run(("a", 9))
        return True

    assert on_ranks(play) == [True, True]


@pytest.mark.both_lines
@pytest.mark.parametrize(("name", "world", "words"), [("gpt2", 2, "no tensor parallel plan for GPT2LMHeadModel; --dp-size"),
                                                      ("bloom", 2, "no tensor parallel plan for BloomForCausalLM; --dp-size"),
                                                      ("llama-gqa", 3, "4 query heads and 2 key-value heads do not share out evenly over 3"),
                                                      ("llama-gqa", 4, "do not share out evenly over 4")])
def test_what_does_not_go_over_ranks_is_refused(name, world, words):
    model = copy.deepcopy(models.load(name))
    with pytest.raises(parallel.CannotSplit, match=words):
        parallel.split(model, parallel.Ranks(0, world))


def test_an_address_that_is_none_of_ours_is_not_opened():
    for address in ("/etc/passwd", "/proc/1/fd/../../../etc/passwd", ""):
        with pytest.raises(parallel.GroupLost, match="cannot join"):
            parallel.Ranks(1, 2).join(address)
