"""Hub ids: `banyan model`, `tokenize` and `chat-template` over a stand-in Hub. No engine, no network."""

import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest
from harness import BIN, ROOT
from hub_standin import Hub

BANYAN = BIN / "banyan"
VECTORS = ROOT / "tests/vectors/tokenizers/tiny-bbpe-llama3"

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 16,
          "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1, "vocab_size": 4,
          "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "torch_dtype": "float32",
          "eos_token_id": 1, "tie_word_embeddings": True, "hidden_act": "silu"}


def safetensors(tensors):
    """{"name": n floats} as a file."""
    head, data = {}, b""
    for name, n in tensors.items():
        head[name] = {"dtype": "F32", "shape": [n], "data_offsets": [len(data), len(data) + 4 * n]}
        data += bytes(range(256)) * (4 * n // 256) + bytes(4 * n % 256)
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


def gguf():
    """A file that opens: the seed of the fuzzer."""
    return (ROOT / "tests/fuzz/corpora/gguf/bpe").read_bytes()


def folder(**more):
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": safetensors({"a": 50_000}),
             "tokenizer.json": (VECTORS / "tokenizer.json").read_bytes(), "README.md": b"# hi",
             "chat_template.jinja": b"{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}",
             "special_tokens_map.json": b"{}", "onnx/model.onnx": b"x", "modeling_x.py": b"import os"}
    files.update(more)
    return {name: data for name, data in files.items() if data is not None}


def sharded():
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    index = {"metadata": {}, "weight_map": {f"t{i}": name for i, name in enumerate(names)}}
    shards = {name: safetensors({f"t{i}": 1000}) for i, name in enumerate(names)}
    return folder(**{"model.safetensors": None, "model.safetensors.index.json": json.dumps(index).encode(), **shards}), names


@pytest.fixture
def hub():
    with Hub() as h:
        yield h


@pytest.fixture
def world(hub, tmp_path):
    """The environment of a user with this Hub and an empty cache."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "BANYAN_", "TRANSFORMERS_"))}
    return {**keep, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path),
            "http_proxy": "", "no_proxy": "*"}


def run(world, *words, given=None, timeout=60):
    return subprocess.run([BANYAN, *words], env=world, input=given, capture_output=True, text=True, timeout=timeout)


def fails(done, *parts):
    """One sentence on stderr, with these parts; the status says so."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("banyan ")]
    assert done.returncode == 1 and done.stdout == "", done
    assert len(lines) == 1, done.stderr
    for part in parts:
        assert part in lines[0], lines[0]


def model_dir(world):
    return Path(world["HF_HOME"]) / "hub/models--org--tiny"


def test_a_folder_comes_in_the_hubs_own_layout(hub, world):
    model = hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    done = run(world, "model", "org/tiny")
    assert done.returncode == 0, done.stderr
    snapshot = model_dir(world) / "snapshots" / model.commit
    assert done.stdout.splitlines()[0] == str(snapshot)
    assert "llama" in done.stdout
    assert (model_dir(world) / "refs/main").read_text().strip() == model.commit
    assert {p.name for p in snapshot.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json",
                                                    "chat_template.jinja", "special_tokens_map.json"}
    for link in snapshot.iterdir():
        assert link.is_symlink() and os.readlink(link) == f"../../blobs/{model.etag(link.name)}"
        assert link.read_bytes() == model.files[link.name]
    assert hub.fetched()[-1] == "model.safetensors", "weights come last"


def test_how_a_model_pools_comes_with_it(hub, world):
    """sentence-transformers' files; without them a decoder's embeddings would be of its last token, whatever it was trained for."""
    pooling = b'{"word_embedding_dimension": 8, "pooling_mode_mean_tokens": true}'
    files = {"modules.json": b'[{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]', "1_Pooling/config.json": pooling,
             "1_Pooling/notes.txt": b"x", "2_Dense/model.safetensors": b"x", "2_Dense/config.json": b"{}"}
    model = hub.add("org/tiny", folder(**files), lfs={"model.safetensors"})
    done = run(world, "model", "org/tiny")
    assert done.returncode == 0, done.stderr
    snapshot = model_dir(world) / "snapshots" / model.commit
    assert (snapshot / "1_Pooling/config.json").read_bytes() == pooling
    assert os.readlink(snapshot / "1_Pooling/config.json") == f"../../../blobs/{model.etag('1_Pooling/config.json')}"
    assert (snapshot / "modules.json").read_bytes() == files["modules.json"]
    assert not (snapshot / "2_Dense").exists() and not (snapshot / "1_Pooling/notes.txt").exists()


