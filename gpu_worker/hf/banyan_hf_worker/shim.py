"""Tiers B and C: the model's own attention over a cache of ours that keeps keys and values in the pool.

    B  every attention layer's cache is a SlotLayer; decodes run as one left-padded batch, a prefill chunk runs alone
    C  some are, beside layers that keep state (recurrent.py)

         table [B, M] of slots, left padded with trash:   [ 0 0 a b c d ]      write = its last n columns
                                                          [ p q r s t u ]
"""

import numpy as np
from transformers.cache_utils import Cache, CacheLayerMixin

from .batch import upload


class View:
    """Where the tokens of one call of the model lie."""

    def __init__(self, pool, table, n_new):
        self.pool, self.table, self.n_new = pool, table, n_new
        self.n_total = table.shape[1]
        self.write = table[:, self.n_total - n_new :].reshape(-1)


class SlotLayer(CacheLayerMixin):
    """One attention layer's keys and values, in the pool."""

    is_sliding = False  # the whole sequence is there; windows are in the mask that transformers makes
    is_compileable = False

    def __init__(self, index, view=None):
        super().__init__()
        self.index, self.view = index, view
        self.is_initialized = True

    def lazy_initialization(self, *args, **kwargs):
        pass

    def update(self, key_states, value_states, *args, **kwargs):
        view, heads = self.view, key_states.shape[1]
        keys, values = view.pool.layer(self.index, heads, key_states.shape[3], value_states.shape[3], key_states.dtype)
        keys[view.write] = key_states.transpose(1, 2).reshape(-1, heads, key_states.shape[3])
        values[view.write] = value_states.transpose(1, 2).reshape(-1, heads, value_states.shape[3])
        return keys[view.table].transpose(1, 2), values[view.table].transpose(1, 2)

    def get_seq_length(self, *args):
        return self.view.n_total - self.view.n_new

    def get_mask_sizes(self, *args):
        return self.view.n_total, 0

    def get_max_length(self):
        return -1

    get_max_cache_shape = get_max_length  # its name in transformers 4

    def reset(self):
        pass

    def reorder_cache(self, *args):
        raise NotImplementedError("beam search")


class SlotCache(Cache):
    """Tier B: all layers in the pool. Made for one call."""

    def __init__(self, n_layers, view):
        super().__init__(layers=[SlotLayer(i, view) for i in range(n_layers)])


def left_padded(tables, device):
    """tables: list of int64 [len] slots in numpy -> (table [B, M] with trash on the left, mask [B, M] of 0 and 1)."""
    width = max(len(t) for t in tables)
    both = np.zeros((2, len(tables), width), np.int64)
    for i, slots in enumerate(tables):
        both[0, i, width - len(slots) :] = slots
        both[1, i, width - len(slots) :] = 1
    return upload(both, device)
