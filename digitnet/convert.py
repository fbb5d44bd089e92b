"""Published pen data → stroke files: UCI pendigits' original strokes and UNIPEN train_r01_v07.

Both are UNIPEN text: statements that begin with a dot, y pointing up. What comes out is what drawings.py reads: y down,
pen-down ink only, writers by pseudonym. What is left out, and by which numbers, stand at read_unipen and flaw. Knows no
network, no torch and no picture.
"""

import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .drawings import Drawing, DrawingError, write_drawings

CATEGORIES = {"1a": "digits", "1b": "upper case letters", "1c": "lower case letters", "1d": "symbols"}
# What many hands write like a digit: no use as an example of "not a digit".
LIKE_DIGITS = frozenset("bgiloqsyzBDGIOQSYZ" + "!$&'(),./?[\\]`{|}")

LARGEST = 1e9  # tablet units; more is damage, and float32 must hold what comes of it
PENDIGITS_TOP = 500  # tablet units: the y that becomes 0
STRAIGHT = 0.15  # short by long side of the box turned along the ink; below it is a straight line
FLAT = 0.25  # height by width; below it is a dash
APART = 0.25  # gap by height; two parts further apart than this are two glyphs, if both are tall ...
TALL = 0.5  # ... which is at least this share of the whole height


def read_pendigits(path) -> list[Drawing]:
    """Reads UCI's pendigits-orig.tra or .tes, unpacked: one drawing a .SEGMENT, in the file's order, none left out.

    Label and writer come from ".COMMENT label writer n". Writer 7 of the .tra file is pseudonym("pd-tra07"), of the
    .tes file pseudonym("pd-tes07"): the two share no writers. Raises DrawingError naming the file and the line.
    """
    path = Path(path)
    parts = [suffix[1:] for suffix in path.suffixes if suffix in (".tra", ".tes")]
    if len(parts) != 1:
        raise DrawingError(f"{path} needs .tra or .tes in its name, as UCI gives it: each counts its own writers.")
    drawings: list[Drawing] = []
    start, who, strokes = 0, None, []  # the segment being read: its line, (label, writer), its ink so far

    def finish() -> None:
        if not start:
            return
        if who is None or not strokes:
            lack = 'no ".COMMENT label writer n"' if who is None else "no ink"
            raise DrawingError(f"{path}, line {start}: the segment has {lack}; unpack the published file again.")
        drawings.append(Drawing(who[0], pseudonym(f"pd-{parts[0]}{who[1]:02d}"), tuple(strokes)))

    for line, keyword, text in _statements(path):
        if keyword == ".SEGMENT":
            finish()
            start, who, strokes = line, None, []
        elif keyword == ".COMMENT" and start and who is None:
            numbers = re.fullmatch(r"\s*([0-9])\s+(\d{1,9})\s+\d+\s*", text)
            who = (numbers[1], int(numbers[2])) if numbers else None
        elif keyword == ".PEN_DOWN" and start:
            points = _points(text, ("X", "Y"), f"{path}, line {line}")
            if len(points):
                strokes.append((np.array([0, PENDIGITS_TOP]) + points * [1, -1]).astype(np.float32))
    finish()
    if not drawings:
        raise DrawingError(f"{path} holds no .SEGMENT; give the unpacked pendigits-orig.tra or pendigits-orig.tes.")
    return drawings


def read_unipen(folder, category: str = "1a", *, skip: Callable[[DrawingError], object] | None = None) -> list[Drawing]:
    """Reads one category of UNIPEN train_r01_v07: the files below FOLDER/data/CATEGORY by name, segments in order.

    category: "1a" digits, "1b" upper and "1c" lower case letters, "1d" symbols. A writer, in any category, is
    pseudonym("site/writer id"); a site's files without .WRITER_ID count as one writer, so that no hand is on two sides
    of a split. Where X_POINTS_PER and Y_POINTS_PER are both given, y is in x's units. Coordinates keep one decimal.

    Left out, beside what flaw() tells: labels in LIKE_DIGITS; segments that share pen-down ink with another segment of
    their file (one glyph cut in two); a drawing whose strokes came before, point for point.

    Raises DrawingError naming the damaged file; with `skip`, that file is left out and its error handed to `skip`.
    """
    assert category in CATEGORIES, f"category is one of {', '.join(CATEGORIES)}, not {category!r}"
    folder = Path(folder)
    masters = folder / "data" / category
    if not masters.is_dir() or not (folder / "include").is_dir():
        raise DrawingError(f"{folder} holds no data/{category} and include; give train_r01_v07, unpacked.")
    files = sorted(path for path in masters.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not files:
        raise DrawingError(f"{masters} holds no files; unpack train_r01_v07 again.")
    drawings: list[Drawing] = []
    for path in files:
        try:
            drawings += _read_master(path, folder / "include", category, site=path.relative_to(masters).parts[0])
        except DrawingError as error:
            if skip is None:
                raise
            skip(error)
    return without_duplicates(drawings)


def pseudonym(name: str) -> str:
    """A writer's stable pseudonym: the first 8 hex digits of the SHA-1 of the name."""
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:8]


