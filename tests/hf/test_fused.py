"""What --hf-fast-linear takes over beyond single products: each piece equals its module, and what is odd keeps its own code."""

import copy
from collections import Counter

import pytest
import torch
from banyan_hf_worker import attention, fast_linear, fused, kernels, layers
from transformers.activations import ACT2FN

import models
from driver import Driver, error_of, make_worker, prompts, reference, scenarios

F32, BF16 = torch.float32, torch.bfloat16
DTYPES = pytest.mark.parametrize("dtype", [F32, BF16], ids=["f32", "bf16"])
BOUND = {F32: 2e-5, BF16: 0.03}  # bf16: torch rounds between the products, and we do not


def noise(*shape, dtype=F32, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def far(got, want):
    return float((got.float() - want.float()).abs().max() / want.float().abs().max())


@pytest.fixture(autouse=True)
def same_weights_each_time():
    torch.manual_seed(7)


class Mlp(torch.nn.Module):
    def __init__(self, act, bias=False, twice=1.0):
        super().__init__()
        self.gate_proj, self.up_proj = (torch.nn.Linear(48, 80, bias=bias) for _ in range(2))
        self.down_proj, self.act_fn, self.twice = torch.nn.Linear(80, 48, bias=bias), ACT2FN[act], twice

    def forward(self, x):
        return self.twice * self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class Qkv(torch.nn.Module):
    def __init__(self, bias, wide=64):
        super().__init__()
        self.q_proj = torch.nn.Linear(48, 64, bias=bias)
        self.k_proj, self.v_proj = torch.nn.Linear(48, 32, bias=bias), torch.nn.Linear(wide, 32, bias=bias)

    def forward(self, x):
        return torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], -1)


class RMSNorm(torch.nn.Module):
    def __init__(self, dtype, plus=0.0, is_early=True, power=2):
        super().__init__()
        self.weight, self.eps, self.plus = torch.nn.Parameter(noise(48, dtype=dtype, seed=9)), 1e-6, plus
        self.is_early, self.power = is_early, power

    def forward(self, x):
        y = x.float() * torch.rsqrt(x.float().abs().pow(self.power).mean(-1, keepdim=True) + self.eps)
        w = self.weight.float() + self.plus
        return (w * y.to(x.dtype).float()).to(x.dtype) if self.is_early else (y * w).to(x.dtype)


def maker(model, bound=None):
    lib = kernels.load()
    return fused._Maker(lib, lib.banyan_team_new(1), Counter(id(p) for p in model.parameters()), bound)


@torch.inference_mode()
def taken(piece, model, x):
    """(what the module gave, what it gives now that piece, a method of the maker, took it over)."""
    want = model(x)
    assert getattr(maker(model, None if piece == "norm" else BOUND[x.dtype]), piece)(model)
    return model(x), want


# ---- pieces that are theirs ----


@DTYPES
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("act", ["silu", "gelu", "gelu_pytorch_tanh", "relu", "relu2", "quick_gelu"])
def test_a_feed_forward(act, bias, dtype):
    got, want = taken("feed_forward", Mlp(act, bias).to(dtype), noise(1, 7, 48, dtype=dtype, seed=3))
    assert got.dtype is dtype and far(got, want) <= BOUND[dtype]


@DTYPES
@pytest.mark.parametrize("bias", [False, True])
def test_queries_keys_and_values(bias, dtype):
    model = Qkv(bias, 48).to(dtype)
    got, want = taken("qkv", model, noise(1, 5, 48, dtype=dtype, seed=4))
    assert far(got, want) <= BOUND[dtype]
    for seed in (5, 6):  # another input is another product
        x = noise(1, 5, 48, dtype=dtype, seed=seed)
        assert torch.equal(model(x), model(x.clone())) and not torch.equal(model(x), got)


