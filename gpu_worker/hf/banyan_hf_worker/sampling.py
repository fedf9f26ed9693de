"""From logits to tokens with the C sampler: the same Philox numbers, so the same logits give the same token as natively.

One Sequence for each admitted sample holds its parameters as the C struct; logits rows are float32 on the CPU.
"""

import ctypes
from array import array

from . import kernels, messages


class Broken(RuntimeError):
    """A row of logits from which nothing can be picked: NaN, infinite, or all masked."""


class Sampler:
    def __init__(self, n_vocab):
        self.n_vocab = n_vocab
        self._lib = kernels.load()
        self._handle = self._lib.banyan_sampler_new(n_vocab)
        self._out = kernels.Pick()

    def close(self):
        if self._handle:
            self._lib.banyan_sampler_free(self._handle)
            self._handle = None

    def pick(self, params, logits):
        """params: Params; logits: address of a float32 row [n_vocab], changed. Broken when there is nothing to pick."""
        call = params.prepare()
        if self._lib.banyan_sampler_pick(self._handle, call, logits, self._out, params.chosen_address):
            raise Broken("logits are NaN or infinite")
        return self._out.id, self._out.logprob, self._top(), params.chosen()

    def score(self, params, logits, token):
        """Log probability of a prompt token, with the same extras as a pick."""
        call = params.prepare()
        failed = self._lib.banyan_sampler_score(
            self._handle, call, logits, token, self._out, params.chosen_address
        )
        if failed:
            raise Broken("logits are NaN or infinite")
        return self._out.logprob, self._top(), params.chosen()

    def _top(self):
        n = self._out.n_top
        return n and (self._out.top_ids[:n], self._out.top_logprobs[:n])


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
        self._call = kernels.Sampling(
            temperature=s.temperature, top_p=s.top_p, min_p=s.min_p, frequency_penalty=s.frequency_penalty,
            presence_penalty=s.presence_penalty, repetition_penalty=s.repetition_penalty, top_k=s.top_k,
            min_new_tokens=s.min_new_tokens, top_logprobs=min(s.top_logprobs, kernels.TOP_MAX), sample=sample,
            logprobs=int(self.wants_logprobs), seed=s.seed, stop_ids=_address(s.stop_ids), bias_ids=_address(s.bias_ids),
            logprob_ids=_address(s.logprob_ids), bias_values=_address(s.bias_values), n_stop_ids=len(s.stop_ids),
            n_bias=min(len(s.bias_ids), len(s.bias_values)), n_logprob_ids=len(s.logprob_ids),
        )

    def prepare(self):
        self._call.n_output_ids = len(self.output_ids)
        self._call.output_ids = _address(self.output_ids) if self._counts else None
        return ctypes.byref(self._call)

    def chosen(self):
        return self._chosen[:] if self._n_chosen else ()


_NO_TOP = messages.Top()  # most rows ask for none; a record a row was a quarter of a step's time on the host


def top_of(pair):
    """One position's Top from (ids, logprobs)."""
    if not pair or not len(pair[1]):
        return _NO_TOP
    ids, logprobs = pair
    return messages.Top(n_each=len(ids), ids=array("I", ids), logprobs=array("f", logprobs))