def without_duplicates(drawings: Iterable[Drawing]) -> list[Drawing]:
    """The drawings in their order, each set of strokes once: the first of those that are the same point for point."""
    seen: set[tuple] = set()
    kept = []
    for drawing in drawings:
        key = tuple((len(stroke), stroke.tobytes()) for stroke in drawing.strokes)
        if key not in seen:
            seen.add(key)
            kept.append(drawing)
    return kept


def flaw(strokes: Sequence[np.ndarray], label: str) -> str | None:
    """Why the ink cannot be the digit, letter or symbol of the label, or None. strokes: arrays n×2 of x, y.

    "single point": all points are the same (the only flaw of a symbol). "flat dash": height under FLAT of the width.
    "straight line", unless labelled 1: the box turned along the ink is narrower than STRAIGHT of its length. "two
    glyphs": a gap wider than APART of the height parts the strokes into left and right, both at least TALL of it.
    The numbers are read off the ready-made stroke files: none of their drawings has a flaw, and some letters come
    within a hair of each number, so there they were probably cut.
    """
    points = np.concatenate(strokes).astype(np.float64)
    width, height = np.ptp(points, axis=0)
    if width == height == 0:
        return "single point"
    if not label.isalnum():
        return None
    if height < FLAT * width:
        return "flat dash"
    _, axes = np.linalg.eigh(np.cov(points.T))
    short, long = np.ptp(points @ axes, axis=0)
    if label != "1" and short < STRAIGHT * long:
        return "straight line"
    order = sorted(strokes, key=lambda stroke: stroke[:, 0].min())
    for cut in range(1, len(order)):
        left, right = np.concatenate(order[:cut]), np.concatenate(order[cut:])
        gap = right[:, 0].min() - left[:, 0].max()
        if gap > APART * height and min(np.ptp(left[:, 1]), np.ptp(right[:, 1])) >= TALL * height:
            return "two glyphs"
    return None


@dataclass
class _Component:
    """What the pen did between two changes of its state, and what held then. points: n×2 of x, y, as in the file."""

    down: bool
    points: np.ndarray
    writer: str | None
    scale: float

    @property
    def ink(self) -> bool:
        return self.down and bool(self.points.any())  # "0 0" only holds the place of a box that was left empty


@dataclass
class _Sheet:
    """A master file with all that it includes, as it is read. segments: line, delineation, label of each CHARACTER."""

    include: Path
    components: list[_Component] = field(default_factory=list)
    segments: list[tuple[int, str, str]] = field(default_factory=list)
    columns: tuple[str, ...] = ()
    units: dict[str, float] = field(default_factory=dict)
    writer: str | None = None

    def read(self, path: Path, *, within: tuple[Path, ...] = ()) -> None:
        for line, keyword, text in _statements(path):
            where = f"{path}, line {line}"
            if keyword == ".INCLUDE":
                self.read(self._included(text.strip(), path, where, within), within=(*within, path))
            elif keyword in (".PEN_DOWN", ".PEN_UP"):
                points = _points(text, self.columns, where)
                if len(points):
                    self.components.append(_Component(keyword == ".PEN_DOWN", points, self.writer, self._scale()))
            elif keyword == ".COORD":
                self.columns = tuple(text.upper().split())
                if not {"X", "Y"} <= set(self.columns):
                    raise DrawingError(f"{where}: .COORD names no X and Y; unpack train_r01_v07 again.")
            elif re.fullmatch(r"\.[XY]_POINTS_PER_(INCH|MM)", keyword):
                self.units[keyword] = _positive(text, where)
            elif keyword == ".WRITER_ID":
                self.writer = " ".join(text.split()) or None
            elif keyword == ".SEGMENT":
                # CHARACTER delineation quality "label"; greedy, for some write the label " as """.
                found = re.fullmatch(r'\s*CHARACTER\s+([\d:,\s-]+?)(?:\s+[^\s"]+)?\s*"(.*)"\s*', text, re.DOTALL)
                if found:
                    label = re.sub(r"\\(.)", r"\1", found[2], flags=re.DOTALL)
                    self.segments.append((line, re.sub(r"\s", "", found[1]), label))

    def _included(self, name: str, path: Path, where: str, within: tuple[Path, ...]) -> Path:
        target = self.include / name
        try:
            found = target.resolve().is_relative_to(self.include.resolve()) and target.is_file()
        except (OSError, ValueError):  # a name that no file can have
            found = False
        if not found:
            raise DrawingError(f"{where}: no {name!r} in {self.include}; unpack the whole of train_r01_v07.")
        if target in (*within, path):
            raise DrawingError(f"{where}: {name} includes itself; unpack train_r01_v07 again.")
        return target

    def _scale(self) -> float:
        for unit in ("INCH", "MM"):
            x, y = (self.units.get(f".{axis}_POINTS_PER_{unit}") for axis in "XY")
            if x and y:
                return x / y
        return 1.0


