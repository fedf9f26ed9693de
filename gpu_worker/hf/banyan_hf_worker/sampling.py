"""From logits to tokens with the C sampler: the same Philox numbers, so the same logits give the same token as natively.

One Sequence for each admitted sample holds its parameters as the C struct; logits rows are float32 on the CPU.
"""

import ctypes
from array import array

import numpy as np

from . import kernels, messages


class Broken(RuntimeError):
    """A row of logits from which nothing can be picked: NaN, infinite, or all masked."""


class Sampler:
    def __init__(self, n_vocab):
        self.n_vocab = n_vocab
        self._lib = kernels.load()
        self._handle = self._lib.banyan_sampler_new(n_vocab)
        self._out = kernels.Pick()
        self._room(8)

    def _room(self, n):
        """Arrays of a call for n rows."""
        self._picks, self._calls, self._chosen = (kernels.Pick * n)(), (ctypes.c_void_p * n)(), (ctypes.c_void_p * n)()
        self._failed = (ctypes.c_uint8 * n)()
        self._ids, self._logprobs = (np.frombuffer(self._picks, _PICK)[name] for name in ("id", "logprob"))

    def close(self):
        if self._handle:
            self._lib.banyan_sampler_free(self._handle)
            self._handle = None

    def pick(self, params, logits):
        """params: list of Params; logits: address of as many float32 rows [n_vocab], changed -> (ids, logprobs, failed).

        A failed row is one from which nothing can be picked. top(i) and params[i].chosen() have the rest of row i."""
        n = len(params)
        if n > len(self._picks):
            self._room(2 * n)
        self._calls[:n] = [p.prepare() for p in params]
        self._chosen[:n] = [p.chosen_address for p in params]
        self._lib.banyan_sampler_pick_all(self._handle, self._calls, logits, self._picks, self._chosen, self._failed, n)
        return self._ids[:n].tolist(), self._logprobs[:n].tolist(), self._failed[:n]

    def top(self, i):
        """The Top of row i of the last pick."""
        return _top_of(self._picks[i])

    def score(self, params, logits, token):
        """Log probability of a prompt token, with the same extras as a pick."""
        params.prepare()
        if self._lib.banyan_sampler_score(self._handle, params.call, logits, token, self._out, params.chosen_address):
            raise Broken("logits are NaN or infinite")
        return self._out.logprob, _top_of(self._out), params.chosen()


def _top_of(pick):
    n = pick.n_top
    return n and (pick.top_ids[:n], pick.top_logprobs[:n])


_PICK = np.dtype([("id", "u4"), ("n_top", "u4"), ("logprob", "f4"), ("rest", "u4", 2 * kernels.TOP_MAX)])  # kernels.Pick


def _address(numbers):
    return numbers.buffer_info()[0] if len(numbers) else None


class Params:
    """A sample's parameters and output ids, as the C side wants them."""

    def __init__(self, sampling, sample, output_ids):
        self.sampling = sampling
        self.output_ids = array("I", output_ids)
        self.wants_logprobs = sampling.logprobs or sampling.top_logprobs > 0 or len(sampling.logprob_ids) > 0
        self._counts = (
            sampling.frequency_penalty != 0 or sampling.presence_penalty != 0 or sampling.repetition_penalty != 1
        )
        self._chosen = array("f", bytes(4 * len(sampling.logprob_ids)))
        self._n_chosen = len(self._chosen)
        self.chosen_address = _address(self._chosen)
        s = sampling
        self.call = kernels.Sampling(
            temperature=s.temperature, top_p=s.top_p, min_p=s.min_p, frequency_penalty=s.frequency_penalty,
            presence_penalty=s.presence_penalty, repetition_penalty=s.repetition_penalty, top_k=s.top_k,
            min_new_tokens=s.min_new_tokens, top_logprobs=min(s.top_logprobs, kernels.TOP_MAX), sample=sample,
            logprobs=int(self.wants_logprobs), seed=s.seed, stop_ids=_address(s.stop_ids), bias_ids=_address(s.bias_ids),
            logprob_ids=_address(s.logprob_ids), bias_values=_address(s.bias_values), n_stop_ids=len(s.stop_ids),
            n_bias=min(len(s.bias_ids), len(s.bias_values)), n_logprob_ids=len(s.logprob_ids),
        )
        self._address = ctypes.addressof(self.call)

    def prepare(self):
        """The address of the C struct, which knows of the output ids so far."""
        self.call.n_output_ids = len(self.output_ids)
        if self._counts:
            self.call.output_ids = _address(self.output_ids)
        return self._address

    def chosen(self):
        return self._chosen[:] if self._n_chosen else ()


_NO_TOP = messages.Top()  # most rows ask for none; a record a row was a quarter of a step's time on the host


def top_of(pair):
    """One position's Top from (ids, logprobs)."""
    if not pair or not len(pair[1]):
        return _NO_TOP
    ids, logprobs = pair
    return messages.Top(n_each=len(ids), ids=array("I", ids), logprobs=array("f", logprobs))
