"""The C kernel against its slow twin in torch: every feature, both float types, strided queries, pages anywhere."""

import itertools

import numpy as np
import pytest
import torch
from banyan_hf_worker import attention
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
    query = torch.randn(n_q, batch.n_tokens, k_dim).to(dtype).transpose(0, 1)  # as transformers hands it over: strided
    return query, keys, values, batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_equals_its_twin(shape, dtype):
    query, keys, values, batch = case(shape, dtype, 1)
    for feature in FEATURES:
        told = {"scale": shape[2] ** -0.5, "window": 0, "softcap": 0.0, "chunk": 0, **feature}
        told["sinks"] = torch.randn(shape[0]) if feature.get("sinks") else None
        got = attention.attend(query, keys, values, batch, **told)
        want = attention.attend_torch(query, keys, values, batch, **told)
        torch.testing.assert_close(got, want, atol=2e-6 if dtype == torch.float32 else 0.02, rtol=1e-5 if dtype == torch.float32 else 0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_a_row_is_the_same_in_any_batch_and_on_any_number_of_threads(dtype):
    query, keys, values, batch = case((8, 2, 64, 64, 16), dtype, 2)
    told = {"scale": 0.125, "window": 0, "softcap": 0.0, "chunk": 0, "sinks": None}
    whole = attention.attend(query, keys, values, batch, **told)
    for threads, i in itertools.product((1, 3), range(len(batch))):
        attention.context.n_threads = threads
        one = Batch([batch.rows[i]], 16)
        rows = slice(int(batch.q_start[i]), int(batch.q_start[i + 1]))
        assert torch.equal(attention.attend(query[rows], keys, values, one, **told), whole[rows])
    attention.context.n_threads = 0


def test_sizes_that_make_no_sense_are_refused():
    query, keys, values, batch = case((4, 2, 16, 16, 4), torch.float32, 3)
    told = {"scale": 1.0, "window": 0, "softcap": 0.0, "chunk": 0, "sinks": None}
    with pytest.raises(attention.Unsupported):
        attention.attend(query[:, :3], keys, values, batch, **told)
    batch.kv_len += 100000
    with pytest.raises(attention.Unsupported):
        attention.attend(query, keys, values, batch, **told)
