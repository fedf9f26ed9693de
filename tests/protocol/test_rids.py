"""The ids that clients give their requests: no two live ones have the same, in one router or in two."""

import re
import subprocess
import threading

import pytest

from harness import PROGRAMS, Client, Daemons, Notify, environment, wait_for

LONG = {"temperature": 0, "ignore_eos": True, "max_new_tokens": 8000}
KEYS = {"alice": "sk-of-alice-0000", "bob": "sk-of-bob-000000"}


def start_router(d, instance, *words):
    """One more router of the same server: (process, client)."""
    notify = Notify(d.dir / f"notify-router-{instance}")
    argv = [str(PROGRAMS["router"]), "--run-dir", str(d.dir), "--port", "0", "--instance", instance, *map(str, words)]
    with open(d.dir / f"router-{instance}.log", "ab") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment(NOTIFY_SOCKET=notify.path))
    wait_for("the other router to be ready", lambda: notify.read().get("READY") or process.poll() is not None)
    assert process.poll() is None, f"the other router ended:\n{d.logs()}"
    url = re.match(r"listening on http://([\d.]+):(\d+)", notify.state["STATUS"])
    notify.close()
    return process, Client(url[1], int(url[2]))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The daemons with two routers, and two keys: pair.here, pair.there."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("".join(f"{key} name={name}\n" for name, key in KEYS.items()))
    keys.chmod(0o600)
    with Daemons(gpu_worker=["--step-us", "2000"], router=["--api-key-file", str(keys)]) as d:
        process, there = start_router(d, "there", "--api-key-file", keys)
        d.here, d.there = d.client, there
        try:
            yield d
        finally:
            process.terminate()
            process.wait()


def headers(name="alice"):
    return {"Authorization": f"Bearer {KEYS[name]}"}


def ask(client, rid, text="go on", n_new=1, name="alice", **more):
    sampling = {"temperature": 0, "max_new_tokens": n_new, **more}
    return client.post("/generate", {"text": text, "rid": rid, "sampling_params": sampling}, headers=headers(name))


class Running:
    """A request that runs until the block ends, and then is aborted by all its ids."""

    def __init__(self, d, client, rid, text="go on", **more):
        self.d, self.client, self.answers = d, client, []
        self.rids = rid if isinstance(rid, list) else [rid]
        self.n = len(text) if isinstance(text, list) else 1
        self.thread = threading.Thread(target=lambda: self.answers.append(ask(client, rid, text, 8000, ignore_eos=True, **more)))

    def __enter__(self):
        n_before = self.running()
        self.thread.start()
        wait_for("it to run", lambda: self.running() >= n_before + self.n)
        return self

    def running(self):
        return self.d.here.get("/v1/loads", headers=headers()).json["loads"][0]["num_running_reqs"]

    def __exit__(self, *exc):
        for rid in self.rids:
            assert self.client.post("/abort_request", {"rid": rid}, headers=headers()).status == 200
        self.thread.join()
        assert self.answers[0].status == 200, self.answers


def refused(answer):
    assert answer.status == 400, answer
    error = answer.json["error"]
    assert error["param"] == "rid" and "with this id still runs" in error["message"] and "/abort_request" in error["message"]
    return True


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_live_id_is_refused_until_it_is_over(pair, where):
    other = getattr(pair, where)
    with Running(pair, pair.here, "one"):
        assert refused(ask(other, "one"))
        assert refused(other.post("/v1/completions", {"prompt": "x", "rid": "one"}, headers=headers()))
        assert refused(other.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "rid": "one", "stream": True}, headers=headers()))
        assert ask(other, "on").status == ask(other, "one_0").status == 200, "other ids are free"
        assert ask(other, "one", name="bob").status == 200, "whose key is another's has ids of their own"
    wait_for("the id to be free", lambda: ask(other, "one").status == 200)


@pytest.mark.parametrize("where", ["here", "there"])
def test_one_of_a_list_is_enough(pair, where):
    other = getattr(pair, where)
    with Running(pair, pair.here, ["a", "b"], ["x", "y"]):
        assert refused(ask(other, "b"))
        assert refused(ask(other, ["c", "a"], ["x", "y"]))
        assert ask(other, "c").status == 200, "what was refused with it is free"
    with Running(pair, pair.here, "many", ["x", "y"], n=2):
        assert refused(ask(other, "many_2")), "the second prompt's first sample"
        assert refused(ask(other, "many", ["x", "y"], n=2))
        assert ask(other, "many").status == 200
    wait_for("all to be free", lambda: ask(other, ["a", "b"], ["x", "y"]).status == 200)


def test_an_id_may_come_back_at_once(pair):
    """The router has answered: whatever is still on its way inside, the id is free again."""
    for _ in range(50):
        assert ask(pair.here, "again", n=2, stop=["e", "a", "o"]).status == 200


def test_who_hung_up_may_ask_again(pair):
    """A retry by the same id, as soon as the connection is closed: the old one is gone before the new one is read."""
    for _ in range(5):
        c = pair.here._open("POST", "/generate", {"text": "go on", "rid": "retry", "stream": True, "sampling_params": LONG}, headers())
        response = c.getresponse()
        assert response.status == 200 and response.readline()
        response.close()
        c.close()
        wait_for("the retry", lambda: ask(pair.here, "retry").status == 200)


def test_a_router_that_dies_gives_its_ids_back(pair):
    process, client = start_router(pair, "third", "--api-key-file", pair.flags["router"][1])
    c = client._open("POST", "/generate", {"text": "go on", "rid": "orphan", "stream": True, "sampling_params": LONG}, headers())
    assert c.getresponse().readline()
    assert refused(ask(pair.here, "orphan"))
    process.kill()
    process.wait()
    c.close()
    wait_for("the id to be free", lambda: ask(pair.here, "orphan").status == 200)


def test_a_replay_is_not_refused(pair):
    """The scheduler dies: what runs goes on under its id, and stays the one that has it."""
    with Running(pair, pair.here, "kept"):
        pair.restart("scheduler")
        wait_for("it to run again", lambda: pair.here.get("/v1/loads", headers=headers()).json.get("loads", [{}])[0].get("num_running_reqs") == 1)
        assert refused(ask(pair.here, "kept")) and refused(ask(pair.there, "kept"))
