"""Both kernels, in C and in torch, against a slow twin: every feature, all float types, strided queries, pages anywhere."""

import itertools

import numpy as np
import pytest
import torch
from banyan_hf_worker import attention, attention_torch
from banyan_hf_worker.batch import Batch

SHAPES = [  # query heads, kv heads, k dim, v dim, page size
    (4, 2, 16, 16, 4), (4, 1, 64, 64, 16), (3, 3, 24, 16, 1), (8, 2, 96, 128, 16), (16, 16, 192, 128, 5), (2, 1, 576, 512, 16),
]
FEATURES = [{}, {"window": 7}, {"softcap": 5.0}, {"chunk": 8}, {"sinks": True}, {"window": 9, "softcap": 3.0, "sinks": True}]


def case(shape, dtype, seed):
    """A batch of a decode, a chunk behind a stored prefix and a whole prompt, over a pool whose unused slots are NaN."""
    n_q, n_kv, k_dim, v_dim, page = shape
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    rows, order, at = [], random.permutation(200), 0
    for n_new, n_done in ((1, 70), (9, 31), (40, 0), (1, 0)):
        n_pages = -(-(n_new + n_done) // page)
        rows.append((np.zeros(n_new, np.int64), n_done, order[at : at + n_pages], {}))
        at += n_pages
    batch = Batch(rows, page)
    keys, values = (torch.full((201 * page, n_kv, dim), float("nan"), dtype=dtype) for dim in (k_dim, v_dim))
    for i in range(len(batch)):
        slots = batch.slots(i)
        keys[slots] = torch.randn(len(slots), n_kv, k_dim).to(dtype)
        values[slots] = torch.randn(len(slots), n_kv, v_dim).to(dtype)
    keys[:page] = values[:page] = 0  # trash
    query = torch.randn(n_q, batch.n_tokens, k_dim).to(dtype).transpose(0, 1)  # as transformers hands it over: strided
    return query, keys, values, batch


def attend(plan_of, query, keys, values, batch, *, scale=1.0, window=0, softcap=0.0, sinks=None, chunk=0):
    return plan_of(keys, values, query.shape[1], (scale, window, softcap, chunk)).run(query, batch, sinks)


def twin(query, keys, values, batch, *, scale, window=0, softcap=0.0, sinks=None, chunk=0):
    """Each sequence by itself, in float32."""
    outs = []
    group = query.shape[1] // keys.shape[1]
    for i in range(len(batch)):
        q = query[int(batch.q_start[i]) : int(batch.q_start[i + 1])].float().transpose(0, 1)
        slots = batch.slots(i)
        k = keys[slots].float().repeat_interleave(group, 1).permute(1, 2, 0)
        v = values[slots].float().repeat_interleave(group, 1).transpose(0, 1)
        scores = (q @ k) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        own = torch.arange(int(batch.kv_len[i]) - q.shape[1], int(batch.kv_len[i]))[:, None]
        seen = torch.arange(int(batch.kv_len[i]))[None]
        hidden = seen > own
        if window:
            hidden |= own - seen >= window
        if chunk:
            hidden |= seen < own // chunk * chunk
        scores = scores.masked_fill(hidden, float("-inf"))
        if sinks is not None:
            column = sinks.float().reshape(-1, 1, 1).expand(-1, scores.shape[1], 1)
            weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
        else:
            weights = scores.softmax(-1)
        outs.append((weights @ v).transpose(0, 1))
    return torch.cat(outs).to(query.dtype)


PLANS = {"c-f32": (attention.Plan, torch.float32), "c-bf16": (attention.Plan, torch.bfloat16),
         "torch-f32": (attention_torch.Plan, torch.float32), "torch-bf16": (attention_torch.Plan, torch.bfloat16),
         "torch-f16": (attention_torch.Plan, torch.float16)}


@pytest.mark.parametrize(("plan", "dtype"), PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_kernel_equals_its_twin(shape, plan, dtype):
    query, keys, values, batch = case(shape, dtype, 1)
    for feature in FEATURES:
        told = {"scale": shape[2] ** -0.5, **feature, "sinks": torch.randn(shape[0]) if feature.get("sinks") else None}
        far = {"atol": 2e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02}
        torch.testing.assert_close(attend(plan, query, keys, values, batch, **told), twin(query, keys, values, batch, **told), **far)


@pytest.mark.parametrize("feature", FEATURES, ids=str)
@pytest.mark.parametrize(("slots", "scores"), [(1, 1), (64, 900), (100, 10**6)], ids=str)
def test_parts_of_any_size_give_the_same(monkeypatch, slots, scores, feature):
    """Chunks are cut, and sequences run alone or together: as memory would have it."""
    shape = (8, 2, 32, 32, 4)
    query, keys, values, batch = case(shape, torch.float32, 4)
    slot_bytes = keys[0].nbytes + values[0].nbytes
    monkeypatch.setattr(attention_torch, "GATHERED_BYTES", slots * slot_bytes)
    monkeypatch.setattr(attention_torch, "SCORES_MAX", scores)
    told = {"scale": 0.2, **feature, "sinks": torch.randn(8) if feature.get("sinks") else None}
    got = attend(attention_torch.Plan, query, keys, values, batch, **told)
    torch.testing.assert_close(got, twin(query, keys, values, batch, **told), atol=2e-6, rtol=1e-5)
    (parts,) = batch.shared.values()
    assert all(part.slots.numel() <= slots + 15 * part.rows.numel() // part.n or part.rows.numel() == part.n for part in parts)
    assert scores > 1 or all(part.n == 1 for part in parts)


def test_like_sequences_run_side_by_side_and_only_once_cut_for_all_layers():
    random = np.random.default_rng(5)
    rows = [(np.zeros(1, np.int64), n, random.permutation(40)[:20], {}) for n in (33, 40, 60, 62, 300)]
    batch = Batch(rows, 16)
    keys, values = torch.randn(41 * 16, 2, 8), torch.randn(41 * 16, 2, 8)
    query = torch.randn(5, 4, 8)
    for _ in range(3):
        attend(attention_torch.Plan, query, keys, values, batch, scale=0.3)
    (parts,) = batch.shared.values()
    assert sorted(part.rows.numel() for part in parts) == [1, 4]
    attend(attention_torch.Plan, query, keys, values, batch, scale=0.3, window=9)
    assert sorted(part.slots.numel() for part in batch.shared[next(k for k in batch.shared if k.window)]) == [45]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_a_row_is_the_same_in_any_batch_and_on_any_number_of_threads(dtype):
    query, keys, values, batch = case((8, 2, 64, 64, 16), dtype, 2)
    told = {"scale": 0.125}
    whole = attend(attention.Plan, query, keys, values, batch, **told)
    for threads, i in itertools.product((1, 3), range(len(batch))):
        attention.context.n_threads = threads
        one = Batch([batch.rows[i]], 16)
        rows = slice(int(batch.q_start[i]), int(batch.q_start[i + 1]))
        assert torch.equal(attend(attention.Plan, query[rows], keys, values, one, **told), whole[rows])
    attention.context.n_threads = 0


def test_sizes_that_make_no_sense_are_refused():
    query, keys, values, batch = case((4, 2, 16, 16, 4), torch.float32, 3)
    with pytest.raises(attention.Unsupported):
        attend(attention.Plan, query[:, :3], keys, values, batch)
    batch.kv_len += 100000
    with pytest.raises(attention.Unsupported):
        attend(attention.Plan, query, keys, values, batch)
