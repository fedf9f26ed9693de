"""/update_weights_from_disk with the native engine: other weights between two steps, whole and at once."""

import os
import signal
import threading

import pytest

import tiny_llama
from harness import Serve, wait_for

PROMPT = list(range(20, 60))


def answer(s, n=24):
    done = s.post("/generate", {"input_ids": PROMPT, "sampling_params": {"temperature": 0, "max_new_tokens": n, "ignore_eos": True}})
    return done.json["output_ids"] if done.status == 200 else done


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    home = tmp_path_factory.mktemp("models")
    return {name: tiny_llama.write(home / name, seed, layers) for name, seed, layers in (("a", 1, 2), ("b", 2, 2), ("longer", 3, 3))}


@pytest.fixture(scope="module")
def of_b(models):
    with Serve("--model-path", models["b"], "--threads", "1") as s:
        return answer(s)


@pytest.fixture(scope="module", params=["--tp-size", "--dp-size"])
def server(request, models):
    with Serve("--model-path", models["a"], "--threads", "1", request.param, "2") as s:
        yield s


def update(s, path, **more):
    return s.post("/update_weights_from_disk", {"model_path": path, **more})


def test_all_workers_have_the_new_weights(server, models, of_b):
    """Two ranks, two replicas: a stream that runs goes on; what comes behind is as if the server had begun with them, also after a
    worker has died and come with the ones it was started with."""
    of_a = answer(server)
    assert of_a != of_b
    seen, error = [], []
    begun = threading.Event()

    def stream():
        try:
            server.stream("/generate", {"input_ids": PROMPT, "sampling_params": {"temperature": 0, "max_new_tokens": 400, "ignore_eos": True}},
                          lambda e: (seen.append(e), begun.set()))
        except BaseException as e:  # noqa: BLE001 - looked at below
            error.append(e)

    thread = threading.Thread(target=stream)
    thread.start()
    assert begun.wait(30)
    done = update(server, models["b"])
    assert done.status == 200 and done.json["success"] is True, done
    thread.join(30)
    assert not error and seen[-1]["meta_info"]["completion_tokens"] == 400
    assert seen[-1]["output_ids"][:1] == of_a[:1]
    assert answer(server) == of_b
    pid = next(pid for name, pid in server.pids().items() if name.startswith("gpu-worker"))
    os.kill(pid, signal.SIGKILL)
    wait_for("the new weights again", lambda: answer(server) == of_b)
    assert update(server, models["a"]).status == 200
    assert answer(server) == of_a


@pytest.mark.parametrize("which, why", [("longer", "its number of layers or heads is not that of the model"), ("nowhere", "nowhere")])
def test_what_does_not_fit_changes_nothing(server, models, which, why):
    before = answer(server)
    done = update(server, models.get(which, "/nowhere"))
    assert done.status == 400 and done.json["success"] is False and why in done.json["message"], done
    assert answer(server) == before
