"""Stroke files → the picture a canvas would deliver → digits.

A drawing is a list of pen strokes. Here strokes become ink exactly as the page's sheet shows them (a round brush on white
paper) and go through the page's own preprocessing, so training sees what the page will see. Writers are split once and for
all by a hash of their pseudonym. Knows no network and no torch: it runs in plain worker processes and in the live page.
"""

import gzip
import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .preprocess import SIDE, to_digit

SHEET = 280  # pixels, side of the page's sheet
BRUSH = (0.01, 0.10)  # brush diameter, share of the sheet's side
EXTENT = (0.20, 0.95)  # longer side of the drawing, share of the sheet's side
OVERSAMPLING = 2  # the sheet is drawn this many times larger and averaged down: smooth edges, as on screen
PARTS = ("train", "choose", "report")


class DrawingError(ValueError):
    """A stroke file that cannot be read. Its text names the file, the line and what is wrong with it."""


@dataclass(frozen=True)
class Drawing:
    """One drawing. label: "0" to "9", or what else it shows; writer: pseudonym; strokes: arrays n×2 of x, y, y down."""

    label: str
    writer: str
    strokes: tuple[np.ndarray, ...]

    @property
    def digit(self) -> int | None:
        """The digit it shows, or None where it shows something else."""
        return int(self.label) if len(self.label) == 1 and self.label in "0123456789" else None


@dataclass(frozen=True)
class Rendering:
    """Renderings of n drawings. digits: uint8 n×28×28, 255 ink; labels: int64 n, -1 where no digit; index: int64 n, which
    drawing each shows; brush, extent: float32 n, shares of the sheet's side."""

    digits: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    brush: np.ndarray
    extent: np.ndarray


def read_drawings(path) -> list[Drawing]:
    """Reads a stroke file: one JSON object a line, {"label", "writer", "strokes": [[[x, y], ...], ...]}; .gz or plain.

    Raises DrawingError naming the line that is not so.
    """
    path = Path(path)
    drawings = []
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    drawings.append(_parse(line, f"{path}, line {number}"))
    except (OSError, EOFError, UnicodeDecodeError, gzip.zlib.error) as error:
        raise DrawingError(f"{path} cannot be read as a stroke file: {error}.") from error
    return drawings


def _parse(line: str, where: str) -> Drawing:
    try:
        row = json.loads(line)
        label, writer = str(row["label"]), str(row.get("writer", "unknown"))
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused as that below
            strokes = tuple(np.asarray(stroke, dtype=np.float32) for stroke in row["strokes"])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise DrawingError(f'{where} is not {{"label": …, "writer": …, "strokes": [[[x, y], …], …]}}.') from error
    if not strokes or any(stroke.ndim != 2 or stroke.shape[1:] != (2,) or not len(stroke) for stroke in strokes):
        raise DrawingError(f"{where}: every stroke is a list of at least one [x, y] point.")
    if not all(np.isfinite(stroke).all() for stroke in strokes):
        raise DrawingError(f"{where}: a coordinate is not a finite number.")
    return Drawing(label, writer, strokes)


def write_drawings(path, drawings: Iterable[Drawing]) -> None:
    """Writes a stroke file that read_drawings reads; .gz by the name's ending. Coordinates keep two decimals."""
    path = Path(path)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8") as file:
        for drawing in drawings:
            strokes = [[[_short(x), _short(y)] for x, y in stroke.tolist()] for stroke in drawing.strokes]
            label = drawing.label if drawing.digit is None else drawing.digit
            row = {"label": label, "writer": drawing.writer, "strokes": strokes}
            file.write(json.dumps(row, separators=(", ", ": ")) + "\n")


def _short(value: float) -> int | float:
    return int(value) if value == int(value) else round(value, 2)


def part_of(writer: str) -> str:
    """Which part a writer belongs to, for ever: "train" (80 %), "choose" (10 %) or "report" (10 %)."""
    bucket = int(hashlib.sha256(writer.encode()).hexdigest(), 16) % 10
    return "train" if bucket < 8 else PARTS[bucket - 7]