def _read_master(path: Path, include: Path, category: str, *, site: str) -> list[Drawing]:
    sheet = _Sheet(include)
    sheet.read(path)
    segments = dict.fromkeys(  # each once: the same line twice is no digit cut in two
        (label, _pieces(delineation, sheet.components, f"{path}, line {line}")) for line, delineation, label in sheet.segments
    )
    claims: dict[tuple[int, int], int] = {}
    for _, pieces in segments:
        for point in _ink(pieces, sheet.components):
            claims[point] = claims.get(point, 0) + 1
    drawings = []
    for label, pieces in segments:
        ink = _ink(pieces, sheet.components)
        if not ink or not _belongs(label, category) or any(claims[point] > 1 for point in ink):
            continue
        inked = (piece for piece in pieces if sheet.components[piece[0]].ink)
        strokes = tuple(_stroke(sheet.components[number], first, last) for number, first, last in inked)
        if flaw(strokes, label) is None:
            # Several hands may share a file: what was in force at the ink goes before what came last.
            writer = sheet.components[ink[0][0]].writer or sheet.writer or "unknown"
            drawings.append(Drawing(label, pseudonym(f"{site}/{writer}"), strokes))
    return drawings


def _belongs(label: str, category: str) -> bool:
    if len(label) != 1 or not "!" <= label <= "~" or label in LIKE_DIGITS:
        return False
    kinds = {"1a": label.isdigit(), "1b": label.isupper(), "1c": label.islower(), "1d": not label.isalnum()}
    return kinds[category]


def _pieces(delineation: str, components: list[_Component], where: str) -> tuple[tuple[int, int, int], ...]:
    """What "4", "4-6", "4:10-6:3" or a list of such names: (component, its first point, one past its last point)."""
    pieces = []
    for part in delineation.split(","):
        found = re.fullmatch(r"(\d{1,9})(?::(\d{1,9}))?(?:-(\d{1,9})(?::(\d{1,9}))?)?", part)
        if not found:
            raise DrawingError(f"{where}: {delineation!r} is no range of components; unpack train_r01_v07 again.")
        first, start, last, end = (None if number is None else int(number) for number in found.groups())
        if last is None:
            last, end = first, start
        for number in range(first, last + 1):
            size = len(components[number].points) if number < len(components) else 0
            low = start if number == first and start is not None else 0
            high = end + 1 if number == last and end is not None else size
            if not low < high <= size:
                raise DrawingError(f"{where}: {delineation} names ink that is not there; unpack train_r01_v07 again.")
            pieces.append((number, low, high))
        if first > last:
            raise DrawingError(f"{where}: the range {delineation} runs backwards; unpack train_r01_v07 again.")
    return tuple(pieces)


def _ink(pieces: Iterable[tuple[int, int, int]], components: list[_Component]) -> list[tuple[int, int]]:
    return [(number, i) for number, first, last in pieces if components[number].ink for i in range(first, last)]


def _stroke(component: _Component, first: int, last: int) -> np.ndarray:
    # Two decimals, then one: so were the ready-made files rounded, and a few points differ otherwise.
    points = (component.points[first:last] * [1, -component.scale]).tolist()
    return np.array([[round(round(value, 2), 1) for value in point] for point in points], dtype=np.float32)


