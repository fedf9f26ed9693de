"""Tensor parallel: a model over ranks, by the plan that transformers has of its class, in plain tensors.

    colwise          rows of the weight are shared out; each rank has its own columns of the result (its heads, its features)
    … gather         and all get them all           (colwise_rep, colwise_gather_output)
    rowwise          columns of the weight are shared out; the ranks' results are added up
    … split          each takes its columns of an input that all have      (rowwise_rep, rowwise_split_input)
    moe_tp_experts   the same two for a stack of experts, and one sum for all of them
    all else         stays whole on every rank

Each rank loads the whole model, keeps what the whole model says of a few tokens, and cuts its part out. The first step of
a session compares: a plan that is wrong is found out before it answers anybody. Sums run in the order of ranks in shared
memory (gpu_worker/tp.h), so all ranks hold the same bits and pick the same tokens.
"""

import re

import numpy as np
import torch
import torch.nn.functional as F

from . import kernels, probe
from .batch import Batch
from .pool import Pool

SILENT_MS = 60_000  # of a rank that lives; a dead one is noticed at once
GATHER = {"colwise_rep", "colwise_gather_output"}
SPLIT = {"rowwise_rep", "rowwise_split_input"}
LOCAL = {"local_rowwise", "local_colwise"}  # a parameter whose first dimension goes with the heads (gpt-oss's sinks)
N_CHECKED = 8  # tokens whose logits are compared


class GroupLost(RuntimeError):
    """Another rank is gone, or silent for too long; the session ends."""


class CannotSplit(RuntimeError):
    """This model does not go over so many ranks; the text says why."""


class Wrong(RuntimeError):
    """The ranks together do not say what the whole model said."""


class Ranks:
    """This rank's end of the group of a session."""

    def __init__(self, rank, world):
        self.rank, self.world = rank, world
        self._lib, self._group = kernels.load(), None

    @property
    def is_met(self):
        return self._group is not None

    def open(self):
        """Rank 0: a new group; the address for the others."""
        self.close()
        self._group = self._made(self._lib.banyan_group_open(self.world, SILENT_MS, why := kernels.why()), why)
        return self._lib.banyan_group_address(self._group).decode()

    def join(self, address):
        self.close()
        self._group = self._made(
            self._lib.banyan_group_join(address.encode(), self.rank, self.world, SILENT_MS, why := kernels.why()), why)

    @staticmethod
    def _made(group, why):
        if not group:
            raise GroupLost(why.value.decode(errors="replace"))
        return group

    def close(self):
        """The others' calls fail from now on."""
        if self._group:
            self._lib.banyan_group_close(self._group)
        self._group = None

    def part(self, n):
        """[from, to) of n: this rank's share."""
        return n * self.rank // self.world, n * (self.rank + 1) // self.world

    def sum(self, x):
        """The sum over ranks of a tensor; without a group (shapes are asked for) the tensor itself."""
        if not self._group:
            return x
        whole = x.to(torch.float32).contiguous()
        if self._lib.banyan_group_sum(self._group, whole.data_ptr(), whole.numel()):
            raise GroupLost("another rank of the group is lost")
        return whole.to(x.dtype)

    def gather(self, x):
        """[…, n] of each rank side by side: […, world · n]."""
        if not self._group:
            return torch.cat([x] * self.world, -1)
        mine = x.to(torch.float32).contiguous()
        every = torch.empty((self.world, *mine.shape))
        if self._lib.banyan_group_gather(self._group, mine.data_ptr(), mine.numel(), every.data_ptr()):
            raise GroupLost("another rank of the group is lost")
        return torch.cat(tuple(every), -1).to(x.dtype)


# ---- cutting a model ----


def plan_of(model):
    """{pattern of a name: style}."""
    return {**(getattr(type(model), "_tp_plan", None) or {}), **(getattr(model, "tp_plan", None) or {})}


