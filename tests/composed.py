"""Numbers composed from people's single drawings, on a sheet and in simulated photos, and how many of them are read right.

The digits of one number come from one writer; size, baseline, gap and pen vary as they do where people write. A command:
`python tests/composed.py numbers|photos|singles|touching --part choose` prints figures by length, gap, pen and angle.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from digitnet import Recognizer
from digitnet.drawings import BRUSH, SHEET, Drawing, draw, find_drawings, part_of, place
from digitnet.page.reading import Reader, Stroke

LENGTHS = (2, 6)  # digits in a number
GAPS = (0.10, 0.50)  # between the ink of neighbours, share of the taller one's height
THICKEST = 0.22  # pen, share of the digits' height: the page's own pen on four digits; beyond it, loops close
ORIENTATIONS = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class Number:
    """A number on a sheet. strokes: arrays n×2, pixels of a sheet of side SHEET; brush: pen's diameter in the same pixels.

    gap: the smallest between two digits' ink, share of the taller one's height; pen: share of the digits' mean height.
    """

    text: str
    strokes: tuple[np.ndarray, ...]
    brush: float
    gap: float
    pen: float

    @property
    def sheet(self) -> list[Stroke]:
        return [Stroke(stroke, self.brush / 2) for stroke in self.strokes]


@dataclass(frozen=True)
class Photo:
    """A photo of a number: a JPEG file in memory, and how it was taken (degrees, polarity, EXIF orientation)."""

    file: io.BytesIO
    angle: float
    dark_ink: bool
    orientation: int


def digits_of(data, part: str) -> list[Drawing]:
    """The digits of one part's writers ("train", "choose" or "report"), all sources."""
    return [
        drawing
        for drawings in find_drawings(data).values()
        for drawing in drawings
        if drawing.digit is not None and part_of(drawing.writer) == part
    ]


def compose(
    digits: Sequence[Drawing],
    rng: np.random.Generator,
    *,
    lengths: tuple[int, int] = LENGTHS,
    gaps: tuple[float, float] = GAPS,
) -> Number:
    """A number by the writer of one of `digits`, drawn at random: on a line, with gaps, on one sheet."""
    writer = digits[rng.integers(len(digits))].writer
    own = [drawing for drawing in digits if drawing.writer == writer]
    chosen = [own[rng.integers(len(own))] for _ in range(rng.integers(lengths[0], lengths[1] + 1))]
    paths = [_to_origin(drawing.strokes) for drawing in chosen]
    shapes = np.array([np.ptp(np.concatenate(path), axis=0) for path in paths])
    aspects = shapes[:, 0] / np.maximum(shapes[:, 1], 1e-6)
    sizes = rng.uniform(0.85, 1.15, len(paths)) * np.minimum(1.0, 1.3 / np.maximum(aspects, 1e-6))
    aspects = np.minimum(aspects, 20.0)
    shares = rng.uniform(*gaps, len(paths) - 1)
    room = rng.uniform(0.6, 1.0) * (SHEET - 8)
    thickest = THICKEST * _fitting(room, aspects, sizes, shares, None)
    brush = rng.uniform(BRUSH[0] * SHEET, np.clip(thickest, BRUSH[0] * SHEET, BRUSH[1] * SHEET))
    height = _fitting(room, aspects, sizes, shares, brush)
    heights = sizes * height  # of the ink
    strokes, left = [], 0.0
    for i, path in enumerate(paths):
        scale = max(heights[i] - brush, 1.0) / max(shapes[i, 1], shapes[i, 0] / 20.0, 1e-6)
        low = rng.uniform(-0.08, 0.08) * height  # the line is not kept exactly
        strokes += [stroke * scale + [left + brush / 2, low - heights[i] + brush / 2] for stroke in path]
        left += shapes[i, 0] * scale + brush
        if i < len(shares):
            left += shares[i] * max(heights[i], heights[i + 1])
    points = np.concatenate(strokes)
    free = SHEET - brush - 8 - np.ptp(points, axis=0)
    corner = 4 + brush / 2 + np.maximum(free, 0) * rng.random(2) - points.min(axis=0)
    text = "".join(drawing.label for drawing in chosen)
    placed = tuple((stroke + corner).astype(np.float32) for stroke in strokes)
    return Number(text, placed, float(brush), float(shares.min(initial=1.0)), float(brush / height))


