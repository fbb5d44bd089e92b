"""A sheet or a photo → a Reading: what the page shows of it, as plain JSON.

One digit or several: the pieces that segment.py finds are joined as the network likes them best. Also puts doubt into
words. Knows no Gradio.
"""

import base64
import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from PIL import Image

from .. import segment
from ..drawings import SHEET, draw
from ..preprocess import PictureError, find_ink, frame, open_picture, to_ink
from .limits import LIMITS

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
BLANK = "The sheet is blank. Draw a digit, or a number like 2026."
LONGEST_JOIN = 5  # neighbouring pieces that may make up one digit
GAP_COST = 8.0  # what a gap inside a digit costs, as a logarithm, per height of the writing: strokes of one digit lie close
LOW_COST = 6.0  # what a digit lower than LEAST_HEIGHT costs, likewise, per height of the tallest mark
LEAST_HEIGHT = 0.55  # of the tallest mark: the digits of one line are about equally high
CUT_COST = 2.0  # what a cut through ink costs, likewise: most marks are whole digits
SEVERAL_ABOVE = 0.5  # where every digit of a number is read at least this well, several are believed over one
NOT_ONE_BELOW = 0.3  # where one digit is read no better than this, several need only be read so well on the whole
NOT_ONE_AT_ALL = 0.02  # where one digit is read this badly, three and more need be read ...
LEAST_EACH = 0.1  # ... only so well
CUT_ABOVE = 0.9  # digits cut from one mark need be read this well: slices of letters look like digits, too
LEVEL = math.radians(0.5)  # a line in a photo that runs straighter than this is left as it is
POORLY = 0.5  # a photo whose digits are read no better than this is tried with ink and paper exchanged
PHOTO_SHOWN = 900  # pixels, longer side of the photo sent back


@dataclass(frozen=True)
class Stroke:
    """One stroke on the sheet: points n×2 in sheet pixels, radius of the round tip, and whether it erases."""

    points: np.ndarray
    radius: float
    erases: bool = False


@dataclass(frozen=True)
class Part:
    """One digit found in a picture: its box in ink pixels, the digit 28×28, and what was read in it."""

    box: tuple[int, int, int, int]  # left, top, right, bottom
    digit: np.ndarray
    prediction: object
    cut: bool = False

    @property
    def score(self) -> float:
        return max(self.prediction.p_digit * self.prediction.confidence, 1e-6)


def strokes_from(sent) -> list[Stroke]:
    """What the page's script sends, [[erases, radius, [x, y, x, y, ...]], ...] → strokes. PictureError if it is not that."""
    if not isinstance(sent, list) or len(sent) > LIMITS.strokes:
        raise PictureError("That is more ink than one sheet holds. Press Clear and draw again.")
    strokes, points = [], 0
    for row in sent:
        try:
            erases, radius, flat = row
            with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused as that below
                array = np.asarray(flat, dtype=np.float32).reshape(-1, 2)
            radius = float(radius)
        except (TypeError, ValueError, OverflowError) as error:
            raise PictureError("These strokes cannot be read. Reload the page and draw again.") from error
        points += len(array)
        if points > LIMITS.points:
            raise PictureError("That is more ink than one sheet holds. Press Clear and draw again.")
        if not len(array):
            continue
        if not np.isfinite(array).all() or not 0.5 <= radius <= SHEET / 2:
            raise PictureError("These strokes cannot be read. Reload the page and draw again.")
        reach = LIMITS.reach * SHEET
        strokes.append(Stroke(np.clip(array, -reach, reach), radius, bool(erases)))
    return strokes


def sheet_of(strokes: Sequence[Stroke]) -> np.ndarray:
    """The sheet after these strokes, as drawings.draw renders it for training: uint8 280×280, ink 0 on paper 255."""
    sheet = np.full((SHEET, SHEET), 255, np.uint8)
    run: list[Stroke] = []
    for stroke in strokes:
        if run and (stroke.erases, stroke.radius) != (run[0].erases, run[0].radius):
            sheet, run = _lay(sheet, run), []
        run.append(stroke)
    return _lay(sheet, run) if run else sheet


def _lay(sheet: np.ndarray, run: list[Stroke]) -> np.ndarray:
    drawn = draw([stroke.points for stroke in run], brush=2 * run[0].radius)
    return np.maximum(sheet, 255 - drawn) if run[0].erases else np.minimum(sheet, drawn)