def test_a_second_start_asks_once_and_fetches_nothing(hub, world):
    hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    assert run(world, "model", "org/tiny").returncode == 0
    hub.log.clear()
    assert run(world, "model", "org/tiny").returncode == 0
    assert [m for m, _ in hub.log] == ["GET"] and hub.fetched() == []


def test_shards_are_those_that_the_index_names(hub, world):
    files, names = sharded()
    files["consolidated.safetensors"] = b"twice the same weights"
    hub.add("org/tiny", files, lfs=set(names))
    done = run(world, "model", "org/tiny")
    assert done.returncode == 0, done.stderr
    assert hub.fetched()[-4:] == ["model.safetensors.index.json", *names]
    assert "consolidated.safetensors" not in hub.fetched()


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, world):
    hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    other = hub.add("org/tiny", folder(**{"generation_config.json": b"{}"}), branches=("refs/pr/1",))
    for name in ("org/tiny@refs/pr/1", f"org/tiny@{other.commit}"):
        done = run(world, "model", name)
        assert done.stdout.startswith(str(model_dir(world) / "snapshots" / other.commit)), done.stderr
    assert (model_dir(world) / "refs/refs/pr/1").read_text().strip() == other.commit
    done = run(world, "model", "org/tiny", "--revision", "refs/pr/1")
    assert other.commit in done.stdout
    fails(run(world, "model", "org/tiny@nowhere"), "org/tiny", "revision")


def test_text_alone_needs_no_weights(hub, world):
    hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    done = run(world, "tokenize", "--model-path", "org/tiny", given='{"text":"Hello"}\n')
    assert done.returncode == 0 and json.loads(done.stdout)["ids"], done.stderr
    done = run(world, "chat-template", "--model-path", "org/tiny",
               given='{"messages":[{"role":"user","content":"x"}]}\n')
    assert json.loads(done.stdout) == {"prompt": "[user]x"}, done.stderr
    assert "model.safetensors" not in hub.fetched()


def test_a_gguf_when_that_is_all_there_is(hub, world):
    hub.add("org/tiny", {"README.md": b"", "tiny-Q8_0.gguf": gguf()}, lfs={"tiny-Q8_0.gguf"})
    done = run(world, "model", "org/tiny")
    assert done.returncode == 0 and done.stdout.splitlines()[0].endswith("/tiny-Q8_0.gguf"), done.stderr


def test_of_several_ggufs_one_is_named(hub, world):
    files = {"a-Q4_0.gguf": gguf(), "a-Q8_0.gguf": gguf() + bytes(32)}
    hub.add("org/tiny", files, lfs=set(files))
    fails(run(world, "model", "org/tiny"), "2 GGUF files", "--model-path org/tiny/a-Q4_0.gguf")
    done = run(world, "model", "org/tiny/a-Q8_0.gguf")
    assert done.returncode == 0 and done.stdout.splitlines()[0].endswith("a-Q8_0.gguf"), done.stderr
    fails(run(world, "model", "org/tiny/b.gguf"), "org/tiny", "b.gguf")


def test_pickles_and_code_only_when_asked_for(hub, world):
    files = folder(**{"model.safetensors": None, "pytorch_model.bin": b"\x80\x02."})
    hub.add("org/tiny", files)
    fails(run(world, "model", "org/tiny"), "pickle", "--allow-pickle")
    assert hub.fetched() == []
    run(world, "model", "org/tiny", "--allow-pickle", "--trust-remote-code")
    assert {"pytorch_model.bin", "modeling_x.py"} <= set(hub.fetched())


def test_a_folder_here_wins_over_a_hub_id(hub, world, tmp_path):
    here = tmp_path / "work/org/tiny"
    here.mkdir(parents=True)
    shutil.copy(VECTORS / "tokenizer.json", here)
    done = subprocess.run([BANYAN, "tokenize", "--model-path", "org/tiny"], env=world, input='{"text":"a"}\n',
                          capture_output=True, text=True, cwd=tmp_path / "work")
    assert done.returncode == 0 and hub.log == []


