"""Tier A: an attention function of our own, registered with transformers, that keeps keys and values in the pool.

A model that supports attention backends calls it once a layer with the rotated keys of a flat batch [1, heads, T, dim];
no mask is built for a name that transformers does not know. What the call says (scaling, window, softcap, sinks) is
honoured; what it hands over and we do not know is refused, so that the probe moves on to the next tier.
"""

import ctypes
import os

import torch

from . import attention_torch, kernels

NAME = "banyan"
DTYPES = {torch.float32: kernels.F32, torch.bfloat16: kernels.BF16}


class Unsupported(RuntimeError):
    """The model asks for something that this tier cannot do."""


class Context:
    """What the hook works on: the batch of this step and the pool. One a process; extra kwargs get lost in some models."""

    def __init__(self):
        self.batch = None
        self.pool = None
        self.fired = {}  # layer index -> calls in this forward pass
        self.n_threads = 0
        self.turns = False  # whether the model that runs has its rotations from us (fused.py)
        self.chunk_of = {}  # layer index -> attention chunk (Llama 4), which no call carries


context = Context()
_lib = None
_IGNORED = {"dropout", "is_causal", "position_ids", "output_attentions", "output_hidden_states", "return_dict",
            "use_cache", "cache_position", "is_training", "training", "deterministic", "target_dtype", "logits_to_keep"}
_MASK_FREE = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "head_mask", "layer_idx"}


def _check_extras(extras):
    for name, value in extras.items():
        if value is None or value is False or name in _IGNORED or name in _MASK_FREE:
            continue
        raise Unsupported(f"its attention passes {name}, which the paged attention does not know")


def hook(module, query, key, value, attention_mask=None, *, scaling=None, sliding_window=None, softcap=None, s_aux=None,
         **extras):
    """query [1, Hq, T, Dk], key [1, Hk, T, Dk], value [1, Hk, T, Dv] -> ([1, T, Hq, Dv], None)."""
    batch, pool = context.batch, context.pool
    layer = getattr(module, "layer_idx", None)
    if batch is None or layer is None:
        raise Unsupported("attention is called outside of a step, or its module has no layer_idx")
    if attention_mask is not None:
        raise Unsupported("it builds its own attention mask")
    _check_extras(extras)
    n_rows = batch.n_tokens
    if query.shape[0] != 1 or not n_rows == query.shape[2] == key.shape[2] == value.shape[2] or key.shape[1] != value.shape[1]:
        raise Unsupported(f"its attention sees {tuple(query.shape)} queries and {tuple(key.shape)} keys of {n_rows} tokens")
    context.fired[layer] = context.fired.get(layer, 0) + 1
    if context.fired[layer] > 1:
        raise Unsupported(f"layer {layer} calls its attention more than once in a pass")
    said = (float(scaling or query.shape[3] ** -0.5), int(sliding_window or 0), float(softcap or 0),
            context.chunk_of.get(layer, 0))
    out = store_and_attend(layer, pool, query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), batch, said,
                           s_aux)
    return out[None], None


def store_and_attend(layer, pool, query, key, value, batch, said, sinks):
    """query [T, Hq, Dk], key [T, Hk, Dk], value [T, Hk, Dv]: the last two go into the pool, then the queries see it."""
    keys, values = pool.layer(layer, key.shape[1], key.shape[2], value.shape[2], key.dtype)
    plan = pool.plans.get(layer)
    if plan is None or plan.said != said or plan.n_heads != query.shape[1]:
        is_one_type = query.dtype is key.dtype is value.dtype
        plan_of = Plan if is_one_type and is_ours(query.device, query.dtype) else attention_torch.Plan
        plan = pool.plans[layer] = plan_of(keys, values, query.shape[1], said)
    return plan.run(query, batch, sinks, key, value)


def is_ours(device, dtype):
    """Does libbanyan_kernels do it? BANYAN_TEST_TORCH_KERNELS: never, for tests of what a GPU takes."""
    return device.type == "cpu" and dtype in DTYPES and "BANYAN_TEST_TORCH_KERNELS" not in os.environ


class Plan:
    """A layer's call of the kernel: what stays from step to step is filled in once."""

    def __init__(self, keys, values, n_heads, said):
        global _lib
        if _lib is None:
            _lib = kernels.load()
        self.said, self.n_heads, self.v_dim = said, n_heads, values.shape[2]
        scale, window, softcap, chunk = said
        self.call = kernels.Attention(
            k_pool=keys.data_ptr(), v_pool=values.data_ptr(), n_q_heads=n_heads, n_kv_heads=keys.shape[1], k_dim=keys.shape[2],
            v_dim=values.shape[2], window=window, chunk=chunk, dtype=DTYPES[keys.dtype], pool_dtype=DTYPES[keys.dtype], scale=scale, softcap=softcap,
        )
        self._reference = ctypes.byref(self.call)

    def run(self, query, batch, sinks=None, key=None, value=None):
        """query [T, Hq, Dk] -> [T, Hq, Dv]; key and value [T, Hk, D], if there are any, are stored first."""
        call, kept = self.call, []
        call.rows = batch.address
        call.q, call.q_row_stride, call.q_head_stride = _rows_of(query, kept)
        if key is not None:
            call.k, call.k_row_stride, call.k_head_stride = _rows_of(key, kept)
            call.v, call.v_row_stride, call.v_head_stride = _rows_of(value, kept)
        if sinks is not None:
            kept.append(sinks.detach().to(torch.float32).reshape(-1).contiguous())
            call.sinks = kept[-1].data_ptr()
        else:
            call.sinks = None
        out = torch.empty((query.shape[0], self.n_heads, self.v_dim), dtype=query.dtype)
        call.out = out.data_ptr()
        if _lib.banyan_attention_run(self._reference, context.n_threads):
            raise Unsupported(f"attention of {self.n_heads} heads of {call.k_dim} over {call.n_kv_heads} is out of bounds")
        return out


def _rows_of(tensor, kept):
    """(address, stride of a row, stride of a head); a copy with a dense last dimension, if one is needed, is kept."""
    row, head, element = tensor.stride()
    if element != 1:
        tensor = tensor.contiguous()
        kept.append(tensor)
        row, head, _ = tensor.stride()
    return tensor.data_ptr(), row, head


def register():
    """Makes the hook known to transformers."""
    try:
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, hook)
    except ImportError:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        ALL_ATTENTION_FUNCTIONS[NAME] = hook


def chunks_of(config):
    """{layer: chunk} of the layers with chunked attention; it is in the config only."""
    types = getattr(config, "layer_types", None) or []
    size = getattr(config, "attention_chunk_size", None) or 0
    return {i: int(size) for i, kind in enumerate(types) if kind == "chunked_attention" and size}
