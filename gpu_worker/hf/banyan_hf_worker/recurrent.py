"""Tiers C and D: requests whose layers keep state from token to token.

    C  the cache that the model asks for (DynamicCache): its plain attention layers lie in the pool, its states here
    D  the cache that the model makes by itself, handed back with the next token as generate() does; nothing is in the pool

    prompts  [ a b c ][ d e f ][ g h ]    in pieces, over the state so far; or whole: what nobody asks a row of waits, then
                                          all of it runs at once (code that forgets its state when several tokens come)
    decodes  [ i ] of each request        together: states side by side in one call; or apart, one call each
    kept     [ a b c | d ]                in pieces only: the call is split, and the state behind it copied; another request that
                                          begins alike starts from a copy of that. All others start at 0
"""

import copy
import inspect

import numpy as np
import torch
from transformers import cache_utils

from . import shim
from .attention_torch import groups_of_decodes
from .batch import upload


def _classes(*names):
    """Those that this transformers has."""
    return tuple(getattr(cache_utils, name) for name in names if hasattr(cache_utils, name))


_PLAIN = _classes("DynamicLayer", "DynamicSlidingWindowLayer", "DynamicIndexedLayer")
_BOTH = _classes("LinearAttentionAndFullAttentionLayer", "LinearAttentionAndSlidingWindowAttentionLayer")
SHORT = 8  # tokens: code that forgets its state errs with fewer than its convolution sees, too (transformers 4's LFM2)


class State:
    """A request's state behind its first n tokens. Nobody writes to it any more."""

    def __init__(self, n, cache):
        self.n, self.cache = n, cache.copy()


class Kept:
    """What one request keeps between steps, in its row's state."""

    def __init__(self, start=None):
        """start: the State that it begins with."""
        self.start, self.base = start, start.n if start else 0
        self.ids = np.zeros(self.base, np.int64)  # those before base nobody has told, and nobody asks for
        self.n_in, self.cache = self.base, None  # tokens that the cache has seen; -1: nobody knows, a call failed

    def take(self, row):
        """Notes the row's new ids. Returns (tokens before them, tokens with them)."""
        new, n_done = row[0], row[1]
        self.ids = np.concatenate([self.ids[:n_done], np.asarray(new, np.int64)])
        if self.start:
            self.cache, self.start = self.start.cache.copy(), None
        return n_done, len(self.ids)


def run(runner, batch, wanted):
    """wanted: of each sequence of the batch, which of its rows: numpy int64 -> {sequence: their logits}."""
    parts, decodes, make = {}, [], SlotStates if runner.way.tier == "C" else OwnCache
    for i, row in enumerate(batch.rows):
        kept = row[3].setdefault("kept", Kept())
        begin, end = kept.take(row)
        if end - begin == 1 and kept.n_in == begin > (SHORT if runner.way.whole else 0):
            decodes.append(i)
            continue
        goes_on = kept.cache is not None and kept.n_in == begin and not runner.way.whole
        is_lost = not goes_on and kept.base > 0  # a call failed, and what was before base is not known here
        if not goes_on:
            if runner.way.whole and not len(wanted[i]):
                continue
            kept.n_in, kept.cache = begin if is_lost else 0, make(runner)
        parts[i] = _in_pieces(runner, batch, i, kept, wanted[i] + begin)
        if is_lost:  # its rows fail; it is the scheduler's to begin anew
            parts[i], kept.n_in = parts[i] * float("nan"), -1
    for group in [[i] for i in decodes] if runner.way.apart else groups_of_decodes(batch, decodes, runner.pool):
        spans = [(int(batch.kv_len[i]) - 1, int(batch.kv_len[i])) for i in group]
        out = _call(runner, batch, group, spans, np.zeros(1, np.int64))
        parts.update({i: out[j : j + 1][: len(wanted[i])] for j, i in enumerate(group)})
    return parts


def _in_pieces(runner, batch, i, kept, wanted):
    """The tokens of one sequence that its cache has not seen, in a call for each place where its state is to be kept. wanted:
    the positions whose rows are asked for."""
    parts, begin = [], kept.n_in
    for end in dict.fromkeys([*batch.keep_at.get(i, ()), len(kept.ids)]):
        parts.append(_call(runner, batch, [i], [(begin, end)], wanted[(begin <= wanted) & (wanted < end)] - begin))
        begin = end
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _call(runner, batch, group, spans, keep):
    """One call of the model: of one sequence the tokens [begin, end), or of several the last one of each."""
    kept = [batch.rows[i][3]["kept"] for i in group]
    ids = np.stack([k.ids[b:e] for k, (b, e) in zip(kept, spans)])
    positions = np.stack([np.arange(b, e) for b, e in spans])
    caches, ends = [k.cache for k in kept], [e for _, e in spans]
    for k in kept:
        k.n_in = -1  # until the call is over: one that fails may have gone half way
    out = type(caches[0]).call(runner, batch, group, caches, upload(ids, batch.device), upload(positions, batch.device), ends, keep)
    for i, k, end in zip(group, kept, ends):
        k.n_in = end
        if end in batch.keep_at.get(i, ()):
            batch.kept[i, end] = State(end, k.cache)
    return out


# ---- C ----


