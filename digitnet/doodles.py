"""Drawings that are no digits, made up: scribbles, spirals, stars, houses, smudges, and two digits at once.

They teach the network, beside the letters and symbols of real writers, to say "this is not a digit". Each is a Drawing, so
it reaches the network through the same brush and the same preprocessing as everything else.
"""

import math
from collections.abc import Sequence

import numpy as np

from .drawings import Drawing

WRITER = "doodle"  # the pseudonym of what no person drew


def doodles(count: int, *, seed: int) -> list[Drawing]:
    """`count` drawings of every kind in KINDS in turn; labels are the kinds' names. Same seed, same doodles."""
    rng = np.random.default_rng([seed, 17])
    names = sorted(KINDS)
    drawings = []
    for number in range(count):
        name = names[number % len(names)]
        strokes = [np.asarray(stroke, np.float32) for stroke in KINDS[name](rng)]
        drawings.append(Drawing(name, WRITER, tuple(_by_hand(strokes, rng))))
    return drawings


def pairs(digits: Sequence[Drawing], count: int, *, seed: int) -> list[Drawing]:
    """`count` sheets with two of the digits side by side, from apart to touching; the first one's writer is named."""
    rng = np.random.default_rng([seed, 23])
    drawings = []
    for _ in range(count if digits else 0):
        left, right = (digits[i] for i in rng.integers(0, len(digits), 2))
        first, second = _unit_height(left.strokes), _unit_height(right.strokes)
        reach = max(float(stroke[:, 0].max()) for stroke in first)
        gap = np.array([reach + rng.uniform(0.0, 0.6), rng.normal(0, 0.12)], np.float32)
        size = np.float32(math.exp(rng.normal(0, 0.15)))
        drawings.append(Drawing("two digits", left.writer, (*first, *(stroke * size + gap for stroke in second))))
    return drawings


def _unit_height(strokes) -> list[np.ndarray]:
    points = np.concatenate(strokes)
    low, height = points.min(axis=0), max(float(np.ptp(points[:, 1])), 0.5 * float(np.ptp(points[:, 0])), 1e-6)
    return [(stroke - low) / np.float32(height) for stroke in strokes]


