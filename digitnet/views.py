"""The one warp, and the fixed views of a digit that vote.

The same digit always gives the same views, and the first of them is the digit itself. Views turn, lean, shift and resize
the digit a little and draw it thinner and thicker; they never mirror it, for a mirrored 2 is no 2. Training bends digits
through the same warp() and thicken(). Knows no network.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .preprocess import SIDE

FEW = 8  # digits; for fewer, one call of max_pool2d is quicker than several of anything


@dataclass(frozen=True)
class View:
    """One way to look at a digit: degrees clockwise, lean (x per y), zoom, shift in pixels right and down, and weight of
    the pen, -1 (thinner by a pixel) to 1 (thicker by a pixel)."""

    name: str
    turn: float = 0.0
    lean: float = 0.0
    zoom: float = 1.0
    right: float = 0.0
    down: float = 0.0
    pen: float = 0.0


VIEWS = (
    View("as drawn"),
    View("larger", zoom=1.06),
    View("leaning left", lean=-0.07),
    View("turned right", turn=5.0, zoom=1.05, right=0.3, down=0.3),
    View("thicker", pen=0.25),
    View("thinner", pen=-0.25),
)


def affine(*, turn, lean, zoom_x, zoom_y, right, down) -> torch.Tensor:
    """The matrices warp() takes, float32 N×2×3, from float tensors of N: radians, x per y, factors and pixels.

    They lead from the place in the result to the place in the digit, in the units of affine_grid (-1..1 over 28 pixels).
    """
    cos, sin = torch.cos(turn), torch.sin(turn)
    # The inverse of zoom · lean · turn, written out: a larger digit is read with smaller steps.
    a, b = cos / zoom_x, sin / zoom_x
    c, d = -sin / zoom_y, cos / zoom_y
    matrix = torch.stack([torch.stack([a + lean * c, b + lean * d], -1), torch.stack([c, d], -1)], -2)
    shift = torch.stack([-right, -down], -1).unsqueeze(-1) * (2.0 / SIDE)
    return torch.cat([matrix, matrix @ shift], -1)


def warp(digits: torch.Tensor, matrices: torch.Tensor, bend: torch.Tensor | None = None) -> torch.Tensor:
    """digits N×1×28×28 moved by matrices N×2×3 (see affine), bilinear, paper outside.

    bend: N×28×28×2, a displacement of every pixel in the same units, or None.
    """
    grid = F.affine_grid(matrices, list(digits.shape), align_corners=False)
    if bend is not None:
        grid = grid + bend
    return F.grid_sample(digits, grid.to(digits.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)


def thicken(digits: torch.Tensor, pen: torch.Tensor) -> torch.Tensor:
    """digits N×1×28×28 with heavier (pen up to 1: every line a pixel wider on each side) or lighter lines (down to -1).

    pen: N. Grey-level dilation and erosion over 3×3 pixels, mixed in by |pen|.
    """
    amount = pen.view(-1, 1, 1, 1)
    wide = _extreme(digits, torch.maximum)
    fine = _extreme(digits, torch.minimum)
    return digits + amount.clamp(min=0) * (wide - digits) + (-amount).clamp(min=0) * (fine - digits)


def _extreme(digits: torch.Tensor, pick) -> torch.Tensor:
    """The largest (pick = torch.maximum) or smallest value of the 3×3 pixels around each pixel, as far as there are any."""
    if len(digits) < FEW:
        return F.max_pool2d(digits, 3, 1, 1) if pick is torch.maximum else -F.max_pool2d(-digits, 3, 1, 1)
    # Rows, then columns, by shifted copies: the same values, for a large batch in a tenth of the time.
    for axis in (-1, -2):
        left, right = digits.narrow(axis, 0, SIDE - 1), digits.narrow(axis, 1, SIDE - 1)
        digits = digits.clone()
        digits.narrow(axis, 1, SIDE - 1).copy_(pick(right, left))
        middle = digits.narrow(axis, 0, SIDE - 1)
        middle.copy_(pick(middle, right))
    return digits


class Viewer:
    """Turns digits into their views; made once, so that one call costs one warp. Same digit in, same views out."""

    def __init__(self, views: tuple[View, ...] = VIEWS):
        assert views and views[0] == View(views[0].name), "the first view is the digit itself"
        self.names = tuple(view.name for view in views)
        moved = [i for i, view in enumerate(views) if view != View(view.name, pen=view.pen)]
        self._moved = moved
        columns = {
            "turn": [torch.pi * views[i].turn / 180 for i in moved],
            "lean": [views[i].lean for i in moved],
            "zoom_x": [views[i].zoom for i in moved],
            "zoom_y": [views[i].zoom for i in moved],
            "right": [views[i].right for i in moved],
            "down": [views[i].down for i in moved],
        }
        matrices = affine(**{name: torch.tensor(values, dtype=torch.float32) for name, values in columns.items()})
        self._grid = F.affine_grid(matrices, [len(moved), 1, SIDE, SIDE], align_corners=False) if moved else None
        self._pens = [(i, view.pen) for i, view in enumerate(views) if view.pen]

    def __len__(self) -> int:
        return len(self.names)

    def __call__(self, digits: torch.Tensor) -> torch.Tensor:
        """digits float32 N×1×28×28 → their views, float32 N·V×1×28×28, the V views of a digit one after another."""
        n = len(digits)
        views = digits.unsqueeze(1).repeat(1, len(self), 1, 1, 1)  # N×V×1×28×28
        if self._moved:
            # The N digits ride as channels: one grid serves them all.
            stacked = digits.view(1, n, SIDE, SIDE).expand(len(self._moved), -1, -1, -1)
            moved = F.grid_sample(stacked, self._grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            views[:, self._moved] = moved.transpose(0, 1).unsqueeze(2)
        for i, pen in self._pens:  # thicken(), with the one half of it that this view needs
            plain = views[:, i]
            plain.lerp_(_extreme(plain, torch.maximum if pen > 0 else torch.minimum), abs(pen))
        return views.view(n * len(self), 1, SIDE, SIDE)
