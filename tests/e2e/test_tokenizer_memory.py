"""What a vocabulary of 128,000 pieces costs a process, and that two processes share it."""

import json
import os
import subprocess

from harness import BIN

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX"  # 50


def write_tokenizer(folder):
    """Byte-level BPE: the alphabet, 2,500 pairs, 125,000 triples."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    pieces = [chr(b) for b in plain] + [chr(0x100 + i) for i in range(len(others))]
    pairs = [(a, b) for a in LETTERS for b in LETTERS]
    triples = [(a + b, c) for a, b in pairs for c in LETTERS]
    pieces += [a + b for a, b in pairs + triples]
    file = {"model": {"type": "BPE", "vocab": {p: i for i, p in enumerate(pieces)}, "merges": [list(m) for m in pairs + triples]},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}, "decoder": {"type": "ByteLevel"}}
    (folder / "tokenizer.json").write_text(json.dumps(file))
    return len(pieces)


def rollup(pid):
    lines = open(f"/proc/{pid}/smaps_rollup").read().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}  # MiB


def test_a_large_vocabulary_is_shared_and_small(tmp_path):
    n = write_tokenizer(tmp_path)
    env = {**os.environ, "BANYAN_CACHE": str(tmp_path / "cache")}
    processes = []
    try:
        for _ in range(3):  # the first makes the cached form, and maps it like the others
            p = subprocess.Popen([BIN / "banyan", "tokenize", "--model-path", tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 env=env)
            processes.append(p)
            p.stdin.write(b'{"text": "abc the"}\n')
            p.stdin.flush()
            ids = json.loads(p.stdout.readline())["ids"]
            assert len(ids) >= 2 and max(ids) < n
        for p in processes[1:]:
            use = rollup(p.pid)
            private = use["Private_Clean"] + use["Private_Dirty"]
            assert private < 40, f"{private:.1f} MiB are this process's own: {use}"
            assert use["Rss"] < 80, use
            assert use["Shared_Clean"] > 5, f"the vocabulary is not shared: {use}"
    finally:
        for p in processes:
            p.stdin.close()
            p.wait(30)
            p.stdout.close()
