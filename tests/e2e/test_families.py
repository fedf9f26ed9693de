"""Every family and format through the whole server: greedy ids of its tiny model are transformers' own.

As far as they can be: where the reference's best and second best are closer than twice the tolerance (2e-3 of the spread of the
logits), either is right, and what follows is no longer compared. The engine test (tests/models) looks at the logits.
"""

import json
import subprocess

import pytest

from harness import BIN, ROOT, Serve

TINY = ROOT.parent / "shared/data/tiny"
TOLERANCE = 2e-3
GGUF = [f"llama-gqa-gguf/llama-gqa-{t}.gguf" for t in ("F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")]
MODELS = """llama-gqa llama-tied llama-mqa-bias-headdim llama-rope-llama3 llama-rope-linear llama-rope-yarn llama-gqa-sharded
mistral-swa mixtral qwen2 qwen2-moe qwen3 qwen3-moe gemma gemma2 gemma3-text helium smollm3 granite olmo2 cohere glm4 stablelm
starcoder2 phi3 phi3-longrope gpt2 gpt-neox opt falcon-mqa falcon-newarch deepseek-v2-lite deepseek-v3 gpt-oss gpt-oss-mxfp4
llama-gqa-gptq llama-gqa-gptq-actorder llama-gqa-awq llama-gqa-fp8-block""".split()
CASES = {"phi3-longrope": ["len130"]}  # its shorter texts have other rope factors in a context of their own

pytestmark = pytest.mark.skipif(not TINY.exists(), reason="the tiny models lie beside the project")


def golden_of(name):
    path = TINY / name
    if path.suffix == ".gguf":
        path = path.with_suffix(".golden.json")
    elif name == "llama-gqa-sharded":
        path = TINY / "llama-gqa/golden.json"
    else:
        path /= "golden.json"
    golden = json.loads(path.read_text())
    return golden if "logits_std" in golden else {**golden, "logits_std": spread(golden["cases"]["len130"]["last_logits"])}


def spread(values):
    mean = sum(values) / len(values)
    return (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5


def check(path, golden, cases):
    small = 2 * TOLERANCE * golden["logits_std"]
    flags = ["--cpu-bf16", "exact", "--kv-cache-dtype", "float32", "--max-total-tokens", "8192"]
    compared = 0
    with Serve("--model-path", path, *flags, env={"BANYAN_TEST_EXACT": "1"}) as server:
        for case in cases:
            want = golden["cases"][case]
            body = {"input_ids": want["prompt_ids"],
                    "sampling_params": {"temperature": 0, "max_new_tokens": len(want["greedy_ids"]), "ignore_eos": True}}
            got = server.ok("/generate", body)["output_ids"]
            assert len(got) == len(want["greedy_ids"])
            for i, margin in enumerate(want["greedy_margins"]):
                if margin < small:
                    break
                assert got[i] == want["greedy_ids"][i], f"{case}: token {i}, margin {margin}"
                compared += 1
    assert compared >= 16, "the reference is so undecided that nothing was tested"


LENGTHS = ["len1", "len17", "len130"]


@pytest.mark.parametrize("name", MODELS + GGUF)
def test_greedy_ids(name):
    check(TINY / name, golden_of(name), CASES.get(name, LENGTHS))


def test_how_weights_are_packed_may_stand_around_the_text_config(tmp_path):
    """As in AWQ files of models that read images; and the outer config unties what the text_config says is tied."""
    for file in (TINY / "llama-gqa-awq").iterdir():
        (tmp_path / file.name).symlink_to(file)
    text = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    outer = {"model_type": "llava", "quantization_config": text.pop("quantization_config"), "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps({**outer, "text_config": {**text, "tie_word_embeddings": True}}))
    said = subprocess.run([BIN / "banyan", "model", tmp_path], capture_output=True, text=True, check=True).stdout
    assert "awq, 4 bits, groups of 32" in said and "tied" not in said
    check(tmp_path, golden_of("llama-gqa-awq"), LENGTHS)