def find_drawings(root) -> dict[str, list[Drawing]]:
    """The stroke files under ROOT/pen by source, {"pendigits": [...], "unipen": [...], ...}; empty where there are none."""
    folder = Path(root) / "pen"
    paths = sorted(folder.glob("*.jsonl")) + sorted(folder.glob("*.jsonl.gz"))
    return {path.name.split(".")[0]: read_drawings(path) for path in paths}


def draw(strokes: Sequence[np.ndarray], *, brush: float, side: int = SHEET) -> np.ndarray:
    """The sheet after these strokes: uint8 side×side, black ink 0 on white paper 255.

    strokes: arrays n×2 of x, y in sheet pixels; brush: diameter in sheet pixels. Ink outside the sheet is lost.
    """
    sheet = Image.new("L", (side * OVERSAMPLING, side * OVERSAMPLING), 255)
    pen = ImageDraw.Draw(sheet)
    radius = brush * OVERSAMPLING / 2
    width = max(1, round(2 * radius))
    for stroke in strokes:
        points = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in np.asarray(stroke).tolist()]
        if len(points) > 1:
            pen.line(points, fill=0, width=width)
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
    return np.asarray(sheet.reduce(OVERSAMPLING))


def place(strokes: Sequence[np.ndarray], *, extent: float, at: tuple[float, float], margin: float) -> list[np.ndarray]:
    """Strokes in any units moved onto a sheet of side 1, keeping their proportions.

    extent: longer side of their box; at: where in the free room the box lies, 0..1 across and down; margin: kept free at
    every edge (half a brush, so that no ink is cut off).
    """
    points = np.concatenate(strokes)
    low, size = points.min(axis=0), np.ptp(points, axis=0)
    scale = extent / max(float(size.max()), 1e-6)
    room = np.maximum(1.0 - 2 * margin - size * scale, 0.0)
    offset = margin + room * np.asarray(at)
    return [(stroke - low) * scale + offset for stroke in strokes]


