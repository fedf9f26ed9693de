"""One step as flat arrays: which tokens run, where they stand, where their keys and values lie.

    sequences  s0: 5 new tokens of 5      s1: 1 of 9           q_start = [0, 5, 6]    kv_len = [5, 9]
    ids        [ a b c d e | f ]          positions [ 0 1 2 3 4 | 8 ]
"""

import ctypes
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch

from . import kernels


def upload(array, device):
    """A numpy array as a tensor on a torch.device; nobody waits for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Batch:
    """Built from rows of (ids to run, tokens already stored, pages); arrays for tier A, sequences for B and C."""

    def __init__(self, rows, page_size, device="cpu", keep_at=None):
        """rows: list of (ids, n_done, pages, state). Pages are the scheduler's numbers, enough for n_done + len(ids). keep_at:
        {row: numbers of tokens, ascending, behind which its state is to be kept} (recurrent.py)."""
        self.rows = rows
        self.keep_at, self.kept = keep_at or {}, {}  # kept: (row, n) -> recurrent.State, once it has run
        self.page_size, self.device = page_size, torch.device(device)
        lens = [len(r[0]) for r in rows]
        self.q_start = np.array([0, *accumulate(lens)], np.int32)
        self.kv_len = np.array([r[1] + n for r, n in zip(rows, lens)], np.int32)
        n_pages = [-(-(r[1] + n) // page_size) for r, n in zip(rows, lens)]
        self.table = np.zeros((len(rows), max(n_pages, default=1) or 1), np.int32)
        for i, row in enumerate(rows):
            self.table[i, : n_pages[i]] = row[2][: n_pages[i]]
        self.table += 1  # page 0 is trash
        if max(lens, default=0) == 1:  # decodes only
            ids = np.array([r[0][0] for r in rows], np.int64)
            positions = self.kv_len.astype(np.int64) - 1
        else:
            ids = np.concatenate([np.asarray(r[0], np.int64) for r in rows]) if rows else np.zeros(0, np.int64)
            positions = np.concatenate([np.arange(r[1], r[1] + n, dtype=np.int64) for r, n in zip(rows, lens)]) if rows else ids
        self.n_tokens = len(ids)
        self.ids, self.positions, self._host_positions = upload(ids, self.device), upload(positions, self.device), positions
        self.shared = {}  # what the layers of a step have in common (attention_torch.py)
        self._for_kernels = kernels.Rows(
            q_start=self.q_start.ctypes.data, kv_len=self.kv_len.ctypes.data, table=self.table.ctypes.data,
            table_stride=self.table.shape[1], n_seqs=len(rows), page_size=page_size,
        )
        self.address = ctypes.addressof(self._for_kernels)  # of struct banyan_rows, for all layers

    @cached_property
    def write(self):
        """The slots of the tokens that run."""
        seq = np.repeat(np.arange(len(self.rows)), np.diff(self.q_start))
        return upload(self._slots(seq, self._host_positions), self.device)

    def _slots(self, seq, position):
        page = self.table[seq, position // self.page_size].astype(np.int64)
        return page * self.page_size + position % self.page_size

    def __len__(self):
        return len(self.rows)

    def host_slots(self, i, begin=0, end=None):
        """Slots of the tokens of sequence i, the new ones included, in numpy: int64 [end - begin]."""
        return self._slots(i, np.arange(begin, self.kv_len[i] if end is None else end))

    def slots(self, i):
        """All of them, on the device."""
        return upload(self.host_slots(i), self.device)
