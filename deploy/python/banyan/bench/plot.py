"""An SVG of how the times are spread: for each kind, which share of the requests had ended by when."""

from xml.sax.saxutils import escape

from .figures import TIMES, times_of

COLOURS = ("#1b7f4b", "#b5541c")
WIDE, HIGH, PAD = 380, 220, 44


def _curve(values, longest):
    """Points of the cumulative share, at most 200."""
    values = sorted(values)
    step = max(1, len(values) // 200)
    picked = [(v, (i + 1) / len(values)) for i, v in enumerate(values) if i % step == 0 or i == len(values) - 1]
    return " ".join(f"{PAD + v / longest * (WIDE - PAD - 12):.1f},{HIGH - PAD + 8 - share * (HIGH - PAD - 24):.1f}" for v, share in picked)


def _panel(name, label, targets):
    all_times = [times_of(t.records)[name] for t in targets]
    longest = max((max(values) for values in all_times if values), default=0) or 1e-9
    floor = HIGH - PAD + 8
    out = [f'<text x="{PAD}" y="16" font-weight="bold">{escape(label)} ({name.upper()})</text>',
           f'<path d="M{PAD} 24V{floor}H{WIDE - 12}" fill="none" stroke="#888"/>']
    for share in (0, 0.5, 1):
        out.append(f'<text x="{PAD - 6}" y="{floor - share * (HIGH - PAD - 24) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
        out.append(f'<text x="{PAD + share * (WIDE - PAD - 12):.1f}" y="{floor + 16}" text-anchor="middle">{share * longest * 1e3:.4g} ms</text>')
    for values, colour in zip(all_times, COLOURS):
        if values:
            out.append(f'<polyline points="{_curve(values, longest)}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
    return "\n".join(out)


def svg(title, targets):
    panels = [f'<g transform="translate({(i % 2) * WIDE},{30 + (i // 2) * HIGH})">{_panel(name, label, targets)}</g>'
              for i, (name, label) in enumerate(TIMES.items())]
    legend = "".join(f'<tspan fill="{colour}"> {escape(t.name)} </tspan>' for t, colour in zip(targets, COLOURS))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDE} {2 * HIGH + 36}" font-family="sans-serif" font-size="11">\n'
            f'<rect width="100%" height="100%" fill="white"/><text x="{PAD}" y="20" font-size="13">{escape(title)}: {legend}</text>\n'
            + "\n".join(panels) + "\n</svg>\n")
