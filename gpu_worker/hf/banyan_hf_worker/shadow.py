"""What 48 tokens and short floats cannot show: the same class, shrunk, with windows of 8, in float32.

A model of bfloat16, or with a window of thousands of tokens, is probed once more on a copy of its config with a few small
layers and random weights; there every feature is in reach and the limit is that of float32.
"""

import copy

import torch

from .runner import default_attention, n_layers, use_own

N_LAYERS = 6
_SHRUNK = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "head_dim": 16, "vocab_size": 256,
           "sliding_window": 8, "attention_chunk_size": 8, "max_position_embeddings": 512, "moe_intermediate_size": 32,
           "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "query_pre_attn_scalar": 16}


def is_needed(model):
    """Are its floats short, or has it a window or chunk that is longer than the probe?"""
    from .probe import N_TOKENS

    text = model.config.get_text_config(decoder=True)
    is_long = any((getattr(text, name, None) or 0) > N_TOKENS for name in ("sliding_window", "attention_chunk_size"))
    return is_long or next(model.parameters()).dtype != torch.float32


def note(model, way):
    """What the small copy says of the way, for the log: empty when it was not needed. Raises when it is wrong."""
    from . import probe

    if not is_needed(model):
        return ""
    try:
        small = shrunk_model(model, N_LAYERS if way.tier in ("A", "B") else n_layers(model.config))
        ids = probe._two_sequences(small.config)
        reference = probe.reference_of(small, ids)
    except Exception as failure:  # a config that cannot be shrunk says nothing about the model
        return f"; windows unverified, no small copy can be made ({probe._short(failure)})"
    seen = probe.run(small, way, ids, reference)
    failed = probe.too_far(small, way, ids, reference, seen)
    if failed:
        raise RuntimeError(f"on a small copy {failed}")
    return f"; a small copy with short windows too, to {seen.error:.1g}"


def shrunk_model(model, n):
    """With n layers at most: all of them where they are of several kinds, whose pattern only the model's own code knows."""
    use_own(model, default_attention(model))
    config = copy.deepcopy(model.config)
    text = config.get_text_config(decoder=True)
    n_heads = text.num_attention_heads
    for name, value in _SHRUNK.items():
        if isinstance(getattr(text, name, None), int) and getattr(text, name) > value:
            setattr(text, name, value)
    if isinstance(getattr(text, "num_key_value_heads", None), int):
        text.num_key_value_heads = 4 if text.num_key_value_heads == n_heads else 2
    text.num_hidden_layers = min(n_layers(config), n)
    if getattr(text, "layer_types", None):
        text.layer_types = list(text.layer_types)[: text.num_hidden_layers]
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if getattr(text, name, None) is not None:
            setattr(text, name, 0)
    torch.manual_seed(5)
    small = type(model)(config).eval().to(torch.float32)
    for parameter in small.parameters():  # the usual start of 0.02 makes attention uniform: a broken mask would pass
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=1.3 * parameter.shape[-1] ** -0.5)
    return small.to(next(model.parameters()).device)
