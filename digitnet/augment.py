"""Random views of a whole batch at once, through the same warp() and thicken() as the views that vote.

Affine and elastic (Simard, Steinkraus & Platt 2003), pen weight and ink strength; all in batched tensors, for a transform
at a time in a loader is where most training time goes. Never mirrored.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .preprocess import SIDE
from .views import affine, thicken, warp


@dataclass(frozen=True)
class AugmentConfig:
    """How far digits are bent. Uniform within ± the value, unless told otherwise.

    turn: degrees; lean: x per y; zoom: factor, each axis; shift: pixels; bend: pixels, standard deviation of the elastic
    field at its knots; knots: of the field, per side; pen: heaviest change of line weight (see thicken), on half of the
    digits; fade: weakest ink, as a share of full.
    """

    turn: float = 10.0
    lean: float = 0.15
    zoom: float = 0.1
    shift: float = 1.0
    bend: float = 0.7
    knots: int = 6
    pen: float = 0.6
    fade: float = 0.7


def augment(digits: torch.Tensor, config: AugmentConfig, generator: torch.Generator) -> torch.Tensor:
    """digits float N×1×28×28 in 0..1 → as many, each bent its own way. Same generator state, same result."""
    n, device = len(digits), digits.device

    def within(limit: float) -> torch.Tensor:
        return ((torch.rand(n, generator=generator) * 2 - 1) * limit).to(device)

    matrices = affine(
        turn=within(torch.pi * config.turn / 180),
        lean=within(config.lean),
        zoom_x=1 + within(config.zoom),
        zoom_y=1 + within(config.zoom),
        right=within(config.shift),
        down=within(config.shift),
    )
    knots = torch.randn(n, 2, config.knots, config.knots, generator=generator).to(device) * (config.bend * 2 / SIDE)
    bend = F.interpolate(knots, size=(SIDE, SIDE), mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    bent = warp(digits, matrices, bend)
    half = (torch.rand(n, generator=generator) < 0.5).to(device)
    bent = thicken(bent, within(config.pen) * half)
    strength = 1 - (torch.rand(n, 1, 1, 1, generator=generator) * (1 - config.fade)).to(device)
    return (bent * strength).clamp(0, 1)
