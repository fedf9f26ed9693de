"""A scheduler of a few lines for one Worker: it hands out shuffled pages and speaks in frames.

    d.admit("a", ids)            d.admit("b", ids, prefix=("a", 16))     b starts behind the first 16 tokens of a
    d.run(("a", 7), ("b", 1))    7 tokens of a, 1 of b, in one step; a row that reaches the end of what is known samples
    d.free("a")

Log probabilities of the whole vocabulary are asked for at every position: log_probs("a") is [n positions, n vocab], the
row of the first computed position's successor on. Every step and answer goes through the wire's own bytes.
"""

import random

import numpy as np
import torch
from banyan_hf_worker import messages
from banyan_hf_worker.pool import Pool
from banyan_hf_worker.runner import Runner
from banyan_hf_worker.worker import Worker

PAGE = 4


def make_worker(model, way, n_pages=256, n_slots=16, page_size=PAGE, n_vocab=None, n_states=0, **more):
    """n_states: of a model that keeps them."""
    runner = Runner(model, way, Pool(n_pages, page_size, poison=True))
    n_vocab = n_vocab or model.get_output_embeddings().weight.shape[0]
    return Worker(runner, n_pages=n_pages, page_size=page_size, n_slots=n_slots, n_vocab=n_vocab,
                  n_states=n_states * runner.way.keeps_states, **more)


def through_the_wire(message):
    return messages.decode(messages.encode(message, 1, 1))[0]


class Sequence:
    def __init__(self, slot, ids, n_cached, pages, n_prompt):
        self.slot, self.ids, self.n_done, self.pages, self.n_prompt = slot, list(ids), n_cached, pages, n_prompt
        self.rows = {}  # position -> log probabilities [n_vocab] of the token there


