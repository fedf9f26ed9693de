"""plot_replay.py RESULTS.csv > PLOT.svg - bench_replay's figures as two pictures: cache hits and mean latency over the load."""

import csv
import sys
from collections import defaultdict

COLOURS = {"banyan": "#0a7d4b", "approximate": "#c2781a", "round-robin": "#7a7a7a"}
PANELS = (("replay cache hits", "prompt tokens from the cache, %"), ("replay latency mean", "mean latency, ms"))
W, H, LEFT, TOP, GAP = 400, 260, 60, 40, 90


def read(path):
    series = defaultdict(lambda: defaultdict(list))
    with open(path) as file:
        for row in csv.reader(line for line in file if not line.startswith("#")):
            name, parameter, value, _ = row
            way, load = parameter.split(" sessions/s=")
            series[name][way].append((float(load), float(value)))
    return series


def panel(at, title, ways):
    x_max = max(x for points in ways.values() for x, _ in points)
    y_max = max(y for points in ways.values() for _, y in points) * 1.05
    px = lambda x: at + x / x_max * W
    py = lambda y: TOP + H - y / y_max * H
    yield f'<text x="{at}" y="{TOP - 14}" font-weight="bold">{title}</text>'
    yield f'<path d="M{at} {TOP}V{TOP + H}H{at + W}" fill="none" stroke="#333"/>'
    for i in range(5):
        y = y_max * i / 4
        yield f'<text x="{at - 6}" y="{py(y) + 4:.0f}" text-anchor="end">{y:.0f}</text>'
        yield f'<path d="M{at} {py(y):.0f}h{W}" stroke="#eee"/>'
    for x in sorted({x for points in ways.values() for x, _ in points}):
        yield f'<text x="{px(x):.0f}" y="{TOP + H + 16}" text-anchor="middle">{x:g}</text>'
    yield f'<text x="{at + W / 2}" y="{TOP + H + 34}" text-anchor="middle">sessions that begin a second</text>'
    for i, (way, points) in enumerate(ways.items()):
        line = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in points)
        yield f'<polyline points="{line}" fill="none" stroke="{COLOURS[way]}" stroke-width="2"/>'
        yield f'<text x="{at + 12}" y="{TOP + H - 14 - 16 * i}" fill="{COLOURS[way]}">{way}</text>'


def main():
    series = read(sys.argv[1])
    width, height = LEFT + 2 * W + GAP + 20, TOP + H + 50
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">')
    print(f'<rect width="{width}" height="{height}" fill="white"/>')
    for i, (name, title) in enumerate(PANELS):
        print("\n".join(panel(LEFT + i * (W + GAP), title, series[name])))
    print("</svg>")


if __name__ == "__main__":
    main()
