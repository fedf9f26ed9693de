"""What can be asked of a running server, in blocking and in async form, with the names and results of SGLang's Engine.

Blocking calls run on an event loop in a thread of their own, so they work inside of a running loop too. Each prompt of a
batch is a request of its own: the scheduler batches them, and one that fails names itself.
"""

import asyncio
import json
import os
import sys
import threading
import time
from concurrent.futures import CancelledError

from . import wire

AT_A_TIME = 512  # requests in flight; the server queues the rest of a long batch no better than we do
BAR_AFTER_S = 1.0


class _Loop:
    """An event loop in a daemon thread; one for the whole program."""

    _one = None
    _lock = threading.Lock()

    @classmethod
    def get(cls):
        with cls._lock:
            if cls._one is None:
                cls._one = cls()
            return cls._one

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="banyan", daemon=True).start()

    def run(self, work):
        """Result of a coroutine; Ctrl-C cancels it, and with it its requests."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, function, *args):
        """Result of a function run in the loop's thread, which lives as long as the program."""

        async def run():
            return function(*args)

        return self.run(run())

    @classmethod
    def forget(cls):
        """In a forked child: threads stay behind in the parent, so this process makes a loop of its own."""
        cls._one, cls._lock = None, threading.Lock()


os.register_at_fork(after_in_child=_Loop.forget)


class _Bar:
    """`generating 17/200` on a terminal, once a batch takes longer than a moment."""

    def __init__(self, n, wanted, doing="generating"):
        self.doing = doing
        self.n, self.done, self.started, self.shown = n, 0, time.monotonic(), False
        self.wanted = sys.stderr.isatty() and n > 1 if wanted is None else wanted

    def step(self):
        self.done += 1
        seconds = time.monotonic() - self.started
        if self.wanted and (seconds > BAR_AFTER_S or self.shown):
            self.shown = True
            sys.stderr.write(f"\r{self.doing} {self.done}/{self.n}  {self.done / max(seconds, 1e-9):.1f} a second ")
            sys.stderr.flush()

    def close(self):
        if self.shown:
            sys.stderr.write("\n")


def _texts(prompt):
    """The texts of a prompt, and whether it was a list of them."""
    if isinstance(prompt, str):
        return [prompt], False
    if isinstance(prompt, (dict, set)) or not hasattr(prompt, "__iter__"):
        raise TypeError(f"prompt: a text or a list of texts is needed, not {type(prompt).__name__}")
    texts = list(prompt)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"prompt[{i}]: a text is needed, not {type(text).__name__} (token ids are given as input_ids)")
    return texts, True


def _ids(input_ids):
    """The lists of token ids (numpy's and torch's arrays too), and whether there was more than one list."""
    plain = lambda value: value.tolist() if hasattr(value, "tolist") else value  # noqa: E731
    items = [plain(item) for item in plain(input_ids)]
    many = bool(items) and not isinstance(items[0], int)
    lists = [[plain(i) for i in ids] if hasattr(ids, "__iter__") else [ids] for ids in (items if many else [items])]
    for i in (i for ids in lists for i in ids):
        if not isinstance(i, int):
            raise TypeError(f"input_ids: a token id is a whole number, not {i!r}")
    return lists, many


def _one_each(value, n, name):
    """A value for each prompt: a list of n, or the same for all."""
    if isinstance(value, (list, tuple)):
        if len(value) != n:
            raise ValueError(f"{name}: {len(value)} were given for {n} prompts")
        return list(value)
    return [value] * n


