"""--hf-fast-linear: the native worker's packed products in the place of torch's, for nn.Linear and GPT-2's Conv1D.

    load ─▶ pack a module's weight ─▶ is its product torch's, on rows of noise? ─▶ yes: its forward is ours from now on
                                                                               └─▶ no: it keeps torch's; the log says so

Torch's own copy of the weight, unless another module shares it, becomes NaN of no size: code that reads the weight past
the module gives NaN, which is seen at load, never an old number. A row of a product depends on that row alone, whatever
the batch.
"""

import ctypes
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from transformers.pytorch_utils import Conv1D

from . import kernels

DTYPES = {torch.float32: kernels.F32, torch.bfloat16: kernels.BF16}
# Largest difference from torch's product over its largest number: another order of sums; bf16 results are rounded besides.
BOUND = {torch.float32: 2e-5, torch.bfloat16: 0.01}
N_ROWS = 3  # of noise


@dataclass
class Report:
    """What became of a model's linear modules."""

    n_packed: int = 0
    kept: dict = field(default_factory=dict)  # name -> why torch's product stays

    def __str__(self):
        text = f"{self.n_packed} linear modules packed"
        names = sorted(self.kept)
        for name in names[:3]:
            text += f"; {name} keeps torch's product ({self.kept[name]})"
        return text + (f"; and {len(names) - 3} more" if len(names) > 3 else "")


class Packed:
    """A weight [n_out, n_in] in the kernels' form, and its product."""

    def __init__(self, lib, team, weight, bias):
        self.n_out, self.n_in = weight.shape
        self.dtype, self._run = weight.dtype, lib.banyan_linear_run
        bias = None if bias is None else bias.detach().to(torch.float32).contiguous()
        matrix = kernels.Matrix(
            w=weight.data_ptr(), bias=None if bias is None else bias.data_ptr(), out_stride=weight.stride(0),
            in_stride=weight.stride(1), n_out=self.n_out, n_in=self.n_in, dtype=DTYPES[weight.dtype],
        )
        self._handle = lib.banyan_linear_new(team, ctypes.byref(matrix))
        if not self._handle:
            raise MemoryError(f"no memory to pack {self.n_out} x {self.n_in}")

    def __call__(self, x):
        if x.dtype is not self.dtype or x.shape[-1] != self.n_in:
            raise RuntimeError(f"a product of {self.n_in} {self.dtype} columns got {tuple(x.shape)} of {x.dtype}")
        out = torch.empty((*x.shape[:-1], self.n_out), dtype=self.dtype)
        x = x.contiguous()
        if self._run(self._handle, x.data_ptr(), out.data_ptr(), out.numel() // self.n_out):
            raise MemoryError(f"no memory for a product of {out.numel() // self.n_out} rows")
        return out


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
    for name, module in model.named_modules():
        found = matrix_of(module)
        if found is None:
            continue
        weight, bias = found
        if weight.dtype not in DTYPES or weight.device.type != "cpu":
            report.kept[name] = f"{weight.dtype} on {weight.device.type}"
            continue
        is_shared = users[id(module.weight)] > 1
        key = (id(module.weight), id(bias))
        packed = made.get(key) or Packed(lib, team, weight, bias)
        far = difference(packed, weight, bias)
        if not far <= (bound or BOUND[weight.dtype]):
            report.kept[name] = f"ours differs by {far:.2g}"
            continue
        take_over(module, packed)
        if is_shared:
            made[key] = packed
        else:
            module.weight = no_memory(module.weight)
        report.n_packed += 1
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

