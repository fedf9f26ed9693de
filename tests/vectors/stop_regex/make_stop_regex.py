"""Writes rows.jsonl: random patterns on random texts, and where Python's re says that the first match to end ends.

    python make_stop_regex.py > rows.jsonl        Python's re; `regex` from PyPI for what must be held back

A row: {"pattern", "text", "start", "end"} in characters, -1 when nothing matches. The match is the one that ends first; of
those that end there the one that begins first. "held": after each character the longest tail that is the beginning of a
match (only for patterns without assertions; null otherwise).
"""

import json
import random
import re

import regex

ATOMS = ["a", "b", "1", "x", " ", "é", "日", ".", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", "[ab]", "[^a]", "[a-c1]", "[^\\s]", r"\n",
         r"\.", "[é日]", r"[\d_]", "[^ab1]", "end", "ab", "1a"]
ASSERTIONS = [r"\b", r"\B", "^", r"\A", r"\Z", "(?m:^)", "(?m:$)"]
LETTERS = "aab11x \n_.é日B"


def pattern(rng, depth, may_assert):
    parts = []
    for _ in range(rng.randrange(1, 4)):
        kind = rng.random()
        if kind < 0.25 and depth:
            inside = pattern(rng, depth - 1, may_assert)
            parts.append(rng.choice(["(%s)", "(?:%s)", "(?i:%s)", "(?P<n%d>%%s)" % rng.randrange(10**6), "(?s:%s)"]) % inside)
        elif kind < 0.4 and may_assert:
            parts.append(rng.choice(ASSERTIONS))
            continue
        else:
            parts.append(rng.choice(ATOMS))
        if rng.random() < 0.35:
            repeat = rng.choice(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{0,1}", "{2,}", "{,2}"])
            if len(parts[-1]) > 1 and parts[-1][0] not in "[(\\":
                parts[-1] = f"(?:{parts[-1]})"
            parts[-1] += repeat
    text = "".join(parts)
    if rng.random() < 0.2:
        text += "|" + pattern(rng, max(depth - 1, 0), may_assert)
    return text


def first_end(compiled, source, text):
    for end in range(len(text) + 1):
        for start in range(end + 1):
            # What lies behind `end` stays visible to \\b and $, so the end is asked for by its distance to the beginning.
            if re.compile(f"(?:{source})(?<=\\A(?s:.{{{end}}}))").match(text, start):
                return start, end
    return -1, -1


def held_after(source, text):
    compiled = regex.compile(source, regex.V0)
    out = []
    for end in range(1, len(text) + 1):
        start = next((s for s in range(end) if compiled.fullmatch(text, s, end, partial=True)), end)
        out.append(end - start)
    return out


def main():
    rng = random.Random(7)
    n = 0
    while n < 1500:
        may_assert = n % 3 == 2
        source = pattern(rng, 2, may_assert)
        try:
            compiled = re.compile(source)
        except re.error:
            continue
        if compiled.match("") or re.compile(re.sub(r"\\b|\\B|\^|\\A|\\Z|\$", "", source)).match(""):
            continue
        text = "".join(rng.choice(LETTERS) for _ in range(rng.randrange(1, 16)))
        start, end = first_end(compiled, source, text)
        if start < 0 and n % 4:
            continue
        held = None if may_assert else held_after(source, text if end < 0 else text[:end - 1])
        print(json.dumps({"pattern": source, "text": text, "start": start, "end": end, "held": held}, ensure_ascii=False))
        n += 1


main()
