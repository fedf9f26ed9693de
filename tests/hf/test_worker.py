"""The worker on its own: frames that lie, models that fail, memory that is reused, sampling that goes on where it was."""

import os
import random
import threading

import numpy as np
import pytest
import torch
from banyan_hf_worker import __main__ as main
from banyan_hf_worker import messages, probe
from banyan_hf_worker.worker import CODES, BadStep

import models
from driver import Driver, error_of, make_worker, reference

MODEL = "llama-gqa"


def driver(name=MODEL, tier="A", **more):
    return Driver(make_worker(models.load(name), tier, **more.pop("pool", {})), **more)


def ids_of(n, seed=1):
    return np.random.default_rng(seed).integers(3, 600, n).tolist()


# ---- frames that lie ----


def admit(**more):
    values = {"slot": 2, "n_prompt": 5, "ids": ids_of(5), "pages": [0, 1], **more}
    return messages.Admit(sampling=messages.Sampling(top_p=1, repetition_penalty=1, logprob_start=-1), **values)


LIES = {
    "a step that is not the next": {"step": 3},
    "pages for nobody": {"append_slots": [9], "append_pages": [1]},
    "a page that is not there": {"append_slots": [0], "append_pages": [256]},
    "half of a page's announcement": {"append_slots": [0], "append_pages": []},
    "rows of unequal length": {"row_slots": [0], "row_tokens": [], "row_samples": [1]},
    "a row of no slot": {"row_slots": [7], "row_tokens": [1], "row_samples": [1]},
    "two rows of one slot": {"row_slots": [0, 0], "row_tokens": [1, 1], "row_samples": [1, 1]},
    "a row of no tokens": {"row_slots": [0], "row_tokens": [0], "row_samples": [1]},
    "more tokens than are known": {"row_slots": [0], "row_tokens": [2], "row_samples": [1]},
    "as many tokens as a u32 holds": {"row_slots": [0], "row_tokens": [2**32 - 1], "row_samples": [1]},
    "a free of what is free": {"free_slots": [5]},
    "a slot in use": {"admits": [admit(slot=0)]},
    "a slot beyond the last": {"admits": [admit(slot=16)]},
    "a page beyond the last": {"admits": [admit(pages=[0, 256])]},
    "an id beyond the vocabulary": {"admits": [admit(ids=[640])]},
    "an output id beyond the vocabulary": {"admits": [admit(output_ids=[2**32 - 1])]},
    "nothing to run": {"admits": [admit(ids=[])]},
    "more cached tokens than pages": {"admits": [admit(n_cached=9)]},
    "too few pages for the row": {"admits": [admit(pages=[0])], "row_slots": [2], "row_tokens": [5], "row_samples": [1]},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_frame_that_lies_changes_nothing(lie):
    d = driver()
    d.admit("a", ids_of(12))
    d.run(("a", 12))
    before = {slot: (s.n_done, s.ids[:], s.pages[:]) for slot, s in d.worker.slots.items()}
    with pytest.raises(BadStep):
        d.worker.step(messages.Step(**{"step": 2, **LIES[lie]}))
    assert {slot: (s.n_done, s.ids[:], s.pages[:]) for slot, s in d.worker.slots.items()} == before
    d.finish("a", 3)
    assert error_of(d.sequences["a"], reference(models.load(MODEL), d.sequences["a"].ids)) < 1e-4


def test_a_model_that_starts_at_0_refuses_a_prefix():
    d = driver("lfm2", "C")
    with pytest.raises(BadStep, match="starts at 0"):
        d.worker.step(messages.Step(step=1, admits=[admit(n_cached=4)]))


STATE_LIES = {  # of a worker that keeps 2 states: number 0 is behind 8 tokens, number 1 is not there
    "half of what is to be kept": ({"keep_slots": [0], "keep_at": [16], "keep_states": []}, "differ in length"),
    "a state beyond the last to keep": ({"keep_slots": [0], "keep_at": [16], "keep_states": [2]}, "state 2 of 2"),
    "a state kept twice": ({"keep_slots": [0, 0], "keep_at": [12, 16], "keep_states": [1, 1]}, "kept twice"),
    "half a page": ({"keep_slots": [0], "keep_at": [14], "keep_states": [1]}, "behind 14 tokens"),
    "what was before the row": ({"keep_slots": [0], "keep_at": [8], "keep_states": [1]}, "behind 8 tokens, its row runs from 10 to 18"),
    "what comes after it": ({"keep_slots": [0], "keep_at": [20], "keep_states": [1]}, "behind 20 tokens"),
    "the other way round": ({"keep_slots": [0, 0], "keep_at": [16, 12], "keep_states": [0, 1]}, "behind 12 tokens"),
    "a slot without a row": ({"keep_slots": [5], "keep_at": [4], "keep_states": [1]}, "slot 5 is to keep"),
    "a state beyond the last": ({"admits": [admit(n_cached=8, from_state=3)]}, "from state 2 of 2"),
    "as far as a u32 goes": ({"admits": [admit(n_cached=8, from_state=2**32 - 1)]}, "of 2"),
    "a state that is not there": ({"admits": [admit(n_cached=8, from_state=2)]}, "from state 1, which is not there"),
    "a state of more tokens": ({"admits": [admit(n_cached=4, from_state=1)]}, "starts at 4, and its state is behind 8 tokens"),
    "a state at the start": ({"admits": [admit(from_state=1)]}, "starts at 0, and its state is behind 8 tokens"),
    "a prefix without a state": ({"admits": [admit(n_cached=8)]}, "starts at 8, and its state is behind 0 tokens"),
}


@pytest.mark.parametrize("lie", STATE_LIES)
def test_a_frame_that_lies_about_states_changes_nothing(lie):
    d = driver("lfm2", probe.choose(models.load("lfm2")).way, pool={"n_states": 2}, want_all=False)
    d._keep = lambda rows: {"keep_slots": [0], "keep_at": [8], "keep_states": [0]} if d.step == 1 else {}
    d.admit("a", ids_of(18))
    d.run(("a", 10))
    (said, why), before = STATE_LIES[lie], d.worker.states[:]
    with pytest.raises(BadStep, match=why):
        d.worker.step(messages.Step(step=2, row_slots=[0], row_tokens=[8], row_samples=[1],
                                    append_slots=[0, 0], append_pages=d.free_pages[-2:], **said))
    assert d.worker.states == before and before[0].n == 8 and d.worker.last_step == 1
    d.finish("a", 3)


def test_random_frames_never_do_more_than_end_the_session():
    chance = random.Random(3)
    d = driver(want_all=False)
    d.admit("a", ids_of(12))
    d.run(("a", 12))
    n_bad = 0
    for _ in range(2000):
        small = lambda n=3: [chance.choice([0, 1, 2, 15, 16, 255, 256, 2**32 - 1]) for _ in range(chance.randrange(n))]  # noqa: E731
        step = messages.Step(
            step=chance.choice([d.worker.last_step + 1] * 5 + [0, 2**63]), append_slots=small(), append_pages=small(),
            row_slots=small(), row_tokens=small(), row_samples=small(), free_slots=small(2),
            admits=[admit(slot=chance.choice([0, 1, 3, 16, 2**32 - 1]), ids=small(), pages=small(), n_cached=chance.choice([0, 4, 2**31]),
                          output_ids=small())] * chance.randrange(2),
        )
        try:
            done = d.worker.step(step)
            assert done.code == 0, done.error
        except BadStep:
            n_bad += 1
    assert 500 < n_bad < 2000


# ---- what fails ----


def test_a_model_that_raises_fails_the_step_and_not_the_worker(monkeypatch):
    d = driver()
    d.admit("a", ids_of(9))
    d.run(("a", 9))
    for failure in (RuntimeError("the model fell over\nwith a long story"), MemoryError("no room"),
                    torch.OutOfMemoryError("CUDA out of memory")):
        monkeypatch.setattr(d.worker.runner, "logits", lambda *a, failure=failure: (_ for _ in ()).throw(failure))
        done = d.worker.step(d.frame(("a", 1)))
        assert done.code == CODES["BY_EINTERNAL"] and str(failure).split("\n")[0] in done.error and not done.tokens
        monkeypatch.undo()
    d.admit("b", ids_of(9, 2))
    d.run(("b", 9))
    d.finish("b", 2)
    assert error_of(d.sequences["b"], reference(models.load(MODEL), d.sequences["b"].ids)) < 1e-4


def test_logits_of_nan_fail_their_row_only(monkeypatch):
    d = driver(want_all=False)
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        d.admit(name, ids_of(6, seed))
    real = d.worker.runner.logits

    def broken(batch, rows):
        out = real(batch, rows).clone()
        out[1] = float("nan")
        return out

    monkeypatch.setattr(d.worker.runner, "logits", broken)
    done = d.worker.step(d.frame(("a", 6), ("b", 6), ("c", 6)))
    assert list(done.failed_slots) == [1] and len(done.tokens) == 3 and done.tokens[1] == 0


def test_the_scheduler_s_end_is_no_surprise_at_our_own(monkeypatch, capfd):
    read_end, write_end = os.pipe()
    session = main.Session(None, driver().worker, {}, read_end)
    session.on_down("the connection is gone")
    assert " warn  gpu-worker: lost the scheduler" in capfd.readouterr().err
    monkeypatch.setattr(main, "STOP_S", 60)
    threading.Timer(0.1, os.write, (write_end, b"x")).start()  # as stop_fd() does at SIGTERM, which may come a little later
    session.on_down("the connection is gone")
    assert " info  gpu-worker: lost the scheduler" in capfd.readouterr().err


# ---- memory ----


@pytest.mark.parametrize(("name", "n"), [(MODEL, 600), ("bloom", 150), ("lfm2", 150), ("qwen3_5-text", 100), ("jamba", 100), ("minimax", 100)])
def test_slots_and_pages_come_and_go_and_nobody_reads_anothers(name, n):
    """A random life: admissions with and without a shared prefix, chunks, decodes, sequences that give way and return.
    Each one's log probabilities are those of its ids alone."""
    model = models.load(name)
    chance = random.Random(7)
    d = Driver(make_worker(model, probe.choose(model).way, n_pages=64, n_slots=6, n_states=7), seed=4)
    n_checked = made = 0
    for _ in range(n):
        alive = list(d.sequences)
        if len(alive) < 5 and chance.random() < 0.4 and len(d.free_pages) > 30:
            made += 1
            donors = [a for a in alive if d.sequences[a].n_done >= 9] if d.worker.reuses_prefixes else []
            if donors and chance.random() < 0.5:
                other = chance.choice(donors)
                at = chance.randrange(1, d.sequences[other].n_done // 4 + 1) * 4
                at = at if at < d.sequences[other].n_done else at - 4
                if d.worker.n_states:
                    at = max((n for s, n in d.kept.values() if s is d.sequences[other] and n <= at), default=0)
                if at:
                    d.admit(made, d.sequences[other].ids[:at] + ids_of(chance.randrange(1, 9), made), prefix=(other, at))
                    continue
            d.admit(made, ids_of(chance.randrange(1, 25), made))
        elif any(s.rows for s in d.sequences.values()) and (chance.random() < 0.1 or len(d.free_pages) < 16):
            gone = d.free(chance.choice([a for a in alive if d.sequences[a].rows]))
            assert error_of(gone, reference(model, gone.ids)) < (1e-3 if name == "qwen3_5-text" else 1e-4)
            n_checked += 1
        elif alive:
            rows = []
            for name_ in chance.sample(alive, chance.randrange(1, len(alive) + 1)):
                s = d.sequences[name_]
                rows.append((name_, chance.randrange(1, len(s.ids) - s.n_done + 1)))
            d.run(*rows)
    assert n_checked > n / 40


def resident_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096


def test_memory_does_not_grow_with_the_tokens_made():
    """A row of logits kept a token would be 12 MB here."""
    d = driver(want_all=False)
    held = []
    for turn in range(6):
        for i in range(4):
            d.admit(i, ids_of(12, turn), logprobs=True, top_logprobs=2)
        d.run(*[(i, 12) for i in range(4)])
        for _ in range(200):
            d.run(*[(i, 1) for i in range(4)])
        for i in range(4):
            d.free(i)
        held.append(resident_bytes())
    assert held[-1] - held[0] < 4 << 20, held


# ---- sampling ----


def sampled(d, name, ids, n, **sampling):
    d.admit(name, ids, **sampling)
    d.finish(name, n)
    return d.sequences[name].ids


def test_a_seed_gives_the_same_tokens_in_any_company():
    told = {"temperature": 1.0, "top_k": 40, "seed": 12}
    d = driver(want_all=False)
    alone = sampled(d, "alone", ids_of(10), 12, **told)
    d.admit("a", ids_of(10), **told)
    d.admit("b", ids_of(30, 8), temperature=0.7, seed=3)
    d.run(("b", 11), ("a", 10))
    while len(d.sequences["a"].ids) < 22:
        s = d.sequences["b"]
        d.run(("a", 1), ("b", min(5, len(s.ids) - s.n_done)))
    assert d.sequences["a"].ids == alone
    assert sampled(d, "c", ids_of(10), 12, **{**told, "seed": 13}) != alone


@pytest.mark.parametrize("penalty", [{"frequency_penalty": 0.7}, {"presence_penalty": 1.1}, {"repetition_penalty": 1.3}])
def test_penalties_count_what_was_said_before_giving_way(penalty):
    d = driver(want_all=False)
    told = {"temperature": 0.8, "seed": 5, **penalty}
    whole = sampled(d, "whole", ids_of(12), 24, **told)
    assert whole != sampled(d, "plain", ids_of(12), 24, temperature=0.8, seed=5), "the penalty does nothing here"
    d.free("whole"), d.free("plain")
    d.admit("back", whole[:25], n_prompt=12, **told)
    d.finish("back", 11)
    assert d.sequences["back"].ids == whole
    d.admit("owner", whole[:24])  # as after a cache hit: the outputs before n_cached come by output_ids
    d.run(("owner", 24))
    d.admit("hit", whole[:25], n_prompt=12, prefix=("owner", 24), output_ids=whole[12:24], **told)
    d.finish("hit", 11)
    assert d.sequences["hit"].ids == whole


def test_greedy_is_the_largest_logit_and_its_log_probability():
    model = models.load(MODEL)
    d = driver()
    ids = sampled(d, "a", ids_of(14), 10)
    want = reference(model, ids)
    assert ids[14:] == [int(want[p - 1].argmax()) for p in range(14, len(ids))]


def test_a_bias_and_the_likeliest_ids():
    d = driver(want_all=False)
    d.admit("a", ids_of(8), logprobs=True, top_logprobs=5, bias_ids=[77], bias_values=[100.0])
    done = d.run(("a", 8))
    assert done.tokens[0] == 77 and done.tops[0].n_each == 5
    want = reference(models.load(MODEL), ids_of(8))[-1]
    assert list(done.tops[0].ids)[0] in (77, int(want.argmax()))
