"""What balancers, operators and scripts ask for: health, models, loads, cache, abort, flush; and the answers to overload."""

import re
import socket
import threading
import time

import pytest

from harness import Daemons, in_threads, wait_for


def test_health(server):
    for path in ("/health", "/ready", "/health_generate"):
        assert server.get(path).status == 200, path
    assert server.request("HEAD", "/health").body == b""


def test_sagemakers_paths_and_vllms_version(server):
    """Of a container SageMaker asks /ping and /invocations, and nothing else; that /ping also knows when it is not ready is shown below."""
    assert server.get("/ping").status == 200
    asks = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "temperature": 0}
    told, chat = (server.ok(path, asks)["choices"] for path in ("/invocations", "/v1/chat/completions"))
    assert told == chat and told[0]["message"]["content"]
    assert server.get("/version").json == server.get("/api/version").json


def test_facts_of_the_model(server):
    info = server.get("/get_model_info").json
    assert info == server.get("/model_info").json
    assert info["model_path"] == "stand-in" and info["is_generation"] is True and info["architectures"] == []
    facts = server.get("/server_info").json
    assert facts["max_total_num_tokens"] == 65536 and facts["page_size"] == 16 and facts["status"] == "ready"
    assert info["tool_call_parser"] == info["reasoning_parser"] == "none" and info["load_format"] == "auto"
    (state,) = facts["internal_states"]
    assert state["num_running_reqs"] == 0 and state["memory"]["token_capacity"] == 65536
    answer = server.get("/v1/models/other")
    assert answer.status == 404 and answer.json["error"]["code"] == "model_not_found" and answer.json["error"]["param"] == "model"


def test_loads_count_what_runs():
    with Daemons(gpu_worker=["--step-us", "2000"]) as d:
        streams = [threading.Thread(target=d.generate, args=("x", 200)) for _ in range(5)]
        for s in streams:
            s.start()
        load = wait_for("five to run", lambda: (x := d.load())["num_running_reqs"] == 5 and x)
        assert load["num_used_tokens"] > 0 and 0 < load["token_usage"] < 1
        for s in streams:
            s.join()
        wait_for("none to run", lambda: d.load()["num_running_reqs"] == 0)


CORE = {"is_up", "num_running_reqs", "num_waiting_reqs", "num_waiting_uncached_tokens", "num_used_tokens", "num_total_tokens", "num_active_tokens",
        "max_total_num_tokens", "max_running_requests", "token_usage", "gen_throughput", "cache_hit_rate", "utilization"}


def test_loads_in_sections(server):
    """SGLang's parameters: what of it, of which replica, and in which form; what they cannot be is said by name."""
    whole = server.get("/v1/loads").json
    assert {"timestamp", "version", "accelerator", "num_accelerators"} <= set(whole) and whole["num_accelerators"] == 1
    assert abs(whole["timestamp"] - time.time()) < 3600
    (load,) = whole["loads"]
    assert CORE <= set(load) and load["memory"]["token_capacity"] == 65536
    assert load["queues"] == {"waiting": 0, "paused": 0, "retracted": 0}
    of = lambda query: server.get(f"/v1/loads?{query}")
    assert set(of("include=all").json["loads"][0]) == set(load)
    assert set(of("include=memory,queues").json["loads"][0]) == {"dp_rank", "memory", "queues"}
    assert set(of("include=core%2Cspec").json["loads"][0]) == set(load) - {"memory", "queues"}
    assert set(of("include=lora").json["loads"][0]) == {"dp_rank"}, "there is nothing to tell of it"
    assert len(of("dp_rank=0&format=json").json["loads"]) == 1
    for query, named in (("include=cpu", "include"), ("include=core,", "include"), ("include=", "include"), ("dp_rank=1", "dp_rank"), ("dp_rank=x", "dp_rank"),
                         ("dp_rank=-1", "dp_rank"), ("format=xml", "format"), ("include=" + "core," * 200, "include")):
        answer = of(query)
        assert answer.status == 400 and answer.json["error"]["param"] == named, (query, answer)


def test_loads_for_prometheus(server):
    answer = server.get("/v1/loads?format=prometheus&include=core,queues")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain")
    told = dict(re.findall(r'^banyan:(\w+)\{dp_rank="0"\} (\S+)$', answer.body.decode(), re.M))
    assert CORE <= set(told) and told["is_up"] == "1" and told["max_total_num_tokens"] == "65536" and told["queues_waiting"] == "0"
    assert "memory_weight_gb" not in told
    assert set(re.findall(r"^# TYPE banyan:(\w+) gauge$", answer.body.decode(), re.M)) == set(told)


