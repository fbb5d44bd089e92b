"""The exported file answers as PyTorch does, through the same Recognizer, and stands on its own."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import ROOT, data_root

from digitnet import CheckpointError, Recognizer
from digitnet import checkpoint as checkpoints
from digitnet.__main__ import main
from digitnet.checkpoint import Calibration, Checkpoint
from digitnet.drawings import draw
from digitnet.engine import OUTPUT_NAMES, OnnxEngine, TorchEngine
from digitnet.export import OPSET, TOLERANCE, Answering, compare, drawings_to_check, to_onnx
from digitnet.model import DigitNet, ModelConfig

DATA = data_root()  # without the data there, doodles are compared
SEVEN = draw([np.array([[70.0, 70], [200, 72], [160, 140], [120, 230]])], brush=16)
ONE = draw([np.array([[140.0, 40], [141, 240]])], brush=14)
BLANK = np.full((280, 280), 255, np.uint8)


@pytest.fixture(scope="module")
def checkpoint():
    shipped = checkpoints.load()
    # A calibration of its own in every number, or a lost one would not be seen.
    return dataclasses.replace(shipped, calibration=Calibration(1.7, 0.8, -0.4, 0.31, 0.66))


@pytest.fixture(scope="module")
def exported(checkpoint):
    return to_onnx(checkpoint)


@pytest.fixture(scope="module")
def path(exported, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "digitnet.onnx"
    path.write_bytes(exported)
    return path


def test_the_graph_is_what_the_help_says(exported):
    proto = onnx.load_from_string(exported)
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", OPSET)]
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (ink,) = session.get_inputs()
    assert (ink.name, ink.type, ink.shape[1:]) == ("ink", "tensor(float)", [1, 28, 28]) and isinstance(ink.shape[0], str)
    assert [output.name for output in session.get_outputs()] == list(OUTPUT_NAMES)
    assert not any(item.external_data for item in proto.graph.initializer)


def test_nothing_of_the_machine_that_wrote_it_is_in_it(exported):
    assert str(ROOT).encode() not in exported and b"site-packages" not in exported


@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_any_number_of_pictures_at_once(exported, checkpoint, n):
    ink = torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(n))
    with torch.inference_mode():
        expected, p_digit, _ = Answering(checkpoint.model, checkpoint.calibration).eval()(ink)
    got, got_p_digit = OnnxEngine(exported).answers(ink.numpy())
    assert got.shape == (n, 10) and got_p_digit.shape == (n,)
    assert np.abs(got - expected.numpy()).max() < TOLERANCE and np.abs(got_p_digit - p_digit.numpy()).max() < TOLERANCE
    assert np.allclose(got.sum(1), 1, atol=1e-5)


def test_drawings_are_read_as_pytorch_reads_them(exported, checkpoint):
    digits, _ = drawings_to_check(DATA, count=90)
    result = compare(checkpoint, exported, digits)
    assert result.same and result.digits == len(digits) >= 80 and result.answers_differ == 0


def test_compare_sees_a_difference(exported, checkpoint):
    other = dataclasses.replace(checkpoint, calibration=dataclasses.replace(checkpoint.calibration, temperature=1.71))
    digits, _ = drawings_to_check(ROOT / "nowhere", count=20)
    assert not compare(other, exported, digits).same


def test_the_recognizer_keeps_its_contract(path, checkpoint):
    by_onnx = Recognizer.load(path)
    by_torch = Recognizer(TorchEngine(checkpoint.model, half=False), checkpoint.calibration)
    assert by_onnx.calibration == checkpoint.calibration and by_onnx.card == checkpoint.metadata
    for picture in (SEVEN, 255 - SEVEN, ONE, BLANK):
        ours, theirs = by_onnx(picture), by_torch(picture)
        assert (ours.digit, ours.verdict) == (theirs.digit, theirs.verdict)
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=TOLERANCE)
        assert ours.p_digit == pytest.approx(theirs.p_digit, abs=TOLERANCE)
        assert np.array_equal(ours.seen, theirs.seen)
        assert type(ours.digit) in (int, type(None)) and type(ours.confidence) is float
    assert [p.digit for p in by_onnx.many([SEVEN, BLANK, ONE] * 30)] == [7, None, 1] * 30
    views, names, votes = by_onnx.views_of(by_torch(SEVEN).seen.astype(np.float32) / 255)
    assert len(views) == len(names) == len(votes)
    assert np.abs(by_onnx.saliency(by_torch(SEVEN).seen / np.float32(255))).max() == pytest.approx(1.0)


def test_without_onnx_runtime_one_sentence_says_so(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(CheckpointError, match=r"digitnet\.onnx needs ONNX Runtime; install it with: pip install onnxruntime"):
        Recognizer.load(path)


def test_what_is_no_export_of_ours_is_refused(exported, tmp_path):
    foreign = onnx.load_from_string(exported)
    del foreign.metadata_props[:]
    poisoned = onnx.load_from_string(exported)
    values = json.dumps(dataclasses.asdict(Calibration(temperature=float("nan"))))
    next(note for note in poisoned.metadata_props if note.key == "calibration").value = values
    cases = {
        "foreign": foreign.SerializeToString(),
        "nan": poisoned.SerializeToString(),
        "cut": exported[: len(exported) // 2],
        "empty": b"",
        "text": b"no network",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    }
    for name, content in cases.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name}.onnx"):
            Recognizer.load(tmp_path / f"{name}.onnx")
    with pytest.raises(CheckpointError, match=r"absent.onnx does not exist; make it with: python -m digitnet export"):
        Recognizer.load(tmp_path / "absent.onnx")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Recognizer.load(_folder(tmp_path / "folder.onnx"))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_the_command_writes_what_it_has_checked(tmp_path, capsys):
    torch.manual_seed(0)
    small = tmp_path / "small.pt"
    checkpoints.save(small, Checkpoint(DigitNet(ModelConfig((8,), (1,))).eval(), Calibration(), {"seed": 3}))
    out = tmp_path / "new" / "small.onnx"
    nowhere = str(tmp_path / "nowhere")
    assert main(["export", "--checkpoint", str(small), "--out", str(out), "--data", nowhere]) == 0
    told = capsys.readouterr().out
    assert f"opset {OPSET}" in told and "no pen drawings" in told and str(out) in told
    assert Recognizer.load(out).card == {"seed": 3}
    assert main(["export", "--checkpoint", str(small), "--out", str(tmp_path / "small.pt")]) == 2
    assert ".onnx" in capsys.readouterr().err and checkpoints.load(small)


def test_unequal_answers_are_not_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("digitnet.export.TOLERANCE", -1.0)
    small, out = tmp_path / "small.pt", tmp_path / "small.onnx"
    checkpoints.save(small, Checkpoint(DigitNet(ModelConfig((8,), (1,))).eval()))
    assert main(["export", "--checkpoint", str(small), "--out", str(out), "--data", str(tmp_path)]) == 1
    assert "not written" in capsys.readouterr().err and not out.exists()
