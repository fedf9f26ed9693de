"""--hf-fast-linear, the last step: a whole decoder layer of the Llama family by one call of the kernels (layer.c).

    norm, q k v, rotation, attention by pages, o, + residual, norm, gate up down, + residual         f32 inside

A layer is a candidate when all its pieces have been taken over by fused.py and it has nothing else. What decides are the
layer's own answers: the model runs three steps by pages, each candidate's calls are noted, and ours gets the same ones. A
layer that answers otherwise keeps its code, with the pieces in it. Outside of a step by pages it always runs its own code.
"""

import ctypes
from dataclasses import dataclass

import numpy as np
import torch

from . import attention, fused, kernels

PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
SAID = {"position_ids", "past_key_value", "past_key_values", "cache", "use_cache", "cache_position", "output_attentions"}
# Of the largest number that the layer adds to the residual; and of the sum itself, what rounding it makes of it.
BOUND = {torch.float32: (2e-5, 2**-21), torch.bfloat16: (0.03, 2**-7)}


def use(model, lib, report, bound=None):
    """Takes over the layers that can be, and notes how many in the report. After all products have been packed."""
    found = {module: parts for module in model.modules() if (parts := parts_of(module))}
    calls = watch(model, list(found)) if found else None
    if not calls:
        return
    n = sum(take_over(module, parts, calls[module], lib, bound) for module, parts in found.items() if module in calls)
    if n:
        report.fused["layers whole"] = n


@dataclass
class Parts:
    """What a layer is made of, by fused.py's pieces."""

    index: int
    attention_norm: fused.Norm
    mlp_norm: fused.Norm
    q_norm: fused.Norm | None
    k_norm: fused.Norm | None
    qkv: object  # fast_linear.Packed, as the others
    o: object
    mlp: fused.FeedForward
    n_heads: int
    n_kv_heads: int
    dim: int

    @property
    def dtype(self):
        return self.qkv.dtype


