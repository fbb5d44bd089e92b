"""The floors the project promises, measured anew on the shipped checkpoint; and drawings of our own as named cases."""

import json
from pathlib import Path

import numpy as np
import pytest

from digitnet import Recognizer
from digitnet.drawings import find_drawings, part_of, read_drawings, render
from digitnet.evaluate import COPIES, auroc

CASES = Path(__file__).parent / "drawings"
REPORT = Path(__file__).resolve().parent.parent / "checkpoints" / "digitnet.json"


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer.load()


def read(recognizer, drawings, *, copies, seed):
    rendering = render(drawings, copies=copies, seed=seed, vary=False)
    digits = rendering.digits.astype(np.float32) / 255
    return rendering, [p for i in range(0, len(digits), 256) for p in recognizer.read(digits[i : i + 256])]


def test_mnist_through_the_recognizer(recognizer, mnist_test):
    pictures, labels = mnist_test
    read = np.array([p.digit for p in recognizer.many(pictures.numpy())])
    accuracy = (read == labels.numpy()).mean()
    assert accuracy >= 0.9965
    assert accuracy == pytest.approx(json.loads(REPORT.read_text())["mnist"]["views"], abs=3e-4)


def test_drawings_of_writers_never_trained_on(recognizer, data):
    sources = find_drawings(data)
    for name, floor in (("pendigits", 0.983), ("unipen", 0.983)):
        digits = [d for d in sources[name] if part_of(d.writer) == "report"]
        rendering, answers = read(recognizer, digits, copies=COPIES, seed=7)
        right = np.array([p.digit for p in answers]) == rendering.labels
        assert right.mean() >= floor, name


def test_letters_and_symbols_are_told_from_digits(recognizer, data):
    sources = find_drawings(data)
    kept = {name: [d for d in drawings if part_of(d.writer) == "report"] for name, drawings in sources.items()}
    _, digits = read(recognizer, kept["unipen"] + kept["pendigits"], copies=1, seed=7)
    _, others = read(recognizer, kept["unipen-letters"] + kept["unipen-symbols"], copies=1, seed=7)
    assert auroc(np.array([p.p_digit for p in digits]), np.array([p.p_digit for p in others])) >= 0.98
    assert np.mean([p.verdict in ("not_a_digit", "blank") for p in others]) >= 0.90
    assert np.mean([p.verdict == "not_a_digit" for p in digits]) <= 0.01


@pytest.mark.parametrize("path", sorted(CASES.glob("[0-9n]*-*.jsonl")), ids=lambda path: path.stem)
def test_a_drawing_of_our_own(recognizer, path):
    """A file is a case: its name begins with its answer, a digit or "not"; thin and thick, large and small."""
    (drawing,) = read_drawings(path)
    _, answers = read(recognizer, [drawing], copies=12, seed=1)
    if path.stem.startswith("not"):
        good = [p.verdict != "digit" for p in answers]
    else:
        good = [p.digit == int(path.stem[0]) for p in answers]
    assert np.mean(good) >= 0.8


def test_there_are_cases_of_every_digit():
    names = [path.stem[0] for path in CASES.glob("[0-9n]*-*.jsonl")]
    assert {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "n"} <= set(names)
