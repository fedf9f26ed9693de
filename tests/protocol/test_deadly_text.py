"""A text that kills whoever reads it, or whoever writes it: its own request is refused, and nobody else's."""

import re

from harness import BUILD, CHATML, TINY, Serve, in_threads, stand_in

FLAGS = ["--model-path", TINY, "--chat-template", CHATML]
LIBRARY = str(BUILD / "tests/libdeadly-text.so")
WORDS = "an avada kedavra"


def test_a_text_that_kills_its_reader_is_found_and_refused(tmp_path):
    """It was sent to one tokenizer worker after the other for as long as its client waited."""
    with Serve(*FLAGS, "--tokenizer-worker-num", "2", worker=stand_in(tmp_path, "--step-us", 500),
               env={"LD_PRELOAD": LIBRARY, "DEADLY_TEXT": WORDS}) as s:
        good = [lambda i=i: s.generate(f"story number {i}", 100)[:2] for i in range(16)]
        alone = in_threads(good)
        bad = [lambda i=i: s.post("/generate", {"text": f"{i}: {WORDS}", "rid": f"deadly-{i}"}) for i in range(2)]
        *results, first, second = in_threads([*good[:8], *good[8:], *bad])
        assert results == alone
        for i, answer in enumerate((first, second)):
            assert answer.status == 500 and f"has died (request deadly-{i})" in answer.json["error"]["message"], answer
        assert len(re.findall(r"tokenizer-worker-?\d* ended; it is started again", s.logs())) <= 2 * 8, s.logs()
        assert s.generate("hello", 4)[2]["completion_tokens"] == 4


def test_a_text_that_kills_its_detokenizer_is_found_and_refused(tmp_path):
    """It was sent to one detokenizer after the other for as long as its client waited, and all streams stood still."""
    with Serve(*FLAGS, worker=stand_in(tmp_path, "--step-us", 500), env={"LD_PRELOAD": LIBRARY, "DEADLY_STOP": WORDS}) as s:
        good = [lambda i=i: s.generate(f"story number {i}", 100)[:2] for i in range(16)]
        alone = in_threads(good)
        bad = [lambda i=i: s.post("/generate", {"text": f"{i}", "rid": f"deadly-{i}", "sampling_params": {"stop": [WORDS]}}) for i in range(2)]
        *results, first, second = in_threads([*good, *bad])
        assert results == alone
        for i, answer in enumerate((first, second)):
            assert answer.status == 500 and f"has died (request deadly-{i})" in answer.json["error"]["message"], answer
        assert len(re.findall(r"detokenizer ended; it is started again", s.logs())) <= 2 * 6, s.logs()
        assert s.generate("hello", 4)[2]["completion_tokens"] == 4
