"""The kernel kills a process that takes more than its cgroup may have (F8): it is started again, and who had nothing to do with it
does not notice."""

import os
import signal
import threading
from pathlib import Path

import pytest

from engine import engine as engine_on_a_tiny_model
from harness import Daemons, in_threads, wait_for

PROMPT = list(range(20, 60))
LARGE = {"prompt": "x " * 4_000_000}  # 8 MB, 4 million ids


def make_group(limit):
    """A memory cgroup of so many bytes, or None where nobody may make one."""
    for top, file in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(top) / f"banyan-test-{os.getpid()}-{limit}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / file).exists():
                (group / file).write_text(str(limit))
                return group
        except OSError:
            pass
        group.rmdir()
    return None


class Group:
    def __init__(self, limit):
        self.path = make_group(limit)
        if not self.path:
            pytest.skip("memory cgroups need root, and a hierarchy that takes new ones")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for pid in (self.path / "cgroup.procs").read_text().split():  # after a failure
            os.kill(int(pid), signal.SIGKILL)
        wait_for("nobody to be in it", self.is_gone)

    def is_gone(self):
        try:
            self.path.rmdir()
        except OSError:
            return False
        return True

    def take(self, pid):
        """What it allocates from now on counts; what it has, does not (or, with cgroup v2, is no problem of the limit's)."""
        (self.path / "cgroup.procs").write_text(str(pid))


@pytest.fixture(scope="module")
def server():
    with Daemons(gpu_worker=["--step-us", "1000"], tokenizer_worker=["--context-length", "8192"]) as d:
        yield d


def killed(server, name, group, act):
    """Puts it into the group, lets act() make it take memory, and starts it again, outside, once the kernel has killed it."""
    group.take(server.pid(name))
    over = []

    def again():
        over.append(server.processes[name].wait(60))
        server.start(name)

    keeper = threading.Thread(target=again)
    keeper.start()
    said = act()
    keeper.join()
    assert over == [-signal.SIGKILL], over
    wait_for("it to be back", lambda: serves(server))
    return said


def serves(server):
    try:
        return server.get("/health_generate").status == 200
    except OSError:
        return False


def test_a_tokenizer_worker_costs_the_one_that_filled_it(server):
    whole = server.generate(PROMPT, 300)[1]
    begun = threading.Semaphore(0)

    def stream():
        return server.generate(PROMPT, 300, on_event=lambda e: begun.release())[1]

    def fill():
        begun.acquire()
        with Group(12 << 20) as group:
            return killed(server, "tokenizer-worker", group, lambda: server.post("/tokenize", LARGE))

    answer, *streams = in_threads([fill, stream, stream, stream])
    assert streams == [whole] * 3
    assert answer.status == 503 and "gone" in answer.json["error"]["message"], answer
    assert server.post("/tokenize", {"prompt": "x"}).status == 200


def test_a_prompt_goes_to_the_next_tokenizer_worker(server):
    with Group(12 << 20) as group:
        answer = killed(server, "tokenizer-worker", group, lambda: server.post("/generate", {"text": "x" * 12_000_000}))
    assert answer.status == 400 and "longer than the model's context length" in answer.json["error"]["message"], answer


def test_a_router_costs_its_clients_a_connection(server):
    def fill():
        with pytest.raises(OSError):  # reset, or closed without an answer
            server.post("/tokenize", {"prompt": "x " * 7_000_000})

    with Group(8 << 20) as group:
        killed(server, "router", group, fill)
    wait_for("all pages to be free or in the tree", server.is_idle)
    assert server.generate(PROMPT, 4)[2]["completion_tokens"] == 4


def test_an_engine_that_grows_over_the_limit_is_back_and_the_streams_go_on():
    """Its memory for keys and values is touched page by page: it is killed in the middle of a step."""
    with engine_on_a_tiny_model() as d:
        prompts = [[20 + (i * 31 + k) % 600 for k in range(300)] for i in range(32)]
        ask = lambda: in_threads([lambda p=p: d.generate(p, 100, sampling={"ignore_eos": True})[1] for p in prompts])  # noqa: E731
        with Group(2 << 20) as group:
            answers = killed(d, "gpu-worker", group, ask)
        d.post("/flush_cache")
        assert answers == ask()