def render(drawings: Sequence[Drawing], *, copies: int, seed: int, vary: bool, workers: int | None = None) -> Rendering:
    """Draws each drawing `copies` times on a sheet and sends it through the page's preprocessing.

    Brush, extent and position are drawn at random from BRUSH, EXTENT and the whole sheet. vary: also draw the strokes
    again as another hand might (see redraw); for training only. Same drawings and seed, same result, whatever `workers`
    (processes; None for one per core). A drawing that leaves no ink is left out.
    """
    chunk = 250
    jobs = [(drawings[i : i + chunk], i, copies, seed, vary) for i in range(0, len(drawings), chunk)]
    workers = workers or os.cpu_count() or 1
    if workers > 1 and len(drawings) * copies > 4000:
        # "spawn": the trainer may already hold threads, which do not survive a fork.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(_render_chunk, jobs))
    else:
        parts = [_render_chunk(job) for job in jobs]
    if not parts:
        parts = [_render_chunk(([], 0, copies, seed, vary))]
    return Rendering(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _render_chunk(job) -> tuple[np.ndarray, ...]:
    drawings, first, copies, seed, vary = job
    digits, labels, index, brushes, extents = [], [], [], [], []
    for number, drawing in enumerate(drawings, first):
        rng = np.random.default_rng([seed, number])
        for _ in range(copies):
            brush, extent = rng.uniform(*BRUSH), rng.uniform(*EXTENT)
            shown = redraw(drawing, rng) if vary else drawing
            # The extent is the ink's on half of the sheets and the pen path's on the others: both are "how large".
            path = max(extent - brush * rng.integers(0, 2), 0.1)
            placed = place(shown.strokes, extent=min(path, 0.98 - brush), at=tuple(rng.random(2)), margin=brush / 2)
            digit = to_digit(draw([stroke * SHEET for stroke in placed], brush=brush * SHEET))
            if digit is None:
                continue
            digits.append(np.round(digit * 255).astype(np.uint8))
            labels.append(-1 if drawing.digit is None else drawing.digit)
            index.append(number)
            brushes.append(brush)
            extents.append(extent)
    return (
        np.stack(digits) if digits else np.zeros((0, SIDE, SIDE), np.uint8),
        np.asarray(labels, np.int64),
        np.asarray(index, np.int64),
        np.asarray(brushes, np.float32),
        np.asarray(extents, np.float32),
    )


def redraw(drawing: Drawing, rng: np.random.Generator) -> Drawing:
    """The drawing as another hand on another device might have drawn it; its label stays true.

    Slant, turn and proportions; smooth bends; strokes that begin and end elsewhere and lie a little apart; coarse or
    shaky sampling. Some ones get a flag or a foot and some zeros a slash, which few of the writers at hand use.
    """
    points = np.concatenate(drawing.strokes)
    size = max(float(np.ptp(points, axis=0).max()), 1e-6)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    strokes = [(stroke - middle) / size for stroke in drawing.strokes]  # now within ±0.5
    if drawing.digit == 1 and rng.random() < 0.25:
        strokes = _with_flag_or_foot(strokes, rng)
    if drawing.digit == 0 and len(strokes) == 1 and rng.random() < 0.12:
        strokes = strokes + [_slash(strokes, rng)]
    angle, slant = rng.normal(0, 0.10), rng.normal(0, 0.15)
    wide = math.exp(rng.normal(0, 0.18))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    matrix = np.array([[wide, 0.0], [-slant, 1.0]]) @ turn
    bends = rng.normal(0, 0.02, (2, 2)), rng.uniform(2, 7, (2, 2)), rng.uniform(0, 2 * math.pi, (2, 2))
    shaky = rng.random() < 0.15
    again = []
    for stroke in strokes:
        stroke = _trim(stroke, rng) if len(stroke) > 6 else stroke
        stroke = _resample(stroke, rng) if len(stroke) > 2 and rng.random() < 0.3 else stroke
        stroke = stroke @ matrix
        for axis in (0, 1):  # a sum of slow waves over the other axis and over this one
            waves = bends[0][axis] * np.sin(bends[1][axis] * stroke + bends[2][axis])
            stroke[:, axis] += waves.sum(axis=1)
        stroke = stroke + rng.normal(0, 0.012, 2)
        if shaky:
            stroke = stroke + rng.normal(0, rng.uniform(0.002, 0.012), stroke.shape)
        again.append(stroke.astype(np.float32))
    return replace(drawing, strokes=tuple(again))


def _trim(stroke: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The pen comes down late or lifts early, by up to a twentieth of the stroke."""
    start, end = (rng.random(2) * 0.05 * len(stroke)).astype(int)
    return stroke[start : len(stroke) - end]


def _resample(stroke: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A slower device: fewer points, with straight lines between them, corners cut."""
    keep = np.unique(np.r_[np.arange(0, len(stroke), rng.integers(2, 5)), len(stroke) - 1])
    return stroke[keep]


def _with_flag_or_foot(strokes: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """A bare vertical 1 gets a flag, short or as long as a European one, and sometimes a foot."""
    points = np.concatenate(strokes)
    top, bottom = points[points[:, 1].argmin()], points[points[:, 1].argmax()]
    if len(strokes) > 1 or np.ptp(points[:, 0]) > 0.25:  # it has one already, or is no plain bar
        return strokes
    kind = rng.random()
    if kind < 0.85:
        length, angle = rng.uniform(0.15, 0.65), math.radians(rng.uniform(25, 60))  # from the stem
        start = top + length * np.array([-math.sin(angle), math.cos(angle)])
        strokes = [np.vstack([start, top, strokes[0] if strokes[0][0, 1] <= strokes[0][-1, 1] else strokes[0][::-1]])]
    if kind > 0.65:
        half = rng.uniform(0.1, 0.3)
        strokes = strokes + [np.array([bottom + [-half, 0.0], bottom + [half, rng.normal(0, 0.02)]])]
    return strokes


def _slash(strokes: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The stroke through a zero that tells it from an O: from lower left to upper right, inside or beyond the ring."""
    points = np.concatenate(strokes)
    half = np.ptp(points, axis=0) / 2 * rng.uniform(0.5, 1.15)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2 + rng.normal(0, 0.03, 2)
    lean = rng.uniform(0.55, 1.0, 2)
    return np.array([middle + half * lean * [-1, 1], middle, middle + half * lean * [1, -1]])
