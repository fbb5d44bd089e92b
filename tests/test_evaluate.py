"""What the report's figures mean, on numbers worked out by hand, and the report's tie to the checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest

from digitnet import checkpoint
from digitnet.drawings import Drawing, Rendering
from digitnet.evaluate import (
    Answers,
    auroc,
    calibration_error,
    confusion,
    interval,
    measure_drawings,
    measure_refusal,
    readme_rows,
)

ROOT = Path(__file__).resolve().parent.parent


def answers(digit, label, confidence=None, p_digit=None, verdict=None) -> Answers:
    n = len(digit)
    return Answers(
        np.array(digit),
        np.array(label),
        np.array(confidence or [0.9] * n),
        np.array(p_digit or [0.9] * n),
        verdict or ["digit"] * n,
    )


def test_calibration_error_by_hand():
    # Two bins: 0.75 said and right half the time; 0.95 said and always right.
    error, bars = calibration_error(np.array([0.75, 0.75, 0.95, 0.95]), np.array([True, False, True, True]))
    assert error == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)
    assert [bar["n"] for bar in bars] == [2, 2]
    assert calibration_error(np.ones(3), np.ones(3, bool))[0] == 0.0


def test_auroc_by_hand():
    assert auroc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1.0
    assert auroc(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0.5
    assert auroc(np.array([1.0, 3.0]), np.array([2.0])) == 0.5
    assert auroc(np.array([1.0]), np.array([1.0, 0.0])) == 0.75


def test_interval_holds_the_share_and_narrows():
    low, high = interval(0.9, 100)
    assert low < 0.9 < high
    assert interval(0.9, 10_000)[1] - interval(0.9, 10_000)[0] < (high - low) / 5
    assert interval(1.0, 50)[1] == 1.0


def test_confusion_counts_true_by_row():
    table = np.array(confusion(answers([7, 7, 1], [1, 7, 1])))
    assert table[1, 7] == 1 and table[7, 7] == 1 and table[1, 1] == 1 and table.sum() == 3


def test_drawings_are_split_by_source_brush_and_size():
    strokes = (np.zeros((1, 2), np.float32),)
    drawings = [Drawing("1", "a", strokes), Drawing("7", "b", strokes)]
    rendering = Rendering(
        np.zeros((4, 28, 28), np.uint8),
        np.array([1, 1, 7, 7]),
        np.array([0, 0, 1, 1]),
        np.array([0.015, 0.09, 0.015, 0.09], np.float32),
        np.array([0.3, 0.9, 0.3, 0.9], np.float32),
    )
    figures = measure_drawings(answers([1, 7, 7, 7], [1, 1, 7, 7]), rendering, drawings, ["pd", "un"])
    assert figures["accuracy"] == 0.75 and figures["n"] == 2 and figures["renderings"] == 4 and figures["writers"] == 2
    assert figures["sources"]["pd"]["accuracy"] == 0.5 and figures["sources"]["un"]["accuracy"] == 1.0
    assert [(row["from"], row["accuracy"]) for row in figures["brush"]] == [(0.01, 1.0), (0.08, 0.5)]
    assert figures["mistaken"] == [{"true": 1, "read": 7, "n": 1}]


def test_refusals_are_counted_both_ways():
    digits = answers([1, 2], [1, 2], p_digit=[0.9, 0.2], verdict=["digit", "not_a_digit"])
    others = {"letters": answers([3, 4], [-1, -1], p_digit=[0.1, 0.3], verdict=["not_a_digit", "unsure"])}
    figures = measure_refusal(digits, others)
    assert figures["digits_refused"] == 0.5 and figures["others_refused"] == 0.5
    assert figures["auroc"] == 0.75 and figures["right_when_sure"] == 1.0


@pytest.fixture(scope="module")
def report() -> dict:
    return json.loads((ROOT / "checkpoints" / "digitnet.json").read_text())


def test_the_report_is_of_exactly_the_shipped_file(report):
    assert report["checkpoint"]["sha256"] == checkpoint.file_digest(checkpoint.DEFAULT_PATH)
    assert report["made"]["part"] == "report"


def test_the_readme_says_what_the_report_says(report):
    readme = (ROOT / "README.md").read_text()
    rows = readme_rows(report)
    assert len(rows) >= 11
    assert [row for row in rows if row not in readme] == []
