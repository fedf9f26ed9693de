"""`banyan bench serve` and `offline`, against a stand-in worker: what is counted is right, whatever the times are."""

import json
import subprocess
import sys
import xml.dom.minidom

import pytest

from harness import BIN, CHATML, ROOT, TINY, Daemons, environment, stand_in

sys.path.insert(0, str(ROOT / "deploy/python"))

QUIET = ["--log-level", "warn"]


@pytest.fixture(scope="module")
def server():
    with Daemons(router=QUIET, scheduler=QUIET) as d:
        d.url = f"http://127.0.0.1:{d.port}"
        yield d


def bench(*words, rc=0, **env):
    done = subprocess.run([BIN / "banyan", "bench", *map(str, words)], capture_output=True, text=True, timeout=120, env=environment(**env))
    assert done.returncode == rc, done.stdout + done.stderr
    return done


def report(kind, *words, **more):
    return json.loads(bench(kind, "--json", "-", *words, **more).stdout)


@pytest.mark.parametrize("api", ["openai", "native"])
def test_what_is_counted_is_what_was_asked(server, api):
    server.post("/flush_cache")
    (told,) = report("serve", "--url", server.url, "--api", api, "--requests", 12, "--concurrency", 4, "--input-tokens", 20,
                     "--output-tokens", 9)["servers"]
    assert (told["completed"], told["failed"], told["output_tokens"]) == (12, 0, 12 * 9)
    for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
        t = told[name]
        assert 0 <= t["median"] <= t["p90"] <= t["p95"] <= t["p99"]
    assert 0 < told["ttft_ms"]["mean"] <= told["e2e_ms"]["mean"] and told["ttft_ms"]["p99"] <= told["e2e_ms"]["p99"]


def test_shared_prefixes_are_hits(server):
    server.post("/flush_cache")
    (told,) = report("serve", "--url", server.url, "--workload", "shared-prefix", "--requests", 12, "--concurrency", 1, "--groups", 2,
                     "--prefix-tokens", 200, "--input-tokens", 4, "--output-tokens", 2)["servers"]
    assert told["cache_hit_rate"] > 0.7, "ten of twelve find their prefix"


def test_a_conversation_finds_what_it_said_before(server):
    server.post("/flush_cache")
    (told,) = report("serve", "--url", server.url, "--workload", "chat", "--requests", 12, "--turns", 4, "--concurrency", 2,
                     "--prefix-tokens", 60, "--input-tokens", 10, "--output-tokens", 12)["servers"]
    assert told["completed"] == 12 and told["cache_hit_rate"] > 0.5


def test_a_file_of_requests(server, tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text('{"prompt": "hello", "max_tokens": 3}\n{"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}\n\n')
    (told,) = report("serve", "--url", server.url, "--workload", path)["servers"]
    assert told["completed"] == 2 and told["output_tokens"] == 8
    path.write_text('{"prompt": 5}\n')
    assert "line 1" in bench("serve", "--url", server.url, "--workload", path, rc=1).stderr


def test_beside_another_server(server, tmp_path):
    """Rounds alternate, and both are told of, with ratios, in the table, the JSON and the plot."""
    plot, out = tmp_path / "p.svg", tmp_path / "p.json"
    done = bench("serve", "--url", server.url, "--against", server.url, "--rounds", 2, "--requests", 4, "--input-tokens", 5,
                 "--output-tokens", 4, "--rate", 200, "--plot", plot, "--json", out)
    told = json.loads(out.read_text())
    assert [s["completed"] for s in told["servers"]] == [8, 8] and told["ratios"]["ttft_ms"]["median"] > 0
    assert "ratio" in done.stdout and "time to first token, p99" in done.stdout
    drawn = xml.dom.minidom.parse(str(plot))
    assert len(drawn.getElementsByTagName("polyline")) >= 6  # of ITL there is none when each answer came in one piece


def test_a_server_that_is_not_there_is_said(server):
    done = bench("serve", "--url", "http://127.0.0.1:1", "--requests", 2, rc=1)
    assert done.stderr == "banyan bench: http://127.0.0.1:1: no server answers there (Connect call failed ('127.0.0.1', 1))\n"
    assert done.stdout == ""  # it was a table of nothing, and the sentence below it


def test_the_server_is_found_as_serve_was_told(server):
    words = ["serve", "--requests", 2, "--input-tokens", 4, "--output-tokens", 2]
    for more, env in ((["--port", server.port], {}), ([], {"BANYAN_PORT": str(server.port)})):
        assert server.url in bench(*words, *more, **env).stdout


def test_offline(tmp_path):
    (told,) = report("offline", "--model-path", TINY, "--requests", 8, "--input-tokens", 10, "--output-tokens", 5, "--", "--chat-template", CHATML,
                     BANYAN_GPU_WORKER=str(stand_in(tmp_path)))["servers"]
    assert told["completed"] == 8 and told["output_tokens"] == 40 and told["output_tokens_per_s"] > 0


def test_one_batch():
    """The engine alone: a row for each shape, rates for both phases."""
    model = ROOT.parent / "shared/data/tiny/llama-gqa"
    if not model.is_dir():
        pytest.skip("no ../shared/data: a model")
    said = bench("one-batch", "--model-path", model, "--threads", 1, "--max-total-tokens", 2048, "--one-batch", "2x16x4,1x32x2")
    rows = [line.split() for line in (said.stdout + said.stderr).splitlines() if line.startswith(("2x16x4", "1x32x2"))]
    assert [row[0] for row in rows] == ["2x16x4", "1x32x2"] and all(float(x) > 0 for row in rows for x in row[1:])


def test_a_terminal_sees_how_far_it_is(server):
    """The bar is for people: on a terminal, and not when its figures go into a file."""
    import os
    import pty

    here, there = pty.openpty()
    words = ["serve", "--url", server.url, "--requests", 5, "--input-tokens", 4, "--output-tokens", 2]
    done = subprocess.run([BIN / "banyan", "bench", *map(str, words)], stdout=subprocess.PIPE, stderr=there, timeout=120, env=environment())
    os.close(there)
    said = b""
    try:
        while chunk := os.read(here, 65536):
            said += chunk
    except OSError:  # the terminal has nobody at the other end any more
        pass
    os.close(here)
    assert done.returncode == 0 and b"[" + b"#" * 30 + b"] 5/5" in said and b"a second" in said, said
    assert "#####" not in bench(*words).stderr


def test_figures():
    from banyan.bench import figures

    told = figures.spread([i / 1000 for i in range(1, 101)])
    assert {k: round(v, 6) for k, v in told.items()} == {"mean": 50.5, "median": 50.5, "p90": 90.1, "p95": 95.05, "p99": 99.01}
    assert figures.spread([]) is None


def test_the_same_seed_asks_the_same():
    import argparse

    from banyan.bench import workloads

    o = argparse.Namespace(workload="chat", requests=8, turns=2, groups=2, prefix_tokens=9, input_tokens=7, output_tokens=5, spread=0.5, seed=3)
    first = workloads.make(o)
    assert first == workloads.make(o) and len(first) == 4 and all(len(c.turns) == 2 for c in first)
    o.seed = 4
    assert first != workloads.make(o)
