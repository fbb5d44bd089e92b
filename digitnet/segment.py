"""Several digits on one sheet, or on a photo: ink → pieces, left to right.

Pieces are fragments of writing: whole digits, detached strokes of one, or slices of digits that touch. Who reads them
joins neighbours as the network likes them best; here is only geometry. OpenCV does the pixel work and is imported when
it is first needed: a sheet with one digit never needs it. Knows no network and no page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from .preprocess import Crop, find_ink, open_picture

LONE_ASPECT = 1.0  # ink in one block, narrower than this per height, is taken for one digit
SPECK = 0.012  # of the writing's height, squared: a component with less ink than that is dirt
DOT = 0.25  # of the writing's height: what stands alone and is no larger is a dot, no digit and no part of one
FAR = 0.4  # of the writing's height: strokes further above one another are not of one digit
WIDE = 1.25  # width per height of a component beyond which it may be several digits that touch
SLICE = 0.2  # of its height: the narrowest slice of such a component
UNEVEN = 0.10  # of the writing's height: how far a digit's middle lies off its line (standard deviation)
LEANING = 0.11  # slope of a line in a photo (standard deviation): people hold a camera level to some 6°
MOST_TILT = math.radians(20)
PHOTO_SIDE = 1600  # pixels; larger photos are reduced to this first
MISFIT = 14.0  # grey levels: a photo that lies further off a smooth surface than this shows more than paper
LIGHT_SIDE = 200  # pixels of the copy in which the light on the paper is found


@dataclass(frozen=True)
class Piece:
    """Some ink of a picture and where it lies. ink: float32, only this piece's own, cropped to box.

    cut_left, cut_right: whether that side is a cut through ink, on whose other side the neighbouring piece goes on.
    """

    box: Crop
    ink: np.ndarray
    cut_left: bool = False
    cut_right: bool = False

    @property
    def cut(self) -> bool:
        return self.cut_left or self.cut_right

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
    if not pieces:
        return []
    pieces = _gather(pieces)
    least_side = DOT * max(piece.height for piece in pieces)
    pieces = [piece for piece in pieces if max(piece.height, piece.width) > least_side]
    line = float(np.median([piece.height for piece in pieces]))
    cut = [part for piece in pieces for part in _cut(piece, line)]
    return sorted(sorted(cut, key=lambda piece: -float(piece.ink.sum()))[:most], key=lambda piece: piece.box.left)


def join(pieces: Sequence[Piece]) -> Piece:
    """One piece with the ink of all; pieces are neighbours, left to right."""
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
    return Piece(box, ink, pieces[0].cut_left, pieces[-1].cut_right)


def tilt(pieces: Sequence[Piece]) -> float:
    """How far the line of these pieces runs from level: radians, positive where it falls to the right.

    The slope through their middles, drawn towards level as far as a few uneven digits leave it open.
    """
    tallest = max((piece.height for piece in pieces), default=0)
    whole = [piece for piece in pieces if piece.height > 0.5 * tallest]
    if len(whole) < 2:
        return 0.0
    middles = np.array([(p.box.left + p.box.right, p.box.top + p.box.bottom) for p in whole]) / (2 * tallest)
    across, down = (middles - middles.mean(axis=0)).T
    # Least squares with a normal prior on the slope (ridge regression): the prior weighs UNEVEN² / LEANING².
    slope = float(across @ down) / float(across @ across + (UNEVEN / LEANING) ** 2)
    return float(np.clip(math.atan(slope), -MOST_TILT, MOST_TILT))


def turn(ink: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Ink turned so that a line with this tilt (radians) runs level, and the 2×3 matrix that leads from it back to `ink`."""
    import cv2

    height, width = ink.shape
    cos, sin = math.cos(angle), math.sin(angle)
    size = math.ceil(width * cos + height * abs(sin)), math.ceil(height * cos + width * abs(sin))
    back = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
    back[:, 2] = np.array([width, height]) / 2 - back[:, :2] @ np.array(size) / 2
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(ink, back, size, flags=flags), back


