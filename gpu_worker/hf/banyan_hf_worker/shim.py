"""Tiers B and C: the model's own attention over a cache of ours that keeps keys and values in the pool.

    B  every attention layer's cache is a SlotLayer; decodes run as one left-padded batch, or apart where code takes its positions from
       the cache's length (Bart's decoders); a prefill chunk runs alone
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
    """One attention layer's keys and values, in the pool. To the model's code it is transformers' DynamicLayer."""

    is_sliding = False  # the whole sequence is there; windows are in the mask that transformers makes
    is_compileable = False
    keys = property(lambda self: self._so_far(0), lambda self, value: None)
    values = property(lambda self: self._so_far(1), lambda self, value: None)

    def __init__(self, index, view=None):
        super().__init__()
        self.index, self.view = index, view
        self.is_initialized = True
        self.updated, self.n_copies = None, 0  # updated: the view whose new tokens are in the pool

    def __deepcopy__(self, memo):
        """Code that runs its layers in loops (Dory) makes a layer of the cache for each more time: it has keys of its own."""
        self.n_copies += 1
        return type(self)(f"{self.index}, time {self.n_copies + 1}", self.view)

    def lazy_initialization(self, *args, **kwargs):
        pass

    def update(self, key_states, value_states, *args, **kwargs):
        view, heads = self.view, key_states.shape[1]
        keys, values = view.pool.layer(self.index, heads, key_states.shape[3], value_states.shape[3], key_states.dtype)
        keys[view.write] = key_states.transpose(1, 2).flatten(0, 1)
        values[view.write] = value_states.transpose(1, 2).flatten(0, 1)  # of latent attention they may be nothing
        self.updated = view
        return keys[view.table].transpose(1, 2), values[view.table].transpose(1, 2)

    def _so_far(self, which):
        tensors = self.view.pool.layers.get(self.index) if self.view else None
        return tensors and tensors[which][self.view.table[:, : self.get_seq_length()]].transpose(1, 2)

    def update_indexer(self, indexer_key_states):
        """Of sparse attention (DeepSeek V3.2): the keys by which each query chooses whom it sees, [B, n, dim] -> [B, M, dim]."""
        view, dim = self.view, indexer_key_states.shape[2]
        keys, _ = view.pool.layer(f"index of {self.index}", 1, dim, 0, indexer_key_states.dtype)
        keys[view.write, 0] = indexer_key_states.reshape(-1, dim)
        return keys[view.table, 0]

    def get_seq_length(self, *args):
        return self.view.n_total - (0 if self.updated is self.view else self.view.n_new)

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
