#!/usr/bin/env python3
"""check_server.py PART … - the parts of check.sh that need a server, or torch. What a machine lacks is said, and is no failure.

    ranks MODEL [two]  greedy ids of two ranks on one card against those of one; two: on two cards
    ids SHAPE          greedy ids of random weights of a Llama's shape (tiny, 1b, 8b) against transformers on the same card, in float32
    transformers MODEL a folder, or a shape with random weights, by the Transformers worker: on the card against on the CPU
    attention          torch's SDPA by cuDNN in the shapes of bench_ops: what our prompts are held to

BANYAN_BUILD names the build. Two ways of computing the same may part where two ids are nearly as likely: there, and only
there, ids may differ.
"""

import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import ROOT, Serve  # noqa: E402

N_IDS = 48
NEAR = 0.05  # nats between the two likeliest, where they may part
PROMPTS = [[(i * 7919 + k * 104729) % 500 + 20 for k in range(n)] for i, n in enumerate((3, 40, 130))]
TOKENIZER = ROOT / "tests/vectors/tokenizers/tiny-bbpe-llama3"
SHAPES = {  # hidden, feed-forward, layers, heads, kv heads, vocabulary
    "tiny": (64, 128, 2, 4, 2, 640),
    "1b": (2048, 8192, 16, 32, 8, 128256),
    "8b": (4096, 14336, 32, 32, 8, 128256),
}


MODULE = {name: os.environ[name] for name in ("BANYAN_CUDA_MODULE",) if name in os.environ}  # the harness hides it


def missing(what):
    print(f"not here: {what}")
    return 0


def answers(model, *flags, device="cuda", env=None):
    """[(ids, margins)] of the prompts, greedy; a margin is how far the likeliest is from the second, in nats."""
    found = []
    every = ("--model-path", model, "--device", device, "--max-total-tokens", "2048", "--max-running-requests", "8")
    with Serve(*every, *flags, env={**MODULE, **(env or {})}) as s:
        for prompt in PROMPTS:
            body = {"input_ids": prompt, "return_logprob": True, "top_logprobs_num": 2,
                    "sampling_params": {"temperature": 0, "max_new_tokens": N_IDS, "ignore_eos": True}}
            meta = s.ok("/generate", body)["meta_info"]
            tops = meta["output_top_logprobs"]
            found.append(([t[0][1] for t in tops], [t[0][0] - t[1][0] for t in tops]))
    return found


def part_ranks(model, cards="one"):
    env = {"BANYAN_TEST_ONE_DEVICE": "1"} if cards == "one" else {}
    return compared(answers(model), answers(model, "--tp-size", "2", env=env))


def compared(one, two):
    """How many prompts' ids part where two are not nearly as likely."""
    failed = 0
    for prompt, (a, margins), (b, _) in zip(PROMPTS, one, two):
        at = next((i for i in range(N_IDS) if a[i] != b[i]), None)
        if at is None:
            print(f"prompt of {len(prompt)}: {N_IDS} ids equal")
            continue
        failed += margins[at] > NEAR
        print(f"prompt of {len(prompt)}: ids part at {at}, where the two likeliest are {margins[at]:.4f} apart ({NEAR} may be)")
    return failed


def random_model(torch, transformers, shape, device, folder):
    """Weights of bf16 that leave numbers about as large as they were: where each layer doubles them, what bf16 loses grows in 16 layers
    to half of what logits are spread over, in transformers as in any other."""
    hidden, ffn, layers, heads, kv_heads, vocab = SHAPES[shape]
    config = transformers.LlamaConfig(hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads,
                                      num_key_value_heads=kv_heads, vocab_size=vocab, max_position_embeddings=2048, rope_theta=500000.0,
                                      initializer_range=0.5 / hidden**0.5, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(1)
    with torch.device(device):
        model = transformers.LlamaForCausalLM(config).to(torch.bfloat16).eval()
    model.save_pretrained(folder)
    for file in TOKENIZER.iterdir():
        if file.name.startswith("tokenizer") or file.name.startswith("special"):
            shutil.copy(file, folder)
    return model


def part_ids(shape):
    try:
        import torch
        import transformers
    except ImportError as e:
        return missing(f"{e.name}, whose greedy ids ours are held to")
    emulated = "emu" in MODULE.get("BANYAN_CUDA_MODULE", "")
    if not torch.cuda.is_available() and not emulated:
        return missing("torch with CUDA")
    failed = 0
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        model = random_model(torch, transformers, shape, "cpu" if emulated else "cuda", folder).float()
        for prompt, (ids, _) in zip(PROMPTS, answers(folder)):
            logits = model(input_ids=torch.tensor([prompt + ids], device=model.device)).logits[0, len(prompt) - 1:-1].float()
            gaps = (logits.max(-1).values - logits.gather(1, torch.tensor(ids, device=model.device)[:, None])[:, 0]).tolist()
            worst = max(gaps)
            # Activations, keys and values of bf16 against f32: some 0.015 of what logits are spread over.
            most = 0.1 * logits.std().item()
            failed += worst > most
            print(f"{shape}, prompt of {len(prompt)}: {sum(g == 0 for g in gaps)} of {len(ids)} ids are the likeliest of transformers', "
                  f"the others at most {worst:.4f} below it ({most:.4f} may be)")
    return failed


def part_transformers(model):
    try:
        import torch
        import transformers
    except ImportError as e:
        return missing(f"{e.name}, which the Transformers worker runs")
    stands_in = "BANYAN_TEST_TORCH_KERNELS" in os.environ  # the CPU runs what a card would: how this part is tried without one
    if not torch.cuda.is_available() and not stands_in:
        return missing(f"torch with CUDA (this is {torch.__version__}); deploy/setup.sh --transformers --cuda brings it")
    if model not in SHAPES and not Path(model).exists():
        return missing(model)
    flags, env = ("--impl", "transformers", "--dtype", "float32"), {"BANYAN_PYTHON": sys.executable}
    with tempfile.TemporaryDirectory() as folder:
        if model in SHAPES:
            random_model(torch, transformers, model, "cpu", folder)
            model = folder
        card = {"env": {**env, "BANYAN_TEST_TORCH_KERNELS": "1"}, "device": "cpu"} if stands_in else {"env": env}
        return compared(answers(model, *flags, **card), answers(model, *flags, device="cpu", env=env))


def part_attention():
    try:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError as e:
        return missing(f"{e.name}, whose SDPA by cuDNN is the baseline of attention")
    if not torch.cuda.is_available():
        return missing("torch with CUDA")
    for n_seqs, n in ((1, 2048), (4, 2048), (1, 8192)):
        q, k, v = (torch.randn(n_seqs, 32, n, 128, device="cuda", dtype=torch.bfloat16) for _ in range(3))
        times = []
        try:
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                for _ in range(9):
                    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                    began.record()
                    torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
                    ended.record()
                    torch.cuda.synchronize()
                    times.append(began.elapsed_time(ended))
        except RuntimeError as e:
            return missing(f"cuDNN's attention ({str(e).splitlines()[0]})")
        ms = statistics.median(times[1:])
        print(f"cuDNN, {n_seqs} x {n}, 32 heads of 128: {ms:8.3f} ms {2e-9 * n_seqs * 32 * n * n * 128 / ms:8.1f} TFLOP/s")
    return 0


PARTS = {"ranks": part_ranks, "ids": part_ids, "transformers": part_transformers, "attention": part_attention}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(__doc__)
    sys.exit(PARTS[sys.argv[1]](*sys.argv[2:]))