# ---- transfers that break ----


def test_a_cut_transfer_goes_on_where_it_broke_off(hub, world):
    hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    hub.cut_after, hub.n_cuts = 60_000, 3
    done = run(world, "model", "org/tiny")
    assert done.returncode == 0, done.stderr
    ranges = [h["Range"] for role, h in hub.heads if role == "storage" and "Range" in h]
    assert ranges == ["bytes=60000-", "bytes=120000-", "bytes=180000-"]


def test_what_an_earlier_start_left_is_taken_up(hub, world):
    model = hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    blobs = model_dir(world) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{model.etag('model.safetensors')}.incomplete").write_bytes(model.files["model.safetensors"][:100_000])
    assert run(world, "model", "org/tiny").returncode == 0
    assert [h.get("Range") for role, h in hub.heads if role == "storage"] == ["bytes=100000-"]
    assert not list(blobs.glob("*.incomplete"))


def test_a_server_without_range_starts_over(hub, world):
    hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    hub.knows_range, hub.cut_after, hub.n_cuts = False, 50_000, 2
    done = run(world, "model", "org/tiny")
    assert done.returncode == 0, done.stderr


def test_wrong_bytes_are_not_kept(hub, world):
    hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    hub.spoil = True
    fails(run(world, "model", "org/tiny"), "model.safetensors", "SHA-256")
    assert hub.fetched().count("model.safetensors") == 2
    hub.spoil = False
    assert run(world, "model", "org/tiny").returncode == 0


def test_a_broken_rest_of_an_earlier_start_is_thrown_away(hub, world):
    model = hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    blobs = model_dir(world) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{model.etag('model.safetensors')}.incomplete").write_bytes(b"x" * 100_000)
    done = run(world, "model", "org/tiny")
    assert done.returncode == 0, done.stderr


def test_a_busy_hub_is_asked_again(hub, world):
    hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    hub.busy = 2
    assert run(world, "model", "org/tiny").returncode == 0


