"""The sdist and the wheel of the Python package: what they hold, and that what pip puts on a machine works without this tree."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

import tiny_llama
from harness import BIN, ROOT, environment

SOURCE = ROOT / "deploy/python"
MODULES = {str(p.relative_to(SOURCE)) for p in (SOURCE / "banyan").rglob("*.py") if p.name != "_checkout.py"}


def ok(*words, **more):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=240, **more)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def copy_of_source(to):
    return shutil.copytree(SOURCE, to, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info", "_checkout.py"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(sdist, wheel) as `python3 -m build` makes them, the wheel out of the sdist; nothing is asked of a network."""
    top = tmp_path_factory.mktemp("package")
    source = copy_of_source(top / "python")
    ok(sys.executable, "-m", "build", "--no-isolation", "--outdir", top / "dist", source)
    [sdist], [wheel] = (top / "dist").glob("*.tar.gz"), (top / "dist").glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(made, tmp_path_factory):
    """The folder that pip put the wheel in."""
    there = tmp_path_factory.mktemp("installed")
    ok(sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", there, made[1])
    return there


def python(installed, code, **env):
    return ok(sys.executable, "-c", code, cwd="/", env=environment(PYTHONPATH=str(installed), **env))


def test_the_sdist_is_enough_to_build_from(made):
    with tarfile.open(made[0]) as t:
        names = {name.split("/", 1)[1] for name in t.getnames() if "/" in name}
    assert MODULES | {"setup.py", "pyproject.toml", "README.md", "PKG-INFO"} <= names


def test_the_wheel_holds_the_package_and_nothing_of_this_machine(made):
    with zipfile.ZipFile(made[1]) as z:
        names = {n for n in z.namelist() if ".dist-info/" not in n}
        texts = b"".join(z.read(n) for n in z.namelist())
        [about] = [email.message_from_bytes(z.read(n)) for n in z.namelist() if n.endswith("/METADATA")]
    assert names == MODULES
    assert str(ROOT).encode() not in texts
    assert made[1].name.endswith("-py3-none-any.whl")
    assert ok(BIN / "banyan", "--version") == f"banyan {about['Version']}\n"
    assert about["License-Expression"] == "Apache-2.0", "its older form warned in each build, and ends in February 2027"
    assert not about.get_all("Requires-Dist") and "banyan.Engine" in about.get_payload()


def test_what_is_installed_runs_a_model(installed, tmp_path):
    model = tiny_llama.write(tmp_path / "model", 1)
    code = ("import banyan, sys\n"
            f"with banyan.Engine({str(model)!r}, threads=1) as engine:\n"
            "    out = engine.generate(input_ids=[20, 21, 22], sampling_params={'temperature': 0, 'max_new_tokens': 4, 'ignore_eos': True})\n"
            "print(banyan.__file__, banyan.__version__, len(out['output_ids']))")
    file, version, n = python(installed, code, BANYAN_BIN=str(BIN / "banyan")).split()
    assert file == f"{installed}/banyan/__init__.py" and n == "4"
    assert ok(BIN / "banyan", "--version") == f"banyan {version}\n"


def test_without_the_program_it_says_where_it_comes_from(installed):
    code = "import banyan\ntry:\n    banyan.Engine('x')\nexcept banyan.BanyanError as e:\n    print(e)"
    assert "BANYAN_BIN" in python(installed, code, PATH="/nowhere")
    # a folder was "not there … name it by BANYAN_BIN"; a wrong word, and whatever lay on PATH was started
    assert python(installed, "from banyan.engine import find_banyan; print(find_banyan())", BANYAN_BIN=str(BIN)).strip() == str(BIN / "banyan")
    assert "BANYAN_BIN names /nowhere/banyan" in python(installed, code, BANYAN_BIN="/nowhere/banyan", PATH=f"{BIN}:{os.environ['PATH']}")


def test_its_modules_run_as_commands(installed):
    assert "serve" in ok(sys.executable, "-m", "banyan.bench", "--help", cwd="/", env=environment(PYTHONPATH=str(installed)))
    said = ok(sys.executable, "-m", "banyan.launch_server", "--version", cwd="/",
              env=environment(PYTHONPATH=str(installed), BANYAN_BIN=str(BIN / "banyan")))
    assert re.fullmatch(r"banyan serve \d+\.\d+\.\d+\n", said)


def test_installed_from_a_checkout_it_finds_that_build(tmp_path):
    top = tmp_path / "tree"
    copy_of_source(top / "deploy/python")
    shutil.copy(ROOT / "CMakeLists.txt", top)
    (top / "build/bin").mkdir(parents=True)
    (top / "build/bin/banyan").symlink_to(BIN / "banyan")
    ok(sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation", "--target", tmp_path / "there",
       top / "deploy/python")
    assert python(tmp_path / "there", "from banyan.engine import find_banyan; print(find_banyan())", PATH="/nowhere") \
        == f"{top}/build/bin/banyan\n"