@DTYPES
@pytest.mark.parametrize(("plus", "is_early"), [(0.0, True), (1.0, False), (1.0, True), (0.0, False)])
def test_norms(plus, is_early, dtype):
    got, want = taken("norm", RMSNorm(dtype, plus, is_early), noise(1, 6, 48, dtype=dtype, seed=8) * 20)
    assert far(got, want) <= fused.NORM_BOUND[dtype]


@DTYPES
def test_rotations_to_the_bit(dtype):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as code

    theirs = getattr(code, "banyan_theirs", code)  # of a model that another test has loaded
    q, k = noise(1, 4, 9, 16, dtype=dtype), noise(1, 2, 9, 16, dtype=dtype, seed=2)
    cos, sin = noise(1, 9, 16, dtype=dtype, seed=3), noise(1, 9, 16, dtype=dtype, seed=4)
    ours = fused.Rope(kernels.load())
    assert ours.takes(q, k, cos, sin) and all(map(torch.equal, ours(q, k, cos, sin), theirs(q, k, cos, sin)))
    for odd in ((q.half(), k, cos, sin), (q.repeat(2, 1, 1, 1), k, cos, sin), (q, k, cos[..., :8], sin[..., :8])):
        assert not ours.takes(*odd)


# ---- pieces that stay ----


def left_alone(piece, model):
    before = {name: module.__dict__.get("forward") for name, module in model.named_modules()}
    assert not getattr(maker(model), piece)(model)
    assert before == {name: module.__dict__.get("forward") for name, module in model.named_modules()}
    assert all(p.isfinite().all() for p in model.parameters())


@torch.inference_mode()
def test_an_odd_feed_forward_stays():
    left_alone("feed_forward", Mlp("mish"))
    left_alone("feed_forward", Mlp("silu", twice=2.0))
    shared = Mlp("silu")
    shared.up_proj.weight = shared.gate_proj.weight
    assert not fused._Maker(kernels.load(), None, {id(shared.up_proj.weight): 2}, None).feed_forward(shared)
    left_alone("feed_forward", Mlp("silu").half())
    mixed = Mlp("silu")
    mixed.down_proj.bfloat16()
    left_alone("feed_forward", mixed)


@torch.inference_mode()
def test_a_hook_within_a_feed_forward_is_called_still():
    model, seen = Mlp("silu"), []
    model.down_proj.register_forward_hook(lambda *call: seen.append(1))
    left_alone("feed_forward", model)
    model(noise(1, 2, 48))
    assert seen


@torch.inference_mode()
def test_odd_queries_and_norms_stay():
    left_alone("qkv", Qkv(False, 64))
    left_alone("norm", RMSNorm(F32, power=3))
    left_alone("norm", RMSNorm(F32, plus=0.5))
    left_alone("norm", torch.nn.LayerNorm(48))


# ---- whole layers ----


def fast(name, dtype="float32", **more):
    model = copy.deepcopy(models.load(name, dtype))
    return model, fast_linear.use(model, **{"n_threads": 1, **more})


@pytest.mark.both_lines
@pytest.mark.parametrize("name", ["llama-gqa", "llama-mqa-bias-headdim", "llama-rope-yarn", "mistral-swa", "qwen2", "qwen3", "smollm3"])
def test_whole_layers_give_the_log_probabilities_in_every_way_of_serving(name):
    model, report = fast(name)
    assert report.fused["layers whole"] == model.config.num_hidden_layers
    d = Driver(make_worker(model, "A"))
    for what, sequences in scenarios(d, prompts(d.worker.n_vocab), True).items():
        assert max(error_of(s, reference(models.load(name), s.ids)) for s in sequences) <= 1e-4, what


@pytest.mark.parametrize("name", ["gemma2", "olmo2", "cohere", "granite", "helium", "mixtral", "gpt-oss", "glm4", "starcoder2"])
def test_layers_of_another_make_keep_their_code_or_answer_the_same(name):
    model, report = fast(name)
    d = Driver(make_worker(model, "A"))
    sequences = scenarios(d, prompts(d.worker.n_vocab), True)["mixed steps"]
    assert max(error_of(s, reference(models.load(name), s.ids)) for s in sequences) <= 1e-4, str(report)
    if name in ("gemma2", "olmo2", "mixtral", "gpt-oss", "granite"):
        assert "layers whole" not in report.fused


