"""The contract of Recognizer and Prediction, on the shipped checkpoint and on pictures drawn here."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from digitnet import PictureError, Recognizer
from digitnet.drawings import draw
from digitnet.model import DigitNet, ModelConfig
from digitnet.preprocess import to_digit
from digitnet.recognizer import BATCH, SURE, VERDICTS

SEVEN = [np.array([[70.0, 70], [200, 72], [160, 140], [120, 230]])]
ONE = [np.array([[140.0, 40], [141, 240]])]


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer.load()


@pytest.fixture(params=[1, os.cpu_count()], ids=["a core to spare", "all cores taken"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def seven():
    return draw(SEVEN, brush=16)


def test_a_seven_is_read(recognizer, seven):
    p = recognizer(seven)
    assert p.digit == 7 and p.verdict == "digit"
    assert p.confidence == max(p.probabilities) > 0.9
    assert p.p_digit > 0.9


def test_plain_types(recognizer, seven):
    p = recognizer(seven)
    assert type(p.digit) is int and type(p.confidence) is float and type(p.p_digit) is float
    assert type(p.verdict) is str and p.verdict in VERDICTS
    assert type(p.probabilities) is tuple and [type(value) for value in p.probabilities] == [float] * 10
    assert math.isclose(sum(p.probabilities), 1.0, abs_tol=1e-9)
    assert p.seen.dtype == np.uint8 and p.seen.shape == (28, 28) and p.seen.max() == 255


def test_top_is_best_first(recognizer, seven):
    top = recognizer(seven).top(3)
    assert len(top) == 3 and top[0][0] == 7
    assert [share for _, share in top] == sorted((share for _, share in top), reverse=True)
    assert len(recognizer(seven).top(10)) == 10


def test_a_blank_sheet(recognizer):
    p = recognizer(np.full((280, 280), 255, np.uint8))
    assert p.digit is None and p.verdict == "blank" and p.confidence == 0.0 and p.p_digit == 0.0
    assert p.probabilities == (0.1,) * 10 and not p.seen.any()


def test_files_pictures_and_arrays_are_read_alike(recognizer, seven, tmp_path):
    Image.fromarray(seven).save(tmp_path / "seven.png")
    expected = recognizer(seven).probabilities
    for picture in (tmp_path / "seven.png", str(tmp_path / "seven.png"), Image.fromarray(seven), 255 - seven):
        assert recognizer(picture).probabilities == pytest.approx(expected, abs=1e-3)


@pytest.mark.usefixtures("threads")
def test_many_equals_one_by_one_in_order(recognizer, seven):
    blank = np.full((280, 280), 255, np.uint8)
    pictures = [seven, blank, draw(ONE, brush=14)] * (BATCH // 2)
    answers = recognizer.many(pictures)
    assert [p.digit for p in answers] == [7, None, 1] * (BATCH // 2)
    assert answers[0].probabilities == pytest.approx(recognizer(seven).probabilities, abs=2e-3)
    assert recognizer.many([]) == []


def test_a_batch_asks_the_other_views_only_where_the_first_is_not_sure(recognizer, mnist_test):
    pictures = mnist_test[0].numpy()[:512]
    digits = [to_digit(picture) for picture in pictures]
    whole, spared = (
        np.array([(*p.probabilities, p.p_digit) for p in recognizer.read(digits, all_views=all_views)])
        for all_views in (True, False)
    )
    moved = np.abs(whole - spared).max(axis=1)
    sure = np.minimum(spared[:, :10].max(axis=1), spared[:, 10]) >= SURE
    assert moved.max() <= 5e-3 and moved[~sure].max() < 1e-6
    assert 0.3 < (moved > 1e-6).mean() <= sure.mean()
    assert [(*p.probabilities, p.p_digit) for p in recognizer.many(pictures)] == pytest.approx(spared, abs=1e-6)


@pytest.mark.usefixtures("threads")
def test_stream_reads_no_further_than_the_batch_after(recognizer, seven):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield seven

    first = next(recognizer.stream(endless()))
    assert first.digit == 7 and BATCH <= len(taken) <= 2 * BATCH


@pytest.mark.usefixtures("threads")
def test_an_unreadable_picture_in_a_later_batch_ends_the_stream_there(recognizer, seven, tmp_path):
    read = []
    with pytest.raises(PictureError, match="gone.png"):
        for prediction in recognizer.stream([seven] * (BATCH + 3) + [tmp_path / "gone.png"]):
            read.append(prediction.digit)
    assert read == [7] * BATCH


def test_an_unreadable_picture_is_one_sentence(recognizer, tmp_path):
    (tmp_path / "note.png").write_text("no picture")
    with pytest.raises(PictureError, match="note.png"):
        recognizer(tmp_path / "note.png")


def test_doubt_is_said():
    """An untrained network has nothing to be sure of."""
    p = Recognizer(DigitNet(ModelConfig((8,), (1,))).eval())(draw(SEVEN, brush=16))
    assert p.digit is not None and p.verdict in ("unsure", "not_a_digit")


@pytest.mark.parametrize("kind", ["scribble", "star", "house", "face", "spiral", "smudge", "grid"])
def test_doodles_are_no_digits(recognizer, kind):
    from digitnet.doodles import KINDS, doodles
    from digitnet.drawings import render

    drawings = [d for d in doodles(len(KINDS) * 10, seed=31) if d.label == kind]
    rendering = render(drawings, copies=1, seed=5, vary=False)
    verdicts = [p.verdict for p in recognizer.read(list(rendering.digits.astype(np.float32) / 255))]
    assert verdicts.count("not_a_digit") >= 0.6 * len(verdicts)  # a short scribble may happen to be a digit


def test_the_views_and_their_votes(recognizer, seven):
    from digitnet.preprocess import to_digit

    views, names, votes = recognizer.views_of(to_digit(seven))
    assert views.shape == (len(names), 28, 28) and views.dtype == np.uint8
    assert votes.shape == (len(names), 10) and np.allclose(votes.sum(1), 1)
    assert (votes.argmax(1) == 7).mean() > 0.7


def test_saliency_names_the_ink_that_decides(recognizer, seven):
    """Erasing the ink it weighs most must cost the 7 more of its margin over the 1 than erasing what it weighs least."""
    from digitnet.preprocess import to_digit

    digit = to_digit(seven)
    why = recognizer.saliency(digit, against=1)
    assert why.shape == (28, 28) and np.abs(why).max() == pytest.approx(1.0)
    inked = np.argwhere(digit > 0.5)
    ranked = inked[np.argsort(why[tuple(inked.T)])]

    def margin_without(places) -> float:
        erased = digit.copy()
        for row, column in places:
            erased[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 0
        logits = recognizer.logits(torch.from_numpy(erased)[None])[0, 0]
        return float(logits[7] - logits[1])

    assert margin_without(ranked[-4:]) < margin_without(ranked[:4])


def test_load_works_from_any_folder(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}
    code = "from digitnet import Recognizer; print(Recognizer.load().card['seed'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().isdigit()


def test_threads_may_share_a_recognizer(recognizer, seven):
    from concurrent.futures import ThreadPoolExecutor

    one = draw(ONE, brush=14)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(recognizer, [seven, one] * 20))
    assert [p.digit for p in answers] == [7, 1] * 20