def test_loads_of_two_replicas():
    """Each has its row, and what they share, the queue, is in both."""
    with Daemons(scheduler=["--dp-size", "2"]) as d:
        assert [x["is_up"] for x in d.get("/v1/loads").json["loads"]] == [True, False], "only the first has a worker"
        assert [x["dp_rank"] for x in d.get("/v1/loads?dp_rank=1").json["loads"]] == [1]
        told = d.get("/v1/loads?format=prometheus").body.decode()
        assert re.search(r'^# TYPE banyan:is_up gauge\nbanyan:is_up\{dp_rank="0"\} 1\nbanyan:is_up\{dp_rank="1"\} 0$', told, re.M)


def test_cache_shows_the_tree(server):
    server.post("/flush_cache")
    server.generate([77] * 64, 1)
    for _ in range(3):
        server.generate([77] * 64, 1)
    cache = server.get("/v1/cache?top=1").json
    assert cache["replicas"][0]["held_tokens"] == 64 and len(cache["top"]) == 1
    assert cache["top"][0]["ids"] == [77] * 8 and cache["top"][0]["hits"] >= 3
    assert server.post("/flush_cache").json == {"flushed_tokens": 64, "kept_tokens": 0}
    assert server.get("/v1/cache").json["replicas"][0]["held_tokens"] == 0
    for bad in ("x", "-1", "1000"):
        answer = server.get(f"/v1/cache?top={bad}")
        assert answer.status == 400 and "top" in answer.json["error"]["message"]


def test_namespaces_cannot_be_forged(server):
    """cache_salt and extra_key go into one key: no extra_key may look like somebody's salt."""
    prompt = [88] * 64
    assert server.generate(prompt, 1, cache_salt="alice")[2]["cached_tokens"] == 0
    for forged in ("alice", "5:alice", "5:", "0:5:alice"):
        assert server.generate(prompt, 1, extra_key=forged)[2]["cached_tokens"] == 0, forged
    assert server.generate(prompt, 1, cache_salt="alice")[2]["cached_tokens"] == 48


def test_abort_by_the_id_of_each_dialect(server):
    def abort_first(path, body, id_of):
        sent = []

        def on_event(event):
            if not sent:
                sent.append(server.post("/abort_request", {"rid": id_of(event)}).status)

        events = server.stream(path, body, on_event)
        assert sent == [200]
        return events

    long = {"max_tokens": 8000, "ignore_eos": True}
    events = abort_first("/v1/completions", {"prompt": "go on", **long}, lambda e: e["id"])
    assert events[-1]["choices"][0]["finish_reason"] == "abort"
    events = abort_first("/v1/chat/completions", {"messages": [{"role": "user", "content": "go on"}], **long, "rid": "x-1"}, lambda e: "x-")
    assert events[-1]["choices"][0]["finish_reason"] == "abort" and events[0]["id"] == "chatcmpl-x-1"


def test_abort_all(server):
    results = []
    threads = [threading.Thread(target=lambda: results.append(server.generate("on", 8000)[2])) for _ in range(4)]
    for t in threads:
        t.start()
    wait_for("them to run", lambda: server.load()["num_running_reqs"] == 4)
    assert server.post("/abort_request", {"abort_all": True}).status == 200
    for t in threads:
        t.join()
    assert [r["finish_reason"]["type"] for r in results] == ["abort"] * 4
    wait_for("their pages to be free", lambda: server.load()["num_used_tokens"] == 0, 1)


def test_a_full_queue_is_429_at_once():
    with Daemons(gpu_worker=["--step-us", "2000", "--slots", "2"], scheduler=["--max-queued-requests", "2"]) as d:
        streams = []
        for name, n in (("num_running_reqs", 2), ("num_waiting_reqs", 2)):
            for _ in range(n):
                streams.append(threading.Thread(target=lambda: pytest.raises(Exception, d.generate, "on", 4000)))
                streams[-1].start()
            wait_for(f"{n} {name}", lambda: d.load()[name] == n)
        start = time.monotonic()
        answers = in_threads([lambda p=p, b=b: d.post(p, b) for p, b in [
            ("/generate", {"text": "x"}), ("/v1/completions", {"prompt": "x", "stream": True}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})]])
        print(f"429 after {(time.monotonic() - start) * 1e3:.1f} ms")
        for a in answers:
            assert a.status == 429 and a.json["error"]["type"] == "rate_limit_error", a
            assert int(a.headers["Retry-After"]) >= 1 and int(a.headers["retry-after-ms"]) >= 1000
        assert d.get("/health").status == 200
        d.kill("router")
        for s in streams:
            s.join()