@torch.inference_mode()
def split(model, ranks):
    """Keeps this rank's part of every module that the plan names; how many layers were cut."""
    plan, n = plan_of(model), 0
    _check_heads(model, plan, ranks.world)
    for name, module in list(model.named_modules()):
        style = plan.get(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name))
        if type(module) is torch.nn.Linear and style is not None:
            n += _split_linear(module, style, ranks) and name != "lm_head"
        elif style == "moe_tp_experts":
            n += _split_experts(module, ranks)
        for own, parameter in list(module.named_parameters(recurse=False)):
            pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "*", f"{name}.{own}")
            if plan.get(pattern) in LOCAL:
                setattr(module, own, _kept(parameter[slice(*ranks.part(parameter.shape[0]))]))
    if not n:
        raise CannotSplit(
            f"transformers has no tensor parallel plan for {type(model).__name__}; --dp-size starts replicas instead")
    return n


def _check_heads(model, plan, world):
    """Key and value heads that a plan shares out must come out even: a query head belongs to one of them."""
    config = model.config.get_text_config(decoder=True)
    if not any(style == "colwise" and re.search(r"\.[kv]_proj$", name) for name, style in plan.items()):
        return
    n_heads = config.num_attention_heads
    n_kv = getattr(config, "num_key_value_heads", None) or n_heads
    if n_heads % world or n_kv % world:
        raise CannotSplit(f"{n_heads} query heads and {n_kv} key-value heads do not share out evenly over {world} ranks")


def _kept(tensor):
    return torch.nn.Parameter(tensor.clone(memory_format=torch.contiguous_format), requires_grad=False)


def _split_linear(module, style, ranks):
    """Whether it was cut."""
    if style == "colwise" or style in GATHER:
        if style in GATHER and module.out_features % ranks.world:
            return False
        mine = slice(*ranks.part(module.out_features))
        module.weight = _kept(module.weight[mine])
        if module.bias is not None:
            module.bias = _kept(module.bias[mine])
        module.banyan_product = lambda x: F.linear(x, module.weight, module.bias)
        if style in GATHER:
            module.forward = lambda x: ranks.gather(module.banyan_product(x))
        else:
            module.forward = lambda x: module.banyan_product(x)
        return True
    if style == "rowwise" or style in SPLIT:
        mine, bias = slice(*ranks.part(module.in_features)), module.bias
        module.weight, module.bias = _kept(module.weight[:, mine]), None
        module.banyan_product = lambda x: F.linear(x, module.weight)

        def forward(x):
            out = ranks.sum(module.banyan_product(x[..., mine] if style in SPLIT else x))
            return out if bias is None else out + bias

        module.forward = forward
        return True
    return False


def _split_experts(module, ranks):
    """gate_up_proj [experts, 2 · features, hidden], down_proj [experts, hidden, features]: each rank its features."""
    up, down = getattr(module, "gate_up_proj", None), getattr(module, "down_proj", None)
    if up is None or down is None or up.dim() != 3 or up.shape[1] != 2 * down.shape[2]:
        return False
    n = down.shape[2]
    mine = slice(*ranks.part(n))
    module.gate_up_proj = _kept(torch.cat([up[:, :n][:, mine], up[:, n:][:, mine]], 1))
    module.down_proj = _kept(down[:, :, mine])
    whole = module.forward
    module.forward = lambda *args, **more: ranks.sum(whole(*args, **more))
    return True


# ---- is it the same model? ----


class Check:
    """What the whole model says of a few tokens, to compare with what the ranks say together."""

    def __init__(self, model):
        self.ids = probe._two_sequences(model.config)[0]
        self.want = probe.reference_of(model, [self.ids])[0][-N_CHECKED:].clone()
        self.dtype = next(model.parameters()).dtype

    def run(self, runner):
        """Every rank of the group at once. Raises Wrong."""
        page = 16
        pages = -(-len(self.ids) // page)
        served, runner.pool = runner.pool, Pool(pages, page)
        try:
            batch = Batch([(self.ids, 0, np.arange(pages), {})], page)
            got = runner.logits(batch, np.arange(len(self.ids))[-N_CHECKED:])
        finally:
            runner.pool = served
        far = (got - self.want).abs().max(-1).values
        limit = probe.tolerance(self.dtype, [self.want])
        right = float((far <= limit).float().mean())
        if not (right == 1 or self.dtype != torch.float32 and right >= probe.ROWS_RIGHT):
            raise Wrong(
                f"by transformers' tensor parallel plan its logits differ by {float(far.max()):.2g} from the whole model's, "
                f"{limit:.2g} is allowed; serve it without --tp-size")
