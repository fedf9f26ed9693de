"""Requests that keep state (tiers C and D): what runs when, what a call that fails leaves, whose state is whose, who starts
from another's."""

import numpy as np
import pytest
import torch
from banyan_hf_worker import probe, recurrent
from banyan_hf_worker.batch import Batch
from banyan_hf_worker.pool import Pool
from banyan_hf_worker.runner import Runner

import models
from driver import Driver, make_worker, prompts, reference

pytestmark = pytest.mark.both_lines
NAMES = ["lfm2", "qwen3_5-text", "falcon-h1", "jamba", "mamba", "minimax", "rwkv"]


@pytest.fixture
def calls(monkeypatch):
    """(sequences, tokens) of each call of a model, by Runner.call."""
    seen, real = [], Runner.call

    def call(self, ids, *args, **more):
        seen.append(tuple(ids.shape))
        return real(self, ids, *args, **more)

    monkeypatch.setattr(Runner, "call", call)
    return seen


def greedy(model, ids, n):
    ids = list(ids)
    for _ in range(n):
        ids.append(int(reference(model, ids)[-1].argmax()))
    return ids


def driver_of(name):
    model = models.load(name)
    way = probe.choose(model).way
    return model, way, Driver(make_worker(model, way), want_all=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_in_chunks_costs_one_pass(name, calls):
    """In pieces as they come; or at the end all at once, and not the beginning anew for each."""
    model, way, d = driver_of(name)
    prompt = prompts(d.worker.n_vocab)[0][:30]
    d.admit("a", prompt)
    calls.clear()
    for n in (11, 12, 7):
        d.run(("a", n))
    assert calls[:3] == ([(1, 30)] if way.whole and not d.worker.runner.prepares else [(1, 30)] * 2 if way.whole else [(1, 11), (1, 12), (1, 7)])
    calls.clear()
    assert d.finish("a", 5) and d.sequences["a"].ids == greedy(model, prompt, 6)
    assert calls == [(1, 1)] * 5


@pytest.mark.parametrize("name", NAMES)
def test_decodes_run_together_where_their_states_can(name, calls):
    model, way, d = driver_of(name)
    ids = prompts(d.worker.n_vocab)[:3]
    for i, prompt in enumerate(ids):
        d.admit(i, prompt)
        d.run((i, len(prompt)))
    calls.clear()
    for _ in range(3):
        d.run((0, 1), (1, 1), (2, 1))
    assert calls == [(1, 1)] * 9 if way.apart else calls == [(3, 1)] * 3
    for rows in (((1, 1),), ((0, 1), (1, 1), (2, 1)), ((2, 1), (0, 1)), ((0, 1), (1, 1), (2, 1))):  # one goes on alone, all again
        d.run(*rows)
    for i, prompt in enumerate(ids):
        assert d.sequences[i].ids == greedy(model, prompt, len(d.sequences[i].ids) - len(prompt))


@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_fails_half_way_leaves_no_state_behind(name):
    """Its tokens run again in the next step: from the start, since some layers have seen them."""
    model = models.load(name)
    runner, prompt = Runner(model, probe.choose(model).way, Pool(32, 4, poison=True)), prompts(600)[0]
    others = prompts(600)[1]
    state, beside, pages = {}, {}, list(range(32))

    def step(*rows):
        batch = Batch([(ids[a:b], a, p, s) for ids, a, b, p, s in rows], 4)
        return runner.logits(batch, np.arange(batch.n_tokens)).log_softmax(-1).numpy()

    def mine(a, b):
        return prompt, a, b, pages[:16], state

    def its(a, b):
        return others, a, b, pages[16:], beside

    step(mine(0, 20), its(0, 9))
    last = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)][0][-1]

    def fail(*args):
        raise RuntimeError("half way")

    for rows in ((mine(20, 21), its(9, 10)), (mine(20, 28),)):
        hook = last.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="half way"):
            step(*rows)
        hook.remove()
    got, want = step(mine(20, 28), its(9, 10)), reference(model, prompt[:28])[20:28]
    assert np.abs(got[:8] - want).max() < 1e-3
    assert np.abs(got[8] - reference(model, others[:10])[9]).max() < 1e-3


# ---- states that are kept ----

KEEP = ["lfm2", "qwen3_5-text", "falcon-h1"]  # jamba and mamba forget theirs when several tokens come, minimax and rwkv have caches of their own


