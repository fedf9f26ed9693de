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
        try:
            tensor = torch.empty((self.n_slots, n_heads, dim), dtype=dtype, device=self.device)
        except RuntimeError as failure:  # a CPU's has no name of its own
            raise torch.OutOfMemoryError(str(failure)) from None
        if self.poison:
            tensor.fill_(float("nan"))
        tensor[: self.page_size] = 0  # trash is read with weight 0, and 0 · NaN is NaN
        return tensor

    def shapes(self):
        """What a slot has in each layer that has been asked for: {index: (heads, k_dim, v_dim, dtype)}."""
        return {i: (keys.shape[1], keys.shape[2], values.shape[2], keys.dtype) for i, (keys, values) in self.layers.items()}

    def reserve(self, shapes):
        """All layers at once, as another pool's were: what is too large for the device shows at the start."""
        for index, shape in shapes.items():
            self.layer(index, *shape)

    def bytes_of_largest(self):
        """Of a slot in the layer that has most of them."""
        return max((bytes_of(shape) for shape in self.shapes().values()), default=0)


def bytes_of(shape):
    """Of a slot of one layer."""
    n_heads, k_dim, v_dim, dtype = shape
    return n_heads * (k_dim + v_dim) * dtype.itemsize
