"""One forward pass of a batch in the model's tier: in goes a Batch, out come the logits of the rows asked for."""

import inspect
from dataclasses import dataclass

import numpy as np
import torch

from . import attention, recurrent, shim
from .attention_torch import groups_of_decodes
from .batch import upload

TIERS = ("A", "B", "C", "D", "R")  # R: the model has no cache of any kind; the whole sequence runs again for each token


@dataclass(frozen=True)
class Way:
    """How a model is run; its name in the log."""

    tier: str
    own: str | None = None  # tiers B to R: which of transformers' attention functions; None: the model's default
    whole: bool = False  # C and D (recurrent.py): a prompt runs at once, from the start
    apart: bool = False  # B to D: each decode is a call of its own
    first: int = 0  # position of a sequence's first token

    @property
    def keeps_states(self):
        """Can a request start from what another one's layers carried along? Not where prompts must run whole."""
        return self.tier == "C" and not self.whole

    @property
    def reuses_prefixes(self):
        return self.tier in ("A", "B") or self.keeps_states

    @property
    def details(self):
        said = {"eager attention": self.own == "eager", "prompts whole": self.tier == "C" and self.whole,
                "decodes apart": self.tier in ("B", "C") and self.apart, f"positions from {self.first}": self.first > 0}
        return ", ".join(name for name, is_so in said.items() if is_so)

    def __str__(self):
        return f"tier {self.tier} ({self.details})" if self.details else f"tier {self.tier}"


class Runner:
    def __init__(self, model, way, pool):
        """way: a Way, or the tier that has no more to it."""
        way = way if isinstance(way, Way) else Way(way)
        self.model, self.way, self.pool = model, way, pool
        takes = inspect.signature(model.forward).parameters
        is_open = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        self._takes_positions = "position_ids" in takes
        self._takes_rows = "Tensor" in str(takes["logits_to_keep"].annotation) if "logits_to_keep" in takes else False
        self.cache_name = "cache" if "cache" in takes else "past_key_values"  # renamed in transformers 5.24
        self._takes_mask = "attention_mask" in takes or is_open
        self.prepares = False  # D: it has to be asked for a cache (recurrent.py)
        self._inputs = None  # what the output layer gets, while somebody wants to know
        if way.tier == "A":
            use_hook(model)
            attention.context.chunk_of = attention.chunks_of(model.config.get_text_config(decoder=True))
        else:
            use_own(model, way.own or default_attention(model))

    @torch.inference_mode()
    def logits(self, batch, rows):
        """rows: flat indices into the batch's tokens, ascending -> float32 [len(rows), n_vocab] on the CPU, dense."""
        rows = np.asarray(rows, np.int64)
        attention.context.turns = getattr(self.model, "banyan_turns", False)
        try:
            out = self._flat(batch, rows) if self.way.tier == "A" else self._by_sequences(batch, rows)
            return out.float().cpu().contiguous()
        finally:
            attention.context.turns = False

    def logits_and_states(self, batch, rows):
        """(logits, states), each float32 [len(rows), …] on the CPU: the states are what the output layer gets."""
        self._inputs = []
        hook = self.model.get_output_embeddings().register_forward_pre_hook(lambda module, args: self._inputs.append(args[0]))
        try:
            both = self.logits(batch, rows)
            width = self._inputs[-1].shape[-1]
            return both[:, :-width].contiguous(), both[:, -width:].contiguous()
        finally:
            hook.remove()
            self._inputs = None

    def call(self, ids, positions, mask, keep, **more):
        """One call of the model; ids and positions [B, n], mask [B, tokens in all] -> its output, which rows_of reads."""
        if self._takes_positions and positions is not None:
            more["position_ids"] = positions + self.way.first if self.way.first else positions
        if self._takes_mask and mask is not None:
            more["attention_mask"] = mask
        if self._takes_rows:
            more["logits_to_keep"] = upload(keep, ids.device)
        return self.model(input_ids=ids, **more)

    def rows_of(self, out, keep):
        """Of a call of one sequence the rows that `keep` names, of several the last one of each: [n, n_vocab]. Behind each
        stands its state, when these are asked for."""
        found, n = [out.logits, *self._inputs[-1:]] if self._inputs else [out.logits], len(out.logits)
        if n > 1:
            return torch.cat([each.reshape(n, -1, each.shape[-1])[:, -1] for each in found], -1)
        found = [each.reshape(-1, each.shape[-1]) for each in found]
        return torch.cat([each if len(each) == len(keep) else each[upload(keep, each.device)] for each in found], -1)

    # ---- tier A ----

    def _flat(self, batch, rows):
        context = attention.context
        context.batch, context.pool = batch, self.pool
        context.fired = {}
        try:
            return self.rows_of(self.call(batch.ids[None], batch.positions[None], None, rows, use_cache=False), rows)
        finally:
            context.batch = None

    # ---- the other tiers: each sequence, or its last token beside those of others, is a call ----

    def _by_sequences(self, batch, rows):
        wanted = np.split(rows, np.searchsorted(rows, batch.q_start[1:-1]))
        wanted = [mine - first for mine, first in zip(wanted, batch.q_start)]
        run = {"B": self._padded, "C": self._recurrent, "D": self._recurrent, "R": self._again}[self.way.tier]
        parts = run(batch, wanted)
        found = [parts[i] for i in range(len(batch)) if len(wanted[i])]
        return torch.cat(found) if found else torch.zeros((0, 1))

    def _padded(self, batch, wanted):
        """Decodes as left-padded batches, as large as their copies of keys and values may be; each longer chunk alone."""
        parts = {}
        lens = np.diff(batch.q_start)
        decodes = [i for i in range(len(batch)) if lens[i] == 1]
        decodes = [[i] for i in decodes] if self.way.apart else groups_of_decodes(batch, decodes, self.pool)
        for group in decodes + [[i] for i in range(len(batch)) if lens[i] > 1]:
            table, mask = shim.left_padded([batch.host_slots(i) for i in group], batch.device)
            cache = shim.SlotCache(n_layers(self.model.config), shim.View(self.pool, table, int(lens[group[0]])))
            tokens = [slice(batch.q_start[i], batch.q_start[i + 1]) for i in group]
            ids, positions = (torch.stack([flat[t] for t in tokens]) for flat in (batch.ids, batch.positions))
            keep = wanted[group[0]] if len(group) == 1 else np.zeros(1, np.int64)
            out = self.rows_of(self.call(ids, positions, mask, keep, use_cache=True, **{self.cache_name: cache}), keep)
            parts.update({group[0]: out} if len(group) == 1 else {i: out[j : j + 1][: len(wanted[i])] for j, i in enumerate(group)})
        return parts

    def _recurrent(self, batch, wanted):
        return recurrent.run(self, batch, wanted)

    def _again(self, batch, wanted):
        """The whole sequence, whose ids so far are kept in the row's state; what nobody asks a row of is not run."""
        parts = {}
        for i, row in enumerate(batch.rows):
            kept = row[3].setdefault("kept", recurrent.Kept())
            begin, _ = kept.take(row)
            if len(wanted[i]):
                keep = wanted[i] + begin
                parts[i] = self.rows_of(self.call(upload(kept.ids[None], batch.device), None, None, keep, use_cache=False), keep)
        return parts


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
