"""python -m digitnet export: the network as one ONNX file, checked against PyTorch before it is written.

Normalisation, temperature and the calibration of p_digit are inside; the verdict's thresholds and the card ride along as
metadata. What an exported file answers is one view's answer; Recognizer.load("x.onnx") averages the views, as ever.
"""

import argparse
import io
import json
import logging
import os
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import checkpoint as checkpoints
from .checkpoint import Calibration, Checkpoint, CheckpointError, write_atomically
from .doodles import doodles
from .drawings import find_drawings, render
from .engine import ONNX_FORMAT, OUTPUT_NAMES, OnnxEngine, TorchEngine
from .model import DIGITS, DigitNet, folded
from .preprocess import SIDE
from .recognizer import Recognizer

OPSET = 18
TOLERANCE = 1e-4  # largest difference from PyTorch in any probability
INSTALL = "pip install onnx onnxscript onnxruntime"


class Answering(nn.Module):
    """ink float32 N×1×28×28 → probabilities N×10, p_digit N, logits N×11: DigitNet and its calibration in one graph."""

    def __init__(self, model: DigitNet, calibration: Calibration):
        super().__init__()
        self.network, self.calibration = folded(model), calibration

    def forward(self, ink: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = self.network(ink)
        probabilities = (logits[:, :DIGITS] / self.calibration.temperature).softmax(-1)
        p_digit = (self.calibration.digit_scale * logits[:, DIGITS] + self.calibration.digit_shift).sigmoid()
        return probabilities, p_digit, logits


@dataclass(frozen=True)
class Comparison:
    """ONNX Runtime against PyTorch on the same digits: the largest differences, and how many best guesses differ.

    probabilities, p_digit: one view, the file's own outputs. recognizer: any probability or p_digit of the whole
    Recognizer, all views. answers_differ: best guesses, all views.
    """

    digits: int
    probabilities: float
    p_digit: float
    recognizer: float
    answers_differ: int

    @property
    def same(self) -> bool:
        return max(self.probabilities, self.p_digit, self.recognizer) <= TOLERANCE


def to_onnx(checkpoint: Checkpoint) -> bytes:
    """The checkpoint as the bytes of an ONNX file: opset OPSET, any N, nothing outside the file.

    Raises CheckpointError where the packages that write ONNX are missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  torch.onnx needs it and says so less clearly
    except ImportError as error:
        raise CheckpointError(f"Writing ONNX needs packages that are not installed: {INSTALL}") from error
    example = torch.zeros(2, 1, SIDE, SIDE)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    try:
        with warnings.catch_warnings():
            # The exporter reports on its own inner life; what it wrote is checked by its answers.
            warnings.simplefilter("ignore")
            logger.setLevel(logging.ERROR)
            program = torch.onnx.export(
                Answering(checkpoint.model, checkpoint.calibration).eval(),
                (example,),
                dynamo=True,
                input_names=["ink"],
                output_names=list(OUTPUT_NAMES),
                dynamic_shapes={"ink": {0: torch.export.Dim("n", min=1)}},
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    file = io.BytesIO()
    program.save(file, external_data=False)
    proto = onnx.load_from_string(file.getvalue())
    proto.producer_name = "digitnet"
    proto.doc_string = (
        "ink: 0 paper to 1 ink, framed as MNIST (digitnet.preprocess). logits: ten digits, then 'a digit at all'."
    )
    # The exporter notes its source lines, paths of this machine included, at every node.
    for item in (
        *proto.graph.node,
        *proto.graph.value_info,
        *proto.graph.initializer,
        *proto.graph.input,
        *proto.graph.output,
    ):
        del item.metadata_props[:]
    del proto.graph.metadata_props[:]
    notes = {
        "format": ONNX_FORMAT,
        "calibration": json.dumps(asdict(checkpoint.calibration)),
        "card": json.dumps(checkpoint.metadata),
        "weights_sha256": checkpoints.weights_digest(checkpoint.model.state_dict()),
    }
    onnx.helper.set_model_props(proto, notes)
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def compare(checkpoint: Checkpoint, exported: bytes, digits: np.ndarray) -> Comparison:
    """Reads digits (uint8 N×28×28, ink 255 on 0) by both engines, both in float32."""
    engine = OnnxEngine(exported)
    ink = torch.from_numpy(digits).unsqueeze(1).float() / 255
    plain = Answering(checkpoint.model, checkpoint.calibration).eval()
    one_view = {"probabilities": 0.0, "p_digit": 0.0}
    all_views, differ = 0.0, 0
    by_torch = Recognizer(TorchEngine(checkpoint.model, half=False), checkpoint.calibration)
    by_onnx = Recognizer(engine, engine.calibration)
    for batch in ink.split(64):
        with torch.inference_mode():
            expected = plain(batch)
        for name, ours, theirs in zip(one_view, expected, engine.answers(batch.numpy()), strict=False):
            one_view[name] = max(one_view[name], float(np.abs(ours.numpy() - theirs).max()))
        pairs = zip(by_torch.read(list(batch[:, 0].numpy())), by_onnx.read(list(batch[:, 0].numpy())), strict=True)
        for ours, theirs in pairs:
            values = np.abs(np.subtract((*ours.probabilities, ours.p_digit), (*theirs.probabilities, theirs.p_digit)))
            all_views = max(all_views, float(values.max()))
            differ += ours.digit != theirs.digit
    return Comparison(len(digits), one_view["probabilities"], one_view["p_digit"], all_views, differ)


def drawings_to_check(root, *, count: int = 300) -> tuple[np.ndarray, str]:
    """(digits uint8 N×28×28, what they are): pen drawings under the data root, and doodles; doodles alone without them."""
    found = [drawing for drawings in find_drawings(root).values() for drawing in drawings]
    scribbles = doodles(count // 3 if found else count, seed=7)
    order = np.random.default_rng(7).permutation(len(found))[:count]
    drawn = render([*(found[i] for i in order), *scribbles], copies=1, seed=7, vary=False).digits
    named = (
        f"{len(order)} pen drawings and {len(scribbles)} doodles"
        if found
        else f"{len(scribbles)} doodles (no pen drawings under {root})"
    )
    return drawn, named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"Writes a checkpoint as one ONNX file (opset {OPSET}): input ink, float32 N×1×28×28, 0 paper to 1 ink; outputs "
        "probabilities N×10, p_digit N and logits N×11; any N. Before it is written, its answers are compared with "
        f"PyTorch's on pen drawings: no probability may differ by more than {TOLERANCE:g}. Needs: {INSTALL}"
    )
    parser.epilog = 'Use it: Recognizer.load("digitnet.onnx"), or any program with an ONNX runtime.'
    parser.add_argument("--checkpoint", metavar="FILE", help="the checkpoint to export (default: checkpoints/digitnet.pt)")
    parser.add_argument("--out", metavar="FILE", default="digitnet.onnx", help="the file to write (default: digitnet.onnx)")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="data root whose pen/ drawings are compared (default: DIGITNET_DATA, else data/)",
    )


def run(args: argparse.Namespace) -> int:
    """Exit code 0: written and equal. 1: not equal, nothing written. 2 (by raising): refused."""
    out = Path(args.out)
    if out.suffix != ".onnx":
        raise CheckpointError(f"{out} must end in .onnx, by which an export is known; name another with --out.")
    checkpoint = checkpoints.load(args.checkpoint)
    exported = to_onnx(checkpoint)
    digits, named = drawings_to_check(args.data or os.environ.get("DIGITNET_DATA") or "data")
    result = compare(checkpoint, exported, digits)
    print(f"Compared with PyTorch on {named}; largest difference:")
    print(f"  one view   probabilities {result.probabilities:.1e}  p_digit {result.p_digit:.1e}")
    print(f"  all views  {result.recognizer:.1e}; other best guesses: {result.answers_differ}")
    if not result.same:
        print(f"{out} was not written: its answers differ from PyTorch's by more than {TOLERANCE:g}.", file=sys.stderr)
        return 1
    write_atomically(out, lambda file: file.write(exported))
    print(
        f"Wrote {out}: {len(exported) / 1e6:.1f} MB, opset {OPSET}, ink N×1×28×28 → probabilities N×10, p_digit N, logits N×11."
    )
    print(f'Try it: python -c "from digitnet import Recognizer; print(Recognizer.load({str(out)!r}).calibration)"')
    return 0