def _to_origin(strokes) -> list[np.ndarray]:
    low = np.concatenate(strokes).min(axis=0)
    return [np.asarray(stroke - low, np.float64) for stroke in strokes]


def _fitting(room, aspects, sizes, shares, brush) -> float:
    """The line's height at which the ink of all digits and their gaps takes `room`; brush None: THICKEST of the height."""
    tall = np.maximum(sizes[:-1], sizes[1:])
    # Ink is wider than its path by the brush, and higher too: width = aspect · (size · height - brush) + brush.
    per_height = (aspects * sizes).sum() + (shares * tall).sum()
    per_brush = (1 - aspects).sum()
    height = (room - brush * per_brush) / per_height if brush is not None else room / (per_height + THICKEST * per_brush)
    return float(np.clip(height, 12.0, 0.75 * SHEET))


def photograph(number: Number, rng: np.random.Generator, *, angle: float | None = None) -> Photo:
    """A photo of the number on paper: texture, light falling off, turned by up to 10°, blurred, compressed."""
    angle = rng.uniform(-10, 10) if angle is None else angle
    zoom = rng.uniform(2.0, 3.5)
    side = round(SHEET * zoom)
    page = draw([stroke * zoom for stroke in number.strokes], brush=number.brush * zoom, side=side)
    points = np.concatenate(number.strokes) * zoom
    pad = int(rng.uniform(0.3, 1.2) * np.ptp(points[:, 1]) + number.brush * zoom)
    low, high = (points.min(axis=0) - pad).astype(int), (points.max(axis=0) + pad).astype(int)
    ink = Image.fromarray(255 - page).crop((*low, *high))
    ink = np.asarray(ink.rotate(angle, Image.Resampling.BICUBIC, expand=True), np.float32) / 255
    down, across = (np.linspace(-1, 1, n, dtype=np.float32) for n in ink.shape)
    light = 1 + rng.uniform(-0.3, 0.3) * across[None] + rng.uniform(-0.3, 0.3) * down[:, None]
    light -= rng.uniform(0, 0.2) * (across[None] ** 2 + down[:, None] ** 2) / 2  # a lens darkens the corners
    paper, mark = rng.uniform(0.6, 0.9), rng.uniform(0.08, 0.4)
    texture = sum(_texture(ink.shape, grain, rng) * rng.uniform(0.0, 0.03) for grain in (2, 6, 30))
    pressure = 1 + 0.15 * _texture(ink.shape, 12, rng)
    scene = (paper + texture - (paper - mark) * ink * np.minimum(pressure, 1.0)) * light
    dark_ink = bool(rng.random() < 0.6)
    scene = scene if dark_ink else 1 - scene
    scene = scene[:, :, None] * (1 + rng.uniform(-0.08, 0.08, 3))  # the lamp's colour
    image = Image.fromarray((np.clip(scene, 0, 1) * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(0, 2.5)))
    noisy = np.asarray(image, np.float32) + rng.uniform(1, 5) * rng.standard_normal(ink.shape, np.float32)[:, :, None]
    image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    orientation = int(rng.choice(list(ORIENTATIONS)))
    if ORIENTATIONS[orientation] is not None:
        image = image.transpose(ORIENTATIONS[orientation])
    tags = Image.Exif()
    tags[274] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(40, 91)), exif=tags)
    file.seek(0)
    return Photo(file, angle, dark_ink, orientation)


