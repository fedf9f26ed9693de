"""What is asked: conversations, each a list of turns that follow one another; most have one turn.

Prompts are plain words, nearly a token each for most tokenizers, so that they mean the same to any server; how many tokens
they were is what the server counted. The same seed gives the same words, to each server of a comparison too.
"""

import json
import random
from dataclasses import dataclass

WORDS = """the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not what
all were we when your can said there use an each which she do how their if will up other about out many then them these so some her
would make like him into time has look two more write go see number no way could people my than first water been call who oil its now
find long down day did get come made may part over new sound take only little work know place year live me back give most very after
thing our just name good sentence man think say great where help through much before line right too mean old any same tell boy follow
came want show also around form three small set put end does another well large must big even such because turn here why ask went men
read need land different home us move try kind hand picture again change off play spell air away animal house point page letter mother
answer found study still learn should world high every near add food between own below country plant last school father keep tree""".split()

KINDS = ("random", "shared-prefix", "chat")


@dataclass
class Turn:
    text: str  # of a completion; what the user says in a chat
    n_output: int


@dataclass
class Conversation:
    turns: list
    is_chat: bool = False
    system: str = ""
    messages: list = None  # a chat as a file has it, in place of all this


def _words(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(max(n, 1)))


def _length(rng, n, spread):
    """n, or between n * (1 - spread) and n * (1 + spread)."""
    return max(1, round(n * rng.uniform(1 - spread, 1 + spread))) if spread else n


def make(o):
    """The conversations of the options: workload, requests, input_tokens, output_tokens, spread, prefix_tokens, groups, turns, seed."""
    rng = random.Random(o.seed)
    if o.workload not in KINDS:
        return from_file(o.workload, o.requests, o.output_tokens)
    if o.workload == "random":
        return [Conversation([Turn(_words(rng, _length(rng, o.input_tokens, o.spread)), _length(rng, o.output_tokens, o.spread))])
                for _ in range(o.requests)]
    prefixes = [_words(rng, o.prefix_tokens) for _ in range(o.groups)]
    if o.workload == "shared-prefix":
        made = [Conversation([Turn(prefixes[i % o.groups] + "\n\n" + _words(rng, _length(rng, o.input_tokens, o.spread)),
                                   _length(rng, o.output_tokens, o.spread))]) for i in range(o.requests)]
        rng.shuffle(made)
        return made
    n = max(1, o.requests // o.turns)
    return [Conversation([Turn(_words(rng, _length(rng, o.input_tokens, o.spread)), _length(rng, o.output_tokens, o.spread))
                          for _ in range(o.turns)], is_chat=True, system=prefixes[i % o.groups]) for i in range(n)]


def from_file(path, n_max, n_output):
    """A JSON line a request: {"prompt": text} or {"messages": […]}, each with "max_tokens" if it differs from the option's."""
    made = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if len(made) == n_max or not line.strip():
                continue
            try:
                row = json.loads(line)
                turn = Turn(row.get("prompt", ""), int(row.get("max_tokens", n_output)))
                if not isinstance(turn.text, str) or not (turn.text or row.get("messages")):
                    raise ValueError("neither a prompt nor messages")
            except (ValueError, AttributeError, TypeError) as wrong:
                raise SystemExit(f"banyan bench: {path}, line {number}: {wrong}") from None
            made.append(Conversation([turn], is_chat="messages" in row, messages=row.get("messages")))
    if not made:
        raise SystemExit(f"banyan bench: {path}: there is no request in it")
    return made
