"""Records into figures: mean, median, p90, p95, p99 of each time, rates, and the share of the prompts that was cached."""

TIMES = {"ttft": "time to first token", "tpot": "time per output token", "itl": "between two arrivals", "e2e": "whole request"}
STATS = ("mean", "median", "p90", "p95", "p99")


def percentile(values, share):
    """Between the two nearest of the sorted values."""
    at = (len(values) - 1) * share
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (at - low)


def spread(values):
    """The five figures, in milliseconds; None when there is nothing to tell of."""
    if not values:
        return None
    values = sorted(values)
    shares = {"median": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
    told = {"mean": sum(values) / len(values), **{name: percentile(values, share) for name, share in shares.items()}}
    return {name: told[name] * 1e3 for name in STATS}


def times_of(records):
    """Every measured moment by its name, in seconds."""
    good = [r for r in records if not r.error]
    return {"ttft": [r.ttft for r in good], "tpot": [r.tpot for r in good if r.tpot is not None],
            "itl": [gap for r in good for gap in r.gaps], "e2e": [r.e2e for r in good]}


def summary(target, seconds):
    good = [r for r in target.records if not r.error]
    total = {name: sum(getattr(r, f"n_{name}") for r in good) for name in ("prompt", "cached", "output")}
    return {
        "name": target.name, "seconds": seconds, "completed": len(good), "failed": len(target.records) - len(good),
        "errors": sorted({r.error for r in target.records if r.error})[:5],
        "prompt_tokens": total["prompt"], "output_tokens": total["output"],
        "cache_hit_rate": total["cached"] / total["prompt"] if total["prompt"] else 0.0,
        "requests_per_s": len(good) / seconds, "input_tokens_per_s": total["prompt"] / seconds,
        "output_tokens_per_s": total["output"] / seconds,
        **{f"{name}_ms": spread(values) for name, values in times_of(target.records).items()},
    }


RATES = [("requests_per_s", "requests a second"), ("input_tokens_per_s", "input tokens a second"),
         ("output_tokens_per_s", "output tokens a second"), ("cache_hit_rate", "cache hit rate")]
COUNTS = [("completed", "completed"), ("failed", "failed"), ("prompt_tokens", "input tokens"), ("output_tokens", "output tokens")]


def ratios(ours, theirs):
    """Ours by theirs: above 1 is better for rates, below 1 for times."""
    told = {name: ours[name] / theirs[name] for name, _ in RATES if theirs[name]}
    for name in TIMES:
        a, b = ours[f"{name}_ms"], theirs[f"{name}_ms"]
        told[f"{name}_ms"] = {stat: a[stat] / b[stat] for stat in STATS if b[stat]} if a and b else None
    return told


def table(summaries, ratio=None):
    """Text for a person: a column a server, and the ratio when there are two."""
    rows = [("", *[s["name"] for s in summaries], *(["ratio"] if ratio else []))]
    for name, label in COUNTS:
        rows.append((label, *[f"{s[name]:,}" for s in summaries], *([""] if ratio else [])))
    for name, label in RATES:
        rows.append((label, *[f"{s[name]:,.3f}" for s in summaries], *([f"{ratio[name]:.2f}x" if name in ratio else "-"] if ratio else [])))
    for name, label in TIMES.items():
        for stat in STATS:
            cells = [f"{s[f'{name}_ms'][stat]:,.2f} ms" if s[f"{name}_ms"] else "-" for s in summaries]
            last = [f"{(ratio[f'{name}_ms'] or {})[stat]:.2f}x" if stat in (ratio[f"{name}_ms"] or {}) else "-"] if ratio else []
            rows.append((f"{label}, {stat}", *cells, *last))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip()
                     for row in rows)