def photo_ink(picture, *, inverted: bool = False) -> np.ndarray:
    """A photo's writing as ink: float32 H×W in 0..1, however uneven the light and whichever is darker, ink or paper.

    picture: what preprocess takes. Paper is what a smooth surface through most of the photo shows, and then whatever is
    wider than a stroke; ink is what stands out of it. inverted: take the less likely of dark and light for ink.
    """
    import cv2

    gray = _gray(picture)
    height, width = gray.shape
    side = max(height, width)
    factor = max(1.0, side / LIGHT_SIDE)  # light changes slowly: a small copy of the photo shows it
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    light = _surface(small)
    small -= light
    flat = cv2.medianBlur(small, 3)
    # Strokes stand out of their surroundings, one way or the other; a table's edge or a wide shadow does not.
    around = cv2.medianBlur(np.clip(flat + 128, 0, 255).astype(np.uint8), max(3, max(size) // 3) | 1)
    stands_out = flat + 128 - around
    dark_ink = (-np.quantile(stands_out, 0.005) >= np.quantile(stands_out, 0.995)) != inverted
    # Closing fills whatever is narrower than the window, strokes of any digit, and leaves the edges of shadows.
    window = np.ones((max(3, max(size) // 5) | 1,) * 2, np.uint8)
    shade = cv2.morphologyEx(flat, cv2.MORPH_CLOSE if dark_ink else cv2.MORPH_OPEN, window)
    # Where paper ends, the light must end a little before it, or the table's rim would stand out like ink.
    shade = cv2.morphologyEx(shade, cv2.MORPH_ERODE if dark_ink else cv2.MORPH_DILATE, np.ones((5, 5), np.uint8))
    light += cv2.GaussianBlur(shade, (0, 0), 1)
    light = cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR)
    away = light - gray if dark_ink else gray - light
    away = cv2.GaussianBlur(away, (0, 0), max(0.6, side / 900))
    return _clean(_without_surroundings(np.clip(away, 0, None)))


def _surface(gray: np.ndarray) -> np.ndarray:
    """The light on the paper as a quadratic surface, fitted to the photo (float32 H×W), again and again without what lies
    far off it; level where most of the photo lies off it, as with a table around the paper."""
    down, across = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in gray.shape), indexing="ij")
    terms = np.stack([np.ones_like(down), down, across, down * across, down**2, across**2], -1).reshape(-1, 6)
    values = gray.reshape(-1)
    weights = np.ones_like(values)
    for _ in range(8):
        weighted = terms * weights[:, None]
        # A ridge: the narrowest photos leave some terms without a say.
        factors = np.linalg.solve(weighted.T @ terms + 1e-3 * np.eye(6, dtype=np.float32), weighted.T @ values)
        off = np.abs(values - terms @ factors)
        weights = 1 / (1 + (off / max(1.5 * float(np.median(off)), 1.0)) ** 4)
    if float(np.median(off)) > MISFIT:
        return np.full_like(gray, np.median(gray))
    return (terms @ factors).reshape(gray.shape)


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


def _without_surroundings(stands_out: np.ndarray) -> np.ndarray:
    """The same without what comes in from the photo's edge and is large: the table beside the paper."""
    import cv2

    height, width = stands_out.shape
    mask = (stands_out > max(12.0, 0.35 * float(np.quantile(stands_out, 0.999)))).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    rim = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    table = np.zeros(count, np.uint8)
    for label in rim[rim > 0]:
        wide, tall, area = (int(v) for v in stats[label, 2:5])
        table[label] = wide > 0.4 * width or tall > 0.4 * height or area > 0.03 * width * height
    if not table.any():
        return stands_out
    return np.where(cv2.dilate(table[labels], np.ones((7, 7), np.uint8)) > 0, 0.0, stands_out)


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
    apart = max(a.box.top, b.box.top) - min(a.box.bottom, b.box.bottom)
    if overlap <= 0 or apart > FAR * line:
        return False
    share = overlap / min(a.width, b.width)
    both_tall = min(a.height, b.height) > 0.6 * line
    return share > (0.75 if both_tall else 0.4)


def _cut(piece: Piece, line: float) -> list[Piece]:
    """A component too wide for one digit, in slices: cut where less ink lies above one another than to either side."""
    if piece.width < WIDE * piece.height or piece.height < 0.4 * line:
        return [piece]
    kernel = max(3, piece.height // 12) | 1
    profile = np.convolve(piece.ink.sum(axis=0), np.ones(kernel) / kernel, mode="same")
    slice_width = max(4, round(SLICE * piece.height))
    places: list[int] = []
    for place in np.argsort(profile, kind="stable").tolist():
        around = profile[max(place - slice_width // 2, 0) : place + slice_width // 2 + 1]
        if profile[place] <= around.min() and all(abs(place - other) >= slice_width for other in [0, piece.width, *places]):
            places.append(place)
    places.sort()
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
            own = ink[inner.top : inner.bottom, inner.left : inner.right]
            parts.append(Piece(box, own, cut_left=left > 0, cut_right=right < piece.width))
    return parts
