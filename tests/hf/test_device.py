"""--device cuda as far as a machine without a GPU shows it: what a GPU would run, run on the CPU; that nothing in it waits for
the device or leaves it; which device a worker takes, what fits there, and what is refused by name."""

import importlib
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from banyan_hf_worker import attention, attention_torch, device, folder, loader, probe
from banyan_hf_worker.__main__ import load, try_step
from banyan_hf_worker.batch import Batch
from banyan_hf_worker.pool import Pool
from banyan_hf_worker.runner import Runner, n_layers

import models
from driver import Driver, error_of, make_worker, prompts, reference, scenarios
from harness import BUILD, ROOT
from test_serve import PROMPT, greedy, refused, serve

LIMIT = 1e-4
EMULATED = BUILD / "tests/banyan-cuda-emu.so"


def lives(name):
    """{what: [(ids, log probabilities by position) …]} of the six ways in which a request can be served."""
    model = models.load(name)
    verdict = probe.choose(model)
    d = Driver(make_worker(model, verdict.way))
    seen = scenarios(d, prompts(d.worker.n_vocab), d.worker.reuses_prefixes)
    plans = {type(plan) for plan in d.worker.runner.pool.plans.values()}
    return {what: [(s.ids, dict(s.rows)) for s in sequences] for what, sequences in seen.items()}, plans, verdict


# What each asks of attention: grouped heads; a window and softcap; sinks; chunks; keys wider than values; a scale and one key
# head; and of the other tiers: tables of slots, recurrent state.
FAMILIES = ["llama-gqa", "mistral-swa", "gemma2", "gpt-oss", "llama4-text", "deepseek-v3", "gemma", "bloom", "lfm2"]


@pytest.mark.both_lines
@pytest.mark.parametrize("name", FAMILIES)
def test_the_torch_kernels_say_what_the_c_kernels_say(monkeypatch, name):
    ours, plans, verdict = lives(name)
    monkeypatch.setenv("BANYAN_TEST_TORCH_KERNELS", "1")
    monkeypatch.setattr(attention_torch, "GATHERED_BYTES", 30_000)  # a few dozen slots: a batch is cut in parts
    theirs, torch_plans, torch_verdict = lives(name)
    assert verdict.way.tier == torch_verdict.way.tier == models.tier_of(name)
    assert (plans, torch_plans) == (({attention.Plan}, {attention_torch.Plan}) if verdict.way.tier == "A" else (set(), set()))
    for what in ours:
        for (ids, rows), (torch_ids, torch_rows) in zip(ours[what], theirs[what]):
            assert ids == torch_ids, what
            assert rows.keys() == torch_rows.keys()
            assert max(float(np.abs(rows[p] - torch_rows[p]).max()) for p in rows) <= LIMIT, what


def test_float16_is_served_in_tier_a():
    """The C kernels do not know it; a GPU's usual dtype must not fall to a slower tier."""
    model = models.load("llama-gqa", "float16")
    assert probe.choose(model).way.tier == "A"
    d = Driver(make_worker(model, "A"))
    d.admit("a", PROMPT)
    d.finish("a", 6)
    assert error_of(d.sequences["a"], reference(model, d.sequences["a"].ids)) < 0.05


# ---- on the device from the first layer to the last ----


@pytest.mark.parametrize("name", ["llama-gqa", "mistral-swa", "gemma2", "gpt-oss", "llama4-text", "qwen3"])
def test_a_pass_neither_waits_for_the_device_nor_leaves_it(name):
    """The device "meta" has no numbers: whoever asks it for one, or mixes its tensors with the host's, fails."""
    model = loader.load(models.path_of(name), dtype="bfloat16", device=torch.device("meta"))
    runner = Runner(model, "A", Pool(32, 4, "meta"))
    n_vocab = model.get_output_embeddings().weight.shape[0]
    pages = np.random.default_rng(1).permutation(32)
    rows = [(PROMPT[:1], 30, pages[:8], {}), (PROMPT[:1], 17, pages[8:13], {}), (PROMPT[:9], 12, pages[13:19], {}), (PROMPT[:5], 0, pages[20:22], {})]
    with torch.inference_mode():
        logits = runner._flat(Batch(rows, 4, "meta"), np.array([0, 1, 10, 15]))
    assert logits.device.type == "meta" and logits.shape == (4, n_vocab)
    assert len(runner.pool.layers) == n_layers(runner.model.config)