def test_two_starts_at_once_fetch_once(hub, world):
    hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    hub.gate = threading.Event()
    starts = [subprocess.Popen([BANYAN, "model", "org/tiny"], env=world, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
              for _ in range(2)]
    deadline = time.monotonic() + 10
    while "model.safetensors" not in hub.fetched() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    hub.gate.set()
    for start in starts:
        assert start.communicate(timeout=30) and start.returncode == 0
    assert hub.fetched().count("model.safetensors") == 1


def test_a_killed_start_leaves_nothing_half(hub, world):
    hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    hub.gate = threading.Event()
    start = subprocess.Popen([BANYAN, "model", "org/tiny"], env=world, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while "model.safetensors" not in hub.fetched() and time.monotonic() < deadline:
        time.sleep(0.02)
    start.send_signal(signal.SIGKILL)
    start.wait()
    hub.gate.set()
    assert not (model_dir(world) / "refs/main").exists()
    fails(run({**world, "HF_HUB_OFFLINE": "1"}, "model", "org/tiny"), "HF_HUB_OFFLINE")
    assert run(world, "model", "org/tiny").returncode == 0


# ---- who may see what ----


def test_the_token_goes_to_the_hub_and_not_to_the_storage(hub, world):
    hub.token = "hf_secret"
    hub.add("org/tiny", folder(), lfs={"model.safetensors"}, private=True)
    fails(run(world, "model", "org/tiny"), "knows no model org/tiny", "HF_TOKEN")
    assert run({**world, "HF_TOKEN": "hf_secret"}, "model", "org/tiny").returncode == 0
    seen = {role: {h.get("Authorization") for r, h in hub.heads[1:] if r == role} for role in ("hub", "storage")}
    assert seen == {"hub": {"Bearer hf_secret"}, "storage": {None}}


def test_the_token_file_serves_too(hub, world):
    hub.token = "hf_secret"
    hub.add("org/tiny", folder(), private=True)
    Path(world["HF_HOME"]).mkdir(parents=True)
    (Path(world["HF_HOME"]) / "token").write_text("hf_secret\n")
    assert run(world, "model", "org/tiny").returncode == 0


def test_refusals_name_the_remedy(hub, world):
    hub.token = "hf_secret"
    hub.add("org/tiny", folder(), gated=True)
    fails(run(world, "model", "org/tiny"), "gated", f"{hub.url}/org/tiny", "HF_TOKEN")
    fails(run({**world, "HF_TOKEN": "hf_other"}, "model", "org/tiny"), "token")
    fails(run({**world, "HF_TOKEN": "two\nlines"}, "model", "org/tiny"), "HF_TOKEN")
    fails(run(world, "model", "org/none"), "knows no model org/none", "no such file or folder")
    fails(run(world, "model", "no-such-thing"), "no-such-thing", "no such file or folder", "org/name")
    fails(run(world, "model", "./org/tiny"), "./org/tiny", "no such file or folder")


def test_offline_and_unreachable(hub, world):
    offline = {**world, "HF_HUB_OFFLINE": "1"}
    nobody = {**world, "HF_ENDPOINT": "http://127.0.0.1:9"}
    hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    fails(run(offline, "model", "org/tiny"), "HF_HUB_OFFLINE", "org/tiny@main")
    fails(run(nobody, "model", "org/tiny"), "cannot reach http://127.0.0.1:9", "HF_ENDPOINT")
    assert run(world, "model", "org/tiny").returncode == 0
    hub.log.clear()
    assert run(offline, "model", "org/tiny").returncode == 0 and hub.log == []
    done = run(nobody, "model", "org/tiny")
    assert done.returncode == 0 and "the cache" in done.stderr
    fails(run({**world, "HF_ENDPOINT": "ftp://x"}, "model", "org/other"), "HF_ENDPOINT")


def test_a_cache_that_cannot_be_written(hub, world, tmp_path):
    hub.add("org/tiny", folder())
    (tmp_path / "file").write_text("")
    fails(run({**world, "HF_HUB_CACHE": str(tmp_path / "file")}, "model", "org/tiny"), "HF_HUB_CACHE")


def test_a_disk_that_is_full(hub, world):
    model = hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    limited = ["/bin/sh", "-c", f"trap '' XFSZ; ulimit -f 100; exec {BANYAN} model org/tiny"]  # a write says EFBIG
    done = subprocess.run(limited, env=world, capture_output=True, text=True, timeout=60)
    fails(done, "no room left", "model.safetensors", "HF_HUB_CACHE")
    assert not (model_dir(world) / "blobs" / model.etag("model.safetensors")).exists()
    assert run(world, "model", "org/tiny").returncode == 0


# ---- what the Hub says is text from outside ----


def test_names_that_leave_the_folder_are_not_fetched(hub, world, tmp_path):
    hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    hub.extra_siblings = ["../evil.json", "/etc/passwd.json", "a/../../evil.json", "..", "", "x\\..\\y.json", "a\nb.json",
                          "//x.json", "./config.json", "e" * 600 + ".json"]
    assert run(world, "model", "org/tiny").returncode == 0
    assert not [p for p in tmp_path.rglob("*evil*")]


def test_an_etag_that_is_a_path_is_refused(hub, world, tmp_path):
    hub.add("org/tiny", folder())
    for bad in ("../../../evil", "..", "", "a/b"):
        hub.etag_of = lambda _, bad=bad: bad
        fails(run(world, "model", "org/tiny"), "ETag")
    assert not list(tmp_path.rglob("evil"))


def test_a_shard_name_that_leaves_the_folder_is_refused(hub, world):
    index = {"weight_map": {"a": "../../x.safetensors"}}
    hub.add("org/tiny", folder(**{"model.safetensors": None, "model.safetensors.index.json": json.dumps(index).encode()}))
    fails(run(world, "model", "org/tiny"), "weight_map")


def test_an_endless_list_is_cut_short(hub, world):
    hub.add("org/tiny", folder())
    hub.extra_siblings = [f"{i}.bin" for i in range(100_001)]
    fails(run(world, "model", "org/tiny"), "100000 files")


def test_a_terminal_sees_a_bar(hub, world):
    hub.add("org/tiny", folder(), lfs={"model.safetensors"})
    hub.cut_after, hub.n_cuts = 20_000, 3  # the waits in between make it long enough to be drawn
    mine, theirs = pty.openpty()
    start = subprocess.Popen([BANYAN, "model", "org/tiny"], env=world, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            piece = os.read(mine, 4096)
        except OSError:
            break
        text += piece
        if not piece:
            break
    assert start.wait() == 0
    assert b"model.safetensors" in text and b"%" in text and b"[" in text
