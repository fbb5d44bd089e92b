"""Small SVG charts as text: lines, bars of shares, a confusion matrix, a reliability diagram. No library, no pixels.

Drawn 360 units wide, so that their letters keep a readable size on a phone. Colours come from the page's styles.
"""

import html
from collections.abc import Sequence

WIDTH = 360
STYLES = ("stroke='var(--dn-accent)'", "stroke='var(--dn-doubt)' stroke-dasharray='6 4'")


def _svg(height: float, title: str, inside: str) -> str:
    name = html.escape(title)
    return f"<svg viewBox='0 0 {WIDTH} {height:.0f}' role='img' aria-label='{name}'><title>{name}</title>{inside}</svg>"


def _text(x: float, y: float, text, *, anchor: str = "start", kind: str = "") -> str:
    strong = f" class='{kind}'" if kind else ""
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'{strong}>{html.escape(str(text))}</text>"


def lines(xs: Sequence[float], series: dict[str, Sequence[float]], *, title: str, share: bool) -> str:
    """Curves over epochs. series: name → values, two at most; share: values are shares and shown in per cent."""
    values = [value for curve in series.values() for value in curve]
    low, high = min(values), max(values)
    room = max(high - low, 1e-6)
    low, high = (max(0.0, low - 0.05 * room), high + 0.05 * room)
    left, right, top, bottom = 52, WIDTH - 10, 46, 200

    def place(x: float, y: float) -> str:
        across = left + (right - left) * (x - xs[0]) / max(xs[-1] - xs[0], 1e-9)
        return f"{across:.1f},{bottom - (bottom - top) * (y - low) / (high - low):.1f}"

    parts = [_text(0, 14, title, kind="strong")]
    for k in range(4):
        value = low + (high - low) * k / 3
        y = bottom - (bottom - top) * k / 3
        parts.append(f"<line x1='{left}' x2='{right}' y1='{y:.1f}' y2='{y:.1f}' stroke='var(--dn-line)'/>")
        parts.append(_text(left - 6, y + 4, f"{value:.1%}" if share else f"{value:.3g}", anchor="end"))
    parts += [_text(left, bottom + 18, xs[0]), _text(right, bottom + 18, f"epoch {xs[-1]}", anchor="end")]
    legend = 0.0
    for style, (name, curve) in zip(STYLES, series.items(), strict=False):
        points = " ".join(place(x, y) for x, y in zip(xs, curve, strict=True))
        parts.append(f"<polyline points='{points}' fill='none' stroke-width='2.5' {style}/>")
        parts.append(f"<line x1='{legend:.0f}' x2='{legend + 24:.0f}' y1='30' y2='30' stroke-width='2.5' {style}/>")
        parts.append(_text(legend + 30, 34, name))
        legend += 50 + 7.5 * len(name)
    return _svg(bottom + 24, title, "".join(parts))


def shares(rows: Sequence[tuple], *, title: str, percent: bool = True) -> str:
    """Bars of shares: rows of (name, share, interval or None, what it counts). Shares near 1 are drawn on a magnified axis."""
    start = 0.0
    if percent and min(row[1] for row in rows) > 0.8:
        start = 0.8 if min(row[1] for row in rows) < 0.9 else 0.9
    left, right, step = 112, 258, 30

    def across(share: float) -> float:
        return left + (right - left) * max(share - start, 0) / (1 - start)

    parts = []
    for i, (name, share, interval, count) in enumerate(rows):
        y = 8 + i * step
        parts.append(_text(0, y + 12, name, kind="strong"))
        parts.append(f"<rect x='{left}' y='{y}' width='{right - left}' height='16' rx='4' fill='var(--dn-sunken)'/>")
        parts.append(f"<rect x='{left}' y='{y}' width='{across(share) - left:.1f}' height='16' rx='4' fill='var(--dn-bar)'/>")
        if interval:
            low, high = across(interval[0]), across(interval[1])
            parts.append(f"<path d='M{low:.1f} {y + 8}H{high:.1f}' stroke='var(--dn-ink)' stroke-width='2'/>")
        parts.append(_text(right + 6, y + 12, f"{share:.1%}" if percent else count, kind="strong"))
        if percent:
            parts.append(_text(WIDTH, y + 12, count.split(" ")[0], anchor="end"))
    bottom = 8 + len(rows) * step
    if start:
        parts.append(_text(left, bottom + 10, f"bars begin at {start:.0%}"))
        bottom += 14
    return _svg(bottom + 4, title, "".join(parts))


def matrix(table: Sequence[Sequence[int]], *, title: str) -> str:
    """A confusion matrix of 10 × 10 counts: right answers plain, mistakes the darker the more often they are made."""
    cell, left, top = 32, 34, 40
    most = max((n for i, row in enumerate(table) for j, n in enumerate(row) if i != j), default=1) or 1
    parts = [_text(left, 14, "read as", kind="strong"), _text(0, 32, "was", kind="strong")]
    for d in range(10):
        parts.append(_text(left + d * cell + cell / 2, 32, d, anchor="middle", kind="strong"))
        parts.append(_text(14, top + d * cell + 21, d, anchor="middle", kind="strong"))
    for i, row in enumerate(table):
        for j, n in enumerate(row):
            x, y = left + j * cell, top + i * cell
            fill, opacity = ("var(--dn-sunken)", 1.0) if i == j else ("var(--dn-doubt)", 0.75 * (n / most) ** 0.5)
            size = f"width='{cell - 2}' height='{cell - 2}' rx='4'"
            parts.append(f"<rect x='{x}' y='{y}' {size} fill='{fill}' fill-opacity='{opacity:.2f}'/>")
            if n:
                kind = "strong" if i == j else "mistake" if n > 0.3 * most else ""
                parts.append(_text(x + cell / 2 - 1, y + 20, n, anchor="middle", kind=kind))
    return _svg(top + 10 * cell, title, "".join(parts))


def reliability(bars: Sequence[dict], *, title: str) -> str:
    """Share read right by the confidence said: on the line is as sure as it should be. Dots grow with their number."""
    left, right, top, bottom = 46, WIDTH - 14, 14, 250

    def at(said: float, was: float) -> tuple[float, float]:
        return left + (right - left) * said, bottom - (bottom - top) * was

    parts = []
    for k in range(5):
        x, y = at(k / 4, k / 4)
        parts.append(f"<line x1='{left}' x2='{right}' y1='{y:.1f}' y2='{y:.1f}' stroke='var(--dn-line)'/>")
        parts += [_text(left - 6, y + 4, f"{k / 4:.0%}", anchor="end"), _text(x, bottom + 18, f"{k / 4:.0%}", anchor="middle")]
    (x1, y1), (x2, y2) = at(0, 0), at(1, 1)
    parts.append(f"<line x1='{x1}' y1='{y1}' x2='{x2}' y2='{y2}' stroke='var(--dn-muted)' stroke-dasharray='4 4'/>")
    total = sum(bar["n"] for bar in bars) or 1
    for bar in bars:
        x, y = at(bar["confidence"], bar["accuracy"])
        radius = 3 + 9 * (bar["n"] / total) ** 0.5
        parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius:.1f}' fill='var(--dn-accent)' fill-opacity='0.8'/>")
    parts.append(_text((left + right) / 2, bottom + 36, "confidence said", anchor="middle"))
    return _svg(bottom + 42, title, "".join(parts))
