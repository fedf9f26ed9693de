"""torch_rates.py MODEL DTYPE THREADS - transformers on torch: prefill of 512 tokens and decode behind 160, tokens a second.

Run by the interpreter of .venv-transformers. MODEL may be a GGUF file; its numbers are widened or rounded to DTYPE.
"""

import json
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "gpu_worker/hf"))

import torch  # noqa: E402
from banyan_hf_worker import loader  # noqa: E402

REPEATS, STEPS = 3, 24


def clock(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@torch.inference_mode()
def main():
    path, dtype, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    loader.quiet()
    model = loader.load(path, dtype=dtype)
    ids = torch.randint(3, 1000, (1, 512), generator=torch.Generator().manual_seed(1))
    prefill = [clock(lambda: model(input_ids=ids, use_cache=True, logits_to_keep=1)) for _ in range(REPEATS + 1)][1:]
    out = model(input_ids=ids[:, :160], use_cache=True, logits_to_keep=1)
    last, cache = out.logits[:, -1:].argmax(-1), out.past_key_values

    def step():
        nonlocal last
        last = model(input_ids=last, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)

    steps = [clock(step) for _ in range(STEPS + 1)][1:]
    print(json.dumps({"prefill": 512 / statistics.median(prefill), "decode": 1 / statistics.median(steps)}))


main()