def keeping(name):
    model = models.load(name)
    verdict = probe.choose(model)
    if not verdict.way.keeps_states:
        pytest.skip(f"here it is {verdict}")
    return model, verdict, Driver(make_worker(model, verdict.way, n_states=20), want_all=False)


@pytest.mark.parametrize("name", NAMES)
def test_who_can_keep_states_is_told_by_the_way(name):
    verdict = probe.choose(models.load(name))
    assert verdict.way.keeps_states == bool(verdict.state_bytes) == (name in KEEP and verdict.way.tier == "C")
    in_pool = sum(heads * (k_dim + v_dim) * 4 for heads, k_dim, v_dim, _ in verdict.shapes.values())
    assert verdict.bytes_per_slot == in_pool + verdict.n_beside and (in_pool > 0) == (verdict.way.tier == "C" and name != "mamba")


@pytest.mark.parametrize("name", KEEP)
def test_a_state_is_read_any_number_of_times(name, calls):
    """Behind 32 tokens of one that goes on: those who start there are as if they had begun at 0, and cost the rest alone."""
    model, verdict, d = keeping(name)
    first = prompts(d.worker.n_vocab)[0][:40]
    d.admit("a", first)
    calls.clear()
    d.run(("a", 40))
    assert calls == [(1, 16), (1, 16), (1, 8)]  # where the driver keeps one
    d.finish("a", 8)
    assert recurrent.bytes_of(d.worker.states[1]) == verdict.state_bytes
    for i in range(3):
        ids = first[:32] + [50 + i] * 5
        calls.clear()
        d.admit(i, ids, prefix=("a", 32))
        d.finish(i, 4)
        assert calls[0] == (1, 5) and d.sequences[i].ids == greedy(model, ids, 4)
    assert d.sequences["a"].ids == greedy(model, first, len(d.sequences["a"].ids) - 40)


@pytest.mark.parametrize("name", KEEP)
def test_decodes_side_by_side_keep_each_its_own(name):
    model, _, d = keeping(name)
    ids = [p[:30] for p in prompts(d.worker.n_vocab)[:3]]
    for i, prompt in enumerate(ids):
        d.admit(i, prompt)
        d.run((i, 30))
    for _ in range(6):
        d.run((2, 1), (0, 1), (1, 1))  # at 32 the states of all three lie in one cache
    for i in range(3):
        so_far = d.sequences[i].ids[:32]
        d.admit(10 + i, so_far + [77] * 4, prefix=(i, 32))
        d.finish(10 + i, 3)
        assert d.sequences[10 + i].ids == greedy(model, so_far + [77] * 4, 3)


@pytest.mark.parametrize("name", KEEP)
def test_a_failed_call_leaves_who_started_from_a_state_without_one(name):
    """What came before it is not known to the worker: its row fails until the scheduler begins it anew, its neighbour's does not."""
    model, _, d = keeping(name)
    first = prompts(d.worker.n_vocab)[0][:40]
    d.admit("a", first)
    d.run(("a", 40))
    d.admit("b", first[:32] + [50] * 5, prefix=("a", 32))
    d.run(("b", 5))
    last = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)][0][-1]

    def fail(*args):
        raise RuntimeError("half way")

    hook = last.register_forward_pre_hook(fail)
    step = d.frame(("b", 1), ("a", 1))
    assert "half way" in d.worker.step(step).error
    hook.remove()
    step.step, d.step = step.step + 1, step.step + 1  # as the next one in flight
    step.append_slots, step.append_pages, step.keep_slots, step.keep_at, step.keep_states = [], [], [], [], []
    done = d.worker.step(step)
    assert done.code == 0 and list(done.failed_slots) == [d.sequences["b"].slot]
    assert done.tokens[1] == greedy(model, d.sequences["a"].ids, 1)[-1]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_running_request_has_is_measured(name):
    """Outside of the pool, whatever its length; twice where states lie side by side, since the company is made anew beside the old one."""
    model = models.load(name)
    verdict = probe.choose(model)
    d = Driver(make_worker(model, verdict.way), want_all=False)
    for i, prompt in enumerate(prompts(d.worker.n_vocab)[:3]):
        d.admit(i, prompt[:30])
        d.run((i, 30))
        mine = recurrent.bytes_of_caches([d.worker.slots[d.sequences[i].slot].state])
        n_times = 2 if verdict.way.tier == "C" and not verdict.way.apart else 1
        assert verdict.running_bytes > 0 and n_times * (mine - 30 * verdict.n_beside) == verdict.running_bytes