def _by_hand(strokes: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Ruler-straight shapes as a hand draws them: proportions, a turn, a slow waver."""
    turn, wide = rng.normal(0, 0.15), math.exp(rng.normal(0, 0.2))
    matrix = np.array([[math.cos(turn) * wide, math.sin(turn)], [-math.sin(turn) * wide, math.cos(turn)]])
    again = []
    for stroke in strokes:
        stroke = _dense(stroke)
        size = max(float(np.ptp(stroke, axis=0).max()), 0.2)
        along = np.linspace(0, 1, len(stroke))[:, None]
        waver = np.sin(2 * math.pi * (along * rng.uniform(1, 4, 2) + rng.random(2))) * rng.normal(0, 0.02, 2) * size
        again.append(((stroke + waver) @ matrix).astype(np.float32))
    return again


def _dense(stroke: np.ndarray) -> np.ndarray:
    """The same path with at least 24 points, so that waver can bend it."""
    if len(stroke) >= 24 or len(stroke) < 2:
        return stroke
    places = np.linspace(0, len(stroke) - 1, 24)
    return np.column_stack([np.interp(places, np.arange(len(stroke)), stroke[:, axis]) for axis in (0, 1)])


def _arc(x, y, rx, ry, start=0.0, end=2 * math.pi, n=32):
    angle = np.linspace(start, end, n)
    return np.column_stack([x + rx * np.cos(angle), y + ry * np.sin(angle)])


def _polygon(n, rng, *, phase=0.0):
    angle = phase + 2 * math.pi * np.arange(n + 1) / n
    return [np.column_stack([np.cos(angle), np.sin(angle)])]


def _scribble(rng):
    n = int(rng.integers(8, 22))
    knots = rng.normal(0, 1, (n, 2)) if rng.random() < 0.5 else np.cumsum(rng.normal(0, 1, (n, 2)), axis=0)
    fine = np.linspace(0, n - 1, n * 10)
    smooth = np.column_stack([np.interp(fine, np.arange(n), knots[:, axis]) for axis in (0, 1)])
    kernel = np.hanning(int(rng.integers(5, 15)))
    kernel /= kernel.sum()
    return [np.column_stack([np.convolve(smooth[:, axis], kernel, "valid") for axis in (0, 1)])]


def _zigzag(rng):
    n = int(rng.integers(6, 14))
    x = np.linspace(-1, 1, n) * rng.uniform(0.6, 1.5)
    y = np.where(np.arange(n) % 2, 1, -1) * rng.uniform(0.25, 0.9) * rng.uniform(0.7, 1.2, n)
    return [np.column_stack([x, y] if rng.random() < 0.7 else [y, x])]


def _wave(rng):
    x = np.linspace(-1, 1, 60)
    wave = rng.uniform(0.15, 0.5) * np.sin(x * math.pi * rng.uniform(2.0, 5.0) + rng.uniform(0, 6))
    return [np.column_stack([x, wave] if rng.random() < 0.7 else [wave, x])]


def _spiral(rng):
    turns = rng.uniform(2.2, 4.5) * (1 if rng.random() < 0.5 else -1)
    t = np.linspace(0.05, 1, 90)
    angle = 2 * math.pi * turns * t + rng.uniform(0, 6)
    return [np.column_stack([t * np.cos(angle), t * np.sin(angle)])]


def _coil(rng):
    t = np.linspace(0, 1, 100)
    angle = 2 * math.pi * rng.uniform(3, 6) * t
    return [np.column_stack([3 * t + 0.5 * np.cos(angle), np.sin(angle)])]


def _star(rng):
    n = 5 if rng.random() < 0.7 else int(rng.integers(6, 9))
    if n == 5 and rng.random() < 0.6:  # in one line
        angle = -math.pi / 2 + 2 * math.pi * (2 * np.arange(6) % 5) / 5
        return [np.column_stack([np.cos(angle), np.sin(angle)])]
    angle = -math.pi / 2 + math.pi * np.arange(2 * n + 1) / n
    radius = np.where(np.arange(2 * n + 1) % 2, rng.uniform(0.35, 0.6), 1.0)
    return [np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])]


def _rays(rng):
    n = int(rng.integers(3, 7))
    angle = rng.uniform(0, 3) + math.pi * np.arange(n) / n
    return [np.array([[-math.cos(a), -math.sin(a)], [math.cos(a), math.sin(a)]]) for a in angle]


def _sun(rng):
    n = int(rng.integers(6, 12))
    inner, outer = rng.uniform(0.6, 0.75), 1.0
    angle = 2 * math.pi * np.arange(n) / n
    rays = [np.array([[inner * math.cos(a), inner * math.sin(a)], [outer * math.cos(a), outer * math.sin(a)]]) for a in angle]
    return [_arc(0, 0, 0.45, 0.45), *rays]


def _heart(rng):
    t = np.linspace(0, 2 * math.pi, 60)
    return [np.column_stack([16 * np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))])]


def _arrow(rng):
    head = rng.uniform(0.25, 0.5)
    lines = [np.array([[-1, 0], [1, 0]]), np.array([[1 - head, -head], [1, 0], [1 - head, head]])]
    turn = rng.integers(0, 4) * math.pi / 2
    matrix = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return [line @ matrix for line in lines]


def _face(rng):
    eye = rng.uniform(0.05, 0.15)
    mouth = (0.15, math.pi - 0.15) if rng.random() < 0.7 else (math.pi + 0.15, 2 * math.pi - 0.15)
    return [
        _arc(0, 0, 1, 1),
        _arc(-0.35, -0.3, eye, eye, n=10),
        _arc(0.35, -0.3, eye, eye, n=10),
        _arc(0, 0.2, 0.5, 0.4, *mouth),
    ]


def _house(rng):
    walls = np.array([[-1, 1], [-1, -0.2], [1, -0.2], [1, 1], [-1, 1]])
    roof = np.array([[-1.1, -0.2], [0, -1.2], [1.1, -0.2]])
    door = np.array([[-0.2, 1], [-0.2, 0.4], [0.2, 0.4], [0.2, 1]])
    return [walls, roof, door][: int(rng.integers(2, 4))]


def _grid(rng):
    n, m = int(rng.integers(2, 4)), int(rng.integers(2, 5))
    across = [np.array([[-1, y], [1, y]]) for y in np.linspace(-0.6, 0.6, n)]
    down = [np.array([[x, -1], [x, 1]]) for x in np.linspace(-0.6, 0.6, m)]
    return across + down


def _bars(rng):
    n = int(rng.integers(2, 7))
    lean = rng.uniform(-0.4, 0.4)
    bars = [np.array([[x + lean, -1], [x, 1]]) for x in np.linspace(-1, 1, n) * rng.uniform(0.5, 1.2)]
    return bars if rng.random() < 0.6 else [bar[:, ::-1] for bar in bars]


def _dots(rng):
    return [np.repeat(rng.uniform(-1, 1, (1, 2)), 2, axis=0) for _ in range(int(rng.integers(2, 9)))]


def _dot(rng):
    return [np.zeros((1, 2))]


def _smudge(rng):
    """A blob rubbed full: hatching so close that any brush closes it, inside a lumpy outline."""
    rows = np.linspace(-1, 1, 40)
    half = np.sqrt(np.maximum(1 - rows**2, 0)) * (1 + 0.25 * np.sin(rows * rng.uniform(2, 6) + rng.uniform(0, 6)))
    x = np.where(np.arange(40) % 2, half, -half) + 0.3 * np.sin(rows * rng.uniform(1, 3))
    return [np.column_stack([x * rng.uniform(0.6, 1.6), rows])]


def _scrawl(rng):
    """A word-like run of loops and humps."""
    t = np.linspace(0, 1, 140)
    angle = 2 * math.pi * rng.uniform(4, 8) * t
    x = 4 * t + 0.25 * np.sin(angle + rng.uniform(0, 6)) + 0.1 * np.sin(angle * 0.37)
    return [
        np.column_stack([x, rng.uniform(0.3, 0.6) * np.cos(angle) * (0.6 + 0.4 * np.sin(angle * 0.21 + rng.uniform(0, 6)))])
    ]


def _crossed_out(rng):
    return [_arc(0, 0, 1, 1), np.array([[-0.7, -0.7], [0.7, 0.7]]), np.array([[0.7, -0.7], [-0.7, 0.7]])]


def _flower(rng):
    n = int(rng.integers(4, 8))
    t = np.linspace(0, 2 * math.pi, 120)
    radius = 0.65 + 0.35 * np.cos(n * t)
    stem = [np.array([[0, 1], [0.1, 2.2]])] if rng.random() < 0.5 else []
    return [np.column_stack([radius * np.cos(t), radius * np.sin(t)]), *stem]


def _stick_figure(rng):
    arms = rng.uniform(-0.4, 0.4)
    return [
        _arc(0, -0.8, 0.25, 0.25),
        np.array([[0, -0.55], [0, 0.3]]),
        np.array([[-0.5, arms], [0, -0.2], [0.5, arms]]),
        np.array([[-0.4, 1], [0, 0.3], [0.4, 1]]),
    ]


def _fish(rng):
    return [_arc(0, 0, 1, 0.5, 0.3, 2 * math.pi - 0.3), np.array([[0.95, -0.15], [1.6, 0.45], [1.6, -0.45], [0.95, 0.15]])]


def _eye_glasses(rng):
    return [_arc(-0.7, 0, 0.5, 0.5), _arc(0.7, 0, 0.5, 0.5), np.array([[-0.2, 0], [0.2, 0]])]


def _triangle(rng):
    return _polygon(3, rng, phase=rng.choice([-math.pi / 2, math.pi / 2, 0.0]))


def _square(rng):
    square = _polygon(4, rng, phase=math.pi / 4 if rng.random() < 0.7 else 0.0)
    return square + ([np.array([[-0.7, -0.7], [0.7, 0.7]])] if rng.random() < 0.3 else [])


def _cloud(rng):
    n = int(rng.integers(5, 9))
    t = np.linspace(0, 2 * math.pi, 120)
    radius = 0.75 + 0.25 * np.abs(np.sin(n * t / 2))
    return [np.column_stack([1.5 * radius * np.cos(t), radius * np.sin(t)])]


def _bolt(rng):
    return [np.array([[0.3, -1], [-0.5, 0.1], [0.05, 0.1], [-0.3, 1], [0.5, -0.2], [0.0, -0.2], [0.6, -1], [0.3, -1]])]


KINDS = {
    "arrow": _arrow,
    "bars": _bars,
    "bolt": _bolt,
    "cloud": _cloud,
    "coil": _coil,
    "crossed out": _crossed_out,
    "dot": _dot,
    "dots": _dots,
    "face": _face,
    "fish": _fish,
    "flower": _flower,
    "glasses": _eye_glasses,
    "grid": _grid,
    "heart": _heart,
    "house": _house,
    "rays": _rays,
    "scrawl": _scrawl,
    "scribble": _scribble,
    "smudge": _smudge,
    "spiral": _spiral,
    "square": _square,
    "star": _star,
    "stick figure": _stick_figure,
    "sun": _sun,
    "triangle": _triangle,
    "wave": _wave,
    "zigzag": _zigzag,
}
