"""Engines give the trained network's answers, folded or not, in either precision; ONNX Runtime only when asked.

What an exported file answers is tested with the export.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from digitnet import Recognizer
from digitnet import checkpoint as checkpoints
from digitnet.engine import TorchEngine
from digitnet.export import drawings_to_check
from digitnet.model import DigitNet, ModelConfig

ROOT = Path(__file__).parents[1]
DATA = os.environ.get("DIGITNET_DATA") or ROOT.parent / "shared" / "data"  # without it, doodles are compared


def test_bfloat16_and_float32_agree():
    """Where the processor has no bfloat16 of its own this runs all the same, only slower."""
    checkpoint = checkpoints.load()
    digits, _ = drawings_to_check(DATA, count=200)
    ink = list(digits.astype(np.float32) / 255)
    half, full = (
        Recognizer(TorchEngine(checkpoint.model, half=half), checkpoint.calibration).read(ink) for half in (True, False)
    )
    differences = [np.abs(np.subtract(a.probabilities, b.probabilities)).max() for a, b in zip(half, full, strict=True)]
    assert max(differences) < 0.01


@pytest.mark.parametrize("precision", [True, False])
def test_folding_changes_no_answer(precision):
    torch.manual_seed(0)
    model = DigitNet(ModelConfig((8, 16), (1, 2)))
    ink = torch.rand(64, 1, 28, 28)
    model.train()(ink)  # batch-norm statistics that are not zero and one
    with torch.inference_mode():
        expected = model.eval()(ink)
    got = TorchEngine(model, half=precision)(ink)
    assert got.dtype == torch.float32 and torch.allclose(got, expected, atol=0.05 if precision else 1e-4)


def test_onnx_runtime_is_imported_only_for_onnx():
    code = "import sys, digitnet.recognizer; print('onnxruntime' in sys.modules, 'onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
