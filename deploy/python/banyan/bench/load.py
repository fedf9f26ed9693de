"""Asks a server: conversations at a rate, at most so many at a time, and a record of each request's moments."""

import asyncio
import json
import random
import time
from dataclasses import dataclass, field

from .. import wire


@dataclass
class Record:
    """One request, in seconds: from its sending to its first token, between the arrivals of text, to its end."""

    start: float = 0.0
    ttft: float = 0.0
    e2e: float = 0.0
    gaps: list = field(default_factory=list)
    n_prompt: int = 0
    n_cached: int = 0
    n_output: int = 0
    error: str = ""

    @property
    def tpot(self):
        return (self.e2e - self.ttft) / (self.n_output - 1) if self.n_output > 1 else None


class Target:
    """A server and how it is spoken to: the OpenAI routes, which all servers have, or /generate."""

    def __init__(self, name, address, api="openai", streams=True):
        self.name, self.address, self.api, self.streams, self.records = name, address, api, streams, []

    def body(self, conversation, turn, history):
        common = {"temperature": 0, "ignore_eos": True}
        if not conversation.is_chat and self.api == "native":
            return "/generate", {"text": turn.text, "stream": self.streams, "sampling_params": {**common, "max_new_tokens": turn.n_output}}
        body = {"model": "default", **common, "max_tokens": turn.n_output, "stream": self.streams}
        if self.streams:
            body["stream_options"] = {"include_usage": True}
        if conversation.is_chat:
            return "/v1/chat/completions", {**body, "messages": conversation.messages or history}
        return "/v1/completions", {**body, "prompt": turn.text}


def _text_of(event, is_native, so_far):
    """What is new in an event."""
    if is_native:
        return event["text"][len(so_far):]
    choice = (event.get("choices") or [{}])[0]
    if "message" in choice:
        return choice["message"]["content"] or ""
    delta = choice.get("delta") or {}
    return choice.get("text") or delta.get("content") or delta.get("reasoning_content") or ""


def _count(record, event):
    if "meta_info" in event:
        m = event["meta_info"]
        record.n_prompt, record.n_output, record.n_cached = m["prompt_tokens"], m["completion_tokens"], m.get("cached_tokens", 0)
    elif event.get("usage"):
        u = event["usage"]
        record.n_prompt, record.n_output = u["prompt_tokens"], u["completion_tokens"]
        record.n_cached = (u.get("prompt_tokens_details") or {}).get("cached_tokens") or 0


async def _events(target, path, body):
    if not target.streams:
        yield json.loads(await wire.ask(target.address, "POST", path, body))
        return
    async for event in wire.stream(target.address, path, body):
        yield event


async def ask(target, conversation, turn, history):
    """One request: its record, and the answer's text."""
    record, text, last = Record(start=time.perf_counter()), "", None
    path, body = target.body(conversation, turn, history)
    try:
        async for event in _events(target, path, body):
            now = time.perf_counter()
            _count(record, event)
            new = _text_of(event, path == "/generate", text)
            if not new:
                continue
            text += new
            if last is None:
                record.ttft = now - record.start
            else:
                record.gaps.append(now - last)
            last = now
        record.e2e = time.perf_counter() - record.start
        record.ttft = record.ttft or record.e2e
    except wire.BanyanError as failure:
        record.error = str(failure)
    return record, text


async def _converse(target, conversation, gate, on_done):
    history = [{"role": "system", "content": conversation.system}] if conversation.system else []
    for turn in conversation.turns:
        history.append({"role": "user", "content": turn.text})
        async with gate:
            record, text = await ask(target, conversation, turn, history)
        target.records.append(record)
        on_done(record)
        if record.error:
            return
        history.append({"role": "assistant", "content": text})


async def run(target, conversations, rate, concurrency, seed, on_done=lambda record: None):
    """All of them; returns the seconds that it took. Arrivals are a Poisson process of `rate` a second; None: all at once."""
    rng, tasks = random.Random(seed), []
    gate = asyncio.Semaphore(concurrency or len(conversations))
    start = time.perf_counter()
    due = start
    for conversation in conversations:
        if rate:
            due += rng.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.ensure_future(_converse(target, conversation, gate, on_done)))
    await asyncio.gather(*tasks)
    return time.perf_counter() - start
