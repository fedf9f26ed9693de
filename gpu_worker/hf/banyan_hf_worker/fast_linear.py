"""--hf-fast-linear: the native worker's packed products in the place of torch's, for nn.Linear and GPT-2's Conv1D.

    load ─▶ pack a module's weight ─▶ is its product torch's, on rows of noise? ─▶ yes: its forward is ours from now on
                                                                               └─▶ no: it keeps torch's; the log says so
    fused.py before that: products of one input in one call, feed-forwards whole, and the norms and rotations between them

Torch's own copy of the weight, unless another module shares it, becomes NaN of no size: code that reads the weight past
the module gives NaN, which is seen at load, never an old number. A row of a product depends on that row alone, whatever
the batch.
"""

import ctypes
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from transformers.pytorch_utils import Conv1D

from . import fused, kernels, layers

DTYPES = {torch.float32: kernels.F32, torch.bfloat16: kernels.BF16}
# Largest difference from torch's product over its largest number: another order of sums; bf16 results are rounded besides.
BOUND = {torch.float32: 2e-5, torch.bfloat16: 0.01}
N_ROWS = 3  # of noise


@dataclass
class Report:
    """What became of a model's linear modules."""

    n_packed: int = 0
    fused: dict = field(default_factory=dict)  # what of fused.py -> how many modules
    kept: dict = field(default_factory=dict)  # name -> why torch's product stays

    def __str__(self):
        text = f"{self.n_packed} linear modules packed"
        text += "".join(f", {n} {what}" for what, n in self.fused.items())
        names = sorted(self.kept)
        for name in names[:3]:
            text += f"; {name} keeps torch's product ({self.kept[name]})"
        return text + (f"; and {len(names) - 3} more" if len(names) > 3 else "")


class Packed:
    """Weights [n_out, n_in] of one input in the kernels' form, one below the other, and their product; with an act of
    kernels.ACTS there are two, and it is act(first) * second."""

    def __init__(self, lib, team, matrices, act=kernels.NO_ACT):
        """matrices: (weight, bias or None) each."""
        weights = [w for w, _ in matrices]
        self.n_in, self.dtype, self._lib, self._run = weights[0].shape[1], weights[0].dtype, lib, lib.banyan_linear_run
        n_out = sum(w.shape[0] for w in weights)
        self.n_out = n_out // 2 if act else n_out
        parts = (kernels.Matrix * len(weights))(*[
            kernels.Matrix(w=w.data_ptr(), out_stride=w.stride(0), in_stride=w.stride(1), n_out=w.shape[0], n_in=w.shape[1],
                           dtype=DTYPES[w.dtype]) for w in weights])
        bias = None
        if any(b is not None for _, b in matrices):
            bias = torch.cat([torch.zeros(w.shape[0]) if b is None else b.detach().float() for w, b in matrices]).contiguous()
        self.handle = lib.banyan_linear_new(team, parts, len(weights), None if bias is None else bias.data_ptr(), act)
        if not self.handle:
            raise MemoryError(f"no memory to pack {n_out} x {self.n_in}")

    def __call__(self, x):
        if x.dtype is not self.dtype or x.shape[-1] != self.n_in:
            raise RuntimeError(f"a product of {self.n_in} {self.dtype} columns got {tuple(x.shape)} of {x.dtype}")
        out = torch.empty((*x.shape[:-1], self.n_out), dtype=self.dtype)
        x = x.contiguous()
        if self._run(self.handle, x.data_ptr(), out.data_ptr(), out.numel() // self.n_out):
            raise MemoryError(f"no memory for a product of {out.numel() // self.n_out} rows")
        return out

    def __deepcopy__(self, memo):
        return self  # nothing of it changes

    def free(self):
        """One that failed its check."""
        self._lib.banyan_linear_free(self.handle)
        self.handle = None


def matrix_of(module):
    """(weight [n_out, n_in], bias) of a module that is a linear one and nothing else; None for all others."""
    if type(module) is torch.nn.Linear:
        return module.weight, module.bias
    if type(module) is Conv1D:
        return module.weight.T, module.bias
    return None


def difference(packed, weight, bias):
    """Of the product from torch's own, relative to its largest number."""
    x = torch.randn((N_ROWS, packed.n_in), generator=torch.Generator().manual_seed(packed.n_in)).to(packed.dtype)
    want = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
    got = packed(x).float()
    if not got.isfinite().all():
        return float("inf")
    return float((got - want).abs().max() / want.abs().max().clamp_min(1e-30))


@torch.inference_mode()
def use(model, n_threads=0, bound=None):
    """Packs every linear module that passes the check; a Report. On the CPU only."""
    lib = kernels.load()
    team = lib.banyan_team_new(n_threads)
    if not team:
        raise MemoryError("the threads of --hf-fast-linear could not be started")
    users = {}  # of each parameter
    for _, parameter in model.named_parameters(remove_duplicate=False):
        users[id(parameter)] = users.get(id(parameter), 0) + 1
    report, made = Report(), {}
    fused.use(model, lib, team, users, report, bound)
    for name, module in model.named_modules():
        found = matrix_of(module)
        if found is None or hasattr(module, "banyan_fused"):
            continue
        weight, bias = found
        if weight.dtype not in DTYPES or weight.device.type != "cpu":
            report.kept[name] = f"{weight.dtype} on {weight.device.type}"
            continue
        is_shared = users[id(module.weight)] > 1
        key = (id(module.weight), id(bias))
        packed = made.get(key) or Packed(lib, team, [found])
        far = difference(packed, weight, bias)
        if not far <= (bound or BOUND[weight.dtype]):
            report.kept[name] = f"ours differs by {far:.2g}"
            packed.free()
            continue
        take_over(module, packed)
        if is_shared:
            made[key] = packed
        else:
            module.weight = no_memory(module.weight)
        report.n_packed += 1
    layers.use(model, lib, report, bound)
    return report


def take_over(module, packed):
    """The module's product is ours from now on; one that ranks share keeps what it does around the product."""
    if hasattr(module, "banyan_product"):
        module.banyan_product = packed
    else:
        module.forward = packed


def no_memory(weight):
    """A parameter of the same shape and type that is one NaN."""
    return torch.nn.Parameter(torch.full((1, 1), float("nan"), dtype=weight.dtype).expand(weight.shape), requires_grad=False)


@torch.inference_mode()
def is_whole(model):
    """Does the model compute without the weights that are gone?"""
    logits = model(input_ids=torch.tensor([[3, 4, 5]]), use_cache=False).logits
    return bool(logits.isfinite().all())

