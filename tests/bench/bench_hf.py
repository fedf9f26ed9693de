#!/usr/bin/env python3
"""The Transformers worker against transformers itself: ratios, measured in turns on the same machine.

    .venv-transformers/bin/python tests/bench/bench_hf.py [--model PATH] [--threads N] [--rounds N] [--only ROW,ROW]

Both sides run the same weights in float32 in this process; each round times both, one after the other, and the ratio is of
the medians. A row: what is measured, ours, theirs, ratio, what the ratio is to be. "packed" is --hf-fast-linear; it is ours
alone, theirs stays torch's. The rows `native` compare it with banyan-gpu-worker --one-batch on the same folder, in turns.
"""

import argparse
import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "gpu_worker/hf"), str(ROOT / "tests/hf")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from banyan_hf_worker import attention, fast_linear, loader, probe  # noqa: E402
from banyan_hf_worker.runner import default_attention, use_hook, use_own  # noqa: E402

from driver import Driver, make_worker  # noqa: E402

CONTEXT = 128  # tokens before the first measured decode
STEPS = 16  # decodes of one measurement


def median_pairs(rounds, ours, theirs):
    """Medians of (ours, theirs), each a function that returns seconds, run in turns."""
    pairs = [(ours(), theirs()) for _ in range(rounds + 1)][1:]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def clock(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Ours:
    """The worker with n sequences behind their prompts."""

    def __init__(self, model, n_tokens_each):
        self.model, self.lens = model, n_tokens_each
        random = np.random.default_rng(1)
        self.prompts = [random.integers(3, 1000, n).tolist() for n in n_tokens_each]

    def start(self):
        use_hook(self.model)
        n_pages = sum(-(-(n + 4 * STEPS) // 16) for n in self.lens) + 8
        worker = make_worker(self.model, "A", n_pages=n_pages, n_slots=max(16, len(self.lens)), page_size=16)
        self.d = Driver(worker, want_all=False)
        for i, prompt in enumerate(self.prompts):
            self.d.admit(i, prompt)
            self.d.run((i, len(prompt)))

    def decode(self):
        """Seconds of STEPS steps of all sequences."""
        self.start()
        rows = [(i, 1) for i in range(len(self.prompts))]
        self.d.run(*rows)
        return clock(lambda: [self.d.run(*rows) for _ in range(STEPS)])


@torch.inference_mode()
def theirs_decode(model, n_rows, n_tokens):
    """transformers' forward with DynamicCache: a rectangle of n_rows, STEPS decodes."""
    use_own(model, default_attention(model))
    ids = torch.from_numpy(np.random.default_rng(1).integers(3, 1000, (n_rows, n_tokens)))
    out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    last, cache = out.logits[:, -1:].argmax(-1), out.past_key_values

    def step():
        nonlocal last
        last = model(input_ids=last, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)

    step()
    return clock(lambda: [step() for _ in range(STEPS)])


def host_overhead_ms(model):
    """What a step of 8 takes beyond the model's forward pass, in ms."""
    ours = Ours(model, [CONTEXT] * 8)
    ours.start()
    runner, inside = ours.d.worker.runner, []
    real = runner.logits

    def timed(batch, rows):
        began = time.perf_counter()
        out = real(batch, rows)
        inside.append(time.perf_counter() - began)
        return out

    runner.logits = timed
    rows = [(i, 1) for i in range(8)]
    steps = []
    for _ in range(2 * STEPS):
        frame = ours.d.frame(*rows)
        began = time.perf_counter()
        done = ours.d.worker.step(frame)
        steps.append(time.perf_counter() - began)
        for k, (i, _) in enumerate(rows):
            ours.d.sequences[i].n_done += 1
            ours.d.sequences[i].ids.append(done.tokens[k])
    return 1e3 * statistics.median(s - i for s, i in zip(steps, inside))


def serve_all(model, prompts, n_new, at_a_time):
    """All prompts to their end, n_new tokens each, by a loop that does what the scheduler does: chunks beside decodes."""
    use_hook(model)
    n_pages = at_a_time * (-(-(max(map(len, prompts)) + n_new) // 16) + 1)
    d = Driver(make_worker(model, "A", n_pages=n_pages, n_slots=at_a_time, page_size=16), want_all=False)
    waiting = list(enumerate(prompts))
    while waiting or d.sequences:
        while waiting and len(d.sequences) < at_a_time:
            d.admit(*waiting.pop(0))
        d.run(*[(i, len(s.ids) - s.n_done) for i, s in d.sequences.items()])
        for i in [i for i, s in d.sequences.items() if len(s.ids) == s.n_prompt + n_new]:
            d.free(i)


@torch.inference_mode()
def one_by_one(model, prompts, n_new):
    """What a loop over pipeline("text-generation") does: one generate after another."""
    use_own(model, default_attention(model))
    for p in prompts:
        model.generate(torch.tensor([p]), max_new_tokens=n_new, min_new_tokens=n_new, do_sample=False, pad_token_id=0)


def generate_batch(model, prompts, n_new):
    from transformers import GenerationConfig

    use_own(model, default_attention(model))
    config = GenerationConfig(max_new_tokens=n_new, do_sample=False, eos_token_id=-1, pad_token_id=0)
    model.generate_batch(inputs=prompts, generation_config=config, progress_bar=False)
    use_own(model, default_attention(model))


def shared_prefix(model):
    """Seconds of 8 prompts with a common start of 512 tokens: it computed once, and each time anew."""
    random = np.random.default_rng(4)
    start = random.integers(3, 1000, 512).tolist()
    tails = [random.integers(3, 1000, 16).tolist() for _ in range(8)]

    def run(shares):
        use_hook(model)
        d = Driver(make_worker(model, "A", n_pages=8 * 34 + 8, page_size=16), want_all=False)
        for i, tail in enumerate(tails):
            d.admit(i, start + tail, prefix=(0, 512) if shares and i else None)
            d.run((i, len(tail) if shares and i else 528))

    return (lambda: clock(lambda: run(True))), (lambda: clock(lambda: run(False)))


def native_ms(folder, threads):
    """[ms a step at 1 stream, at 8] of the native worker."""
    build = Path(os.environ.get("BANYAN_BUILD", ROOT / "build"))
    said = subprocess.run([build / "bin/banyan-gpu-worker", "--model-path", folder, "--threads", str(threads), "--one-batch",
                           f"1x{CONTEXT}x{STEPS},8x{CONTEXT}x{STEPS}"], capture_output=True, text=True, check=True).stdout
    return [float(line.split()[-1]) for line in said.splitlines()[1:]]


def beside_native(model, dtype, rounds, threads):
    """((ours, native) at 1 stream, (ours, native) at 8): medians of seconds a step, the same weights in dtype."""
    model = copy.deepcopy(model).to(dtype)
    model.hf_quantizer = None
    model.config.__dict__.pop("quantization_config", None)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        fast_linear.use(model, threads)
        sides = [Ours(model, [CONTEXT] * n) for n in (1, 8)]
        rounds = [(native_ms(folder, threads), [o.decode() / STEPS for o in sides]) for _ in range(rounds)]
    return [(statistics.median(r[1][i] for r in rounds), statistics.median(r[0][i] for r in rounds) / 1e3) for i in (0, 1)]


def row(what, ours, theirs, bar, unit="s"):
    print(f"{what},{ours:.4g} {unit},{theirs:.4g} {unit},{ours / theirs:.3f},{bar}", flush=True)


def decodes(plain, packed, o):
    one, ragged = [CONTEXT], [CONTEXT - 60 + 17 * i for i in range(8)]
    for name, model in (("", plain), ("packed, ", packed)):
        row(f"{name}16 decodes of 1 stream; forward with DynamicCache",
            *median_pairs(o.rounds, Ours(model, one).decode, lambda: theirs_decode(plain, 1, CONTEXT)), "<= 1.15")
        row(f"{name}16 decodes of 8 ragged streams; a rectangle of 8",
            *median_pairs(o.rounds, Ours(model, ragged).decode, lambda: theirs_decode(plain, 8, CONTEXT)), "<= 1.2")


def host(plain, packed, o):
    print(f"host overhead of a step of 8,{host_overhead_ms(plain):.3f} ms,,,<= 0.5 ms", flush=True)


def loop(plain, packed, o):
    random = np.random.default_rng(2)
    prompts = [random.integers(3, 1000, n).tolist() for n in (20, 35, 50, 28, 44, 61, 15, 39)]
    for name, model in (("", plain), ("packed, ", packed)):
        row(f"{name}8 ragged requests of 24 tokens; a loop over pipeline",
            *median_pairs(max(1, o.rounds // 2), lambda m=model: clock(lambda: serve_all(m, prompts, 24, 8)),
                          lambda: clock(lambda: one_by_one(plain, prompts, 24))), "<= 0.33")


def batch(plain, packed, o):
    random = np.random.default_rng(3)
    mixed = [random.integers(3, 1000, int(n)).tolist() for n in random.integers(8, 120, 32)]
    try:
        row("32 mixed requests of 24 tokens; generate_batch",
            *median_pairs(1, lambda: clock(lambda: serve_all(plain, mixed, 24, 32)),
                          lambda: clock(lambda: generate_batch(plain, mixed, 24))), "<= 0.67")
    except Exception as failure:
        print(f"32 mixed requests of 24 tokens; generate_batch,could not run: {type(failure).__name__}: {failure}")


def prefix(plain, packed, o):
    row("packed, 8 prompts with 512 shared tokens; without sharing", *median_pairs(1, *shared_prefix(packed)), "<= 0.33")


def native(plain, packed, o):
    for dtype in (torch.float32, torch.bfloat16):
        pairs = beside_native(plain, dtype, o.rounds, o.threads)
        for n, pair in zip((1, 8), pairs):
            row(f"packed, {str(dtype).split('.')[1]}, a step of {n}; the native worker", *pair, "<= 1.5")


def ranks(plain, packed, o):
    """A sum over two ranks, of which both do nothing else: a row of SmolLM2 and more."""
    from banyan_hf_worker import parallel

    for n, bar in ((576, "<= 50 us"), (2048, "<= 50 us"), (16384, "")):
        first, n_sums = parallel.Ranks(0, 2), 2000
        address, child = first.open(), os.fork()
        mine = first if child else parallel.Ranks(1, 2)
        if not child:
            mine.join(address)
        x = torch.ones(n)
        times = [clock(lambda: mine.sum(x)) for _ in range(n_sums)]
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        first.close()
        print(f"a sum of {n} numbers over 2 ranks,{1e6 * statistics.median(times):.1f} us,,,{bar}", flush=True)


ROWS = {f.__name__: f for f in (decodes, host, loop, batch, prefix, native, ranks)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(Path.home() / ".cache/banyan/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(ROWS), help="some of " + ",".join(ROWS))
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    attention.context.n_threads = o.threads
    loader.quiet()
    plain = loader.load(o.model, dtype="float32")
    assert probe.choose(plain).way.tier == "A"
    packed = copy.deepcopy(plain)
    fast_linear.use(packed, o.threads)
    print("what,ours,theirs,ratio,to be")
    for name in o.only.split(","):
        ROWS[name](plain, packed, o)


if __name__ == "__main__":
    main()