def _texture(shape, grain: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of about standard deviation 1, `grain` pixels from hill to hill."""
    coarse = rng.normal(0, 1, (shape[0] // grain + 2, shape[1] // grain + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def numbers_read(reader: Reader, digits: Sequence[Drawing], count: int, *, seed: int):
    """Yields (Number, answer, Reading) of `count` numbers on sheets. Number k is the same whatever `count` is."""
    for k in range(count):
        number = compose(digits, np.random.default_rng([seed, k]))
        reading = reader.sheet(number.sheet)
        yield number, answer(reading), reading


def photos_read(reader: Reader, digits: Sequence[Drawing], count: int, *, seed: int):
    """Yields (Number, Photo, answer, Reading) of `count` numbers in photos."""
    for k in range(count):
        rng = np.random.default_rng([seed, 1, k])
        number = compose(digits, rng)
        photo = photograph(number, rng)
        reading = reader.photo(photo.file)
        yield number, photo, answer(reading), reading


def singles_read(reader: Reader, digits: Sequence[Drawing], count: int, *, seed: int):
    """Yields (Drawing, answer, Reading) of single digits on sheets: every drawing once before any comes again."""
    order = np.random.default_rng([seed, 2]).permutation(len(digits))
    for k in range(count):
        rng = np.random.default_rng([seed, 2, k])
        drawing = digits[order[k % len(digits)]]
        brush = rng.uniform(*BRUSH)
        extent = min(rng.uniform(0.2, 0.95), 0.98 - brush)
        placed = place(drawing.strokes, extent=extent, at=tuple(rng.random(2)), margin=brush / 2)
        reading = reader.sheet([Stroke((stroke * SHEET).astype(np.float32), brush * SHEET / 2) for stroke in placed])
        yield drawing, answer(reading), reading


def touching_read(reader: Reader, digits: Sequence[Drawing], count: int, *, seed: int):
    """Yields (Number, answer, Reading) of numbers whose digits all run into each other."""
    for k in range(count):
        number = compose(digits, np.random.default_rng([seed, 3, k]), gaps=(-0.15, -0.02))
        reading = reader.sheet(number.sheet)
        yield number, answer(reading), reading


def answer(reading: dict) -> str:
    """What the page shows as the answer; empty where it shows none."""
    return (reading["label"] or {}).get("label", "")


def _share(right: list[bool], names: list) -> str:
    groups: dict = {}
    for name, good in zip(names, right, strict=True):
        groups.setdefault(name, []).append(good)
    return "  ".join(f"{name}: {sum(goods)}/{len(goods)}" for name, goods in sorted(groups.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("numbers", "photos", "singles", "touching"))
    parser.add_argument("--data", default="data", help="the folder with pen/*.jsonl.gz")
    parser.add_argument("--part", default="choose", choices=("train", "choose", "report"), help="whose drawings")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the pictures that were misread")
    args = parser.parse_args()
    reader, digits = Reader(Recognizer.load()), digits_of(args.data, args.part)
    read = {"numbers": numbers_read, "photos": photos_read, "singles": singles_read, "touching": touching_read}[args.what]
    rows = []
    for k, (shown, *photo, said, reading) in enumerate(read(reader, digits, args.count, seed=args.seed)):
        text = shown.label if args.what == "singles" else shown.text
        rows.append((shown, photo[0] if photo else None, said == text, reading))
        if said != text:
            print(f"{k}: {text} read {said or 'nothing'} ({reading['verdict']})", flush=True)
            if args.keep:
                _keep(args.keep / f"{args.what}-{args.seed}-{k}-{text}-{said}", rows[-1])
    right = [row[2] for row in rows]
    print(f"{args.what}, {args.part} writers, seed {args.seed}: {sum(right)}/{len(right)} exactly right")
    doubted = sum(row[3]["doubt"] for row in rows if not row[2])
    print(f"doubt said: {doubted} of {len(right) - sum(right)} wrong ones, {sum(row[3]['doubt'] for row in rows)} of all")
    if args.what == "singles":
        print(f"read as several digits: {sum(row[3]['number'] is not None for row in rows)}")
        return
    print("by length ", _share(right, [len(row[0].text) for row in rows]))
    print("by gap    ", _share(right, [f"{np.floor(row[0].gap * 10) / 10:.1f}" for row in rows]))
    print("by pen    ", _share(right, [f"{np.floor(row[0].pen * 20) / 20:.2f}" for row in rows]))
    if args.what == "photos":
        print("by angle  ", _share(right, [int(np.floor(row[1].angle / 4) * 4) for row in rows]))
        print("by ink    ", _share(right, ["dark" if row[1].dark_ink else "light" for row in rows]))
        print("by EXIF   ", _share(right, [row[1].orientation for row in rows]))


def _keep(path: Path, row) -> None:
    shown, photo, _, _ = row
    path.parent.mkdir(parents=True, exist_ok=True)
    if photo:
        path.with_suffix(".jpg").write_bytes(photo.file.getvalue())
    elif isinstance(shown, Number):
        Image.fromarray(draw(shown.strokes, brush=shown.brush)).save(path.with_suffix(".png"))


if __name__ == "__main__":
    main()
