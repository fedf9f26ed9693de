"""Tier A's attention in plain torch, for devices that libbanyan_kernels does not know: GPUs, and float16 on CPUs.

    a step's rows ─▶ parts: sequences of like lengths side by side, padded, small enough     once a step, for all like layers
    a layer       ─▶ store keys and values ─▶ each part: gather its slots, one product of attention, scatter its rows

A part's padding repeats a sequence's last query, and reads the trash page, which the mask hides. What a part needs goes to
the device once a step, at the first layer that asks, and nothing here waits for the device. How rows are put together, and a
library's products, depend on the batch: unlike the C kernels this promises the same numbers, not the same bits.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from .batch import upload

GATHERED_BYTES = 256 << 20  # of keys and values that a part may copy out of the pool; one sequence may be longer
SCORES_MAX = 64 << 20  # numbers between the queries of a part and what they may see


@dataclass(frozen=True)
class Kind:
    """What layers must have in common to share the parts of a step."""

    window: int
    chunk: int
    n_heads: int
    group: int  # query heads of a key head
    slots_max: int
    dtype: torch.dtype  # of the queries


class Plan:
    """As attention.Plan, for any device."""

    def __init__(self, keys, values, n_heads, said):
        self.keys, self.values, self.n_heads, self.said = keys, values, n_heads, said
        self.scale, window, self.softcap, chunk = said
        slot_bytes = keys[0].nbytes + values[0].nbytes
        self.group = n_heads // keys.shape[1]
        self.kind = Kind(window, chunk, n_heads, self.group, slots_at_once(slot_bytes), keys.dtype)

    def run(self, query, batch, sinks=None, key=None, value=None):
        """query [T, Hq, Dk] -> [T, Hq, Dv]; key and value [T, Hk, D], if there are any, are stored first."""
        if query.dtype is not self.kind.dtype:
            self.kind = replace(self.kind, dtype=query.dtype)
        if key is not None:
            self.keys.index_copy_(0, batch.write, key.to(self.keys.dtype))
            self.values.index_copy_(0, batch.write, value.to(self.values.dtype))
        parts = batch.shared.get(self.kind)
        if parts is None:
            parts = batch.shared[self.kind] = parts_of(batch, self.kind)
        out = query.new_empty((query.shape[0], self.n_heads, self.values.shape[2]))
        for part in parts:
            out.index_copy_(0, part.rows, self._attend(query, part, sinks))
        return out

    def _attend(self, query, part, sinks):
        """The rows of a part: [B · n, Hq, Dv]. Query heads of one key head are rows beside each other."""
        n_kv, group, n = self.keys.shape[1], self.group, part.n
        b = part.rows.shape[0] // n
        q = query.index_select(0, part.rows).view(b, n, n_kv, group, -1).permute(0, 2, 3, 1, 4).reshape(b, n_kv, group * n, -1)
        k, v = (pool.index_select(0, part.slots).to(q.dtype).view(b, -1, n_kv, pool.shape[2]).transpose(1, 2)
                for pool in (self.keys, self.values))
        if self.softcap or sinks is not None:
            out = by_hand(q, k, v, part.mask, self.scale, self.softcap, sinks, n)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=part.mask, scale=self.scale)
        return out.view(b, n_kv, group, n, -1).permute(0, 3, 1, 2, 4).reshape(b * n, self.n_heads, -1)


def by_hand(q, k, v, mask, scale, softcap, sinks, n):
    """What scaled_dot_product_attention cannot do, in float32. sinks [Hq]: a score that takes weight and gives no value."""
    scores = (q.float() @ k.float().transpose(2, 3)) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores + mask
    if sinks is not None:
        column = sinks.float().view(1, k.shape[1], -1, 1).expand(-1, -1, -1, n).reshape(1, k.shape[1], -1, 1)
        scores = torch.cat([scores, column.expand(scores.shape[0], -1, -1, -1)], -1).softmax(-1)[..., :-1]
    else:
        scores = scores.softmax(-1)
    return (scores @ v.float()).to(q.dtype)


# ---- a step in parts ----


class Part:
    """B sequences of n queries each over M slots: rows [B · n] of the batch, slots [B · M], and a mask of 0 and -inf
    [B, 1, group · n or 1, M], or None where every query sees all."""

    def __init__(self, batch, kind, pieces):
        """pieces: (sequence, first row, rows, first position seen) each."""
        widths = [self._end(batch, p) - p[3] for p in pieces]
        self.n, width = max(p[2] for p in pieces), max(widths)
        sees_all = self.n == 1 and min(widths) == width
        if not sees_all:
            width = -(-width // 16) * 16  # what fast kernels want of a mask
        rows = np.zeros((len(pieces), self.n), np.int64)
        slots = np.zeros((len(pieces), width), np.int64)  # slot 0 is trash
        for i, (piece, w) in enumerate(zip(pieces, widths)):
            sequence, first, n, begin = piece
            rows[i] = first + np.minimum(np.arange(self.n), n - 1)
            slots[i, :w] = batch.host_slots(sequence, begin, begin + w)
        begins = np.array([p[3] for p in pieces], np.int64)
        sent = upload(np.concatenate([rows.ravel(), slots.ravel(), begins]), batch.device)
        self.rows, self.slots, begins = sent.split([rows.size, slots.size, len(pieces)])
        self.mask = None if sees_all else self._mask(batch.positions[self.rows].view(-1, self.n, 1), begins.view(-1, 1, 1), width, kind)

    @staticmethod
    def _end(batch, piece):
        """Behind the last position that a piece's queries see."""
        sequence, first, n, _ = piece
        return int(batch.kv_len[sequence] - batch.q_start[sequence + 1] + first + n)

    def _mask(self, own, begins, width, kind):
        seen = begins + torch.arange(width, device=own.device)
        hidden = seen > own  # [B, n, M]: padding too, it lies behind the last query
        if kind.window:
            hidden = hidden | (own - seen >= kind.window)
        if kind.chunk:
            hidden = hidden | (seen < own // kind.chunk * kind.chunk)
        mask = torch.zeros(hidden.shape, dtype=kind.dtype, device=own.device).masked_fill(hidden, float("-inf"))[:, None, None]
        if self.n > 1:
            mask = mask.expand(-1, -1, kind.group, -1, -1)
        return mask.reshape(mask.shape[0], 1, -1, width)


def parts_of(batch, kind):
    """The parts of a step: like lengths together (by powers of two), none too large."""
    like = {}
    for piece, width in _pieces(batch, kind):
        like.setdefault((piece[2].bit_length(), width.bit_length()), []).append((piece, width))
    parts = []
    for alike in like.values():
        alike.sort(key=lambda found: found[1])
        for group in in_groups(alike, lambda n_seqs, last: n_seqs * last[1] <= kind.slots_max and _scores(n_seqs, last, kind) <= SCORES_MAX):
            parts.append(Part(batch, kind, [piece for piece, _ in group]))
    return parts


def in_groups(items, fits):
    """Consecutive items, as many together as fits(how many, the last of them) allows, at least one."""
    groups = []
    for item in items:
        if groups and fits(len(groups[-1]) + 1, item):
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def slots_at_once(slot_bytes):
    """How many slots may be copied out of the pool together."""
    return max(1, GATHERED_BYTES // max(slot_bytes, 1))


def groups_of_decodes(batch, members, pool):
    """Sequences of the batch, sorted by length into groups whose slots may be copied out of the pool together."""
    at_once = slots_at_once(pool.bytes_of_largest())
    return in_groups(sorted(members, key=lambda i: batch.kv_len[i]), lambda n, last: n * int(batch.kv_len[last]) <= at_once)


def _scores(n_seqs, last, kind):
    (_, _, n, _), width = last
    return n_seqs * kind.n_heads * (1 << n.bit_length()) * width  # the others have at most that many rows


def _pieces(batch, kind):
    """((sequence, first row, rows, first position seen), width) each: a chunk whose scores are too many is cut."""
    for i in range(len(batch)):
        first, end = int(batch.q_start[i]), int(batch.q_start[i + 1])
        behind = int(batch.kv_len[i]) - end  # from a row to its position
        while first < end:
            begin = _first_seen(behind + first, kind)
            n = end - first
            most = max(1, SCORES_MAX // (kind.n_heads * (behind + end - begin)))
            n = min(n, most)
            yield (i, first, n, begin), behind + first + n - begin
            first += n


def _first_seen(position, kind):
    """The first position that the query at this one sees."""
    first = max(0, position - kind.window + 1) if kind.window else 0
    return max(first, position // kind.chunk * kind.chunk) if kind.chunk else first