class Driver:
    def __init__(self, worker, seed=1, want_all=True):
        self.worker, self.want_all = worker, want_all
        self.random = random.Random(seed)
        self.free_pages = list(range(worker.n_pages))
        self.random.shuffle(self.free_pages)
        self.sequences, self.refs = {}, {}
        self.pending = {"admits": [], "free_slots": [], "append_slots": [], "append_pages": []}
        self.kept, self.n_kept = {}, 0  # state's number -> (sequence, n)
        self.step = 0

    def _page(self):
        page = self.free_pages.pop()
        self.refs[page] = 1
        return page

    def admit(self, name, ids, prefix=None, n_prompt=None, output_ids=(), **sampling):
        slot = next(i for i in range(self.worker.n_slots) if all(s.slot != i for s in self.sequences.values()))
        pages, n_cached, from_state = [], 0, 0
        if prefix:
            other, n_cached = prefix
            if self.worker.n_states:
                from_state = 1 + next(number for number, of in self.kept.items() if of == (self.sequences[other], n_cached))
            pages = self.sequences[other].pages[: n_cached // self.worker.page_size]
            for page in pages:
                self.refs[page] += 1
        if self.want_all:
            sampling = {"logprobs": True, "logprob_start": 0, "logprob_ids": range(self.worker.n_vocab), **sampling}
        s = Sequence(slot, ids, n_cached, list(pages), n_prompt or len(ids))
        self.sequences[name] = s
        self.pending["admits"].append(messages.Admit(
            slot=slot, n_prompt=s.n_prompt, n_cached=n_cached, ids=ids[n_cached:], pages=pages, output_ids=output_ids, from_state=from_state,
            sampling=messages.Sampling(**{"top_p": 1.0, "repetition_penalty": 1.0, "logprob_start": -1, **sampling}),
        ))
        return s

    def free(self, name):
        s = self.sequences.pop(name)
        self.pending["free_slots"].append(s.slot)
        for page in s.pages:
            self.refs[page] -= 1
            if not self.refs[page]:
                self.free_pages.insert(self.random.randrange(len(self.free_pages) + 1), page)
        return s

    def _keep(self, rows):
        """Where there are states, one behind each fourth page that a row fills, under the number that is kept for longest."""
        every, found = 4 * self.worker.page_size, []
        for s, n in rows if self.worker.n_states else []:
            for at in range((s.n_done // every + 1) * every, s.n_done + n + 1, every):
                found.append((s.slot, at, self.n_kept % self.worker.n_states))
                self.kept[found[-1][2]] = (s, at)
                self.n_kept += 1
        found = found[-self.worker.n_states :]  # each number once
        return {name: [f[i] for f in found] for i, name in enumerate(("keep_slots", "keep_at", "keep_states"))}

    def frame(self, *rows):
        """The Step of these rows; pages are added as they need them."""
        for name, n in rows:
            s = self.sequences[name]
            while len(s.pages) * self.worker.page_size < s.n_done + n:
                s.pages.append(self._page())
                self.pending["append_slots"].append(s.slot)
                self.pending["append_pages"].append(s.pages[-1])
        self.step += 1
        sequences = [self.sequences[name] for name, _ in rows]
        frame = messages.Step(
            step=self.step, row_slots=[s.slot for s in sequences], row_tokens=[n for _, n in rows],
            row_samples=[int(s.n_done + n == len(s.ids)) for s, (_, n) in zip(sequences, rows)],
            **self._keep([(s, n) for s, (_, n) in zip(sequences, rows)]), **self.pending,
        )
        self.pending = {key: [] for key in self.pending}
        return frame

    def run(self, *rows):
        """Sends the step; the answer, after it was noted."""
        done = through_the_wire(self.worker.step(through_the_wire(self.frame(*rows))))
        assert done.code == 0, done.error
        by_slot = {s.slot: s for s in self.sequences.values()}
        for p in done.prompts:
            values = np.array(p.id_logprobs.logprobs, np.float32).reshape(len(p.logprobs), -1)
            by_slot[p.slot].rows.update({p.start + i: values[i] for i in range(len(p.logprobs))})
        k = 0
        for name, n in rows:
            s = self.sequences[name]
            s.n_done += n
            if s.n_done == len(s.ids):
                if done.id_logprobs:
                    s.rows[s.n_done] = np.array(done.id_logprobs[k].logprobs, np.float32)
                s.ids.append(done.tokens[k])
                k += 1
        assert k == len(done.tokens)
        return done

    def finish(self, name, n_new):
        """Runs one sequence alone until it has n_new tokens more."""
        s = self.sequences[name]
        end = len(s.ids) + n_new
        while len(s.ids) < end:
            self.run((name, len(s.ids) - s.n_done))
        return s.ids[s.n_prompt:]


@torch.inference_mode()
def reference(model, ids):
    """Log probabilities by transformers' eager attention in one pass: row p is of the token at p + 1."""
    from banyan_hf_worker.runner import use_own

    before = getattr(model.config, "_attn_implementation", None)
    use_own(model, "eager")
    try:
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1).numpy()
    finally:
        use_own(model, before)


def error_of(sequence, want):
    """Largest difference of all log probabilities that came, and how many positions came."""
    assert sequence.rows, "no log probabilities came"
    return max(float(np.abs(row - want[p - 1]).max()) for p, row in sequence.rows.items())


# ---- the six ways in which a request can be served ----

N = 37


def prompts(n_vocab, n=4):
    random = np.random.default_rng(5)
    first = random.integers(3, min(n_vocab, 600), 60).tolist()
    return [first] + [first[:16] + random.integers(3, min(n_vocab, 600), N - 16 + i).tolist() for i in range(1, n)]


def scenarios(d, ids, with_prefix):
    """Runs the six; gives {what: [sequence …]}."""
    seen = {}
    d.admit("whole", ids[0][:N])
    d.finish("whole", 6)
    seen["prefill and decode"] = [d.sequences["whole"]]

    d.admit("chunks", ids[1])
    for n in (7, 13, 1):
        d.run(("chunks", n))
    d.finish("chunks", 5)
    seen["chunked prefill"] = [d.sequences["chunks"]]

    d.admit("shared", ids[2], prefix=("whole", 16) if with_prefix else None)
    d.finish("shared", 4)
    seen["shared prefix"] = [d.sequences["shared"]]

    d.admit("late", ids[3])
    for n in (9, 11, 8):
        d.run(("shared", 1), ("late", n), ("whole", 1))
    d.run(("late", len(ids[3]) - 28), ("chunks", 1))
    seen["mixed steps"] = [d.sequences["late"], d.sequences["shared"]]

    for _ in range(4):
        d.run(("chunks", 1), ("late", 1), ("whole", 1), ("shared", 1))
    seen["batched decode"] = [d.sequences[n] for n in ("chunks", "late", "whole", "shared")]

    gone = d.free("late")  # gives way, comes back with what it had
    d.run(("whole", 1), ("chunks", 1))
    d.admit("late", gone.ids, n_prompt=gone.n_prompt)
    d.run(("late", 20), ("whole", 1))
    d.finish("late", 3)
    seen["after giving way"] = [d.sequences["late"]]
    return seen
