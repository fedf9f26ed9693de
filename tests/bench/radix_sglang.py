"""radix_sglang.py WHEEL_FOLDER - SGLang's Python RadixCache on the load of bench_radix.c; the same CSV lines.

WHEEL_FOLDER is where the wheel sglang==0.4.8 (installed or unpacked, without its dependencies) lies; torch is needed.
Modules that radix_cache.py imports but this load never calls (kv events, allocators) are stood in for.
"""

import importlib.util
import random
import sys
import time
import types

import torch

SEQS, LEN, SHARED, GROUP, REPEATS, EVICTED = 1000, 1000, 512, 10, 5, 100000


def load_radix_cache(folder):
    def module(name, **names):
        m = types.ModuleType(name)
        m.__dict__.update(names)
        m.__path__ = []
        sys.modules[name] = m

    def real(name, path):
        spec = importlib.util.spec_from_file_location(name, f"{folder}/{path}")
        sys.modules[name] = m = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(m)
        return m

    for name in ("sglang", "sglang.srt", "sglang.srt.disaggregation", "sglang.srt.mem_cache"):
        module(name)
    module("sglang.srt.disaggregation.kv_events", AllBlocksCleared=None, BlockRemoved=None, BlockStored=None)
    module("sglang.srt.mem_cache.allocator", BaseTokenToKVPoolAllocator=object)
    module("sglang.srt.mem_cache.memory_pool", ReqToTokenPool=object)
    base = "sglang/srt/mem_cache/"
    real("sglang.srt.mem_cache.base_prefix_cache", base + "base_prefix_cache.py")
    return real("sglang.srt.mem_cache.radix_cache", base + "radix_cache.py").RadixCache


class Allocator:
    device = "cpu"

    def free(self, indices):
        pass


def make_load(seed):
    rng = random.Random(seed)
    seqs = []
    for i in range(SEQS):
        if i % GROUP == 0:
            prefix = [rng.randrange(128000) for _ in range(SHARED)]
        seqs.append(prefix + [rng.randrange(128000) for _ in range(LEN - SHARED)])
    return seqs


def bench(cache_class, page_size):
    seqs = make_load(1)
    values = [torch.arange(LEN, dtype=torch.int64) for _ in range(SEQS)]
    n_match = LEN // page_size * page_size
    best = {"match": 1e9, "insert": 1e9, "evict": 1e9}
    for _ in range(REPEATS):
        tree = cache_class(None, Allocator(), page_size)
        start = time.perf_counter()
        for seq, value in zip(seqs, values):
            tree.match_prefix(seq)
            tree.insert(seq[:n_match], value[:n_match])
        best["insert"] = min(best["insert"], (time.perf_counter() - start) / SEQS * 1e6)
        start = time.perf_counter()
        for seq in seqs:
            n = len(tree.match_prefix(seq).device_indices)
        best["match"] = min(best["match"], (time.perf_counter() - start) / SEQS * 1e6)
        assert n == n_match
        start = time.perf_counter()
        tree.evict(EVICTED)
        best["evict"] = min(best["evict"], (time.perf_counter() - start) * 1e3)
    print(f"sglang radix match 1000 tokens,page={page_size},{best['match']:.4g},us")
    print(f"sglang radix match+insert,page={page_size},{best['insert']:.4g},us")
    print(f"sglang radix evict 100000 tokens,page={page_size},{best['evict']:.4g},ms", flush=True)


if __name__ == "__main__":
    radix_cache = load_radix_cache(sys.argv[1])
    bench(radix_cache, 1)
    bench(radix_cache, 16)