class Reader:
    """Reads sheets, pictures and photos with one recognizer, and says what the page shows of them."""

    def __init__(self, recognizer):
        self.recognizer = recognizer

    def sheet(self, strokes: Sequence[Stroke], *, steps: bool = False) -> dict:
        """The Reading of a sheet with these strokes. steps: with the views and their votes."""
        return self.picture(sheet_of(strokes), steps=steps)

    def picture(self, picture, *, steps: bool = False) -> dict:
        """The Reading of a picture (anything preprocess reads)."""
        begin = time.perf_counter()
        ink = to_ink(picture)
        whole, parts = self._read(ink)
        reading = self._answer(whole, parts)
        reading["ms"] = round(1000 * (time.perf_counter() - begin), 1)
        if steps and whole is not None:
            reading["steps"] = self._steps(ink, parts or [whole])
        return reading

    def photo(self, path) -> dict:
        """The Reading of a photo of digits on paper, with the photo itself as a small JPEG for the page."""
        begin = time.perf_counter()
        image = open_picture(path)
        ink = segment.photo_ink(image)
        parts = self._photo_line(ink)
        if _well_read(parts) < POORLY:  # what lies around the paper may have passed for ink
            other = segment.photo_ink(image, inverted=True)
            others = self._photo_line(other)
            if _well_read(others) > max(_well_read(parts), POORLY):
                ink, parts = other, others
        whole = parts[0] if len(parts) == 1 else self._part(_piece_of(ink)) if parts else None
        reading = self._answer(whole, parts if len(parts) > 1 else [])
        if not parts:
            reading["say"] = "No writing found in this picture. Try a closer photo, with dark ink and even light."
        reading["boxes"] = [_box(part) for part in parts]
        reading["size"] = [ink.shape[1], ink.shape[0]]
        reading["ms"] = round(1000 * (time.perf_counter() - begin), 1)
        shown = image.convert("RGB")
        shown.thumbnail((PHOTO_SHOWN, PHOTO_SHOWN))
        buffer = io.BytesIO()
        shown.save(buffer, "JPEG", quality=85)
        reading["photo"] = base64.b64encode(buffer.getvalue()).decode()
        return reading

    def why(self, strokes: Sequence[Stroke], *, against: int | None = None) -> dict:
        """What speaks for the answer on a sheet and not for `against` (the runner-up, if None)."""
        ink = to_ink(sheet_of(strokes))
        whole, parts = self._read(ink)
        if whole is None:
            return {"say": BLANK}
        part = min(parts, key=lambda part: part.score) if parts else whole
        top = part.prediction.top(2)
        other = top[1][0] if against is None or against == top[0][0] else against
        weights = self.recognizer.saliency(part.digit, against=other)
        return {
            "say": f"Why {top[0][0]} and not {other}: ink or bare paper in the first colour speaks for {top[0][0]}, "
            f"in the second for {other}.",
            "digit": top[0][0],
            "against": other,
            "weights": _pack(np.round(np.clip(weights, -1, 1) * 127 + 128).astype(np.uint8)),
            "seen": _pack(part.prediction.seen),
        }

    def _part(self, piece: segment.Piece) -> Part:
        return self._parts([piece])[0]

    def _parts(self, pieces: Sequence[segment.Piece]) -> list[Part]:
        digits = [frame(piece.ink) for piece in pieces]
        digits = [np.zeros((28, 28), np.float32) if digit is None else digit for digit in digits]
        predictions = self.recognizer.read(digits)
        return [
            Part((p.box.left, p.box.top, p.box.right, p.box.bottom), digit, prediction, p.cut)
            for p, digit, prediction in zip(pieces, digits, predictions, strict=True)
        ]

    def _read(self, ink: np.ndarray) -> tuple[Part | None, list[Part]]:
        """The ink read as one digit (None on a blank sheet), and as several where that is more likely (else [])."""
        if not ink.any():
            return None, []
        whole = self._part(_piece_of(ink))
        if segment.alone(ink):
            return whole, []
        pieces = segment.find_pieces(ink, most=LIMITS.pieces)
        if len(pieces) < 2:
            return whole, []
        parts = self._best_line(pieces)
        if len(parts) < 2:
            return whole, []
        return whole, parts if _several(whole, parts) else []

    def _best_line(self, pieces: Sequence[segment.Piece]) -> list[Part]:
        """The pieces, neighbours joined where that reads better: the best path through all ways to join them."""
        n = len(pieces)
        tallest = max((piece.height for piece in pieces), default=0)
        spans, joined, costs = [], [], []
        for start in range(n):
            for end in range(start + 1, n + 1):
                one_mark = all(piece.cut_right for piece in pieces[start : end - 1])
                if end - start > LONGEST_JOIN and not one_mark:
                    break
                piece = segment.join(pieces[start:end])
                wide = piece.width > 1.3 * max(piece.height, 0.5 * tallest)
                # Only what is a single mark as it stands may be as wide as it likes.
                if (wide or end - start > LONGEST_JOIN) and (piece.cut or not one_mark):
                    continue
                gaps = sum(max(b.box.left - a.box.right, 0) for a, b in pairwise(pieces[start:end])) / tallest
                low = max(LEAST_HEIGHT - piece.height / tallest, 0.0)
                spans.append((start, end))
                joined.append(piece)
                costs.append(GAP_COST * gaps + LOW_COST * low + CUT_COST * piece.cut_left)
        parts = self._parts(joined) if joined else []
        best: list[tuple[float, list[Part]]] = [(0.0, [])] + [(-math.inf, [])] * n
        for (start, end), part, cost in sorted(zip(spans, parts, costs, strict=True), key=lambda item: item[0][1]):
            # Weighted by the pieces it covers: else fewer digits would always look better than more.
            score = best[start][0] + (end - start) * math.log(part.score) - cost
            if score > best[end][0]:
                best[end] = (score, [*best[start][1], part])
        return best[n][1]

    def _photo_line(self, ink: np.ndarray) -> list[Part]:
        """The digits in a photo's ink, after their line was turned level; their boxes in the photo as it is."""
        pieces = segment.find_pieces(ink, most=LIMITS.pieces)
        tilt = segment.tilt(pieces)
        if abs(tilt) < LEVEL:
            return self._best_line(pieces)
        level, back = segment.turn(ink, tilt)
        parts = self._best_line(segment.find_pieces(level, most=LIMITS.pieces))
        return [replace(part, box=_turned(part.box, back, ink.shape)) for part in parts]

    def _answer(self, whole: Part | None, parts: Sequence[Part]) -> dict:
        if whole is None:
            return {"verdict": "blank", "say": BLANK, "doubt": False, "label": None, "probabilities": None, "number": None}
        prediction = whole.prediction
        reading = {
            "verdict": prediction.verdict,
            "digit": prediction.digit,
            "confidence": prediction.confidence,
            "p_digit": prediction.p_digit,
            "probabilities": list(prediction.probabilities),
            "seen": [_pack(prediction.seen)],
            "thumb": _pack(prediction.seen),
            "number": None,
        }
        if parts:
            text = "".join(str(part.prediction.digit) for part in parts)
            confidence = math.prod(part.prediction.confidence for part in parts)
            reading["number"] = {"text": text, "confidence": confidence}
            reading["boxes"] = [_box(part) for part in parts]
            reading["seen"] = [_pack(part.prediction.seen) for part in parts]
            reading["verdict"] = "unsure" if any(_doubtful(part) for part in parts) else "digit"
            reading["confidence"] = confidence
            reading["label"] = _label(_numbers(parts))
            least = min(parts, key=lambda part: part.score)
            reading["probabilities"] = list(least.prediction.probabilities)
            reading["probabilities_of"] = list(parts).index(least)
        else:
            reading["label"] = _label([(str(digit), p) for digit, p in prediction.top(3)])
        reading["doubt"] = reading["verdict"] != "digit"
        reading["say"] = _say(prediction, parts)
        return reading

    def _steps(self, ink: np.ndarray, parts: Sequence[Part]) -> dict:
        """How the least sure digit became an answer: its box on the sheet, the views of it, and the vote of each."""
        least = min(parts, key=lambda part: part.score)
        views, names, votes = self.recognizer.views_of(least.digit)
        which = f"the {ORDINALS[list(parts).index(least)]} digit, the least sure one" if 1 < len(parts) <= 10 else None
        winners = votes.argmax(axis=1)
        agree = int((winners == least.prediction.digit).sum())
        return {
            "which": which,
            "sheet": _png(_small(ink)),
            "box": [least.box[0], least.box[1], least.box[2], least.box[3]],
            "size": [ink.shape[1], ink.shape[0]],
            "seen": _pack(least.prediction.seen),
            "views": [
                {"name": name, "seen": _pack(view), "digit": int(vote.argmax()), "confidence": float(vote.max())}
                for view, name, vote in zip(views, names, votes, strict=True)
            ],
            "say": f"All {len(winners)} views vote {least.prediction.digit}."
            if agree == len(winners)
            else f"{agree} of {len(winners)} views vote {least.prediction.digit}: the vote is split.",
        }


