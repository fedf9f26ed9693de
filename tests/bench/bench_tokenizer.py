"""bench_tokenizer beside PyPI's tokenizers, one thread each, in one interleaved run; CPU time, so that a busy
neighbour counts for neither.

    ninja -C build bench_programs && .venv/bin/python tests/bench/bench_tokenizer.py [FOLDER…]

Documents: a third prose (text files of the Python packages at hand), a third code (Python's library), a third CJK (pieces of a
Japanese vocabulary, the frequent ones more often), in pieces of some 4 kB. Rows: name,tokenizer,ours,theirs,unit,times.
The cached load stands beside their only one, that of the JSON.
"""

import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tokenizers  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared/data/tokenizers"
NAMES = ["smollm2", "llama3", "qwen3", "gemma4"]
PART, DOCUMENT, ROUNDS = 1_700_000, 4096, 3


def take(paths, want):
    text = ""
    for path in paths:
        try:
            text += path.read_text(encoding="utf-8").replace("\0", " ")[:60_000]
        except (UnicodeDecodeError, OSError):
            continue
        if len(text.encode()) >= want:
            break
    return text.encode()[:want].decode(errors="ignore")


def japanese(want, rng):
    pieces = [p for p, _ in json.loads((SHARED / "spm-kyoto-ja-unigram/tokenizer.json").read_text())["model"]["vocab"]]
    pieces = [p.replace("▁", "") for p in pieces if not p.startswith("<")]
    weights = [1 / (i + 10) for i in range(len(pieces))]
    text = ""
    while len(text.encode()) < want:
        text += "".join(rng.choices(pieces, weights, k=400)) + "。\n"
    return text


def documents():
    rng = random.Random(7)
    stdlib, packages = Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))
    prose = sorted(p for end in ("*.txt", "*.md", "*.rst", "METADATA") for p in packages.rglob(end))
    parts = [take(prose, PART), take(sorted(stdlib.glob("*.py")), PART), japanese(PART, rng)]
    docs = [part[i:i + DOCUMENT] for part in parts for i in range(0, len(part), DOCUMENT)]
    rng.shuffle(docs)
    return docs


def theirs(folder, docs):
    start = time.process_time()
    t = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    load = time.process_time() - start
    n = sum(len(d.encode()) for d in docs)
    start = time.process_time()
    t.encode_batch_fast(docs, add_special_tokens=False)
    batch = time.process_time() - start
    whole = " ".join(docs)
    start = time.process_time()
    ids = t.encode_batch_fast([whole], add_special_tokens=False)[0].ids
    one = time.process_time() - start
    prompts = [d[:80] for d in docs] * 2
    start = time.process_time()
    for p in prompts:
        t.encode(p, add_special_tokens=False)
    prompt = time.process_time() - start
    start = time.process_time()
    text = t.decode(ids, skip_special_tokens=False)
    decode = time.process_time() - start
    return [load * 1e3, load * 1e3, n / 1e6 / batch, n / 1e6 / one, prompt / len(prompts) * 1e6, len(ids) / 1e6 / decode,
            len(text.encode()) / 1e6 / decode]


def ours(folder, path):
    done = subprocess.run([ROOT / "build/bench/bench_tokenizer", folder, path], capture_output=True, text=True, check=True)
    return [(line.split(",")[0], line.split(",")[3], float(line.split(",")[2])) for line in done.stdout.splitlines()]


def main():
    docs = documents()
    with tempfile.NamedTemporaryFile() as f, tempfile.TemporaryDirectory() as cache:
        f.write(b"\0".join(d.encode() for d in docs))
        f.flush()
        os.environ["BANYAN_CACHE"] = cache  # the cached form is made in the first of the rounds
        for folder in [Path(a) for a in sys.argv[1:]] or [SHARED / n for n in NAMES]:
            mine, other = [], []
            for _ in range(ROUNDS):
                mine.append(ours(folder, f.name))
                other.append(theirs(folder, docs))
            for i, (name, unit, _) in enumerate(mine[0]):
                less = unit in ("ms", "us")
                best = min if less else max
                a, b = best(m[i][2] for m in mine), best(o[i] for o in other)
                print(f"{name},{folder.name},{a:.4g},{b:.4g},{unit},{b / a if less else a / b:.1f}", flush=True)


if __name__ == "__main__":
    main()