def test_a_window_is_the_calls_not_a_guess():
    """Without it the answers are others: what the layer was told is what it runs with."""
    model, _ = fast("mistral-swa")
    for layer in model.model.layers:
        assert layer.forward.told[1] > 0
        layer.forward._call.attention.window = 0
    d = Driver(make_worker(model, "A"))
    sequences = scenarios(d, prompts(d.worker.n_vocab), True)["mixed steps"]
    assert max(error_of(s, reference(models.load("mistral-swa"), s.ids)) for s in sequences) > 1e-2


def test_whole_layers_have_the_same_bits_on_any_number_of_threads():
    rows = []
    for n_threads in (1, 2):
        model, report = fast("llama-gqa", n_threads=n_threads)
        assert "layers whole" in report.fused
        d = Driver(make_worker(model, "A"))
        scenarios(d, prompts(d.worker.n_vocab), True)
        rows.append({name: s.rows for name, s in d.sequences.items()})
    assert all((rows[0][name][p] == rows[1][name][p]).all() for name in rows[0] for p in rows[0][name])


def test_layers_of_bf16_are_no_farther_from_the_truth_than_torchs():
    import numpy as np

    model, report = fast("llama-gqa", "bfloat16")
    assert report.fused["layers whole"] == model.config.num_hidden_layers
    ids = prompts(640)[0]
    want = reference(models.load("llama-gqa"), ids)
    d = Driver(make_worker(model, "A"))
    d.admit("a", ids)
    d.run(("a", len(ids)))
    ours = max(np.abs(row - want[p - 1]).max() for p, row in d.sequences["a"].rows.items())
    torchs = np.abs(reference(models.load("llama-gqa", "bfloat16"), ids) - want).max()
    assert 0 < ours < 1.5 * torchs


def test_a_layer_that_does_more_keeps_its_code():
    model = copy.deepcopy(models.load("llama-gqa"))
    first, theirs = model.model.layers[0], type(model.model.layers[0]).forward

    class Doubled(type(first)):
        def forward(self, *args, **said):
            return 2 * theirs(self, *args, **said)

    first.__class__ = Doubled
    seen = []
    model.model.layers[1].self_attn.register_forward_hook(lambda *call: seen.append(1))
    report = fast_linear.use(model, 1)
    assert report.fused.get("layers whole", 0) == model.config.num_hidden_layers - 2
    assert not any(isinstance(model.model.layers[i].forward, layers.Layer) for i in (0, 1))
    d = Driver(make_worker(model, "A"))
    d.admit("a", [5, 6, 7])
    seen.clear()
    d.run(("a", 3))
    assert seen


def test_a_call_that_is_not_a_step_by_pages_is_the_layers_own():
    model, _ = fast("llama-gqa")
    layer = model.model.layers[0].forward
    x, angles = noise(1, 2, 64), (noise(1, 2, 16), noise(1, 2, 16))
    assert not layer.takes(x, position_embeddings=angles)  # no step is running
    attention.context.batch, attention.context.turns = type("Two", (), {"n_tokens": 2}), True
    try:
        assert layer.takes(x, position_embeddings=angles, use_cache=False, position_ids=torch.zeros(1, 2))
        for odd in (dict(attention_mask=x), dict(output_router_logits=True), dict(position_embeddings=None)):
            assert not layer.takes(x, **{"position_embeddings": angles, **odd})
        assert not layer.takes(noise(1, 3, 64), position_embeddings=angles)
        assert not layer.takes(x.bfloat16(), position_embeddings=angles)
    finally:
        attention.context.batch, attention.context.turns = None, False


def test_layers_that_fail_their_check_stay():
    _, report = fast("llama-gqa", bound=1e-12)
    assert not report.fused.get("layers whole")
