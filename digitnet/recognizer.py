"""Recognizer: from any picture to a Prediction, the whole flow in one short method.

picture → ink → digit → views → logits → probabilities → prediction. One door for everybody: the page, the command line,
the evaluation and other programs. Knows no training and no page.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from . import checkpoint as checkpoints
from .checkpoint import Calibration, Checkpoint
from .engine import OnnxEngine, TorchEngine
from .model import DIGITS, DigitNet
from .preprocess import SIDE, to_digit
from .views import Viewer

VERDICTS = ("digit", "unsure", "not_a_digit", "blank")
BATCH = 128  # pictures a batch
SURE = 0.997  # of the digit, and of its being one: where the first view is, a batch asks no other view


@dataclass(frozen=True)
class Prediction:
    """What was read from one picture.

    digit: 0 to 9, the best guess on any ink; None on a blank sheet. confidence: calibrated probability of it, given that
    it is a digit; 0.0 on a blank sheet. probabilities: of all ten, sum 1; uniform on a blank sheet. p_digit: 0 to 1, how
    likely this is a digit at all. verdict: one of VERDICTS. seen: uint8 28×28, ink 255 on 0, what the network saw.
    """

    digit: int | None
    confidence: float
    probabilities: tuple[float, ...]
    p_digit: float
    verdict: str
    seen: np.ndarray

    def top(self, n: int = 3) -> list[tuple[int, float]]:
        """The n likeliest digits with their probabilities, best first; equals in the order of the digits."""
        return sorted(enumerate(self.probabilities), key=lambda item: -item[1])[:n]


class Recognizer:
    """Reads handwritten digits. Made by Recognizer.load(); safe to call from several threads."""

    def __init__(
        self, model: DigitNet | TorchEngine | OnnxEngine, calibration: Calibration | None = None, card: dict | None = None
    ):
        """model: a trained DigitNet, or an engine; calibration: how to read its logits; card: what is known of its making."""
        self.calibration = calibration or Calibration()
        self.card = card or {}
        self.viewer = Viewer()
        self._network = TorchEngine(model) if isinstance(model, DigitNet) else model

    @classmethod
    def load(cls, path=None) -> "Recognizer":
        """The repository's checkpoint from any working directory, or PATH: a checkpoint, or an export that ends in .onnx.

        Raises CheckpointError in one sentence.
        """
        if path is not None and str(path).endswith(".onnx"):
            engine = OnnxEngine(path)
            return cls(engine, engine.calibration, engine.card)
        return cls.from_checkpoint(checkpoints.load(path))

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> "Recognizer":
        return cls(checkpoint.model, checkpoint.calibration, checkpoint.metadata)

    def __call__(self, picture) -> Prediction:
        """picture: path, PIL.Image of any mode, or uint8 array H×W, H×W×3, H×W×4; dark on light or light on dark.

        Raises PictureError, in one sentence, for what cannot be read.
        """
        return self.read([to_digit(picture)])[0]

    def many(self, pictures: Iterable) -> list[Prediction]:
        """The same for many pictures, in their order, a batch at a time; the views are spared as by read(all_views=False)."""
        return list(self.stream(pictures))

    def stream(self, pictures: Iterable) -> Iterator[Prediction]:
        """many(), one Prediction at a time: holds two batches in memory, however many pictures come.

        While the network reads one batch, the next pictures are taken and prepared in a thread, where there is a core for it.
        """
        pictures = iter(pictures)

        def prepared() -> list[np.ndarray | None]:
            return [to_digit(picture) for picture in islice(pictures, BATCH)]

        batch = prepared()
        if len(batch) < BATCH or torch.get_num_threads() >= (os.cpu_count() or 1):
            while batch:
                yield from self.read(batch, all_views=False)
                batch = prepared()
            return
        with ThreadPoolExecutor(1) as ahead:
            while batch:
                coming = ahead.submit(prepared)
                yield from self.read(batch, all_views=False)
                batch = coming.result()

    def read(self, digits: Sequence[np.ndarray | None], *, all_views: bool = True) -> list[Prediction]:
        """Predictions for digits that preprocess.frame has made: float 28×28 in 0..1, or None for a blank sheet.

        all_views: whether every view votes on every digit. Without, the others vote only on what the first one is not SURE
        of, one digit in four: for many digits that is twice as quick, and no probability moves by more than 0.005.
        """
        inked = [digit for digit in digits if digit is not None]
        if not inked:
            return [blank() for _ in digits]
        stack = np.stack(inked)
        inks = torch.from_numpy(stack)
        logits = self.logits(inks).mean(1) if all_views else self._spared(inks)  # N×11, the views' mean
        probabilities, p_digits = self._probabilities(logits)
        seen = np.round(stack * 255).astype(np.uint8)
        answers = iter(self._prediction(*row) for row in zip(probabilities.tolist(), p_digits.tolist(), seen, strict=True))
        return [blank() if digit is None else next(answers) for digit in digits]

    def logits(self, digits: torch.Tensor) -> torch.Tensor:
        """digits float32 N×28×28 in 0..1 → logits of every view, float32 N×V×11."""
        with torch.inference_mode():
            logits = self._network(self.viewer(digits.view(-1, 1, SIDE, SIDE)))
        return logits.view(len(digits), len(self.viewer), -1)

    def sure(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits N×11 of one view → bool N: whether it is SURE of its digit, and that it is one."""
        probabilities, p_digits = self._probabilities(logits)
        return torch.minimum(probabilities.amax(-1), p_digits) >= SURE

    def _spared(self, digits: torch.Tensor) -> torch.Tensor:
        """digits as for logits() → N×11: the first view's logits where it is sure, and the mean of all views elsewhere."""
        with torch.inference_mode():
            logits = self._network(digits.view(-1, 1, SIDE, SIDE))
            asked = (~self.sure(logits)).nonzero().flatten()
            if len(asked):
                views = self.viewer(digits[asked].unsqueeze(1)).view(len(asked), -1, 1, SIDE, SIDE)
                others = self._network(views[:, 1:].flatten(0, 1)).view(len(asked), len(self.viewer) - 1, -1)
                logits[asked] = (logits[asked] + others.sum(1)) / len(self.viewer)
        return logits

    def _probabilities(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """logits …×11 → probabilities of the digits …×10, probability that it is one …; float64, so that sums are 1."""
        calibration = self.calibration
        logits = logits.double()
        probabilities = (logits[..., :DIGITS] / calibration.temperature).softmax(-1)
        return probabilities, (calibration.digit_scale * logits[..., DIGITS] + calibration.digit_shift).sigmoid()

    def _prediction(self, probabilities: list[float], p_digit: float, seen: np.ndarray) -> Prediction:
        digit = max(range(DIGITS), key=probabilities.__getitem__)
        confidence = probabilities[digit]
        if p_digit < self.calibration.refuse_below:
            verdict = "not_a_digit"
        elif min(p_digit, confidence) < self.calibration.doubt_below:
            verdict = "unsure"
        else:
            verdict = "digit"
        return Prediction(digit, confidence, tuple(probabilities), p_digit, verdict, seen)

    def views_of(self, digit: np.ndarray) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
        """The views of one digit (float 28×28 in 0..1) and their votes: uint8 V×28×28, V names, probabilities V×10."""
        digits = torch.from_numpy(np.asarray(digit, dtype=np.float32)).view(1, SIDE, SIDE)
        views = self.viewer(digits.view(1, 1, SIDE, SIDE)).view(-1, SIDE, SIDE)
        votes, _ = self._probabilities(self.logits(digits)[0])
        return (views.numpy() * 255).round().astype(np.uint8), self.viewer.names, votes.numpy()

    def saliency(self, digit: np.ndarray, *, against: int | None = None) -> np.ndarray:
        """Why this answer and not `against` (the runner-up, if None): float32 28×28 in -1..1 for float 28×28 in 0..1.

        Above zero: ink, or bare paper, that speaks for the answer; below: against it. Occlusion (Zeiler & Fergus 2014):
        each 3×3 patch is turned to paper, or to ink where it is paper, and the change of the margin between the two
        logits is the patch's weight.
        """
        base = torch.from_numpy(np.asarray(digit, dtype=np.float32))
        patches = torch.nn.functional.max_pool2d(torch.eye(SIDE * SIDE).view(-1, 1, SIDE, SIDE), 3, 1, 1)[:, 0]
        inked = base.flatten() > 0.3
        changed = torch.where(inked.view(-1, 1, 1), base * (1 - patches), torch.maximum(base, patches * 0.8))
        near = torch.nn.functional.max_pool2d(base.view(1, 1, SIDE, SIDE), 7, 1, 3).flatten() > 0.3
        tried = near.nonzero().flatten()
        with torch.inference_mode():
            logits = self._network(torch.cat([base.view(1, SIDE, SIDE), changed[tried]]).unsqueeze(1))[:, :DIGITS]
        best, second = logits[0].topk(2).indices.tolist()
        other = second if against is None else against
        margins = logits[:, best] - logits[:, other]
        drop = torch.zeros(SIDE * SIDE)
        drop[tried] = margins[0] - margins[1:]
        return (drop / drop.abs().max().clamp(min=1e-6)).view(SIDE, SIDE).numpy()


def blank() -> Prediction:
    """What is said of a sheet without ink."""
    return Prediction(None, 0.0, (1 / DIGITS,) * DIGITS, 0.0, "blank", np.zeros((SIDE, SIDE), np.uint8))
