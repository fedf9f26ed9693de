"""`banyan inspect` and `banyan trace`: what a running server does, and what reached its scheduler, as a person sees it."""

import json
import os
import re
import subprocess

from harness import BIN, Daemons, in_threads, wait_for


def banyan(*words):
    return subprocess.run([BIN / "banyan", *map(str, words)], capture_output=True, text=True, timeout=60)


def test_inspect_draws_queue_replicas_tenants_and_tree():
    with Daemons(gpu_worker=["--step-us", "2000"]) as server:
        server.generate("one two three four five six seven eight nine ten " * 8, 4)
        server.generate("one two three four five six seven eight nine ten " * 8, 4)

        def look():
            done = banyan("inspect", "--run-dir", server.dir)
            return done.stdout if done.returncode == 0 and " decode " in done.stdout else None

        drawn = []

        def watch():
            wait_for("a running request to be shown", lambda: drawn.append(look()) or drawn[-1])

        in_threads([lambda: server.generate("go on", 2000), watch])
        page = drawn[-1]
        assert page.startswith("ready")
        assert re.search(r"^0 +up +1 / \d+", page, re.M)
        assert re.search(r"^\(none\) +\d+ +1 ", page, re.M)
        assert re.search(r"tree: \d+ runs, pages of 16 tokens; \d+ of \d+ prompt tokens came from it", page)
        hits = [int(m[1]) for m in re.finditer(r"^ +\d+ +\d+ +(\d+)  0 ", page, re.M)]
        assert hits and max(hits) >= 1

        raw = banyan("inspect", "--run-dir", server.dir, "--json")
        assert json.loads(raw.stdout)["cache"]["cached_tokens"] > 0


def test_inspect_says_when_nobody_answers(tmp_path):
    done = banyan("inspect", "--run-dir", tmp_path)
    assert done.returncode == 1 and "no scheduler answers there" in done.stderr


def test_a_trace_of_a_server_replays(tmp_path):
    trace = tmp_path / "trace"
    with Daemons(scheduler=["--trace-file", trace]) as server:
        for i in range(5):
            server.generate(f"tell me about number {i}", 10)
    printed = banyan("trace", trace)
    assert printed.returncode == 0
    assert sum(" tokenized " in line for line in printed.stdout.splitlines()) == 5
    first = banyan("trace", "--replay", trace)
    again = banyan("trace", "--replay", trace)
    sent = re.search(r"it sent frames=\d+ steps=\d+ tokens=\d+ hash=\w+", first.stderr)
    assert first.returncode == 0 and sent and sent[0] in again.stderr
    assert int(re.search(r"tokens=(\d+)", sent[0])[1]) >= 50
    bad = banyan("trace", "--replay", __file__)
    assert bad.returncode != 0 and "no trace of the scheduler" in bad.stderr


def test_of_several_servers_all_are_named(tmp_path):
    """It said how many, and to name one: which there are stood nowhere."""
    folders = [tmp_path / f"banyan-{os.getuid()}-{i}-x" for i in (1, 2)]
    for folder in folders:
        folder.mkdir()
        (folder / "scheduler.sock").touch()
    done = subprocess.run([BIN / "banyan", "inspect"], env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "--run-dir: " in done.stderr and all(str(f) in done.stderr for f in folders), done
