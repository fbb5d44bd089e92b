"""Engines give the trained network's answers, folded or not, in either precision; ONNX Runtime only when asked.

What an exported file answers is tested with the export.
"""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, data_root

from digitnet import Recognizer
from digitnet import checkpoint as checkpoints
from digitnet.engine import TorchEngine
from digitnet.export import drawings_to_check
from digitnet.model import DigitNet, ModelConfig

DATA = data_root()  # without the data there, doodles are compared


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


@pytest.fixture(params=[((8, 16), (1, 2), 5, 2), ((8,), (2,), 3, 1), ((8, 16, 16), (1, 1, 1), 5, 2)], ids=str)
def model(request):
    widths, blocks, kernel, stride = request.param
    torch.manual_seed(0)
    model = DigitNet(ModelConfig(widths, blocks, kernel, stride))
    model.train()(torch.rand(64, 1, 28, 28))  # batch-norm statistics that are not zero and one
    return model.eval()


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("half", [True, False], ids=["bfloat16", "float32"])
def test_folding_and_fusing_change_no_answer(model, half, fused):
    engine = TorchEngine(model, half=half, fused=fused)
    for count in (1, 6, 64):
        ink = torch.rand(count, 1, 28, 28)
        with torch.inference_mode():
            expected = model(ink)
        given = ink.clone()
        for _ in range(2):  # the fused sums are written in place: a second call must find everything as the first did
            got = engine(ink)
            assert got.dtype == torch.float32 and torch.allclose(got, expected, atol=0.05 if half else 1e-4)
        assert torch.equal(ink, given)


@pytest.mark.parametrize("trouble", ["missing", "wrong"])
def test_where_fused_calls_fail_or_err_the_plain_network_answers(model, monkeypatch, trouble):
    def broken(self, x, after):
        if trouble == "missing":
            raise AttributeError("no such call in this build")
        return torch.zeros(len(x), self._bias.numel(), x.shape[2], x.shape[3])

    ink = torch.rand(6, 1, 28, 28)
    expected = TorchEngine(model, half=False, fused=False)(ink)
    monkeypatch.setattr("digitnet.engine._FusedConv.__call__", broken)
    engine = TorchEngine(model, half=False)
    assert not engine.fused and torch.equal(engine(ink), expected)


def test_onnx_runtime_is_imported_only_for_onnx():
    code = "import sys, digitnet.recognizer; print('onnxruntime' in sys.modules, 'onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
