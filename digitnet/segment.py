"""Several digits on one sheet, or on a photo: ink → pieces, left to right.

Pieces are fragments of writing: whole digits, detached strokes of one, or slices of digits that touch. Who reads them
joins neighbours as the network likes them best; here is only geometry. OpenCV does the pixel work and is imported when
it is first needed: a sheet with one digit never needs it. Knows no network and no page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from .preprocess import Crop, find_ink, open_picture

LONE_ASPECT = 1.0  # ink in one block, narrower than this per height, is taken for one digit
SPECK = 0.012  # of the writing's height, squared: a component with less ink than that is dirt
WIDE = 1.25  # width per height of a component beyond which it may be several digits that touch
PHOTO_SIDE = 1600  # pixels; larger photos are reduced to this first


@dataclass(frozen=True)
class Piece:
    """Some ink of a picture and where it lies. ink: float32, only this piece's own, cropped to box. cut: a cut made it."""

    box: Crop
    ink: np.ndarray
    cut: bool = False

    @property
    def height(self) -> int:
        return self.box.bottom - self.box.top

    @property
    def width(self) -> int:
        return self.box.right - self.box.left


def alone(ink: np.ndarray) -> bool:
    """Whether the ink (H×W) is one block without a gap and no wider than a digit. Costs next to nothing."""
    box = find_ink(ink)
    if box is None:
        return True
    columns = ink[box.top : box.bottom, box.left : box.right].any(axis=0)
    return bool(columns.all()) and columns.size < LONE_ASPECT * (box.bottom - box.top)


def find_pieces(ink: np.ndarray, *, most: int = 24) -> list[Piece]:
    """The pieces of a line of digits, left to right; at most `most`, the largest. ink: float H×W in 0..1."""
    import cv2

    mask = (ink > 0.25 * float(ink.max(initial=0.0))).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return []
    tallest = float(np.quantile(stats[1:, cv2.CC_STAT_HEIGHT], 0.9)) if count > 2 else float(stats[1, cv2.CC_STAT_HEIGHT])
    least = max(4.0, (SPECK * tallest) ** 2, 0.01 * float(stats[1:, cv2.CC_STAT_AREA].max()))
    kept = [label for label in range(1, count) if stats[label, cv2.CC_STAT_AREA] >= least]
    kept = sorted(kept, key=lambda label: -stats[label, cv2.CC_STAT_AREA])[: 3 * most]
    pieces = []
    for label in kept:
        left, top, width, height = (int(v) for v in stats[label, :4])
        # The grey rim of a stroke lies below the threshold and belongs to it too.
        top, left = max(top - 1, 0), max(left - 1, 0)
        bottom, right = min(top + height + 2, ink.shape[0]), min(left + width + 2, ink.shape[1])
        own = cv2.dilate((labels[top:bottom, left:right] == label).astype(np.uint8), np.ones((3, 3), np.uint8))
        pieces.append(Piece(Crop(top, bottom, left, right), np.where(own > 0, ink[top:bottom, left:right], 0.0)))
    pieces = _gather(pieces)
    line = float(np.median([piece.height for piece in pieces]))
    cut = [part for piece in pieces for part in _cut(piece, line)]
    return sorted(sorted(cut, key=lambda piece: -float(piece.ink.sum()))[:most], key=lambda piece: piece.box.left)


def join(pieces: Sequence[Piece]) -> Piece:
    """One piece with the ink of all."""
    if len(pieces) == 1:
        return pieces[0]
    box = Crop(
        min(p.box.top for p in pieces),
        max(p.box.bottom for p in pieces),
        min(p.box.left for p in pieces),
        max(p.box.right for p in pieces),
    )
    ink = np.zeros((box.bottom - box.top, box.right - box.left), np.float32)
    for piece in pieces:
        top, left = piece.box.top - box.top, piece.box.left - box.left
        part = ink[top : top + piece.height, left : left + piece.width]
        np.maximum(part, piece.ink, out=part)
    return Piece(box, ink, any(p.cut for p in pieces))