class Client:
    """A server that runs: Client("http://127.0.0.1:30000"), Client("unix:/path/of/its.sock")."""

    def __init__(self, url="http://127.0.0.1:30000", api_key=None):
        self.address = wire.parse(url, api_key)

    # ---- generating ----

    def _bodies(self, prompt, sampling_params, input_ids, rid, more):
        """One request for each prompt, and whether a list is to come back."""
        if (prompt is None) == (input_ids is None):
            raise ValueError("exactly one of prompt and input_ids is needed")
        key, (prompts, many) = ("text", _texts(prompt)) if prompt is not None else ("input_ids", _ids(input_ids))
        if not many and isinstance(sampling_params, (list, tuple)):
            raise ValueError("sampling_params: a list belongs to a list of prompts")
        params = _one_each(sampling_params, len(prompts), "sampling_params")
        rids = _one_each(rid, len(prompts), "rid") if many and isinstance(rid, (list, tuple)) else None
        bodies = []
        for i, p in enumerate(prompts):
            body = {key: p, "sampling_params": params[i] or {}, **{k: v for k, v in more.items() if v is not None}}
            name = rids[i] if rids else rid if not many else rid and f"{rid}_{i}"
            bodies.append({**body, "rid": name} if name else body)
        return bodies, many

    async def _ask_each(self, path, bodies, many, bar):
        gate = asyncio.Semaphore(AT_A_TIME)

        async def one(body):
            async with gate:
                result = json.loads(await wire.ask(self.address, "POST", path, body))
            bar.step()
            return result

        tasks = [asyncio.ensure_future(one(body)) for body in bodies]
        try:
            results = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # the first failure, or Ctrl-C, ends them all
                task.cancel()
            bar.close()
        if not many:
            return results[0]
        return [r for result in results for r in (result if isinstance(result, list) else [result])]

    async def _stream(self, bodies, many):
        queue = asyncio.Queue()

        async def one(index, body):
            try:
                async for event in wire.stream(self.address, "/generate", {**body, "stream": True}):
                    n = (body["sampling_params"] or {}).get("n", 1)
                    await queue.put({**event, "index": index * n + event.get("index", 0)} if many else event)
                await queue.put(None)
            except Exception as failure:
                await queue.put(failure)

        tasks = [asyncio.ensure_future(one(i, b)) for i, b in enumerate(bodies)]
        try:
            left = len(tasks)
            while left:
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    left -= 1
                else:
                    yield item
        finally:
            for task in tasks:
                task.cancel()

    def generate(self, prompt=None, sampling_params=None, input_ids=None, *, return_logprob=None, logprob_start_len=None,
                 top_logprobs_num=None, token_ids_logprob=None, stream=False, rid=None, priority=None, extra_key=None,
                 progress=None):
        """What the model says to a prompt, or to each of a list of them.

        prompt: text, or a list of texts; or input_ids: token ids, or a list of such lists.
        sampling_params: a dict (temperature, top_p, top_k, max_new_tokens, stop, seed, n …), or one for each prompt.
        Returns a dict {"text", "output_ids", "meta_info"}, or a list of them; with stream=True an iterator of such dicts,
        each with all the text so far (and "index" for a list of prompts).
        progress: a line on the terminal for a long batch; by default when stderr is one.
        """
        more = {"return_logprob": return_logprob, "logprob_start_len": logprob_start_len, "priority": priority,
                "top_logprobs_num": top_logprobs_num, "token_ids_logprob": token_ids_logprob, "extra_key": extra_key}
        bodies, many = self._bodies(prompt, sampling_params, input_ids, rid, more)
        if stream:
            return self._iterate(self._stream(bodies, many))
        return self._run(self._ask_each("/generate", bodies, many, _Bar(len(bodies), progress)))

    async def async_generate(self, prompt=None, sampling_params=None, input_ids=None, *, return_logprob=None,
                             logprob_start_len=None, top_logprobs_num=None, token_ids_logprob=None, stream=False, rid=None,
                             priority=None, extra_key=None):
        """generate() for async code; with stream=True the result is an async iterator."""
        more = {"return_logprob": return_logprob, "logprob_start_len": logprob_start_len, "priority": priority,
                "top_logprobs_num": top_logprobs_num, "token_ids_logprob": token_ids_logprob, "extra_key": extra_key}
        bodies, many = self._bodies(prompt, sampling_params, input_ids, rid, more)
        if stream:
            return self._stream(bodies, many)
        return await self._ask_each("/generate", bodies, many, _Bar(len(bodies), False))

    # ---- chats ----

    CHAT = "/v1/chat/completions"

    def _chat_body(self, messages, stream, fields):
        if isinstance(messages, (str, bytes, dict)) or not hasattr(messages, "__iter__"):
            raise TypeError(f'messages: a list of {{"role": …, "content": …}} is needed, not {type(messages).__name__}')
        return {**fields, "messages": list(messages), "stream": stream}

    def chat(self, messages, *, stream=False, **fields):
        """The answer to a conversation, by the model's chat template: what OpenAI's chat completions give, as a dict.

        messages: dicts {"role", "content"}; fields: of the request, by OpenAI's names (temperature, max_tokens, tools, n, seed …).
        The answer's words are ["choices"][0]["message"]["content"]; with stream=True an iterator of chunks, each with what is new
        in ["choices"][0]["delta"].
        """
        body = self._chat_body(messages, stream, fields)
        if stream:
            return self._iterate(wire.stream(self.address, self.CHAT, body))
        return json.loads(self._run(wire.ask(self.address, "POST", self.CHAT, body)))

    async def async_chat(self, messages, *, stream=False, **fields):
        """chat() for async code; with stream=True the result is an async iterator."""
        body = self._chat_body(messages, stream, fields)
        if stream:
            return wire.stream(self.address, self.CHAT, body)
        return json.loads(await wire.ask(self.address, "POST", self.CHAT, body))

    def _run(self, work):
        try:
            return _Loop.get().run(work)
        except CancelledError:
            raise wire.BanyanError("cancelled") from None

    def _iterate(self, events):
        """A blocking iterator over an async one; leaving it early aborts the requests."""
        loop = _Loop.get()
        try:
            while True:
                try:
                    yield loop.run(events.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            loop.run(events.aclose())

    # ---- embeddings ----

    def _encode_bodies(self, prompt, input_ids, rid, more):
        bodies, many = self._bodies(prompt, None, input_ids, rid, more)
        return [{k: v for k, v in body.items() if k != "sampling_params"} for body in bodies], many

    def encode(self, prompt=None, input_ids=None, *, dimensions=None, truncate=None, rid=None, priority=None, extra_key=None,
               progress=None):
        """The embedding of a text, or of each of a list of them: dicts {"embedding", "meta_info"}, embeddings of length 1.

        prompt: text, or a list of texts; or input_ids: token ids, or a list of such lists. dimensions: so many numbers of each,
        made of length 1 again. truncate: what is longer than the model can take is cut, not refused.
        """
        more = {"dimensions": dimensions, "truncate": truncate, "priority": priority, "extra_key": extra_key}
        bodies, many = self._encode_bodies(prompt, input_ids, rid, more)
        return self._run(self._ask_each("/encode", bodies, many, _Bar(len(bodies), progress, "encoding")))

    async def async_encode(self, prompt=None, input_ids=None, *, dimensions=None, truncate=None, rid=None, priority=None,
                           extra_key=None):
        """encode() for async code."""
        more = {"dimensions": dimensions, "truncate": truncate, "priority": priority, "extra_key": extra_key}
        bodies, many = self._encode_bodies(prompt, input_ids, rid, more)
        return await self._ask_each("/encode", bodies, many, _Bar(len(bodies), False))

    # ---- the server ----

    def _get(self, path):
        return json.loads(self._run(wire.ask(self.address, "GET", path)))

    def get_server_info(self):
        """Facts of the server: model, implementation and why, capacity."""
        return self._get("/server_info")

    def get_model_info(self):
        """Facts of the model."""
        return self._get("/model_info")

    def flush_cache(self):
        """Forgets the prefix cache."""
        self._run(wire.ask(self.address, "POST", "/flush_cache"))
        return True

    def abort(self, rid="", abort_all=False):
        """Ends the requests whose rid begins with this one, or all."""
        self._run(wire.ask(self.address, "POST", "/abort_request", {"abort_all": True} if abort_all else {"rid": rid}))

    abort_request = abort

    def tokenize(self, text):
        """Token ids of a text, or lists of them of a list of texts."""
        return json.loads(self._run(wire.ask(self.address, "POST", "/tokenize", {"prompt": text})))["tokens"]

    def detokenize(self, ids, skip_special_tokens=True):
        """The text of token ids, or a list of texts of a list of such lists."""
        body = {"tokens": ids, "skip_special_tokens": skip_special_tokens}
        return json.loads(self._run(wire.ask(self.address, "POST", "/detokenize", body)))["text"]
