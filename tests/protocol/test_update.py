"""Other weights while requests run: nobody loses one, and all workers have the same. The stand-in's weights are its path's name."""

import threading

import pytest

from harness import Daemons, in_threads, wait_for

PROMPT = list(range(20, 60))


@pytest.fixture(scope="module")
def server():
    with Daemons(gpu_worker=["--step-us", "1000"]) as d:
        yield d


def update(server, path, **more):
    return server.post("/update_weights_from_disk", {"model_path": path, **more})


def ids(server, n=20):
    return server.generate(PROMPT, n)[1]


def test_what_comes_behind_is_the_new_weights(server):
    before = ids(server)
    assert update(server, "first").json == {"success": True, "message": "the weights are updated", "num_paused_requests": 0}
    after = ids(server)
    assert after != before
    assert server.get("/model_info").json["model_path"] == "first"
    assert update(server, "second").status == 200 and ids(server) not in (before, after)
    assert update(server, "first").status == 200 and ids(server) == after, "the prefix cache was not emptied"


def test_a_running_request_keeps_its_models_name(server):
    """The name that its events repeat was the router's own of the day, of which an update made another."""
    first, second, names = "the name of the first weights", "2nd weights", []

    def change(path):
        assert update(server, path).status == 200
        wait_for("the router to hear of it", lambda: server.get("/model_info").json["model_path"] == path)

    def on_event(event):
        if len(names) == 10:
            change(second)
        names.append(event["model"])

    change(first)
    server.stream("/v1/completions", {"prompt": "hello", "max_tokens": 100, "ignore_eos": True}, on_event)
    assert len(names) > 20 and set(names) == {first}


def test_running_requests_go_on(server):
    """32 streams: each ends with all of its tokens, and nothing that was delivered changes."""
    begun = threading.Semaphore(0)

    def stream(i):
        last = []

        def on_event(event):
            assert event["output_ids"][: len(last)] == last, "what was delivered changed"
            if not last:
                begun.release()
            last[:] = event["output_ids"]

        return server.generate([20 + i] * 30, 300, on_event=on_event, sampling={"ignore_eos": True})

    def act():
        for _ in range(32):
            assert begun.acquire(timeout=30)
        done = update(server, "third")
        assert done.status == 200 and done.json["num_paused_requests"] > 0, done

    results = in_threads([act, *[lambda i=i: stream(i) for i in range(32)]])[1:]
    assert all(meta["completion_tokens"] == 300 for _, _, meta in results)
    wait_for("all pages to be free or in the tree", server.is_idle)


def test_a_failed_one_changes_nothing(server):
    before = ids(server)
    done = update(server, "bad-weights")
    assert done.status == 400 and done.json["success"] is False and "bad weights, as told" in done.json["message"]
    assert ids(server) == before


def test_a_worker_that_was_started_again_catches_up(server):
    assert update(server, "fourth").status == 200
    before = ids(server)
    server.restart("gpu-worker")
    wait_for("it to be back", lambda: server.get("/health_generate").status == 200)
    assert ids(server) == before


def test_one_that_dies_as_it_loads_costs_nothing(server):
    before = ids(server)
    killed = threading.Thread(target=lambda: (server.processes["gpu-worker"].wait(30), server.start("gpu-worker")))
    killed.start()
    done = update(server, "die-now")
    assert done.status == 400 and "lost while it loaded" in done.json["message"]
    killed.join()
    wait_for("it to be back", lambda: server.get("/health_generate").status == 200)
    assert ids(server) == before


@pytest.mark.parametrize("more, why", [({"load_format": "pt"}, "load_format: 'pt' is not read"), ({"flush_cache": False}, "flush_cache"),
                                       ({"is_async": True}, "is_async"), ({"model_path": ""}, "model_path"), ({"model_path": 7}, "model_path")])
def test_what_is_not_done_is_refused_by_name(server, more, why):
    answer = update(server, "fifth", **more)
    assert answer.status == 400 and why in answer.json["error"]["message"]


def test_requests_can_be_aborted_first(server):
    reasons = []

    def act():
        wait_for("it to run", lambda: server.load()["num_running_reqs"] == 1)
        assert update(server, "sixth", abort_all_requests=True, load_format="auto", is_async=False).status == 200

    in_threads([act, lambda: reasons.append(server.generate(PROMPT, 5000, sampling={"ignore_eos": True})[2]["finish_reason"]["type"])])
    assert reasons == ["abort"]