def parts_of(module):
    """Parts, or None for anything but a layer all of whose pieces are ours."""
    from .fast_linear import Packed

    children = dict(module.named_children())
    if set(children) != PARTS or not _is_plain(module) or fused.has_hooks(module):
        return None
    own = children["self_attn"]
    dim, index = getattr(own, "head_dim", None), getattr(own, "layer_idx", None)
    inner = {name: child.forward for name, child in own.named_children() if name not in ("q_norm", "k_norm")}
    norms = [getattr(getattr(own, name, None), "forward", None) for name in ("q_norm", "k_norm")]
    outer = [children[name].forward for name in ("input_layernorm", "post_attention_layernorm", "mlp")]
    if set(inner) != {"q_proj", "k_proj", "v_proj", "o_proj"} or not isinstance(dim, int) or not isinstance(index, int):
        return None
    if not all(isinstance(inner[n], fused.Columns) for n in ("q_proj", "k_proj", "v_proj")) or type(inner["o_proj"]) is not Packed:
        return None
    if not all(map(isinstance, outer, (fused.Norm, fused.Norm, fused.FeedForward))) or not _is_plain(own):
        return None
    if not all(n is None or (isinstance(n, fused.Norm) and n.width == dim) for n in norms) or (norms[0] is None) != (norms[1] is None):
        return None
    widths = [c.stop - c.start for c in (inner[n].columns for n in ("q_proj", "k_proj", "v_proj"))]
    if widths[1] != widths[2] or any(w % dim for w in widths):
        return None
    return Parts(index, outer[0], outer[1], *norms, inner["q_proj"].shared.packed, inner["o_proj"], outer[2],
                 widths[0] // dim, widths[1] // dim, dim)


def _is_plain(module):
    """Has it no numbers of its own beside its children's, and the forward of its class?"""
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return not own and "forward" not in module.__dict__


# ---- what the layers answer ----


@dataclass
class Call:
    batch: object
    args: tuple
    said: dict
    out: torch.Tensor
    told: tuple  # scale, window, softcap, chunk, which its attention was given


def watch(model, layers):
    """{layer: [Call …]} of a few steps by pages; None when the model does not run so."""
    from .batch import Batch
    from .pool import Pool
    from .runner import Runner, default_attention, use_own

    own, calls, batches = default_attention(model), {}, []
    random = np.random.default_rng(5)
    ids = [random.integers(3, model.config.get_text_config(decoder=True).vocab_size, 12) for _ in range(2)]
    pool = Pool(8, 4, poison=True)

    def note(layer, args, said, out):
        calls.setdefault(layer, []).append(Call(batches[-1], args, said, out, None))

    hooks = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
    try:
        runner = Runner(model, "A", pool)
        for step in ([(0, 0, 5)], [(0, 5, 6), (1, 0, 7)], [(1, 7, 8), (0, 6, 7)]):
            batches.append(Batch([(ids[s][a:b], a, [3 * s + 1, 3 * s, 3 * s + 2], {}) for s, a, b in step], 4))
            runner.logits(batches[-1], np.arange(batches[-1].n_tokens))
            for layer in layers:
                plan = pool.plans.get(layer.self_attn.layer_idx)
                if layer in calls and plan is not None:
                    calls[layer][-1].told = plan.said
    except Exception:  # any error of foreign code means: not this way
        return None
    finally:
        for hook in hooks:
            hook.remove()
        use_own(model, own)
    return calls


def take_over(module, parts, calls, lib, bound):
    """Whether the layer is ours now."""
    told = calls[0].told
    if told is None or any(call.told != told or not isinstance(call.out, torch.Tensor) for call in calls):
        return False
    theirs = module.forward
    for turns in (True, False):  # some layers of some models do not turn
        ours = Layer(lib, parts, told, turns, theirs)
        if all(_is_near(got, call, bound) for got, call in zip(_replay(ours, calls), calls)):
            module.forward = ours
            return True
    return False


def _replay(ours, calls):
    """What ours makes of the calls; None of one that it would leave to the layer."""
    from .pool import Pool

    context, before = attention.context, attention.context.__dict__.copy()
    context.pool, context.turns, context.chunk_of = Pool(8, 4, poison=True), True, {ours.parts.index: ours.told[3]}
    try:
        answers = []
        for call in calls:
            context.batch, context.fired = call.batch, {}
            is_taken = len(call.args) == 1 and ours.takes(*call.args, **call.said)
            answers.append(ours.run(call.args[0], call.said.get("position_embeddings")) if is_taken else None)
        return answers
    finally:
        context.__dict__.update(before)


def _is_near(got, call, bound):
    if got is None or got.shape != call.out.shape or not got.isfinite().all():
        return False
    of_added, of_sum = BOUND[got.dtype]
    want, before = call.out.float(), call.args[0].float()
    limit = (bound or of_added) * (want - before).abs().max() + of_sum * want.abs()
    return bool(((got.float() - want).abs() <= limit).all())


class Layer:
    """A layer's forward: one call in a step by pages, else the layer's own."""

    def __init__(self, lib, parts, told, turns, theirs):
        self._lib, self._run, self.parts, self.told, self.turns, self.theirs = lib, lib.banyan_layer_run, parts, told, turns, theirs
        p, self._pool = parts, None
        scale, window, softcap, _ = told
        self._call = kernels.Layer(
            qkv=p.qkv.handle, o=p.o.handle, up=p.mlp.up.handle, down=p.mlp.down.handle,
            attention_norm=p.attention_norm.call, mlp_norm=p.mlp_norm.call,
            attention=kernels.Attention(
                n_q_heads=p.n_heads, n_kv_heads=p.n_kv_heads, k_dim=p.dim, v_dim=p.dim, window=window, scale=scale,
                softcap=softcap, pool_dtype=attention.DTYPES[p.dtype]),
        )
        if p.q_norm:
            self._call.q_norm, self._call.k_norm = p.q_norm.call, p.k_norm.call
        self._reference = ctypes.byref(self._call)

    def takes(self, hidden_states=None, attention_mask=None, *args, position_embeddings=None, **more):
        """A flat batch of a step by pages, and nothing that we do not know of."""
        context = attention.context
        if context.batch is None or not context.turns or args or attention_mask is not None or hidden_states is None:
            return False
        if any(value is not None and value is not False and name not in SAID for name, value in more.items()):
            return False
        n_rows, x = context.batch.n_tokens, hidden_states
        if x.dtype is not self.parts.dtype or x.shape[:-1] != (1, n_rows) or x.shape[-1] != self.parts.qkv.n_in or not n_rows:
            return False
        if not self.turns:
            return True
        if type(position_embeddings) is not tuple or len(position_embeddings) != 2:
            return False
        cos, sin = position_embeddings
        return (cos.dtype is sin.dtype is x.dtype and cos.shape == sin.shape and cos.shape[:-1] == (1, n_rows)
                and cos.shape[-1] <= self.parts.dim and cos.is_contiguous() and sin.is_contiguous())

    def __call__(self, *args, **said):
        if self.takes(*args, **said):
            x = args[0] if args else said["hidden_states"]
            return self.run(x, said.get("position_embeddings"))
        return self.theirs(*args, **said)

    def run(self, x, angles):
        context, call = attention.context, self._call
        index = self.parts.index
        context.fired[index] = context.fired.get(index, 0) + 1
        if context.fired[index] > 1:
            raise attention.Unsupported(f"layer {index} runs more than once in a pass")
        if context.pool is not self._pool:
            keys, values = context.pool.layer(index, self.parts.n_kv_heads, self.parts.dim, self.parts.dim, self.parts.dtype)
            call.attention.k_pool, call.attention.v_pool = keys.data_ptr(), values.data_ptr()
            call.attention.chunk = context.chunk_of.get(index, 0)
            self._pool = context.pool
        call.attention.rows = context.batch.address
        if self.turns:
            cos, sin = angles
            call.cos, call.sin, call.n_rot = cos.data_ptr(), sin.data_ptr(), cos.shape[-1]
        x = x.contiguous()
        out = torch.empty_like(x)
        if self._run(self._reference, x.data_ptr(), out.data_ptr(), context.batch.n_tokens):
            raise MemoryError(f"no memory for layer {index} of {context.batch.n_tokens} rows")
        return out

    def __deepcopy__(self, memo):
        return self.theirs
