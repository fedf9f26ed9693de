"""Key and value memory: one pair of tensors a layer, indexed by slots, a slot a token.

    page p of the scheduler ─▶ slots (p + 1) · page_size …      page 0 of the pool is trash: padding writes and reads there

Shapes come from the first forward pass (a model may have other heads or widths in each layer), never from the config.
"""

import torch


class Pool:
    """n_pages pages of page_size slots and one page of trash, for every layer that asks."""

    def __init__(self, n_pages, page_size, device="cpu", poison=False):
        self.n_pages, self.page_size, self.device, self.poison = n_pages, page_size, device, poison
        self.layers = {}  # layer index -> (keys [n_slots, heads, k_dim], values [n_slots, heads, v_dim])
        self.plans = {}  # layer index -> attention.Plan, which holds the addresses of the layer's tensors

    @property
    def n_slots(self):
        return (self.n_pages + 1) * self.page_size

    def layer(self, index, n_heads, k_dim, v_dim, dtype):
        """The layer's tensors; made when first asked for. Untouched memory costs nothing on a CPU."""
        found = self.layers.get(index)
        if found is None:
            found = tuple(self._make(n_heads, dim, dtype) for dim in (k_dim, v_dim))
            self.layers[index] = found
        keys, values = found
        if keys.shape[1:] != (n_heads, k_dim) or values.shape[1:] != (n_heads, v_dim) or keys.dtype != dtype:
            raise RuntimeError(
                f"layer {index} now stores {n_heads} heads of {k_dim}+{v_dim} {dtype}, before "
                f"{tuple(keys.shape[1:])}+{tuple(values.shape[1:])} {keys.dtype}"
            )
        return keys, values

    def _make(self, n_heads, dim, dtype):
        tensor = torch.empty((self.n_slots, n_heads, dim), dtype=dtype, device=self.device)
        if self.poison:
            tensor.fill_(float("nan"))
        tensor[: self.page_size] = 0  # trash is read with weight 0, and 0 · NaN is NaN
        return tensor

    def bytes_per_slot(self):
        """Of all layers that have been asked for."""
        return sum(t.shape[1] * t.shape[2] * t.element_size() for pair in self.layers.values() for t in pair)
