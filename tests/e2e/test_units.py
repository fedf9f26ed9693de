"""The systemd units as they are installed: systemd reads them without a word, and finds little to attack."""

import os
import re
import shutil
import subprocess

import pytest

from harness import BUILD, ROOT

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
EXPOSURE_MAX = 3.0
INSTANCES = {"banyan-tokenizer-worker": "1", "banyan-router": "30001", "banyan-gpu-worker": "1.0", "banyan-hf-worker": "0.1"}


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """The installed units in one folder, templates under an instance's name, as systemd-analyze wants them."""
    top = tmp_path_factory.mktemp("prefix")
    subprocess.run(["cmake", "--install", str(BUILD), "--prefix", str(top)], check=True, capture_output=True)
    worker = top / "bin/banyan-gpu-worker"
    if not worker.exists():  # a tree without the native engine: verify only asks whether the file is there
        worker.symlink_to("/bin/true")
    folder = top / "lib/systemd/system"
    for template in folder.glob("*@.service"):
        stem = template.name.removesuffix("@.service")
        shutil.copy(template, folder / f"{stem}@{INSTANCES[stem]}.service")
    return folder


def names(folder, ending):
    return sorted(p.name for p in folder.glob(f"*{ending}") if "@." not in p.name)


def analyze(*words):
    done = subprocess.run(["systemd-analyze", *map(str, words)], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "SYSTEMD_COLORS": "0"})
    return done.returncode, done.stdout + done.stderr


def test_systemd_understands_every_line(units):
    for name in names(units, ".service") + names(units, ".target"):
        rc, said = analyze("verify", "--man=no", units / name)
        # systemd also looks at the machine's own units; what it says of ours names the file.
        ours = [line for line in said.splitlines() if "banyan" in line]
        assert rc == 0 and not ours, f"{name}: {said}"


def test_verify_would_find_a_mistake(units, tmp_path):
    shutil.copytree(units, tmp_path / "u")
    unit = tmp_path / "u/banyan-scheduler.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchdgSec="))
    assert "WatchdgSec" in analyze("verify", "--man=no", unit)[1]


def test_exposure_is_low(units):
    for name in names(units, ".service"):
        rc, said = analyze("security", "--offline=true", units / name)
        level = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
        assert level and float(level[1]) <= EXPOSURE_MAX, f"{name}: {said[-300:]}"


def test_without_what_they_share_they_would_be_exposed(units, tmp_path):
    """The drop-in for banyan-* is what hardens them: systemd must find it."""
    shutil.copy(units / "banyan-scheduler.service", tmp_path)
    _, said = analyze("security", "--offline=true", tmp_path / "banyan-scheduler.service")
    assert float(re.search(r"exposure level for \S+: ([\d.]+)", said)[1]) > EXPOSURE_MAX


def test_the_target_wants_one_of_each(units):
    wanted = set(re.findall(r"banyan-[\w@.-]+\.service", (units / "banyan.target").read_text()))
    kinds = {re.sub(r"@.*", "", name).removesuffix(".service") for name in wanted}
    assert kinds == {"banyan-scheduler", "banyan-tokenizer-worker", "banyan-gpu-worker", "banyan-detokenizer", "banyan-router"}
    for name in wanted:
        assert (units / re.sub(r"@.*\.service", "@.service", name)).exists(), name


@pytest.mark.parametrize("kind, instance, flags", [("gpu", "3.12", "--dp-rank 3 --tp-rank 12"), ("hf", "3.12", "--dp-rank 3 --tp-rank 12"),
                                                   ("gpu", "1.10.2", "--dp-rank 1 --tp-rank 10 --local-rank 2")])
def test_the_worker_units_take_their_instance_apart(units, kind, instance, flags):
    """REPLICA.RANK, and of its host's workers which: what the shell makes of the line, with a program that prints what it gets."""
    text = (units / f"banyan-{kind}-worker@.service").read_text().replace("\\\n", " ")
    line = re.search(r"ExecStart=/bin/sh -c '(.*)'", text)[1]
    line = re.sub(r"exec \S+", "exec echo", line.replace("%i", instance).replace("$$", "$").replace("%%", "%"))
    said = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True).stdout
    assert said == f"--instance {instance} {flags}\n"


def test_every_option_in_a_unit_is_one(units):
    known = set(re.findall(r"^\| `(--[\w-]+)`", (ROOT / "deploy/docs/options.md").read_text(), re.M))
    for unit in units.rglob("*"):
        if unit.is_file():
            text = re.sub(r"^#.*$", "", unit.read_text(), flags=re.M)
            assert set(re.findall(r" (--[a-z][\w-]+)", text)) <= known, unit.name
            for name in re.findall(r"BANYAN_(\w+)=", text):
                assert "--" + name.lower().replace("_", "-") in known, f"{unit.name}: BANYAN_{name}"
