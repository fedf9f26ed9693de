"""`cmake --install` and the .deb: what is in them works from where it lies, without the tree that it was built from."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from harness import BUILD, TINY, Daemons, environment
from test_manifests import PROGRAMS

PREFIX = "/usr"


def run(*words, **more):
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=120, **more)


def ok(*words, **more):
    done = run(*words, **more)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """What `cmake --install --prefix /usr` puts on a machine, in a folder of its own."""
    top = tmp_path_factory.mktemp("root")
    ok("cmake", "--install", BUILD, "--prefix", PREFIX, env={**os.environ, "DESTDIR": str(top)})
    return top


def test_the_programs_run_from_there(root):
    assert re.fullmatch(r"banyan \d+\.\d+\.\d+\n", ok(root / "usr/bin/banyan", "--version"))
    for name in ("router", "scheduler", "tokenizer-worker", "detokenizer"):
        assert ok(root / f"usr/bin/banyan-{name}", "--version").startswith(f"banyan-{name} ")


def test_what_containers_and_units_call_is_there(root):
    """banyan-health was not, once: every image would have been unhealthy."""
    for name in PROGRAMS:
        assert os.access(root / "usr/bin" / name, os.X_OK), name


def test_the_health_check_asks_the_router(root, tmp_path):
    with Daemons() as d:
        health = root / "usr/bin/banyan-health"
        assert run(health, d.client.port).returncode == 0 and run(health, d.client.port, "/health").returncode == 0
        assert run(health, d.client.port, "/nowhere").returncode == 1
        assert run(health, env={**os.environ, "BANYAN_PORT": str(d.client.port)}).returncode == 0
    linked = run(health, env={**os.environ, "BANYAN_PORT": "tcp://10.96.0.12:80"})  # as Kubernetes sets it: the default port is asked
    assert "30000" in linked.stderr or linked.returncode == 0, linked
    assert run(health, d.client.port).returncode == 1
    assert "PORT: BANYAN_PORT, else 30000" in ok(health, "--help")


def test_the_pages_lie_where_links_and_help_look_for_them(root):
    doc = root / "usr/share/doc/banyan"
    for page in ("README.md", "SECURITY.md", "ARCHITECTURE.md", "deploy/README.md", "deploy/python/README.md"):
        links = re.findall(r"\]\(([\w./]+\.md)\)", (doc / page).read_text())
        ours = [p for p in links if not re.match(r"(\.\./)?(proto|router|tokenizer_worker|scheduler|detokenizer|tests|common|gpu_worker)/", p)]  # the source's
        assert all((doc / page).parent.joinpath(p).exists() for p in ours), (page, ours)
    named = re.search(r"\((deploy/docs/\S+\.md)\)", ok(root / "usr/bin/banyan", "serve", "--help"))[1]
    assert (doc / named).exists()


def test_an_installation_without_transformers_says_how_to_get_it(root):
    """It named deploy/setup.sh, which is no part of an installation."""
    done = run(root / "usr/bin/banyan", "serve", "--impl", "transformers", TINY, "--port", "0", env=environment())
    assert done.returncode == 1 and "python3 -m venv " in done.stderr and "setup.sh" not in done.stderr, done


def test_tokenize_works_from_there(root):
    said = ok(root / "usr/bin/banyan", "tokenize", "--model-path", TINY, input='{"text": "hello world"}\n')
    assert re.search(r"\d+, ?\d+", said), said


def test_the_transformers_worker_finds_what_it_reads(root):
    """limits.h was missing once: the worker read it while it started, and died."""
    hf = root / "usr/share/banyan/gpu_worker/hf"
    code = ("import banyan_hf_worker as b, banyan_hf_worker.options as o; from banyan_hf_worker import kernels\n"
            "print(b.messages.LIMITS['LIMIT_FRAME_BYTES'], o.parse(['--page-size', '8']).page_size, b.tree('common', 'base', 'errors.def').exists())\n"
            "print(kernels._find())")
    said = ok(sys.executable, "-c", code, cwd="/", env=environment(PYTHONPATH=str(hf)))
    assert said.splitlines() == ["100663296 8 True", str(root / "usr/lib/libbanyan_kernels.so")]


def test_the_transformers_worker_reads_the_configuration(root, tmp_path):
    """It has no C parser; a unit or container names the file for it as for the others."""
    (tmp_path / "c.yaml").write_text("page_size: 32\nlog-json: true\nport: 1\nmax_total_tokens: 640\n")
    code = ("import banyan_hf_worker.options as o; p = o.parse(['--max-total-tokens', '64']); "
            "print(p.page_size, p.max_total_tokens, p.log_json, p.dp_rank)")
    env = environment(PYTHONPATH=str(root / "usr/share/banyan/gpu_worker/hf"), BANYAN_CONFIG=str(tmp_path / "c.yaml"))
    assert ok(sys.executable, "-c", code, env={**env, "BANYAN_DP_RANK": "2"}) == "32 64 True 2\n"


def test_the_wrapper_of_the_transformers_worker_starts_it(root):
    wrapper = root / "usr/bin/banyan-hf-worker"
    done = run(wrapper, "--help", env=environment(BANYAN_PYTHON=sys.executable), cwd="/")
    assert done.returncode == 0 and "--tp-rank" in done.stdout, done
    done = run(wrapper, "--help", cwd="/", env=environment())
    assert done.returncode == 78 and "python3 -m venv" in done.stderr, done


def test_each_program_and_command_has_its_page(root):
    pages = {p.name for p in (root / "usr/share/man/man1").iterdir()}
    programs = {p.name for p in (BUILD / "bin").iterdir() if p.name.startswith("banyan")}
    assert {f"{name}.1" for name in programs} <= pages
    commands = re.findall(r"^    ([a-z-]+)  ", ok(BUILD / "bin/banyan", "--help").partition("commands:\n")[2], re.M)
    assert len(commands) > 9 and {f"banyan-{name}.1" for name in commands} <= pages
    top = (root / "usr/share/man/man1/banyan-top.1").read_text()
    assert "banyan-top \\- a live view of a server" in top and "\\-\\-interval" in top
    if shutil.which("man"):
        text = ok("man", "-l", root / "usr/share/man/man1/banyan-router.1", env={**os.environ, "MANWIDTH": "200"})
        assert "--max-body-bytes n" in text and "largest request body" in text


def complete(root, *words):
    """What bash offers for these words."""
    line = (f'source {root}/usr/share/bash-completion/completions/banyan; PATH={root}/usr/bin:$PATH; COMP_WORDS=("$@"); '
            f'COMP_CWORD=$(($# - 1)); _banyan; printf "%s\\n" "${{COMPREPLY[@]}}"')
    return ok("bash", "-c", line, "bash", *words).split()


def test_completion_offers_commands_options_and_words(root):
    assert "tokenize" in complete(root, "banyan", "to")
    assert complete(root, "banyan", "serve", "--max-bo") == ["--max-body-bytes"]
    assert complete(root, "banyan-scheduler", "--schedule-policy", "f") == ["fair", "fcfs"]
    assert complete(root, "banyan-router", "--page-si") == []


def test_completion_knows_commands_of_commands(root, tmp_path, monkeypatch):
    """`banyan bench <TAB>` offered the files of the folder, and `banyan bench serve --u<TAB>` nothing."""
    (tmp_path / "a_file").touch()
    monkeypatch.chdir(tmp_path)
    assert complete(root, "banyan", "bench", "") == ["serve", "offline", "one-batch"]
    assert complete(root, "banyan", "config", "") == ["check"]
    assert complete(root, "banyan", "help", "to") == ["tokenize", "top"]
    assert complete(root, "banyan", "bench", "serve", "--ur") == ["--url"]
    assert complete(root, "banyan", "bench", "one-batch", "--page-s") == ["--page-size"]
    assert complete(root, "banyan", "serve", "") == complete(root, "banyan", "config", "check", "") == ["a_file"]


def test_the_package_for_python_lies_there_and_finds_its_program(tmp_path):
    """Below a prefix that is not on PATH it said that the program is not there."""
    ok("cmake", "--install", BUILD, "--prefix", tmp_path)
    found = ok(sys.executable, "-c", "import banyan.engine; print(banyan.engine.find_banyan())",
               env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path / "share/banyan/python")})
    assert found == f"{tmp_path}/bin/banyan\n"
    assert "share/banyan/python" in (tmp_path / "share/doc/banyan/deploy/python/README.md").read_text()


def test_units_name_the_programs_where_they_are(root):
    units = list((root / "usr/lib/systemd/system").glob("*.service"))
    assert len(units) >= 7
    for unit in units:
        for path in re.findall(r"(?:ExecStart=|exec )(\S*banyan\S*)", unit.read_text()):
            program = root / path.lstrip("/")
            assert program.exists() or path.endswith("banyan-gpu-worker"), f"{unit.name}: {path}"
    assert "u banyan " in (root / "usr/lib/sysusers.d/banyan.conf").read_text()


def test_another_prefix_is_in_the_units_and_keeps_a_configuration(tmp_path):
    there = tmp_path / "opt"
    (there / "etc/banyan").mkdir(parents=True)
    (there / "etc/banyan/banyan.yaml").write_text("port: 1\n")
    ok("cmake", "--install", BUILD, "--prefix", there)
    unit = (there / "lib/systemd/system/banyan-scheduler.service").read_text()
    assert f"ExecStart={there}/bin/banyan-scheduler\n" in unit
    common = (there / "lib/systemd/system/banyan-.service.d/10-common.conf").read_text()
    assert f"BANYAN_CONFIG={there}/etc/banyan/banyan.yaml" in common
    assert (there / "etc/banyan/banyan.yaml").read_text() == "port: 1\n"


def test_the_configuration_that_is_installed_can_be_read(root):
    path = root / "etc/banyan/banyan.yaml"
    assert ok(root / "usr/bin/banyan-router", "--config", path, "--version")
    done = run(root / "usr/bin/banyan-router", "--config", path, env=environment())
    assert "--run-dir is needed" in done.stderr, done  # it got past the file


@pytest.mark.skipif(not shutil.which("cpack") or not shutil.which("dpkg-deb"), reason="a .deb needs cpack and dpkg-deb")
def test_the_deb_holds_the_same_and_knows_its_libraries(root, tmp_path):
    ok("cpack", "-G", "DEB", "--config", BUILD / "CPackConfig.cmake", "-B", tmp_path)
    [package] = tmp_path.glob("*.deb")
    ok("dpkg-deb", "-x", package, tmp_path / "x")
    assert ok(tmp_path / "x/usr/bin/banyan", "--version") == ok(root / "usr/bin/banyan", "--version")
    listed = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
    held = {str(p.relative_to(tmp_path / "x")) for p in (tmp_path / "x").rglob("*") if p.is_file()}
    assert listed == held
    depends = ok("dpkg-deb", "-f", package, "Depends")
    assert {"libzmq5", "libuv1", "libc6", "adduser"} <= set(re.findall(r"[\w.+-]+", depends)), depends
    assert ok("dpkg-deb", "--info", package, "conffiles") == "/etc/banyan/banyan.yaml\n"
