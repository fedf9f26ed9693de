"""A step: the scheduler's changes applied to the mirror of its slots, one forward pass, tokens back.

    step ─▶ check all of it ─▶ frees, admits, appends ─▶ rows ─▶ Batch ─▶ Runner ─▶ Sampler ─▶ step_done

All a worker knows of a sequence can be rebuilt from the scheduler's log: a broken frame ends the session, and the
sequences come again. An error of the model fails the step's rows: their lengths stay as they were.
"""

import re
import time
import zlib
from array import array

import numpy as np
import torch

from . import messages, sampling, tree
from .batch import Batch
from .recurrent import Kept


def _codes():
    """{name: code} of errors.def."""
    row = re.compile(r"^ERROR\((\w+),\s*(-?\d+),", re.M)
    return {name: int(code) for name, code in row.findall(tree("common", "base", "errors.def").read_text())}


CODES = _codes()


class BadStep(RuntimeError):
    """A frame that contradicts the mirror; the session ends."""


class Sequence:
    """One slot: its ids from n_cached on, how many tokens lie in the pool, its pages."""

    __slots__ = ("ids", "base", "n_done", "n_prompt", "pages", "params", "state")

    def __init__(self, admit, start=None):
        """start: the state that it begins with (recurrent.State)."""
        self.ids = array("I", admit.ids)  # tokens base, base + 1, …
        self.base = self.n_done = admit.n_cached
        self.n_prompt = admit.n_prompt
        self.pages = array("I", admit.pages)
        outputs = array("I", admit.output_ids)
        outputs.extend(self.ids[max(0, self.n_prompt - self.base) :])
        self.params = sampling.Params(admit.sampling, admit.sample, outputs)
        self.state = {"kept": Kept(start)} if start else {}

    @property
    def n_known(self):
        return self.base + len(self.ids)

    def next_ids(self, n):
        at = self.n_done - self.base
        return self.ids[at : at + n]

    def token(self, position):
        return self.ids[position - self.base]