class SlotStates:
    """Tier C's cache of one request; or, while requests decode together, its row of theirs."""

    def __init__(self, runner):
        self.cache = cache_utils.DynamicCache(config=runner.model.config)
        self.cache.layers = [_in_the_pool(i, layer) for i, layer in enumerate(self.cache.layers)]
        self.company, self.row = [self], 0

    @staticmethod
    def call(runner, batch, group, caches, ids, positions, ends, keep):
        table, mask = shim.left_padded([batch.host_slots(i, end=end) for i, end in zip(group, ends)], batch.device)
        cache = _side_by_side(caches)
        slot_layers = [layer for layer in cache.layers if isinstance(layer, shim.SlotLayer)]
        for layer in slot_layers:
            layer.view = shim.View(runner.pool, table, ids.shape[1])
        mask = mask if slot_layers and len(group) > 1 else None  # states have no padding, and a mask makes some multiply by it
        return runner.rows_of(runner.call(ids, positions, mask, keep, use_cache=True, **{runner.cache_name: cache}), keep)

    def copy(self):
        """Another one with the same states, copied out of the company's."""
        row, new = slice(self.row, self.row + 1), copy.copy(self)
        new.cache = _each_layer([self.cache], lambda tensors: tensors[0][row].clone())
        new.company, new.row = [new], 0
        return new

    def come_out(self):
        """Its own states again."""
        if len(self.company) > 1:
            self.company[self.row] = None  # what the others share has an old state of it
            self.cache = self.copy().cache
            self.company, self.row = [self], 0


def _in_the_pool(index, layer):
    """A layer of the model's cache, or what keeps its keys and values in the pool instead."""
    if type(layer) in _PLAIN:
        return shim.SlotLayer(index)
    return _BothLayer(index, layer) if type(layer) in _BOTH else layer


if _BOTH:

    class _BothLayer(shim.SlotLayer, cache_utils.LinearAttentionLayer):
        """Attention in the pool beside states in one layer (Falcon H1)."""

        lazy_initialization = cache_utils.LinearAttentionLayer.lazy_initialization

        def __init__(self, index, layer):
            states = {name: value for name, value in vars(layer).items() if name not in ("keys", "values")}
            vars(self).update(states, **vars(shim.SlotLayer(index)))


def _side_by_side(caches):
    """The cache of a company, [B, …]: as it was, when the same decoded together in the last step."""
    if caches[0].company != caches:
        for one in caches:
            one.come_out()
        if len(caches) > 1:
            cache = _each_layer([one.cache for one in caches], torch.cat)
            for row, one in enumerate(caches):
                one.cache, one.company, one.row = cache, caches, row
    return caches[0].cache


def _each_layer(caches, do):
    """A new cache, each tensor of whose layers is do([that of each cache])."""
    new = copy.copy(caches[0])
    new.layers = [_made_of(layers, do) for layers in zip(*(c.layers for c in caches))]
    return new


def _made_of(layers, do):
    new = copy.copy(layers[0])
    for name in vars(new).keys() - {"view", "updated"}:
        setattr(new, name, _merged([getattr(layer, name) for layer in layers], do, name))
    return new


def _merged(values, do, name):
    first = values[0]
    if isinstance(first, torch.Tensor) and first.dim():
        return do(values)
    if isinstance(first, dict):
        return {key: _merged([v[key] for v in values], do, name) for key in first}
    if isinstance(first, list):
        return [_merged(list(each), do, name) for each in zip(*values)]
    if any(v != first for v in values[1:]):
        raise RuntimeError(f"{name} differs between requests, so they do not decode together")
    return first


# ---- D ----


class OwnCache:
    """Tier D's: what the model returned under names that it takes."""

    def __init__(self, runner):
        self.given = {}

    @staticmethod
    def call(runner, batch, group, caches, ids, positions, ends, keep):
        takes, more = inspect.signature(runner.model.forward).parameters, {}
        if "cache_position" in takes:
            more["cache_position"] = positions[0]
        for runner.prepares in (True,) if runner.prepares else (False, True):
            given = caches[0].given or (_prepared(runner.model, takes, ids, positions) if runner.prepares else {})
            out = runner.call(ids, positions, None, keep, use_cache=True, **more, **given)
            caches[0].given = _caches(out, takes)
            if caches[0].given:
                return runner.rows_of(out, keep)
        raise RuntimeError("it returns no cache under a name that it takes")


def _caches(found, takes):
    no_cache = ("logits", "input_ids", "attention_mask", "position_ids", "cache_position", "inputs_embeds", "use_cache", "logits_to_keep")
    return {name: value for name, value in found.items() if name in takes and name not in no_cache and value is not None}


def _prepared(model, takes, ids, positions):
    """The cache that a model (transformers 4's Jamba) makes only where generate() asks for its inputs."""
    try:
        found = model.prepare_inputs_for_generation(ids, use_cache=True, attention_mask=torch.ones_like(ids), cache_position=positions[0])
    except Exception:  # any error of foreign code means: it makes one by itself, or none
        return {}
    return {name: value for name, value in _caches(found, takes).items() if "cache" in name or "past" in name}


def bytes_of_caches(states):
    """Of what requests hold outside of the pool, given the states of their rows."""
    return sum(bytes_of(kept.cache) for kept in (state.get("kept") for state in states) if kept and kept.cache)


def bytes_of(thing, seen=None):
    """Of all tensors in a cache, whatever its class; of those that it shares, all."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (torch.nn.Module, shim.View, str, type)):
        return 0
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return thing.numel() * thing.element_size()
    if isinstance(thing, dict):
        return sum(bytes_of(v, seen) for v in thing.values())
    if isinstance(thing, (list, tuple)):
        return sum(bytes_of(v, seen) for v in thing)
    return bytes_of(vars(thing), seen) if hasattr(thing, "__dict__") and not callable(thing) else 0
