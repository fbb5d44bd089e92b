"""Strokes and pictures → Readings, without a browser: limits, the eraser, numbers, and doubt in words."""

import io
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from digitnet import PictureError, Recognizer
from digitnet.drawings import SHEET, draw
from digitnet.page.limits import LIMITS
from digitnet.page.reading import BLANK, Reader, Stroke, sheet_of, strokes_from


@pytest.fixture(scope="module")
def reader():
    return Reader(Recognizer.load())


def inked(strokes, radius=8.0):
    return [Stroke(np.asarray(points, np.float32), radius) for points in strokes]


def test_strokes_are_read_from_what_the_script_sends():
    (stroke, rubbed) = strokes_from([[False, 8, [1, 2, 3, 4]], [True, 14, [5, 6]]])
    assert stroke.points.tolist() == [[1, 2], [3, 4]] and stroke.radius == 8 and not stroke.erases
    assert rubbed.points.tolist() == [[5, 6]] and rubbed.erases


@pytest.mark.parametrize(
    "sent",
    [
        None,
        {},
        "strokes",
        [None],
        [[False, 8]],
        [[False, 8, [1, 2, 3]]],
        [[False, "wide", [1, 2]]],
        [[False, 8, ["a", "b"]]],
        [[False, 8, [float("nan"), 1]]],
        [[False, 0, [1, 2]]],
        [[False, 1e9, [1, 2]]],
        [[False, 8, [1e400, 2]]],
        [[False, 8, {"x": 1}]],
        [[False, 8, [0, 0]]] * (LIMITS.strokes + 1),
        [[False, 8, [0, 0] * (LIMITS.points + 1)]],
    ],
)
def test_anything_else_is_refused_in_one_sentence(sent):
    with pytest.raises(PictureError) as refusal:
        strokes_from(sent)
    assert str(refusal.value).count("\n") == 0 and str(refusal.value).endswith(".")


def test_far_points_are_brought_near():
    (stroke,) = strokes_from([[False, 8, [1e30, -1e30]]])
    assert np.abs(stroke.points).max() <= LIMITS.reach * SHEET


def test_the_sheet_is_what_training_draws(drawn):
    strokes = drawn["7-upright"]
    assert np.array_equal(sheet_of(inked(strokes)), draw(strokes, brush=16))


def test_the_eraser_takes_ink_and_only_what_was_there_before():
    line = np.array([[40, 140], [240, 140]], np.float32)
    rub = np.array([[140, 20], [140, 260]], np.float32)
    sheet = sheet_of([Stroke(line, 8.0), Stroke(rub, 14.0, erases=True)])
    assert sheet[140, 140] == 255 and sheet[140, 60] == 0 and sheet[140, 220] == 0
    again = sheet_of([Stroke(line, 8.0), Stroke(rub, 14.0, erases=True), Stroke(line, 8.0)])
    assert again[140, 140] == 0


@pytest.mark.parametrize("digit", range(10))
def test_a_digit_is_read_and_said(reader, drawn, digit):
    reading = reader.sheet(inked(drawn[f"{digit}-upright"]))
    assert reading["digit"] == digit and reading["label"]["label"] == str(digit)
    assert len(reading["label"]["confidences"]) == 3 and reading["number"] is None
    assert reading["say"] == f"That is {'an' if digit == 8 else 'a'} {digit}."


def test_a_blank_sheet_is_calm(reader):
    reading = reader.sheet([])
    assert reading["verdict"] == "blank" and reading["label"] is None and reading["say"] == BLANK


def test_a_number_is_read_with_boxes(reader, drawn):
    reading = reader.sheet(inked(drawn["2026-number"]), steps=True)
    assert reading["number"]["text"] == reading["label"]["label"] == "2026"
    assert [box["digit"] for box in reading["boxes"]] == [2, 0, 2, 6]
    lefts = [box["box"][0] for box in reading["boxes"]]
    assert lefts == sorted(lefts)
    ranked = [row["confidence"] for row in reading["label"]["confidences"]]
    assert ranked == sorted(ranked, reverse=True) and len({row["label"] for row in reading["label"]["confidences"]}) == 3
    assert "least sure" in reading["steps"]["which"]


def test_steps_show_the_views_and_their_votes(reader, drawn):
    steps = reader.sheet(inked(drawn["4-upright"]), steps=True)["steps"]
    assert steps["views"][0]["name"] == "as drawn" and len(steps["views"]) > 1
    assert all(0 <= view["digit"] <= 9 and 0 <= view["confidence"] <= 1 for view in steps["views"])