class Worker:
    def __init__(self, runner, *, n_pages, page_size, n_slots, n_vocab, n_states=0, ranks=None, check=None, pooling=None):
        """n_states: how many it may keep, of a model that has them. ranks, check: of a model that is shared out (parallel.py); the
        first step of a session checks it. pooling: of embeddings, if it makes them."""
        self.runner = runner
        self.n_pages, self.page_size, self.n_slots, self.n_vocab = n_pages, page_size, n_slots, n_vocab
        self.n_states, self.pooling = n_states, pooling
        self.reuses_prefixes = runner.way.reuses_prefixes and (n_states > 0 or not runner.way.keeps_states)
        self.sampler = sampling.Sampler(n_vocab)
        self.ranks, self._check_ranks = ranks, check
        self.reset()

    def reset(self):
        """A new session: the mirror is empty."""
        self.slots = {}
        self.states = [None] * self.n_states  # those that were kept, by the scheduler's numbers
        self.last_step = 0
        self.is_checked = False

    # ---- checking ----

    def _need(self, is_good, what):
        if not is_good:
            raise BadStep(what)

    def _check(self, step):
        """Everything a step says, before anything of it is done."""
        self._need(step.step == self.last_step + 1, f"step {step.step} after {self.last_step}")
        self._need(len(step.append_slots) == len(step.append_pages), "append_slots and append_pages differ in length")
        n_rows = len(step.row_slots)
        self._need(len(step.row_tokens) == n_rows == len(step.row_samples), "the arrays of the rows differ in length")
        alive = {slot: [s.n_done, s.n_known, len(s.pages)] for slot, s in self.slots.items()}
        for slot in step.free_slots:
            self._need(alive.pop(slot, None) is not None, f"slot {slot} is freed, but not in use")
        for admit in step.admits:
            self._check_admit(admit, alive)
            alive[admit.slot] = [admit.n_cached, admit.n_cached + len(admit.ids), len(admit.pages)]
        for slot, page in zip(step.append_slots, step.append_pages):
            self._need(slot in alive, f"slot {slot} gets a page, but is not in use")
            self._need(page < self.n_pages, f"page {page} is not one of {self.n_pages}")
            alive[slot][2] += 1
        spans = {}
        for slot, n in zip(step.row_slots, step.row_tokens):
            self._need(slot in alive and slot not in spans, f"slot {slot} has a row, but is not in use or has two")
            done, known, pages = alive[slot]
            spans[slot] = (done, done + n)
            self._need(0 < n <= known - done, f"slot {slot} is to run {n} tokens, {known - done} are known")
            self._need(done + n <= pages * self.page_size, f"slot {slot} has {pages} pages for {done + n} tokens")
        self._check_keeps(step, spans)

    def _check_keeps(self, step, spans):
        """spans: {slot with a row: (tokens before it, tokens with it)}."""
        self._need(len(step.keep_slots) == len(step.keep_at) == len(step.keep_states), "the arrays of what to keep differ in length")
        self._need(len(set(step.keep_states)) == len(step.keep_states), "a state is kept twice in one step")
        for slot, at, number in zip(step.keep_slots, step.keep_at, step.keep_states):
            self._need(number < self.n_states, f"slot {slot} is to keep state {number} of {self.n_states}")
            begin, end = spans.get(slot, (0, 0))
            self._need(begin < at <= end and at % self.page_size == 0,
                       f"slot {slot} is to keep its state behind {at} tokens, its row runs from {begin} to {end}")
            spans[slot] = (at, end)  # several of one slot ascend

    def _check_admit(self, admit, alive):
        slot = admit.slot
        self._need(slot < self.n_slots and slot not in alive, f"slot {slot} is admitted, but in use or beyond {self.n_slots}")
        self._need(all(p < self.n_pages for p in admit.pages), f"slot {slot} has a page beyond {self.n_pages}")
        self._need(all(i < self.n_vocab for i in admit.ids), f"slot {slot} has an id beyond {self.n_vocab}")
        self._need(all(i < self.n_vocab for i in admit.output_ids), f"slot {slot} has an output id beyond {self.n_vocab}")
        self._need(len(admit.pages) * self.page_size >= admit.n_cached, f"slot {slot} has too few pages for its cached tokens")
        self._need(not admit.sampling.vector or self._embeds(admit), f"slot {slot} wants a vector that this model does not make")
        self._need(len(admit.ids) > 0, f"slot {slot} is admitted without a token to run")
        self._need(self.reuses_prefixes or admit.n_cached == 0, f"slot {slot} starts at {admit.n_cached}; this model starts at 0")
        if self.n_states or admit.from_state:
            self._check_start(admit)

    def _check_start(self, admit):
        slot, number, n = admit.slot, admit.from_state - 1, 0
        self._need(number < self.n_states, f"slot {slot} starts from state {number} of {self.n_states}")
        if number >= 0:
            self._need(self.states[number] is not None, f"slot {slot} starts from state {number}, which is not there")
            n = self.states[number].n
        self._need(n == admit.n_cached, f"slot {slot} starts at {admit.n_cached}, and its state is behind {n} tokens")

    def _embeds(self, admit):
        is_whole = admit.n_cached == 0 or not self.pooling.is_of_all if self.pooling else False
        return admit.sampling.vector == messages.VECTOR_EMBEDDING and is_whole

    # ---- doing ----

    def step(self, step):
        """Step -> StepDone. BadStep and parallel.GroupLost end the session."""
        started = time.perf_counter()
        if self.ranks and not self.is_checked:
            self._need(self.ranks.is_met, "it came before the group has met")
            self._check_ranks.run(self.runner)
            self.is_checked = True
        self._check(step)
        self.last_step = step.step
        for slot in step.free_slots:
            del self.slots[slot]
        for admit in step.admits:  # before a state is written over
            self.slots[admit.slot] = Sequence(admit, self.states[admit.from_state - 1] if admit.from_state else None)
        for number in step.keep_states:
            self.states[number] = None  # its memory is for the one that comes
        for slot, page in zip(step.append_slots, step.append_pages):
            self.slots[slot].pages.append(page)
        try:
            done = self._run(step)
        except Exception as failure:  # a model that raises, or has no memory left: this step's rows, not the worker
            if self.ranks or isinstance(failure, torch.AcceleratorError):
                raise  # other ranks wait inside of their model, and a GPU that failed answers nobody: it starts again
            text = str(failure).strip().splitlines()
            done = messages.StepDone(
                step=step.step, code=CODES["BY_EINTERNAL"], error=f"{type(failure).__name__}: {text[0][:400] if text else ''}"
            )
        done.compute_us = int((time.perf_counter() - started) * 1e6)
        if step.step % 64 == 0:
            done.crc = self._crc()
        return done

    def _run(self, step):
        rows = list(zip(step.row_slots, step.row_tokens, step.row_samples))
        done = messages.StepDone(step=step.step)
        if not rows:
            return done
        sequences = [self.slots[slot] for slot, _, _ in rows]
        at = {slot: [] for slot in step.keep_slots}
        for slot, n in zip(step.keep_slots, step.keep_at):
            at[slot].append(n)
        batch = Batch(
            [(s.next_ids(n), s.n_done, s.pages, s.state) for s, (_, n, _) in zip(sequences, rows)],
            self.page_size, self.runner.pool.device, {i: at[slot] for i, (slot, _, _) in enumerate(rows) if slot in at},
        )
        wanted = [self._rows_of(s, int(batch.q_start[i]), n, samples) for i, (s, (_, n, samples)) in
                  enumerate(zip(sequences, rows))]
        flat = np.array([r for w in wanted for r in w], np.int64)
        if any(s.params.sampling.vector for s in sequences) and len(flat):
            logits, states = self.runner.logits_and_states(batch, flat)
            self._embed(done, rows, sequences, wanted, states.numpy())
        else:
            logits = self.runner.logits(batch, flat)
        row_of = {slot: i for i, (slot, _, _) in enumerate(rows)}
        for slot, n, number in zip(step.keep_slots, step.keep_at, step.keep_states):
            self.states[number] = batch.kept[row_of[slot], n]
        self._score_prompts(done, rows, sequences, wanted, logits)
        sampled = [(slot, s) for s, (slot, _, samples) in zip(sequences, rows) if samples]
        if sampled and len(sampled) < len(flat):  # rows of prompts between them
            ends = np.cumsum([len(w) for w in wanted]) - 1
            logits = logits[[int(e) for e, (_, _, samples) in zip(ends, rows) if samples]]
        if sampled:
            self._pick(done, sampled, logits)
        return done

    @staticmethod
    def _scored(sequence, n):
        """Prompt positions whose log probability this chunk of n tokens gives: [first, end)."""
        start = sequence.params.sampling.logprob_start
        if start < 0:
            return 0, 0
        first = max(sequence.n_done + 1, start, 1)
        return first, max(first, min(sequence.n_done + n + 1, sequence.n_prompt))

    def _rows_of(self, sequence, q_start, n, samples):
        """Flat rows whose logits are needed: one before each scored position, and the last one of a sampling row."""
        if sequence.params.sampling.vector:
            return self.pooling.rows(sequence, q_start, n)
        first, end = self._scored(sequence, n)
        rows = [q_start + p - 1 - sequence.n_done for p in range(first, end)]
        last = q_start + n - 1
        return rows + [last] if samples and (not rows or rows[-1] != last) else rows

    def _embed(self, done, rows, sequences, wanted, states):
        """The vectors of prompts that end in this step."""
        at = 0
        for (slot, n, _), sequence, mine in zip(rows, sequences, wanted):
            if sequence.params.sampling.vector and mine:
                values = self.pooling.vector(sequence, states[at : at + len(mine)], n)
                if values is not None and np.isfinite(values).all():
                    done.vectors.append(messages.SlotVector(slot=slot, values=array("f", values.tobytes())))
                elif values is not None:
                    done.failed_slots.append(slot)
            at += len(mine)

    def _score_prompts(self, done, rows, sequences, wanted, logits):
        """The log probabilities of prompts that were asked for; then every sequence is as long as its row has made it."""
        at, row_bytes = logits.data_ptr(), logits.shape[1] * logits.element_size()
        for (slot, n, _), sequence, mine in zip(rows, sequences, wanted):
            first, end = self._scored(sequence, n)
            if end > first and not self._score(done, slot, sequence, first, end, range(at, at + len(mine) * row_bytes, row_bytes)):
                done.failed_slots.append(slot)
            sequence.n_done += n
            at += len(mine) * row_bytes

    def _pick(self, done, sampled, logits):
        """sampled: (slot, sequence) of each row of logits."""
        params = [s.params for _, s in sampled]
        tokens, logprobs, failed = self.sampler.pick(params, logits.data_ptr())
        for i, is_failed in enumerate(failed):
            if is_failed or sampled[i][0] in done.failed_slots:
                tokens[i], logprobs[i] = 0, 0.0
                if sampled[i][0] not in done.failed_slots:
                    done.failed_slots.append(sampled[i][0])
        for (_, sequence), token in zip(sampled, tokens):
            sequence.ids.append(token)
            sequence.params.output_ids.append(token)
        done.tokens.extend(tokens)
        if not any(p.wants_logprobs for p in params):
            return
        done.logprobs.extend(logprobs)
        nothing = [i for i, (slot, _) in enumerate(sampled) if slot in done.failed_slots]
        tops = [sampling.top_of(None if i in nothing else self.sampler.top(i)) for i in range(len(params))]
        chosen = [sampling.top_of(None if i in nothing else (p.sampling.logprob_ids, p.chosen())) for i, p in enumerate(params)]
        done.tops = tops if any(t.n_each for t in tops) else []  # rows that did not ask have n_each 0
        done.id_logprobs = chosen if any(t.n_each for t in chosen) else []

    def _score(self, done, slot, sequence, first, end, logits):
        """Adds the prompt logprobs of positions first … end - 1. False when a row is broken."""
        entry = messages.PromptLogprobs(slot=slot, start=first)
        params = sequence.params
        try:
            for i, position in enumerate(range(first, end)):
                token = sequence.token(position)
                logprob, top, chosen = self.sampler.score(params, logits[i], token)
                entry.logprobs.append(logprob)
                for record, ids, values in ((entry.top, *(top or ((), ()))), (entry.id_logprobs, params.sampling.logprob_ids, chosen)):
                    record.n_each = len(ids)
                    record.ids.extend(ids)
                    record.logprobs.extend(values)
        except sampling.Broken:
            return False
        done.prompts.append(entry)
        return True

    def _crc(self):
        state = [v for slot in sorted(self.slots) for v in (slot, self.slots[slot].n_done, self.slots[slot].ids[-1])]
        return zlib.crc32(np.array(state, np.uint32).tobytes())
