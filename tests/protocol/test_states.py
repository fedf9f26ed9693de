"""A model whose layers carry a state along (the stand-in with --states, which dies of a state of other ids): what is reused."""

import itertools
import re
import subprocess

import pytest

from harness import BIN, Daemons, in_threads


@pytest.fixture(scope="module")
def server():
    with Daemons(gpu_worker=["--states", "6"]) as d:
        yield d


salts = itertools.count()


def from_nothing(server, prompt, n):
    """The same, where nothing can be reused."""
    _, ids, meta = server.generate(prompt, n, cache_salt=f"salt {next(salts)}")
    assert meta["cached_tokens"] == 0
    return ids


def test_each_turn_of_a_chat_starts_within_the_last_answer(server):
    said = [20] + list(range(100, 300))
    for turn in range(5):
        _, ids, meta = server.generate(said, 150)
        assert ids == from_nothing(server, said, 150)
        if turn:
            assert len(said) - 20 - 64 - 16 <= meta["cached_tokens"] < len(said) - 19
        said = said + ids + list(range(300 + turn, 320 + turn))


def test_the_third_with_a_long_common_beginning_starts_behind_it(server):
    common = [21] + list(range(100, 259))
    cached = [server.generate(common + [300 + i] * 50, 4)[2]["cached_tokens"] for i in range(3)]
    assert cached == [0, 0, 160]


def test_many_at_once_more_than_there_are_states(server):
    common = [22] + list(range(100, 180))
    prompts = [common + list(range(200 + i, 240 + i)) for i in range(24)]
    want = [from_nothing(server, p, 100) for p in prompts]
    assert in_threads([lambda p=p: server.generate(p, 100)[1] for p in prompts]) == want
    assert in_threads([lambda p=p: server.generate(p, 100)[1] for p in prompts]) == want


def test_how_many_are_kept_is_told(server):
    server.generate([23] * 64, 1)
    held = server.get("/v1/cache").json["replicas"][0]["states"]
    assert 1 <= held <= 6 and server.load()["num_kept_states"] == held and server.load()["max_kept_states"] == 6
    shown = subprocess.run([BIN / "banyan", "inspect", "--run-dir", server.dir], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^replica 0: {held} states are kept to start from$", shown, re.M)
    server.post("/flush_cache")
    assert server.load()["num_kept_states"] == 0
    assert server.generate([23] * 64, 1)[2]["cached_tokens"] == 0