def _piece_of(ink: np.ndarray) -> segment.Piece:
    box = find_ink(ink)
    return segment.Piece(box, ink[box.top : box.bottom, box.left : box.right])


def _turned(box: tuple[int, int, int, int], matrix: np.ndarray, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """The upright box, inside a picture of this shape, around a box that a 2×3 matrix has moved there."""
    left, top, right, bottom = box
    corners = np.array([[left, top, 1], [right, top, 1], [left, bottom, 1], [right, bottom, 1]]) @ matrix.T
    low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    return max(int(low[0]), 0), max(int(low[1]), 0), min(int(high[0]), shape[1]), min(int(high[1]), shape[0])


def _well_read(parts: Sequence[Part]) -> float:
    """How well the digits of a line are read, 0 to 1: the geometric mean."""
    return math.exp(sum(math.log(part.score) for part in parts) / len(parts)) if parts else 0.0


def _several(whole: Part, parts: Sequence[Part]) -> bool:
    """Whether the parts are more likely a number than the whole is one digit."""
    together = _well_read(parts)
    if together <= whole.score:
        return False
    if any(part.cut for part in parts):
        return together > CUT_ABOVE
    if min(part.score for part in parts) > SEVERAL_ABOVE or (whole.score < NOT_ONE_BELOW and together > SEVERAL_ABOVE):
        return True
    # Three marks and more in a row are a number in a strange hand rather than one digit in pieces.
    return len(parts) > 2 and whole.score < NOT_ONE_AT_ALL and together > LEAST_EACH


def _doubtful(part: Part) -> bool:
    return part.cut or part.prediction.verdict != "digit"


def _box(part: Part) -> dict:
    prediction = part.prediction
    return {
        "box": list(part.box),
        "digit": prediction.digit,
        "confidence": prediction.confidence,
        "doubt": _doubtful(part),
        "touches": part.cut,
        "seen": _pack(prediction.seen),
    }


def _numbers(parts: Sequence[Part]) -> list[tuple[str, float]]:
    """The three likeliest numbers: the best, and those that differ in the one digit that is easiest to doubt."""
    best = [part.prediction.digit for part in parts]
    confidence = math.prod(part.prediction.confidence for part in parts)
    others = []
    for i, part in enumerate(parts):
        for digit, p in part.prediction.top(3)[1:]:
            text = "".join(str(d) for d in [*best[:i], digit, *best[i + 1 :]])
            others.append((text, confidence * p / max(part.prediction.confidence, 1e-9)))
    others.sort(key=lambda item: -item[1])
    return [("".join(map(str, best)), confidence), *others[:2]]


def _label(ranked: Sequence[tuple[str, float]]) -> dict:
    """What gr.Label shows."""
    return {"label": ranked[0][0], "confidences": [{"label": name, "confidence": p} for name, p in ranked]}


def _say(prediction, parts: Sequence[Part]) -> str:
    """The answer, and the doubt in it, in one sentence."""
    if parts:
        text = "".join(str(part.prediction.digit) for part in parts)
        count = ("", "", "two", "three", "four", "five", "six")[len(parts)] if len(parts) <= 6 else str(len(parts))
        if any(part.cut for part in parts):
            return f"Some of these digits touch, so {text} is a guess. Leave a gap between them to be sure."
        doubtful = [(i, part) for i, part in enumerate(parts) if _doubtful(part)]
        if doubtful:
            i, part = doubtful[0]
            which = ORDINALS[i] if i < len(ORDINALS) else f"{i + 1}th"
            first, second = (digit for digit, _ in part.prediction.top(2))
            return f"This looks like {count} digits: {text}. The {which} may be {_a(second)} rather than {_a(first)}."
        return f"This looks like {count} digits: {text}."
    (first, _), (second, _) = prediction.top(2)
    if prediction.verdict == "not_a_digit":
        return f"This does not look like a digit. If it is one, it is closest to {_a(first)}."
    if prediction.verdict == "unsure":
        if prediction.confidence >= 0.9:
            return f"An unusual {first}, if it is one."
        return f"{first} or {second}? Leaning to {first}."
    return f"That is {_a(first)}."


def _a(digit: int) -> str:
    return f"an {digit}" if digit == 8 else f"a {digit}"


def _pack(picture: np.ndarray) -> str:
    """28×28 bytes as base64: a quarter of what a PNG would take, and the page paints it itself."""
    return base64.b64encode(np.ascontiguousarray(picture, dtype=np.uint8).tobytes()).decode()


def _small(ink: np.ndarray) -> np.ndarray:
    sheet = Image.fromarray(np.round(255 * (1 - ink)).astype(np.uint8))
    sheet.thumbnail((140, 140), Image.Resampling.BOX)
    return np.asarray(sheet)


def _png(gray: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
