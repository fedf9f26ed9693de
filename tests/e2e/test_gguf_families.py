"""Families as GGUF files: tiny models' headers as ggml's own converter writes them (tests/vectors/gguf/README.md).

The numbers behind a header are zero but for the rotation's factors: what is tested is that every key is understood as the
same model's config.json is, and that every tensor is asked for under the name and with the shape that it has there.
"""

import base64
import json
import re
import subprocess
import zlib

import pytest

from harness import BIN, ROOT

TINY = ROOT.parent / "shared/data/tiny"
HEADERS = json.loads((ROOT / "tests/vectors/gguf/headers.json").read_text())
UNSAID = {"mistral-swa": ["sliding window", "family"], "starcoder2": ["sliding window"]}  # no key says it; mistral's files say llama
STANDS_FOR = {"solar-open": "glm4_moe", "glm4-moe-lite": "deepseek_v3", "granitemoeshared": "granitemoe"}  # families that are one to ggml
ENCODERS = ("bert-embed", "bert-rerank")

pytestmark = pytest.mark.skipif(not TINY.exists(), reason="the tiny models lie beside the project")


def file_of(name, folder):
    told = HEADERS[name]
    header = zlib.decompress(base64.b64decode(told["header"]))
    data = bytearray(told["size"])
    data[:len(header)] = header
    for offset, numbers in told["numbers"].values():
        raw = base64.b64decode(numbers)
        data[len(header) + offset:len(header) + offset + len(raw)] = raw
    path = folder / f"{name}.gguf"
    path.write_bytes(data)
    return path


def source_of(name, folder):
    """What the header was made of: a tiny model that lies beside the project, or a config that lies beside the header."""
    config = HEADERS[name].get("config")
    if not config:
        return TINY / name
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def facts(path):
    """What `banyan model` says that does not depend on how the file is written."""
    said = subprocess.run([BIN / "banyan", "model", path], check=True, capture_output=True, text=True, timeout=30).stdout
    lines = dict(re.findall(r"^(\w[\w -]*?)  +(.*)$", said, re.M))
    out = {key: lines.get(key) for key in ("feed-forward", "experts", "rope", "vocabulary", "sliding window")}
    out["family"] = lines["family"].split()[0]
    out["layers"] = lines["layers"] if "deepseek" not in out["family"] else lines["layers"].split(", heads")[0]
    out["cache"] = re.search(r"KV cache ([\d.]+) KB a token", lines["memory"])[1]
    out["states"] = re.findall(r"[\d.]+ MB of states", lines["memory"])
    assert lines["worker"].startswith("native") or "there is no model.safetensors" in lines["worker"], said
    return out


@pytest.mark.parametrize("name", HEADERS)
def test_keys_and_names(name, tmp_path):
    path = file_of(name, tmp_path)
    want, got = facts(source_of(name, tmp_path)), facts(path)
    if name in STANDS_FOR:
        assert got["family"] == STANDS_FOR[name] and want["layers"].startswith(got["layers"].split(", heads")[0])
        got |= {key: want[key] for key in ("family", "layers")}
    for what in UNSAID.get(name, []):
        assert want.pop(what) and got.pop(what) in (None, "llama")
    if want["rope"].startswith("llama3"):  # written as factors
        assert got.pop("rope").startswith("factors") and want.pop("rope")
    if name in ENCODERS:  # without an output matrix, which counts as tied
        got["vocabulary"] = got["vocabulary"].split(",")[0]
    assert got == want
    done = subprocess.run([BIN / "banyan-gpu-worker", "--model-path", path, "--one-batch", "1x16x2", "--threads", "1", "--max-total-tokens", "1024"],
                          capture_output=True, text=True, timeout=60)
    if name == "bert-rerank":  # the converter leaves the pooler out, without which its scores would be others
        assert "there is no tensor cls.weight" in done.stderr
    elif name in ENCODERS:
        assert "it makes no tokens" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
    assert "are not used by its family" not in done.stderr
