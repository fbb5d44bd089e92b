"""Fits how logits become probabilities and verdicts, on validation pools, through the Recognizer's own views.

Temperature scaling (Guo et al. 2017) for the ten digits; logistic scaling (Platt 1999) for "a digit at all"; then the two
thresholds of the verdict. Sources weigh the same, however many pictures they have.
"""

import torch
from torch.nn import functional as F

from .checkpoint import Calibration
from .dataset import Pool
from .model import DIGITS, DigitNet
from .recognizer import Recognizer

REFUSED_DIGITS = 0.004  # share of validation digits that may be called "not a digit"


def calibrate(model: DigitNet, pools: dict[str, Pool]) -> tuple[Calibration, dict]:
    """(calibration, the figures it was fitted by). pools: validation only; where none holds non-digits, p_digit stays raw."""
    recognizer = Recognizer(model)
    logits, labels, weights = [], [], []
    for pool in pools.values():
        chunks = (pool.digits.float() / 255).split(256)
        mean = torch.cat([recognizer.logits(chunk).mean(1) for chunk in chunks]).double()
        logits.append(mean)
        labels.append(pool.labels)
        weights.append(torch.full((len(pool),), 1 / len(pool), dtype=torch.float64))
    logits, labels, weights = torch.cat(logits), torch.cat(labels), torch.cat(weights)
    is_digit = labels >= 0

    temperature = _temperature(logits[is_digit, :DIGITS], labels[is_digit], weights[is_digit])
    scale, shift = _platt(logits[:, DIGITS], is_digit, weights)
    p_digit = (scale * logits[:, DIGITS] + shift).sigmoid()
    confidence = (logits[:, :DIGITS] / temperature).softmax(-1).max(-1).values
    # Refuse as much as the allowance of wrongly refused digits permits, source by source alike.
    refuse = _weighted_quantile(p_digit[is_digit], weights[is_digit], REFUSED_DIGITS)
    calibration = Calibration(temperature, scale, shift, refuse_below=min(max(refuse, 0.02), 0.9), doubt_below=0.7)
    right = logits[is_digit, :DIGITS].argmax(-1) == labels[is_digit]
    figures = {
        "digits": int(is_digit.sum()),
        "others": int((~is_digit).sum()),
        "accuracy": right.double().mean().item(),
        "digits_refused": (p_digit[is_digit] < calibration.refuse_below).double().mean().item(),
        "others_refused": (p_digit[~is_digit] < calibration.refuse_below).double().mean().item() if (~is_digit).any() else None,
        "digits_in_doubt": (torch.minimum(p_digit, confidence)[is_digit] < calibration.doubt_below).double().mean().item(),
    }
    return calibration, figures


def _temperature(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> float:
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        losses = F.cross_entropy(logits / log_temperature.exp(), labels, reduction="none")
        return (losses * weights).sum() / weights.sum()

    _minimize([log_temperature], loss)
    return float(log_temperature.detach().exp().clamp(0.05, 20.0))


def _platt(logit: torch.Tensor, is_digit: torch.Tensor, weights: torch.Tensor) -> tuple[float, float]:
    if is_digit.all() or not is_digit.any():
        return 1.0, 0.0
    # Digits and others count the same: how many of either will come is not ours to know.
    balanced = torch.where(is_digit, weights / weights[is_digit].sum(), weights / weights[~is_digit].sum())
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        losses = F.binary_cross_entropy_with_logits(scale * logit + shift, is_digit.double(), reduction="none")
        return (losses * balanced).sum()

    _minimize([scale, shift], loss)
    return float(scale.detach()), float(shift.detach())


def _minimize(parameters: list[torch.Tensor], loss) -> None:
    optimizer = torch.optim.LBFGS(parameters, max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def _weighted_quantile(values: torch.Tensor, weights: torch.Tensor, share: float) -> float:
    order = values.argsort()
    reached = weights[order].cumsum(0) / weights.sum()
    return float(values[order][int(torch.searchsorted(reached, share).clamp(max=len(values) - 1))])