def test_why_names_the_answer_and_the_other(reader, drawn):
    strokes = inked(drawn["4-upright"])
    why = reader.why(strokes, against=9)
    assert why["digit"] == 4 and why["against"] == 9
    assert reader.why(strokes)["against"] != 4
    assert reader.why(strokes, against=4)["against"] != 4
    assert reader.why([])["say"] == BLANK


def test_a_dot_and_ink_beyond_the_sheet_are_answered(reader):
    assert reader.sheet(inked([[[140, 140]]]))["label"] is not None
    assert reader.sheet(inked([[[-500, -500], [-400, -400]]]))["verdict"] == "blank"


@pytest.mark.parametrize("table", [10, 40, 240])
def test_a_photo_with_the_table_around_the_paper_is_read(reader, drawn, table):
    paper = np.kron(draw(drawn["2026-number"], brush=9), np.ones((3, 3), np.uint8)) // 2 + 90
    photo = np.pad(paper.astype(np.uint8), ((100, 0), (100, 100)), constant_values=table)
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG")
    file.seek(0)
    assert reader.photo(file)["number"]["text"] == "2026"


def test_the_boxes_of_a_tilted_photo_lie_on_the_photo_as_it_is(reader, drawn):
    page = Image.fromarray(draw(drawn["2026-number"], brush=8)).resize((840, 840))
    file = io.BytesIO()
    page.rotate(-9, Image.Resampling.BICUBIC, fillcolor=255).save(file, "PNG")
    file.seek(0)
    reading = reader.photo(file)
    assert reading["number"]["text"] == "2026" and reading["size"] == [840, 840]
    middles = [(box["box"][1] + box["box"][3]) / 2 for box in reading["boxes"]]
    assert middles[-1] - middles[0] > 50, "the line falls to the right"


# --- words, with a recognizer that says what it is told --------------------------------------------------------------------


@dataclass
class Said:
    digit: int
    confidence: float
    p_digit: float
    verdict: str
    second: int = 9
    seen: np.ndarray = field(default_factory=lambda: np.zeros((28, 28), np.uint8))

    @property
    def probabilities(self):
        shares = [0.0] * 10
        shares[self.second] = 1 - self.confidence
        shares[self.digit] = self.confidence
        return tuple(shares)

    def top(self, n=3):
        return sorted(enumerate(self.probabilities), key=lambda item: -item[1])[:n]


class Told:
    """Answers every digit alike; the whole of several pieces (wider than high) is called no digit."""

    def __init__(self, answer):
        self.answer = answer

    def read(self, digits):
        whole = Said(8, 0.6, 0.01, "not_a_digit")
        return [whole if np.flatnonzero(d.any(0)).size > np.flatnonzero(d.any(1)).size else self.answer for d in digits]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Said(7, 0.99, 0.99, "digit"), "That is a 7."),
        (Said(8, 0.99, 0.99, "digit"), "That is an 8."),
        (Said(4, 0.55, 0.99, "unsure"), "4 or 9? Leaning to 4."),
        (Said(4, 0.97, 0.6, "unsure"), "An unusual 4, if it is one."),
        (Said(0, 0.9, 0.1, "not_a_digit"), "This does not look like a digit. If it is one, it is closest to a 0."),
    ],
)
def test_doubt_is_put_into_words(drawn, answer, sentence):
    reading = Reader(Told(answer)).sheet(inked(drawn["1-upright"]))
    assert reading["say"] == sentence and reading["doubt"] == (answer.verdict != "digit")


def test_two_digits_are_said_to_be_two(drawn):
    strokes = [stroke * 0.5 + [by, 60] for by in (0, 130) for stroke in drawn["7-upright"]]
    reading = Reader(Told(Said(7, 0.98, 0.98, "digit", second=1))).sheet(inked(strokes, 6))
    assert reading["say"] == "This looks like two digits: 77."
    reading = Reader(Told(Said(7, 0.75, 0.98, "unsure", second=1))).sheet(inked(strokes, 6))
    assert reading["say"] == "This looks like two digits: 77. The first may be a 1 rather than a 7."
    assert reading["verdict"] == "unsure" and reading["number"]["text"] == "77"


def test_several_are_believed_only_where_each_is_read_well(drawn):
    strokes = [stroke * 0.5 + [by, 60] for by in (0, 130) for stroke in drawn["7-upright"]]
    reading = Reader(Told(Said(7, 0.4, 0.5, "unsure"))).sheet(inked(strokes, 6))
    assert reading["number"] is None and reading["label"]["label"] == "8"
