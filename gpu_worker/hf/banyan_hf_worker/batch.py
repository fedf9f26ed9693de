"""One step as flat arrays: which tokens run, where they stand, where their keys and values lie.

    sequences  s0: 5 new tokens of 5      s1: 1 of 9           q_start = [0, 5, 6]    kv_len = [5, 9]
    ids        [ a b c d e | f ]          positions [ 0 1 2 3 4 | 8 ]
"""

import numpy as np
import torch


class Batch:
    """Built from rows of (ids to run, tokens already stored, pages); arrays for tier A, sequences for B and C."""

    def __init__(self, rows, page_size, device="cpu"):
        """rows: list of (ids, n_done, pages, state). Pages are the scheduler's numbers, enough for n_done + len(ids)."""
        self.rows = rows
        self.page_size = page_size
        self.device = device
        lens = np.array([len(r[0]) for r in rows], np.int32)
        done = np.array([r[1] for r in rows], np.int32)
        self.q_start = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(lens, out=self.q_start[1:])
        self.kv_len = done + lens
        n_pages = -(-self.kv_len // page_size)
        self.table = np.zeros((len(rows), max(1, int(n_pages.max(initial=1)))), np.int32)
        for i, row in enumerate(rows):
            self.table[i, : n_pages[i]] = np.asarray(row[2][: n_pages[i]], np.int32) + 1  # page 0 is trash
        flat = [np.asarray(r[0], np.int64) for r in rows]
        ids = np.concatenate(flat) if flat else np.zeros(0, np.int64)
        positions = np.concatenate([np.arange(d, d + n) for d, n in zip(done, lens)]) if rows else ids
        seq = np.repeat(np.arange(len(rows)), lens)
        write = self.table[seq, positions // page_size].astype(np.int64) * page_size + positions % page_size
        self.addresses = [a.ctypes.data for a in (self.q_start, self.kv_len, self.table)]  # 5 us each: once, not a layer
        self.ids = torch.from_numpy(ids).to(device)
        self.positions = torch.from_numpy(positions.astype(np.int64)).to(device)
        self.write = torch.from_numpy(write).to(device)

    def __len__(self):
        return len(self.rows)

    @property
    def n_tokens(self):
        return int(self.q_start[-1])

    def slots(self, i):
        """Slots of all tokens of sequence i, the new ones included: int64 [kv_len]."""
        position = np.arange(self.kv_len[i])
        return torch.from_numpy(
            self.table[i, position // self.page_size].astype(np.int64) * self.page_size + position % self.page_size
        ).to(self.device)
