"""--hf-fast-linear, what goes beyond single products: whole modules of the usual shapes by one call of the kernels.

    q_proj, k_proj, v_proj of an attention     one product; the first that is called makes it, the others take their columns
    gate_proj, up_proj, act_fn, down_proj      one call; what lies between stays float32
    RMS norms                                  one call, rounded where the module rounds
    apply_rotary_pos_emb of the model's code   one call for queries and keys, the bits of torch

A shape is a guess from names; what decides is the module itself, run on noise beside ours. One that differs stays.
"""

import ctypes
import functools
import sys

import torch

from . import attention, kernels

EPS_NAMES = ("variance_epsilon", "eps", "variance_eps", "norm_eps", "epsilon")
NORM_BOUND = {torch.float32: 2e-6, torch.bfloat16: 0.008}  # bf16: one rounding
DTYPES = attention.DTYPES


def use(model, lib, team, users, report, bound):
    """Takes over what it can of the model, and notes it in the report. Before the single products are packed."""
    maker = _Maker(lib, team, users, bound)
    done = {"feed-forwards fused": 0, "q, k, v fused": 0, "norms": 0}
    for module in list(model.modules()):
        done["feed-forwards fused"] += maker.feed_forward(module)
        done["q, k, v fused"] += maker.qkv(module)
        done["norms"] += maker.norm(module)
    done["rotations"] = sum(_take_rope(name, lib) for name in {type(m).__module__ for m in model.modules()})
    model.banyan_turns = True
    report.n_packed += 3 * (done["feed-forwards fused"] + done["q, k, v fused"])
    report.fused = {what: n for what, n in done.items() if n}


def has_hooks(module):
    """Has anybody asked to be called with it, or with a module in it? What computes it whole would call nobody."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def _noise(shape, dtype, seed=1, size=1.0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size).to(dtype)


def _far(got, want):
    """Largest difference relative to the largest number; infinite for what cannot be compared."""
    if got.shape != want.shape or not got.isfinite().all():
        return float("inf")
    return float((got.float() - want.float()).abs().max() / want.float().abs().max().clamp_min(1e-30))


class _Maker:
    def __init__(self, lib, team, users, bound):
        self.lib, self.team, self.users, self.bound = lib, team, users, bound

    def _is_plain(self, module):
        """A linear module on the CPU whose weight nobody shares, and that no rank has a part of."""
        return (type(module) is torch.nn.Linear and module.weight.dtype in DTYPES and module.weight.device.type == "cpu"
                and self.users[id(module.weight)] == 1 and not hasattr(module, "banyan_product")
                and not hasattr(module, "banyan_fused"))

    def _children(self, module, names):
        found = [getattr(module, name, None) for name in names]
        return found if all(map(self._is_plain, found)) and len({m.weight.dtype for m in found}) == 1 else None

    def _bound(self, dtype):
        from .fast_linear import BOUND

        return self.bound or BOUND[dtype]

    def _pack(self, modules, act=kernels.NO_ACT):
        from .fast_linear import Packed

        return Packed(self.lib, self.team, [(m.weight, m.bias) for m in modules], act)

    @staticmethod
    def _forget(modules):
        from .fast_linear import no_memory

        for module in modules:
            module.banyan_fused = True
            module.weight = no_memory(module.weight)

    def feed_forward(self, module):
        """down(act(gate(x)) * up(x)), by the act with which it is the module's own."""
        found = self._children(module, ("gate_proj", "up_proj", "down_proj"))
        if not found or has_hooks(module) or found[0].in_features != found[1].in_features or found[0].out_features != found[1].out_features:
            return False
        if found[0].out_features != found[2].in_features or len(list(module.parameters())) != sum(1 + (m.bias is not None) for m in found):
            return False
        dtype = found[0].weight.dtype
        x = _noise((1, 3, found[0].in_features), dtype)
        want, down = module(x), self._pack(found[2:])
        for act in kernels.ACTS:
            ours = FeedForward(self.lib, self._pack(found[:2], act), down)
            if _far(ours(x), want) <= self._bound(dtype):
                module.forward = ours
                self._forget(found)
                return True
            ours.up.free()
        down.free()
        return False

    def qkv(self, module):
        found = self._children(module, ("q_proj", "k_proj", "v_proj"))
        if not found or len({m.in_features for m in found}) != 1:
            return False
        packed = self._pack(found)
        x = _noise((1, 3, packed.n_in), packed.dtype)
        whole = packed(x)
        ends = [0, *torch.tensor([m.out_features for m in found]).cumsum(0).tolist()]
        if any(_far(whole[..., a:b], m(x)) > self._bound(packed.dtype) for a, b, m in zip(ends, ends[1:], found)):
            packed.free()
            return False
        shared = Shared(packed)
        for a, b, m in zip(ends, ends[1:], found):
            m.forward = Columns(shared, a, b)
        self._forget(found)
        return True

    def norm(self, module):
        """x / rms * w, or * (1 + w); in bf16 rounded before w or after it: the way that is nearest to the module's."""
        own = list(module.named_parameters()) + list(module.named_buffers())
        eps = next((getattr(module, name) for name in EPS_NAMES if isinstance(getattr(module, name, None), float)), None)
        if "Norm" not in type(module).__name__ or eps is None or [name for name, _ in own] != ["weight"]:
            return False
        weight = module.weight
        if weight.dim() != 1 or weight.dtype not in DTYPES or weight.device.type != "cpu" or next(module.children(), None) is not None:
            return False
        xs = [_noise((1, 3, weight.shape[0]), weight.dtype, 2, size) for size in (1.0, 30.0, eps**0.5)]
        try:
            wants = [module(x) for x in xs]
        except Exception:  # one that takes more than rows
            return False
        ways = [Norm(self.lib, weight, eps, plus, is_early) for plus in (0, 1) for is_early in (1, 0)]
        far = [max(_far(way(x), want) if want.dtype is x.dtype else float("inf") for x, want in zip(xs, wants)) for way in ways]
        best = far.index(min(far))
        if not far[best] <= (self.bound or NORM_BOUND[weight.dtype]):
            return False
        module.forward = ways[best]
        return True


