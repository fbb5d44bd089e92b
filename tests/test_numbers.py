"""Numbers on sheets and in photos, composed from drawings of people never trained on: the floors the project promises."""

import io

import numpy as np
import pytest
from composed import compose, digits_of, numbers_read, photograph, photos_read, singles_read, touching_read
from PIL import Image, ImageOps

from digitnet import Recognizer
from digitnet.page.reading import Reader


@pytest.fixture(scope="module")
def reader():
    return Reader(Recognizer.load())


@pytest.fixture(scope="module")
def report_digits(data):
    return digits_of(data, "report")


@pytest.fixture(scope="module")
def choose_digits(data):
    return digits_of(data, "choose")


def test_numbers_by_people_never_trained_on(reader, report_digits):
    right = [said == number.text for number, said, _ in numbers_read(reader, report_digits, 200, seed=11)]
    assert np.mean(right) >= 0.95


def test_photos_of_numbers_by_people_never_trained_on(reader, report_digits):
    right = [said == number.text for number, _, said, _ in photos_read(reader, report_digits, 200, seed=11)]
    assert np.mean(right) >= 0.90


def test_single_digits_are_not_taken_for_several(reader, choose_digits):
    several = [reading["number"] is not None for _, _, reading in singles_read(reader, choose_digits, 400, seed=3)]
    assert np.mean(several) <= 0.003


def test_touching_digits_are_answered_and_never_wrong_without_doubt(reader, choose_digits):
    rows = list(touching_read(reader, choose_digits, 30, seed=0))
    assert all(said for _, said, _ in rows)
    wrong = [reading for number, said, reading in rows if said != number.text]
    assert wrong and all(reading["doubt"] for reading in wrong)


# --- what is composed is what was asked for ---------------------------------------------------------------------------------


def test_composed_digits_keep_their_gaps_and_stay_on_the_sheet(choose_digits):
    for k in range(30):
        number = compose(choose_digits, np.random.default_rng(k))
        assert 2 <= len(number.text) <= 6 and number.gap >= 0.10
        points = np.concatenate(number.strokes)
        assert points.min() >= number.brush / 2 and points.max() <= 280 - number.brush / 2


def test_one_number_is_by_one_writer(choose_digits):
    by = {}
    for drawing in choose_digits:
        by.setdefault(drawing.writer, []).append(drawing)
    alone = min(by.values(), key=len)
    number = compose(alone, np.random.default_rng(0))
    assert set(number.text) <= {drawing.label for drawing in alone}


def test_a_photo_stands_upright_by_its_exif_tag(choose_digits):
    turned = set()
    for k in range(8):
        rng = np.random.default_rng(k)
        photo = photograph(compose(choose_digits, rng, lengths=(6, 6)), rng)
        image = Image.open(io.BytesIO(photo.file.getvalue()))
        upright = ImageOps.exif_transpose(image)
        assert upright.width > upright.height, "six digits make a wide picture"
        turned.add(photo.orientation)
    assert len(turned) > 1
