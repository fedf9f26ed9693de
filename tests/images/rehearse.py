#!/usr/bin/env python3
"""rehearse.py - runs a Dockerfile's own lines where there is no container engine: each stage in an empty Debian root (debootstrap), each
RUN in a chroot of it. What comes out is looked at as the image would be: no compiler, not root, it serves.

    sudo tests/images/rehearse.py cpu|cuda [--work DIR] [--from N] [--until N]

    FROM debian:12-slim   a minimal root, made once in DIR        RUN    /bin/sh -c in the root, with what ENV and WORKDIR said
    COPY . .              what git would carry                    COPY --from=…   from the root of the other stage

What an image is more than its files (layers, HEALTHCHECK's clock, signals) is not rehearsed. --from takes the stages
before N as DIR has them, --until ends behind stage N; the first is 1.
"""

import argparse
import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "deploy/docker"
CA = "/etc/rehearsal-ca.crt"  # the machine's own: the package ca-certificates writes over the usual place
TINY = ROOT.parent / "shared/data/tiny/llama-gqa"


def read(path):
    """The stages of a Dockerfile: (name, base, [(word, rest)])."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", path.read_text(), flags=re.M))
    stages = []
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(None, 1)
        if word == "FROM":
            m = re.fullmatch(r"(\S+)(?: AS (\S+))?", rest)
            stages.append((m[2] or str(len(stages)), m[1], []))
        else:
            stages[-1][2].append((word, rest))
    return stages


def run(*words, **more):
    subprocess.run([str(w) for w in words], check=True, **more)


def base_root(work):
    """An empty Debian 12, with this machine's ways to its packages."""
    base = work / "base"
    if not (base / "done").exists():
        shutil.rmtree(base, ignore_errors=True)
        run("debootstrap", "--variant=minbase", "bookworm", base, stdout=subprocess.DEVNULL)
        shutil.copy("/etc/resolv.conf", base / "etc/resolv.conf")
        for place in ("sources.list.d", "apt.conf.d"):
            for file in Path("/etc/apt", place).glob("*"):
                if file.is_file() and "docker" not in file.name:
                    shutil.copy(file, base / "etc/apt" / place / file.name)
        if any((base / "etc/apt/sources.list.d").iterdir()):
            (base / "etc/apt/sources.list").unlink(missing_ok=True)
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", str(base) + CA)
        (base / "done").touch()
    return base


class Stage:
    def __init__(self, root):
        self.root, self.env, self.cwd, self.user, self.start = root, {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, "/", "0:0", {}

    def within(self, path):
        return self.root / os.path.normpath(os.path.join(self.cwd, path)).lstrip("/")

    def shell(self, line, user=None, **more):
        """As RUN does it: with /proc, and what is started ends with it."""
        env = {**self.env, "HOME": "/root", "PIP_CERT": CA, "SSL_CERT_FILE": CA, "DEBIAN_FRONTEND": "noninteractive"}
        return subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={self.root}/proc", "chroot", f"--userspec={user or self.user}", self.root,
                               "/bin/sh", "-c", f"cd {shlex.quote(self.cwd)} && {line}"], env=env, **more)

    def copy_tree(self):
        names = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "-co", "--exclude-standard"], capture_output=True, check=True).stdout
        pack = subprocess.Popen(["tar", "-C", ROOT, "--null", "--ignore-failed-read", "-T", "-", "-cf", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        unpack = subprocess.Popen(["tar", "-C", self.within("."), "-xf", "-"], stdin=pack.stdout)
        pack.stdout.close()
        pack.stdin.write(names)
        pack.stdin.close()
        assert pack.wait() == 0 and unpack.wait() == 0

    def step(self, word, rest, stages):
        if word == "RUN":
            if self.shell(rest).returncode:
                raise SystemExit(f"rehearse: failed: RUN {rest}")
        elif word == "WORKDIR":
            self.cwd = rest
            self.within(".").mkdir(parents=True, exist_ok=True)
        elif word == "ENV":
            self.env.update(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "USER":
            self.user = rest
        elif word == "COPY" and rest == ". .":
            self.copy_tree()
        elif word == "COPY":
            m = re.fullmatch(r"--from=(\S+) (\S+) (\S+)", rest)
            found = glob.glob(str(stages[m[1]].root) + m[2])
            assert found, f"nothing matches {m[2]}"
            self.within(m[3]).mkdir(parents=True, exist_ok=True)
            for path in found:
                run("cp", "-a", path + ("." if path.endswith("/") else ""), self.within(m[3]))
        else:
            assert word in ("VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT", "CMD"), word
            self.start[word] = rest


def look(kind, image):
    """What is asked of the image: it is small, cannot build, belongs to nobody, and serves to its own health check."""
    assert image.user != "0:0" and not image.shell("command -v gcc cc make cmake git", stdout=subprocess.DEVNULL).returncode == 0
    assert not image.within("/src").exists()
    size = int(subprocess.run(["du", "-sxm", "--exclude=proc", image.root], capture_output=True, text=True, check=True).stdout.split()[0])
    program = " ".join(json.loads(image.start["ENTRYPOINT"]) + json.loads(image.start["CMD"]))
    health = " ".join(json.loads(image.start["HEALTHCHECK"].split("CMD", 1)[1]))
    shutil.copytree(TINY, image.root / "model", dirs_exist_ok=True)
    serves = image.shell(f"{{ {program} --device cpu --model-path /model >/tmp/log 2>&1 & }}; n=0; until {health}; do n=$((n + 1)); [ $n -lt 100 ] || exit 1; sleep 0.3; done 2>/dev/null; kill $!; wait $!; echo ended with $?",
                         capture_output=True, text=True)
    assert "ended with 0" in serves.stdout, serves.stdout + serves.stderr + (image.root / "tmp/log").read_text()
    if kind == "cuda":
        said = image.shell("banyan-gpu-worker --model-path /model --run-dir /run/banyan", capture_output=True, text=True).stderr
        assert "no CUDA driver is loaded here" in said or os.path.exists("/dev/nvidiactl"), said
    return size


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("kind", choices=["cpu", "cuda"])
    p.add_argument("--work", type=Path, default=Path("/var/tmp/banyan-rehearsal"))
    p.add_argument("--from", dest="first", type=int, default=1)
    p.add_argument("--until", type=int, default=99)
    o = p.parse_args()
    o.work.mkdir(parents=True, exist_ok=True)
    base, stages, began = base_root(o.work), {}, time.monotonic()
    base_size = int(subprocess.run(["du", "-sxm", base], capture_output=True, text=True, check=True).stdout.split()[0])
    for i, (name, image, steps) in enumerate(read(DOCKER / f"Dockerfile.{o.kind}")[:o.until]):
        assert image == "debian:12-slim", image
        root = o.work / f"{o.kind}-{name}"
        stages[name] = stage = Stage(root)
        if i + 1 < o.first:
            continue
        shutil.rmtree(root, ignore_errors=True)
        run("cp", "-a", base, root)
        for word, rest in steps:
            print(f"rehearse: {i + 1}: {word} {rest[:100]}", flush=True)
            stage.step(word, rest, stages)
    if o.until > i + 1:
        size = look(o.kind, stage)
        print(f"rehearse: {o.kind}: {size} MiB, {base_size} MiB of them Debian; it serves as {stage.user} in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