class FeedForward:
    def __init__(self, lib, up, down):
        self.up, self.down, self._run = up, down, lib.banyan_mlp_run

    def __call__(self, x):
        if x.dtype is not self.up.dtype or x.shape[-1] != self.up.n_in:
            raise RuntimeError(f"a product of {self.up.n_in} {self.up.dtype} columns got {tuple(x.shape)} of {x.dtype}")
        out = torch.empty((*x.shape[:-1], self.down.n_out), dtype=x.dtype)
        x = x.contiguous()
        if self._run(self.up.handle, self.down.handle, x.data_ptr(), out.data_ptr(), out.numel() // self.down.n_out):
            raise MemoryError(f"no memory for a feed-forward of {out.numel() // self.down.n_out} rows")
        return out

    def __deepcopy__(self, memo):
        return self


class Shared:
    """A product that several modules of one input take their columns of."""

    def __init__(self, packed):
        self.packed, self._x, self._out, self._left = packed, None, None, 0

    def of(self, x, columns):
        if x is not self._x:
            self._out, self._x, self._left = self.packed(x), x, self.packed.n_out
        out = self._out
        self._left -= columns.stop - columns.start
        if self._left <= 0:
            self._x = self._out = None
        return out[..., columns]

    def __deepcopy__(self, memo):
        return Shared(self.packed)


class Columns:
    def __init__(self, shared, first, end):
        self.shared, self.columns = shared, slice(first, end)

    def __call__(self, x):
        return self.shared.of(x, self.columns)


class Norm:
    def __init__(self, lib, weight, eps, plus, is_early):
        self.w = (weight.detach().float() + plus).contiguous()
        self.dtype, self.width, self._run = weight.dtype, weight.shape[0], lib.banyan_norm_run
        self.call = kernels.Norm(w=self.w.data_ptr(), eps=eps, width=self.width, dtype=DTYPES[weight.dtype], is_early=is_early)
        self._reference = ctypes.byref(self.call)

    def __call__(self, x):
        if x.dtype is not self.dtype or x.shape[-1] != self.width:
            raise RuntimeError(f"a norm of {self.width} {self.dtype} columns got {tuple(x.shape)} of {x.dtype}")
        x = x.contiguous()
        out = torch.empty_like(x)
        self._run(self._reference, x.data_ptr(), out.data_ptr(), x.numel() // self.width)
        return out

    def __deepcopy__(self, memo):
        return self


# ---- rotations: a function of the model's code, which other models of this process may share ----


def _take_rope(name, lib):
    """Replaces apply_rotary_pos_emb of a module of code, for models with banyan_turns. Whether it is ours now."""
    code = sys.modules.get(name)
    theirs = getattr(code, "apply_rotary_pos_emb", None)
    if theirs is None:
        return False
    if hasattr(theirs, "banyan_theirs"):
        return True
    ours = Rope(lib)
    try:
        for dtype in DTYPES:
            q, k = (_noise((1, n, 3, 16), dtype, n) for n in (4, 2))
            cos, sin = (_noise((1, 3, 16), dtype, n) for n in (5, 6))
            if not all(map(torch.equal, ours(q, k, cos, sin), theirs(q, k, cos, sin))):
                return False
    except Exception:  # one with other arguments
        return False

    @functools.wraps(theirs)
    def turn(q, k, cos, sin, *args, **more):
        if attention.context.turns and not args and not more and ours.takes(q, k, cos, sin):
            return ours(q, k, cos, sin)
        return theirs(q, k, cos, sin, *args, **more)

    turn.banyan_theirs = theirs
    code.apply_rotary_pos_emb = turn
    return True


class Rope:
    def __init__(self, lib):
        self._run, self._call = lib.banyan_rope_run, kernels.Rope()
        self._reference = ctypes.byref(self._call)

    @staticmethod
    def takes(q, k, cos, sin):
        """A flat batch of one dtype whose heads turn whole."""
        return (q.dtype in DTYPES and q.dtype is k.dtype is cos.dtype is sin.dtype and q.device.type == "cpu" and q.dim() == 4
                and q.shape[0] == k.shape[0] == 1 and cos.shape == sin.shape == (1, q.shape[2], q.shape[3])
                and k.shape[2:] == q.shape[2:] and q.stride(3) == k.stride(3) == 1 and cos.is_contiguous() and sin.is_contiguous())

    def __call__(self, q, k, cos, sin):
        (_, n_q, n_rows, dim), n_k, call = q.shape, k.shape[1], self._call
        q_out, k_out = (torch.empty((1, n_rows, n, dim), dtype=q.dtype) for n in (n_q, n_k))
        call.cos, call.sin, call.q, call.k = cos.data_ptr(), sin.data_ptr(), q.data_ptr(), k.data_ptr()
        call.q_out, call.k_out = q_out.data_ptr(), k_out.data_ptr()
        _, call.q_head_stride, call.q_row_stride, _ = q.stride()
        _, call.k_head_stride, call.k_row_stride, _ = k.stride()
        call.n_rows, call.n_q_heads, call.n_k_heads, call.dim, call.n_rot, call.dtype = n_rows, n_q, n_k, dim, dim, DTYPES[q.dtype]
        self._run(self._reference)
        return q_out.transpose(1, 2), k_out.transpose(1, 2)