def photo_ink(picture) -> np.ndarray:
    """A photo's writing as ink: float32 H×W in 0..1, however uneven the light and whichever is darker, ink or paper.

    picture: what preprocess takes. The light is taken for what a wide median filter leaves; the ink for what stands out.
    """
    import cv2

    gray = _gray(picture)
    side = max(gray.shape)
    window = max(3, side // 8) | 1
    # A median over a window far wider than a stroke sees paper only; a small copy of the picture is enough for that.
    factor = max(1, side // 320)
    small = cv2.resize(gray, (max(1, gray.shape[1] // factor), max(1, gray.shape[0] // factor)), interpolation=cv2.INTER_AREA)
    light = cv2.medianBlur(small, max(3, window // factor) | 1)
    light = cv2.resize(cv2.GaussianBlur(light, (0, 0), 5), (gray.shape[1], gray.shape[0]), interpolation=cv2.INTER_LINEAR)
    away = gray.astype(np.float32) - light.astype(np.float32)
    away = cv2.GaussianBlur(away, (0, 0), max(0.6, side / 900))
    dark, bright = np.clip(-away, 0, None), np.clip(away, 0, None)
    stands_out = dark if np.quantile(dark, 0.995) >= np.quantile(bright, 0.995) else bright
    return _clean(stands_out)


def _gray(picture) -> np.ndarray:
    if not isinstance(picture, (Image.Image, np.ndarray)):
        picture = open_picture(picture)
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, dtype=np.float32)
        picture = Image.fromarray((255 * (values - values.min()) / max(float(np.ptp(values)), 1e-6)).astype(np.uint8))
    gray = picture.convert("L")
    gray.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.BOX)
    return np.asarray(gray)


def _clean(stands_out: np.ndarray) -> np.ndarray:
    """What stands out of the paper → ink: Otsu's threshold, unless nothing stands out of the grain; dirt removed."""
    import cv2

    strongest = float(np.quantile(stands_out, 0.999))
    empty = np.zeros_like(stands_out, dtype=np.float32)
    grain = float(np.median(stands_out)) + 1.0
    if strongest < max(12.0, 6.0 * grain):
        return empty
    scaled = np.clip(stands_out / strongest * 255, 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    threshold = max(float(threshold), 40.0)
    ink = np.clip((scaled.astype(np.float32) - 0.6 * threshold) / max(0.7 * threshold, 1.0), 0.0, 1.0)
    mask = (scaled > threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return empty
    height, width = ink.shape
    heights = stats[1:, cv2.CC_STAT_HEIGHT]
    tallest = float(heights.max())
    keep = np.zeros(count, np.uint8)
    for label in range(1, count):
        left, top, wide, tall, area = (int(v) for v in stats[label])
        at_edge = left <= 1 or top <= 1 or left + wide >= width - 1 or top + tall >= height - 1
        whole_side = wide > 0.9 * width or tall > 0.9 * height
        # The edge of the sheet or a shadow's border comes in from the edge of the photo; digits stand free.
        if (at_edge and (whole_side or area < 0.02 * wide * tall)) or max(wide, tall) < 0.12 * tallest:
            continue
        keep[label] = 1
    near = cv2.dilate(keep[labels], np.ones((3, 3), np.uint8), iterations=2)
    return np.where(near > 0, ink, 0.0).astype(np.float32)


def _gather(pieces: list[Piece]) -> list[Piece]:
    """Joins what can only be one digit: strokes that lie above one another, and small parts beside a large one."""
    line = max(piece.height for piece in pieces)
    pieces = sorted(pieces, key=lambda piece: piece.box.left)
    merged = True
    while merged:
        merged = False
        for i in range(len(pieces)):
            for j in range(i + 1, len(pieces)):
                if _belong(pieces[i], pieces[j], line=line):
                    pieces[i] = join([pieces[i], pieces.pop(j)])
                    merged = True
                    break
            if merged:
                break
    return pieces


def _belong(a: Piece, b: Piece, *, line: float) -> bool:
    overlap = min(a.box.right, b.box.right) - max(a.box.left, b.box.left)
    if overlap <= 0:
        return False
    share = overlap / min(a.width, b.width)
    both_tall = min(a.height, b.height) > 0.6 * line
    return share > (0.75 if both_tall else 0.4)


def _cut(piece: Piece, line: float) -> list[Piece]:
    """A component too wide for one digit, cut where least ink lies above one another; else the piece itself."""
    if piece.width < WIDE * piece.height or piece.height < 0.4 * line:
        return [piece]
    wanted = max(2, round(piece.width / (0.75 * piece.height)))
    profile = piece.ink.sum(axis=0)
    kernel = max(3, piece.height // 12) | 1
    profile = np.convolve(profile, np.ones(kernel) / kernel, mode="same")
    places = []
    for k in range(1, min(wanted, 8)):
        middle, reach = k * piece.width / wanted, 0.3 * piece.width / wanted
        low, high = int(middle - reach), int(middle + reach) + 1
        places.append(low + int(profile[low:high].argmin()))
    edges = [0, *places, piece.width]
    parts = []
    for left, right in pairwise(edges):
        ink = piece.ink[:, left:right]
        inner = find_ink(ink)
        if inner is not None:
            box = Crop(
                piece.box.top + inner.top,
                piece.box.top + inner.bottom,
                piece.box.left + left + inner.left,
                piece.box.left + left + inner.right,
            )
            parts.append(Piece(box, ink[inner.top : inner.bottom, inner.left : inner.right], cut=True))
    return parts