# ---- which device, and what fits there ----


def options(**more):
    values = {"device": "cuda", "deterministic": False, "hf_fast_linear": False, "tp_size": 1, "tp_rank": 0, "dp_rank": 0, "local_rank": -1,
              "mem_fraction_static": 0.0, "max_total_tokens": 0, "page_size": 16, "context_length": 0,
              "max_running_requests": 64}
    return SimpleNamespace(**{**values, **more})


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs of 8 GB, as far as torch says; taken: the one that was."""
    found = SimpleNamespace(taken=None, free=8 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: setattr(found, "taken", index))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (found.free, 8 * 10**9))
    return found


def test_a_worker_takes_its_host_s_next_gpu(gpus):
    for told, index in (({}, 0), ({"device": "cuda:1"}, 1), ({"dp_rank": 1}, 1), ({"dp_rank": 7, "local_rank": 1}, 1)):
        assert device.pick(options(**told)) == torch.device("cuda", index) and gpus.taken == index
    with pytest.raises(folder.LoadError, match="takes cuda:2, and torch finds 2 GPUs"):
        device.pick(options(device="cuda:1", dp_rank=1))


@pytest.mark.parametrize(
    ("told", "words"),
    [({"deterministic": True}, "--deterministic --device cuda: a product of cuBLAS depends on the batch"),
     ({"hf_fast_linear": True}, "--hf-fast-linear --device cuda: the packed products are for CPUs; leave it out"),
     ({"tp_size": 2}, "--tp-size 2 --device cuda: .* on CPUs only; --dp-size starts replicas"),
     ({"device": "rocm"}, "--device rocm: there are cpu, cuda and cuda:N"), ({"device": "cuda:x"}, "there are cpu, cuda and cuda:N")],
)
def test_what_no_gpu_gives_is_refused_by_name(gpus, told, words):
    with pytest.raises(folder.LoadError, match=words):
        device.pick(options(**told))


def test_a_torch_with_cuda_that_finds_no_gpu_says_where_to_look(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(folder.LoadError, match="finds no GPU; `nvidia-smi` says whether the driver does"):
        device.pick(options())


def needs(bytes_per_slot, state_bytes=None, running_bytes=0):
    return SimpleNamespace(bytes_per_slot=bytes_per_slot, state_bytes=state_bytes, running_bytes=running_bytes)


def test_the_pool_is_the_share_of_what_the_gpu_has_free(gpus):
    gpu = torch.device("cuda", 0)
    assert device.share_out(options(), gpu, needs(1000), 4096) == (7_200_000 // 16, 0, 64)
    assert device.share_out(options(mem_fraction_static=0.25), gpu, needs(1000), 4096) == (2_000_000 // 16, 0, 64)
    assert device.share_out(options(max_total_tokens=100), gpu, needs(1000), 4096) == (7, 0, 64)
    assert device.share_out(options(), gpu, needs(0), 4096) == (65536 // 16, 0, 64), "a model without a cache takes none"
    gpus.free = 60_000
    with pytest.raises(folder.LoadError, match="would hold 48 tokens of 1000 bytes in the 0.1 MB that are free beside the weights"):
        device.share_out(options(), gpu, needs(1000), 4096)


def test_states_and_pages_share_the_memory(gpus):
    """Of 7.2 GB: one state for each 256 tokens of the pool, or half of the bytes where states are large."""
    gpu = torch.device("cuda", 0)
    n_pages, n_states, _ = device.share_out(options(), gpu, needs(1000, 20_000), 4096)
    assert n_states == 7_200_000_000 // (20_000 + 256_000) and n_pages == (7_200_000_000 - n_states * 20_000) // 16_000
    n_pages, n_states, _ = device.share_out(options(), gpu, needs(1000, 2_000_000), 4096)
    assert n_states == 3_600_000_000 // 2_000_000 and n_pages == 3_600_000 // 16
    assert device.share_out(options(max_total_tokens=1024), gpu, needs(1000, 20_000), 4096)[:2] == (64, 4), "a pool as asked, and as many as it is good for"
    assert device.share_out(options(), gpu, needs(1000, 0), 4096)[:2] == (7_200_000 // 16, 7_200_000 // 256), "nothing but places in the pool"
    assert device.share_out(options(), gpu, needs(0, 20_000), 4096)[:2] == (65536 // 16, 256), "states alone"
    assert device.share_out(options(), gpu, needs(1000, 8_000_000_000), 4096)[1] == 0, "not even one"


def test_the_states_of_those_that_run_come_first(gpus):
    """They were on top of the share: 64 requests with 40 MB each beside a pool of 7.2 GB found no memory in the middle of serving."""
    gpu = torch.device("cuda", 0)
    n_pages, n_states, n_slots = device.share_out(options(), gpu, needs(1000, 20_000_000, 40_000_000), 4096)
    assert n_slots == 64 and n_states == (7_200_000_000 - 64 * 40_000_000) // 2 // 20_000_000
    assert n_pages * 16_000 + n_states * 20_000_000 + n_slots * 40_000_000 <= 7_200_000_000
    assert device.share_out(options(), gpu, needs(1000, None, 100_000_000), 4096) == (3_600_000 // 16, 0, 36), "half of it at most: fewer run"
    with pytest.raises(folder.LoadError, match=r"the states of one request take 4000.0 MB, and half of the 7200.0 MB"):
        device.share_out(options(), gpu, needs(1000, None, 4_000_000_000), 4096)


def test_what_does_not_fit_is_a_sentence(monkeypatch):
    def full(*args, **more):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand much advice")

    asked = SimpleNamespace(**{**vars(options()), "model_path": "big", "dtype": "auto", "trust_remote_code": False, "allow_pickle": False})
    monkeypatch.setattr(loader, "load", full)
    with pytest.raises(folder.LoadError, match=r"big does not fit on cpu, which has [\d.]+ GB free \(CUDA out of memory. Tried to allocate 2.00 GiB.\); take"):
        load(asked, torch.device("cpu"), 1)
    with pytest.raises(torch.OutOfMemoryError):
        Pool(1 << 40, 16).reserve({0: (8, 128, 128, torch.float32)})


def test_a_step_is_tried_before_anybody_asks():
    model = models.load("llama-gqa")
    runner = Runner(model, "A", Pool(64, 16))
    try_step(runner, 512)
    assert len(runner.pool.layers) == n_layers(runner.model.config)


def test_a_device_that_is_lost_ends_the_worker(monkeypatch):
    """After such an error every call of the device fails: only a new process helps."""
    d = Driver(make_worker(models.load("llama-gqa"), "A"))
    d.admit("a", PROMPT[:6])

    def lost(*args, **more):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(d.worker.runner.model, "forward", lost)
    with pytest.raises(torch.AcceleratorError):
        d.worker.step(d.frame(("a", 6)))


# ---- what setup.sh installs: with the shell's function itself, over a Python and a pip that only write down ----


@pytest.mark.parametrize(
    ("has", "flags", "has_gpu", "calls"),
    [("none", "", False, ["install torch=={pin}+cpu"]), ("cpu", "", False, []), ("none", "", True, ["install torch=={pin}"]),
     ("cpu", "", True, ["uninstall -y torch", "install torch=={pin}"]), ("cpu", "yes", False, ["uninstall -y torch", "install torch=={pin}"]),
     ("13.0", "yes", True, [])],
)
def test_setup_brings_the_torch_that_the_machine_needs(tmp_path, has, flags, has_gpu, calls):
    script = (ROOT / "deploy/setup.sh").read_text()
    function = script[script.index("torch_for() {") : script.index("# see_too FOLDER")]
    stubs, venv, requirements = tmp_path / "bin", tmp_path / ".venv/bin", tmp_path / "gpu_worker/hf/requirements.txt"
    for folder_ in (stubs, venv, requirements.parent):
        folder_.mkdir(parents=True)
    requirements.write_text((ROOT / "gpu_worker/hf/requirements.txt").read_text())
    (stubs / "sed").symlink_to(shutil.which("sed"))
    executable(venv / "python", 'case "$2" in *print*) [ $HAS != none ] && echo $HAS ;; *) exit 1 ;; esac')
    executable(venv / "pip", 'echo "$@" >>"$0.calls"')
    if has_gpu:
        executable(stubs / "nvidia-smi", "exit 0")
    done = subprocess.run(["/bin/sh", "-euc", f'root={tmp_path}; want_cuda={flags or "no"}; say() {{ echo "$@"; }}; die() {{ exit 9; }}; {function} torch_for .venv'],
                          env={"PATH": str(stubs), "HAS": has}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    noted, pin = venv / "pip.calls", re.search(r"^torch==(\S+)$", requirements.read_text(), re.M)[1]
    made = noted.read_text().replace(" -q", "").replace(" --disable-pip-version-check", "").splitlines() if noted.exists() else []
    assert made == [call.format(pin=pin) for call in calls]
    assert ("will not take --device cuda" in done.stdout) == any(not c.endswith("+cpu") for c in calls), "this pip brought none with CUDA"


def executable(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


# ---- served ----


def test_it_serves_with_the_torch_kernels():
    golden = models.golden("gpt-oss")["cases"]
    with serve(models.path_of("gpt-oss"), "--dtype", "float32", "--chunked-prefill-size", "32", env={"BANYAN_TEST_TORCH_KERNELS": "1"}) as s:
        assert "attention=torch" in s.logs()
        for _ in ("cold", "cached"):
            assert [greedy(s, c["prompt_ids"], 32)[1] for c in golden.values()] == [c["greedy_ids"] for c in golden.values()]


def test_the_part_of_gpu_check_runs(monkeypatch, capsys):
    """Over the CPU in the card's place; with neither it says what is not here."""
    monkeypatch.syspath_prepend(ROOT / "tests/gpu")
    part = importlib.import_module("check_server").PARTS["transformers"]
    if not torch.cuda.is_available():
        assert part("tiny") == 0
        assert f"not here: torch with CUDA (this is {torch.__version__}); deploy/setup.sh --transformers --cuda" in capsys.readouterr().out
    monkeypatch.setenv("BANYAN_TEST_TORCH_KERNELS", "1")
    assert part("tiny") == 0
    assert len(re.findall(r"prompt of \d+: (48 ids equal|ids part at)", capsys.readouterr().out)) == 3


@pytest.mark.skipif(not EMULATED.exists(), reason="no emulated device was built")
def test_the_part_of_greedy_ids_runs(monkeypatch, capsys):
    """Over the emulated device; ids that are not transformers' are as good as."""
    monkeypatch.syspath_prepend(ROOT / "tests/gpu")
    check = importlib.import_module("check_server")
    monkeypatch.setitem(check.MODULE, "BANYAN_CUDA_MODULE", str(EMULATED))
    assert check.PARTS["ids"]("tiny") == 0
    assert len(re.findall(r"4[0-8] of 48 ids are the likeliest", capsys.readouterr().out)) == 3


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_a_torch_for_cpus_is_told_what_to_install():
    said = refused("--model-path", models.path_of("bloom"), "--device", "cuda")
    assert f"--device cuda: torch {torch.__version__} is built for CPUs alone; deploy/setup.sh --transformers --cuda brings" in said
