"""--hf-fast-linear: the packed products give torch's logits, in the same bits whatever the batch; what they cannot do stays torch's."""

import copy

import numpy as np
import pytest
import torch
from banyan_hf_worker import fast_linear, probe

import models
from driver import Driver, error_of, make_worker, reference

IDS = [3, 77, 5, 120, 9, 300, 41, 8, 250, 11, 64, 99]


def fast(name, dtype="float32", **more):
    """A copy of a model with packed products, and the report."""
    model = copy.deepcopy(models.load(name, dtype))
    return model, fast_linear.use(model, 1, **more)


@pytest.mark.both_lines
@pytest.mark.parametrize("name", ["llama-gqa", "llama-tied", "gpt2", "llama-mqa-bias-headdim", "lfm2"])
def test_its_logits_are_torchs(name):
    model, report = fast(name)
    assert report.n_packed > 4 and not report.kept and fast_linear.is_whole(model)
    verdict = probe.choose(model)
    assert verdict.way.tier == ("A" if name != "lfm2" else models.tier_of(name))
    d = Driver(make_worker(model, verdict.way))
    d.admit("a", IDS)
    d.run(("a", 7))
    d.finish("a", 4)
    assert error_of(d.sequences["a"], reference(models.load(name), d.sequences["a"].ids)) < 1e-4


def test_bf16_is_as_near_as_torchs_own():
    model, report = fast("llama-gqa", "bfloat16")
    assert report.n_packed > 4 and not report.kept
    plain, exact = models.load("llama-gqa", "bfloat16"), models.load("llama-gqa")
    want = reference(exact, IDS)
    ours, torchs = (np.abs(reference(m, IDS) - want).max() for m in (model, plain))
    assert 0 < ours < 2 * torchs


def test_a_rows_bits_are_the_same_in_any_company():
    """DESIGN's promise of the same bytes, which torch's products do not keep."""
    model, _ = fast("llama-gqa")
    seen = []
    for n_others in (0, 1, 6):
        d = Driver(make_worker(model, "A"), seed=n_others)
        d.admit("a", IDS)
        for i in range(n_others):
            d.admit(i, IDS[i:] + IDS)
        d.run(("a", 5), *[(i, 9) for i in range(n_others)])
        for n in (7, 1, 1, 1):
            d.run(("a", n), *[(i, 1) for i in range(n_others)])
        rows = d.sequences["a"].rows
        seen.append(np.stack([rows[p] for p in sorted(rows)]))
    assert np.array_equal(seen[0], seen[1]) and np.array_equal(seen[0], seen[2])


def test_a_module_that_fails_its_check_keeps_torchs_product():
    model, report = fast("llama-gqa", bound=1e-12)
    assert len(report.kept) > 4 and "ours differs by" in str(report)
    assert np.abs(reference(model, IDS) - reference(models.load("llama-gqa"), IDS)).max() < 1e-4
    plain = copy.deepcopy(models.load("llama-gqa"))
    plain.lm_head.weight.data = plain.lm_head.weight.data.half()
    assert list(fast_linear.use(plain, 1).kept) == ["lm_head"]


def test_code_that_reads_a_weight_past_its_module_is_found_out():
    model, _ = fast("llama-gqa")
    layer = model.model.layers[0].mlp
    layer.forward = lambda x: layer.down_proj(torch.relu(torch.nn.functional.linear(x, layer.up_proj.weight)))
    assert not fast_linear.is_whole(model)


def test_its_memory_is_not_held_twice():
    model, _ = fast("llama-gqa")
    gone = [m for m in model.modules() if type(m) is torch.nn.Linear]
    assert gone and all(m.weight.untyped_storage().nbytes() <= 4 and m.weight.shape == (m.out_features, m.in_features) for m in gone)
    tied, _ = fast("llama-tied")
    assert tied.lm_head.weight is tied.get_input_embeddings().weight
    assert torch.isfinite(tied.lm_head.weight).all()


def test_rows_of_the_wrong_width_or_type_are_refused():
    model, _ = fast("llama-gqa")
    for x in (torch.zeros(2, 63), torch.zeros(2, 64, dtype=torch.bfloat16)):
        with pytest.raises(RuntimeError, match="a product of 64"):
            model.model.layers[0].self_attn.q_proj(x)
