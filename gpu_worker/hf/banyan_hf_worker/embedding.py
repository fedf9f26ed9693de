"""Embeddings of models that generate text: what their output layer gets, pooled as the model's folder says.

    last states of a prompt's rows ─▶ last | mean of all ─▶ / its length ─▶ embedding [width]

As the native engine does it (gpu_worker/vectors.h): --pooling wins, then sentence-transformers' modules.json and
1_Pooling/config.json, else the last token's state. A mean is summed in order of position, in doubles, so how a prompt
was cut into chunks changes no bit; none of its positions may come from the cache.
"""

import json
from pathlib import Path

import numpy as np

_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last"}
_KNOWN = (".Transformer", ".Pooling", ".Normalize")
FILE_MAX = 1 << 20


class NoEmbeddings(RuntimeError):
    """Why a model makes none; its text is none the worse."""


class Pooling:
    """How a sequence's states become one vector."""

    def __init__(self, kind, width):
        self.kind, self.width = kind, width

    @property
    def is_of_all(self):
        return self.kind == "mean"

    def rows(self, sequence, q_start, n):
        """Flat rows of the step whose states are needed."""
        if self.is_of_all:
            return list(range(q_start, q_start + n))
        return [q_start + n - 1] if sequence.n_done + n == sequence.n_prompt else []

    def vector(self, sequence, states, n):
        """float32 [width] when the prompt has ended with these n tokens, else None. NaN is kept."""
        is_last, total = sequence.n_done + n == sequence.n_prompt, None
        if self.is_of_all:
            if sequence.n_done == 0:
                sequence.state["sum"] = np.zeros(self.width)
            total = sequence.state["sum"]
            for row in states:  # one after the other: the order of positions
                total += row
            total = total / sequence.n_prompt
        elif is_last:
            total = states[-1].astype(np.float64)
        if not is_last:
            return None
        length = np.sqrt((total * total).sum())
        return (total / length if length > 0 else total).astype(np.float32)


def plan(path, word, runner, batch):
    """The Pooling of a model, tried on a batch. NoEmbeddings says why there is none."""
    kind = word if word != "auto" else _folder_s(Path(path))
    if kind == "cls":
        raise NoEmbeddings("cls pooling takes the first token's state, and in a decoder that has seen no other; --pooling names another")
    rows = np.arange(batch.n_tokens)
    try:
        logits, states = runner.logits_and_states(batch, rows)
    except Exception as failure:  # any error of foreign code means: not this way
        raise NoEmbeddings(f"its last states do not pass through its output layer ({type(failure).__name__}: {failure})") from None
    if states.shape[0] != len(rows) or not states.isfinite().all():
        raise NoEmbeddings(f"its output layer gets {tuple(states.shape)} states of {len(rows)} tokens")
    return Pooling(kind, states.shape[1])


def _read(file):
    if not file.is_file() or file.stat().st_size > FILE_MAX:
        return None
    try:
        return json.loads(file.read_text())
    except ValueError as broken:
        raise NoEmbeddings(f"{file} is not JSON: {broken}") from None


def _folder_s(folder):
    """What sentence-transformers' files say."""
    where = "1_Pooling"
    for module in _read(folder / "modules.json") or []:
        if not str(module.get("type")).endswith(_KNOWN):
            raise NoEmbeddings(f"its modules.json has {module.get('type')!r}, which is not supported")
        name = str(module.get("path"))
        if str(module.get("type")).endswith(".Pooling") and name and "/" not in name and name[0] != ".":
            where = name
    modes = [name for name, is_on in (_read(folder / where / "config.json") or {}).items() if name.startswith("pooling_mode_") and is_on is True]
    if modes == ["pooling_mode_cls_token"]:
        return "cls"
    if len(modes) > 1 or (modes and modes[0] not in _MODES):
        raise NoEmbeddings(f"its pooling, {', '.join(modes)}, is not supported; --pooling names another")
    return _MODES[modes[0]] if modes else "last"
