"""One forward pass of a batch in the model's tier: in goes a Batch, out come the logits of the rows asked for."""

import inspect

import numpy as np
import torch

from . import attention, shim
from .attention_torch import in_groups, slots_at_once
from .batch import upload

TIERS = ("A", "B", "C", "R")  # R: the model has no cache of any kind; the whole sequence runs again for each token


class Runner:
    def __init__(self, model, tier, pool, own=None):
        """own: for tiers B, C and R, the attention function of transformers; None: the model's default."""
        self.model, self.tier, self.pool = model, tier, pool
        takes = inspect.signature(model.forward).parameters
        is_open = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        self._takes_positions = "position_ids" in takes
        self._takes_rows = "logits_to_keep" in takes
        self._cache_name = "cache" if "cache" in takes else "past_key_values"  # renamed in transformers 5.24
        self._takes_mask = "attention_mask" in takes or is_open
        self.n_layers = n_layers(model.config)
        self._inputs = self._states = None  # what the output layer got, while somebody wants to know
        if tier == "A":
            use_hook(model)
            attention.context.chunk_of = attention.chunks_of(model.config.get_text_config(decoder=True))
        else:
            use_own(model, own or default_attention(model))

    @torch.inference_mode()
    def logits(self, batch, rows):
        """rows: flat indices into the batch's tokens, ascending -> float32 [len(rows), n_vocab] on the CPU, dense."""
        rows = np.asarray(rows, np.int64)
        run = {"A": self._flat, "B": self._padded, "C": self._alone, "R": self._again}[self.tier]
        attention.context.turns = getattr(self.model, "banyan_turns", False)
        try:
            return run(batch, rows).float().cpu().contiguous()
        finally:
            attention.context.turns = False

    def logits_and_states(self, batch, rows):
        """(logits, states), each float32 [len(rows), …] on the CPU: the states are what the output layer gets."""
        head = self.model.get_output_embeddings()
        self._inputs = []
        hook = head.register_forward_pre_hook(lambda module, args: self._inputs.append(args[0]))
        try:
            logits = self.logits(batch, rows)
            return logits, self._states.float().cpu().contiguous()
        finally:
            hook.remove()
            self._inputs = self._states = None

    # ---- tier A ----

    def _flat(self, batch, rows):
        context = attention.context
        context.batch, context.pool = batch, self.pool
        context.fired = {}
        extra = {"position_ids": batch.positions[None]} if self._takes_positions else {}
        keep = upload(rows, batch.device)
        if self._takes_rows:
            extra["logits_to_keep"] = keep
        try:
            out = self.model(input_ids=batch.ids[None], use_cache=False, **extra).logits[0]
        finally:
            context.batch = None
        if self._inputs:
            states = self._inputs[0].reshape(-1, self._inputs[0].shape[-1])
            self._states = states if states.shape[0] == len(rows) else states[keep]
        return out if self._takes_rows and out.shape[0] == len(rows) else out[keep]

    # ---- tiers B and C ----

    def _padded(self, batch, rows):
        """Decodes as left-padded batches, as large as their copies of keys and values may be; each longer chunk alone."""
        parts = {}
        lens = np.diff(batch.q_start)
        single = sorted((i for i in range(len(batch)) if lens[i] == 1), key=lambda i: batch.kv_len[i])
        at_once = slots_at_once(self.pool.bytes_of_largest())
        groups = in_groups(single, lambda n, last: n * int(batch.kv_len[last]) <= at_once) + [[i] for i in range(len(batch)) if lens[i] > 1]
        for group in groups:
            table, mask = shim.left_padded([batch.host_slots(i) for i in group], batch.device)
            view = shim.View(self.pool, table, int(lens[group[0]]))
            out = self._call(batch, group, shim.SlotCache(self.n_layers, view), mask)
            parts.update({i: out[j] for j, i in enumerate(group)})
            self._note(group)
        return self._pick(batch, rows, parts)

    def _alone(self, batch, rows):
        """Each sequence by itself: its recurrent state is a cache of its own, kept in the row's state."""
        parts = {}
        for i in range(len(batch)):
            state = batch.rows[i][3]
            if "cache" not in state:
                state["cache"] = shim.RequestCache(self.model)
            table = batch.slots(i)[None]
            view = shim.View(self.pool, table, int(batch.q_start[i + 1] - batch.q_start[i]))
            parts[i] = self._call(batch, [i], state["cache"].look_at(view), torch.ones_like(table))[0]
            self._note([i])
        return self._pick(batch, rows, parts)

    def _again(self, batch, rows):
        """The whole sequence, whose ids so far are kept in the row's state."""
        parts = {}
        for i in range(len(batch)):
            new, n_done, _, state = batch.rows[i]
            before = state.get("ids", torch.zeros(0, dtype=torch.int64))[:n_done]
            state["ids"] = torch.cat([before, torch.as_tensor(np.asarray(new, np.int64))])
            out = self.model(input_ids=state["ids"][None].to(batch.device), use_cache=False).logits[0]
            parts[i] = out[n_done:]
            self._note([i], n_done)
        return self._pick(batch, rows, parts)

    def _note(self, group, first=0):
        """Of the sequences of a call, the states from `first` on."""
        if self._inputs:
            self._states = {**(self._states or {}), **{i: self._inputs[-1][j][first:] for j, i in enumerate(group)}}

    def _pick(self, batch, rows, parts):
        if self._inputs:
            self._states = _pick(batch, rows, self._states)
        return _pick(batch, rows, parts)

    def _call(self, batch, group, cache, mask):
        ids = torch.stack([batch.ids[batch.q_start[i] : batch.q_start[i + 1]] for i in group])
        extra = {}
        if self._takes_positions:
            extra["position_ids"] = torch.stack(
                [batch.positions[batch.q_start[i] : batch.q_start[i + 1]] for i in group]
            )
        if self._takes_mask:
            extra["attention_mask"] = mask
        extra[self._cache_name] = cache
        return self.model(input_ids=ids, use_cache=True, **extra).logits


def _pick(batch, rows, parts):
    if not len(rows):
        return torch.zeros((0, 1))
    seq = np.searchsorted(batch.q_start, rows, side="right") - 1
    return torch.stack([parts[int(i)][int(r - batch.q_start[i])] for i, r in zip(seq, rows)])


def n_layers(config):
    text = config.get_text_config(decoder=True)
    for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
        found = getattr(text, name, None)
        if isinstance(found, int):
            return found
    raise RuntimeError("the model's config does not say how many layers it has")


def use_hook(model):
    attention.register()
    default_attention(model)
    use_own(model, attention.NAME)


def use_own(model, name):
    """From now on the model runs this attention function; None: its code knows but one."""
    if name is None:
        return
    default_attention(model)
    if hasattr(model, "set_attn_implementation"):
        try:
            model.set_attn_implementation(name)
        except (ValueError, ImportError):
            pass
    _set_everywhere(model, name)


def default_attention(model):
    """The name of the attention function that the model came with; kept on the model itself."""
    if not hasattr(model, "_banyan_default_attention"):
        model._banyan_default_attention = getattr(model.config, "_attn_implementation", None)
    return model._banyan_default_attention


def _set_everywhere(model, name):
    """Sub-configs and modules hold configs of their own; all of a text model's follow."""
    seen = set()
    for config in [model.config, model.config.get_text_config(decoder=True)] + [
        m.config for m in model.modules() if hasattr(m, "config")
    ]:
        if id(config) not in seen:
            seen.add(id(config))
            try:
                config._attn_implementation = name
            except (AttributeError, ValueError):
                pass