def test_deadlines():
    with Daemons(gpu_worker=["--step-us", "2000", "--slots", "1"]) as d:
        answer = d.post("/generate", {"text": "x", "timeout_ms": 100, "sampling_params": {"max_new_tokens": 4000}})
        assert answer.status == 408 and "ran longer" in answer.json["error"]["message"], answer
        busy = threading.Thread(target=d.generate, args=("on", 300))
        busy.start()
        wait_for("it to run", lambda: d.load()["num_running_reqs"] == 1)
        answer = d.post("/v1/completions", {"prompt": "x", "queue_timeout_ms": 50})
        assert answer.status == 408 and "waited longer" in answer.json["error"]["message"], answer
        busy.join()
        assert d.post("/generate", {"text": "x", "timeout_ms": 0}).status == 400
    with Daemons(gpu_worker=["--step-us", "2000"], router=["--request-timeout", "0.1"]) as d:
        answer = d.post("/generate", {"text": "x", "timeout_ms": 60000, "sampling_params": {"max_new_tokens": 4000}})
        assert answer.status == 408, answer


def test_not_ready_says_what_is_missing():
    with Daemons() as d:
        d.kill("router")
        d.kill("gpu-worker")
        d.kill("scheduler")
        d.notify["router"].state.clear()
        d.start("scheduler")
        d.start("router")
        wait_for("the router to listen", lambda: "listening" in d.notify["router"].read().get("STATUS", ""))
        answer = wait_for("it to know", lambda: (a := d.get("/ready")).status == 503 and b"no gpu worker is ready" in a.body and a)
        assert answer.headers["Retry-After"] and answer.headers["retry-after-ms"]
        assert d.get("/ping").status == 503
        assert d.get("/health").status == 200, "the router is alive all the same"
        for path, body in (("/generate", {"text": "x"}), ("/v1/completions", {"prompt": "x"}), ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})):
            answer = d.post(path, body)
            assert answer.status == 503 and "no gpu worker is ready" in answer.json["error"]["message"]
            assert answer.headers["Retry-After"]
        d.start("gpu-worker")
        wait_for("it to be ready", lambda: d.get("/ready").status == 200)


def test_keys():
    with Daemons(router=["--api-key", "user", "--admin-api-key", "boss"]) as d:
        bearer = lambda key: {"Authorization": f"Bearer {key}"}
        assert d.get("/health").status == 200 and d.get("/ready").status == 200
        assert d.get("/v1/models").status == 401
        assert d.get("/v1/models", headers=bearer("wrong")).status == 401
        assert d.get("/v1/models", headers=bearer("user")).status == 200
        assert d.get("/v1/models", headers={"x-api-key": "user"}).status == 200
        for path in ("//v1/models", "/v1/./models", "/x/../v1/models", "/v1/%6dodels", "/v1//models"):
            assert d.get(path).status == 401, f"{path} is another way to write a path that needs a key"
        assert d.post("/flush_cache", headers=bearer("user")).status == 403
        assert d.post("/flush_cache", headers=bearer("boss")).status == 200


def test_metrics(server):
    count = lambda: int(re.search(r"^\S*num_requests_total\S* (\d+)", server.get("/metrics").body.decode(), re.M)[1])
    before = count()
    server.generate("x", 1)
    assert count() == before + 1


def test_a_flush_may_wait_for_those_who_run():
    """SGLang's ?timeout=SECONDS; it was passed over, and what ran kept its pages."""
    with Daemons(gpu_worker=["--step-us", "2000"]) as d:

        def flush_during(seconds, n):
            """The answer to a flush that is asked for while a request of n tokens runs."""
            threads, answers = [], []

            def on_event(event):
                if not threads:
                    threads.append(threading.Thread(target=lambda: answers.append(d.post(f"/flush_cache?timeout={seconds}"))))
                    threads[0].start()

            assert len(d.generate([55] * 64, n, on_event)[1]) == n
            threads[0].join()
            return answers[0]

        assert flush_during(60, 200).json["kept_tokens"] == 0, "it waited: who runs holds pages"
        assert d.get("/v1/cache").json["replicas"][0]["held_tokens"] == 0
        assert flush_during(0.05, 2000).json["kept_tokens"] > 0, "it did not wait for the end"
        for bad in ("x", "-1", "4000"):
            answer = d.post(f"/flush_cache?timeout={bad}")
            assert answer.status == 400 and "timeout" in answer.json["error"]["message"]


def test_who_asked_for_a_flush_and_left_wants_none():
    with Daemons(gpu_worker=["--step-us", "2000"]) as d:

        def on_event(event):
            if not asked:
                asked.append(socket.create_connection(("127.0.0.1", d.port)))
                asked[0].sendall(b"POST /flush_cache?timeout=60 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            elif event["meta_info"]["completion_tokens"] >= 50:  # a router that lags merges events
                asked[0].close()

        asked, seen = [], {"input_ids": [77] * 64, "sampling_params": {"max_new_tokens": 1}}
        d.ok("/generate", seen)
        assert len(d.generate([55] * 64, 100, on_event)[1]) == 100
        time.sleep(0.2)  # ten times as long as it takes to see that nobody runs
        assert d.ok("/generate", seen)["meta_info"]["cached_tokens"] > 0