def _points(text: str, columns: tuple[str, ...], where: str) -> np.ndarray:
    """The n×2 x and y of a component. columns: of .COORD; without one, x and y are the first two of each line."""
    rows = [row for line in text.splitlines() if (row := line.split())]
    if not rows:
        return np.zeros((0, 2))
    columns = columns or ("X", "Y", *rows[0][2:])
    try:
        numbers = np.array([float(value) for row in rows for value in row]).reshape(-1, len(columns))
    except ValueError as error:
        raise DrawingError(f"{where}: these are not rows of coordinates; unpack the published file again.") from error
    points = numbers[:, [columns.index("X"), columns.index("Y")]]
    if not (np.abs(points) < LARGEST).all():  # nor NaN
        raise DrawingError(f"{where}: a coordinate is no number that a tablet gives; unpack the published file again.")
    return points


def _positive(text: str, where: str) -> float:
    try:
        value = float(text.split()[0])
    except (ValueError, IndexError):
        value = 0.0
    if not 1 / LARGEST < value < LARGEST:
        raise DrawingError(f"{where}: points per inch or mm must be a positive number; unpack train_r01_v07 again.")
    return value


def _statements(path: Path) -> Iterator[tuple[int, str, str]]:
    """The file's statements: line, keyword with its dot, and all text up to the next line that begins with a dot."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DrawingError(f"{path} cannot be read ({error.strerror}); give the unpacked published file.") from error
    if data[:2] in (b"\x1f\x9d", b"\x1f\x8b", b"PK"):
        raise DrawingError(f"{path} is compressed; unpack it first, with gzip -d (.Z, .gz) or unzip (.zip).")
    start, keyword, text = 0, "", []
    lines = data.decode("latin-1").split("\n")  # in which any byte is a letter: the files predate UTF-8
    for number, line in enumerate(lines, 1):
        if re.match(r"\.[A-Z]", line):
            if keyword:
                yield start, keyword, "\n".join(text)
            keyword, _, rest = line.rstrip().replace("\t", " ").partition(" ")
            start, text = number, [rest]
        else:
            text.append(line)
    if keyword:
        yield start, keyword, "\n".join(text)


def add_arguments(parser) -> None:
    """Adds the arguments of `convert` to an argparse parser."""
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    pendigits = sources.add_parser("pendigits", help="UCI pendigits: pendigits-orig.tra and .tes, unpacked")
    pendigits.add_argument("files", nargs="+", type=Path, metavar="FILE")
    unipen = sources.add_parser("unipen", help="UNIPEN: the unpacked folder train_r01_v07")
    unipen.add_argument("folder", type=Path, metavar="FOLDER")
    kinds = ", ".join(f"{name} {kind}" for name, kind in CATEGORIES.items())
    unipen.add_argument("--category", nargs="+", choices=CATEGORIES, default=["1a"], help=f"{kinds}; default: 1a")
    unipen.add_argument("--skip-damaged", action="store_true", help="leave damaged files out and tell which")
    for source in (pendigits, unipen):
        source.add_argument("--out", required=True, type=Path, help="stroke file to write: .jsonl or .jsonl.gz")


def run(args) -> int:
    """Converts what add_arguments describes and says how much it was. Returns 0, or 1 where damaged files were skipped.

    Raises DrawingError.
    """
    if not args.out.name.endswith((".jsonl", ".jsonl.gz")):
        raise DrawingError(f"{args.out} must end in .jsonl or .jsonl.gz, for training finds stroke files by that.")
    skipped: list[DrawingError] = []
    if args.source == "pendigits":
        drawings = [drawing for path in args.files for drawing in read_pendigits(path)]
    else:
        skip = skipped.append if args.skip_damaged else None
        read = (read_unipen(args.folder, category, skip=skip) for category in args.category)
        drawings = without_duplicates(drawing for part in read for drawing in part)
    for error in skipped:
        print(f"Left out: {error}", file=sys.stderr)
    if not drawings:
        raise DrawingError(f"{args.folder} holds no such drawings; give another --category.")
    try:
        write_drawings(args.out, drawings)
    except OSError as error:
        raise DrawingError(f"{args.out} cannot be written ({error.strerror}); give another --out.") from error
    print(f"{len(drawings)} drawings by {len({drawing.writer for drawing in drawings})} writers in {args.out}")
    return 1 if skipped else 0
