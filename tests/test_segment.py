"""Ink → pieces: digits with gaps come apart, strokes of one digit stay together, photos are cleaned of light and dirt."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageFilter

from digitnet.drawings import draw
from digitnet.preprocess import find_ink, to_ink
from digitnet.segment import alone, find_pieces, join, photo_ink, tilt, turn


def sheet(strokes, brush=10):
    return to_ink(draw(strokes, brush=brush))


def moved(strokes, *, scale=1.0, by=(0, 0)):
    return [np.asarray(stroke) * scale + by for stroke in strokes]


def boxes(pieces):
    return [(p.box.left, p.box.top, p.box.right, p.box.bottom) for p in pieces]


@pytest.mark.parametrize("digit", range(10))
def test_one_digit_is_one_piece(drawn, digit):
    ink = sheet(drawn[f"{digit}-upright"])
    assert alone(ink)
    assert len(find_pieces(ink)) == 1


def test_digits_with_gaps_come_apart_left_to_right(drawn):
    pieces = find_pieces(sheet(drawn["2026-number"]))
    assert len(pieces) == 4
    lefts = [piece.box.left for piece in pieces]
    assert lefts == sorted(lefts)
    assert not any(piece.cut for piece in pieces)


def test_pieces_hold_all_the_ink_and_only_their_own(drawn):
    ink = sheet(drawn["2026-number"])
    pieces = find_pieces(ink)
    laid = np.zeros_like(ink)
    for piece in pieces:
        box = piece.box
        assert piece.ink.shape == (piece.height, piece.width)
        laid[box.top : box.bottom, box.left : box.right] += piece.ink
    assert np.abs(laid - ink).max() < 0.3  # but for the faintest rim
    assert abs(laid.sum() / ink.sum() - 1) < 0.01


def test_a_detached_bar_stays_with_its_five(drawn):
    stem, belly, bar = drawn["5-upright"]
    ink = sheet([stem + [0, 14], belly + [0, 14], bar - [0, 6]])
    assert len(find_pieces(ink)) == 1


def test_a_lone_block_needs_no_opencv():
    code = (
        "import sys, numpy as np; from digitnet import segment; "
        "ink = np.zeros((280, 280), 'f'); ink[40:240, 130:150] = 1; "
        "assert segment.alone(ink) and 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_touching_digits_are_cut_and_said_to_be(drawn):
    two = moved(drawn["2-upright"], scale=0.6, by=(0, 50))
    three = moved(drawn["3-upright"], scale=0.6, by=(70, 50))
    seven = moved(drawn["7-upright"], scale=0.6, by=(135, 50))
    pieces = find_pieces(sheet([*two, *three, *seven, np.array([[30.0, 170.0], [220.0, 170.0]])]))
    assert len(pieces) >= 2 and all(piece.cut for piece in pieces)


def test_dirt_is_no_piece(drawn):
    clean = draw(drawn["2026-number"], brush=10)
    dirty = clean.copy()
    dirty[10:12, 10:12] = 0
    dirty[250:252, 200:201] = 0
    assert boxes(find_pieces(to_ink(dirty))) == boxes(find_pieces(to_ink(clean)))


def test_a_lone_dot_is_no_digit_and_widens_none(drawn):
    strokes = drawn["2026-number"]
    right = max(float(stroke[:, 0].max()) for stroke in strokes)
    dotted = [*strokes, np.array([[right + 14, 150.0]])]
    assert len(find_pieces(sheet(dotted, brush=6))) == 4


def test_slices_joined_again_are_the_uncut_mark():
    wide = sheet([np.array([[30.0, 100], [250, 100], [250, 140], [30, 180]])])
    slices = find_pieces(wide)
    assert len(slices) > 1 and all(piece.cut for piece in slices)
    whole = join(slices)
    assert not whole.cut and whole.ink.sum() == pytest.approx(wide.sum(), rel=0.01)


@pytest.mark.parametrize("degrees", [-12, -5, 5, 12])
def test_a_tilted_line_is_turned_level(drawn, degrees):
    page = Image.fromarray(draw(drawn["2026-number"], brush=8)).rotate(-degrees, Image.Resampling.BICUBIC, fillcolor=255)
    ink = to_ink(np.asarray(page))
    pieces = find_pieces(ink)
    assert np.degrees(tilt(pieces)) == pytest.approx(degrees, abs=4)
    level, back = turn(ink, tilt(pieces))
    assert abs(np.degrees(tilt(find_pieces(level)))) < 3
    assert level.sum() == pytest.approx(ink.sum(), rel=0.02)
    middle = np.array([level.shape[1] / 2, level.shape[0] / 2, 1])
    assert back @ middle == pytest.approx([ink.shape[1] / 2, ink.shape[0] / 2])


def test_one_piece_has_no_tilt(drawn):
    assert tilt(find_pieces(sheet(drawn["7-upright"]))) == 0.0 and tilt([]) == 0.0


def test_blank_ink_has_no_pieces_and_is_alone():
    blank = np.zeros((50, 80), np.float32)
    assert find_pieces(blank) == [] and alone(blank)


def test_a_speck_alone_is_no_piece():
    assert find_pieces(sheet([[[0, 0]]], brush=1)) == []


def test_no_more_pieces_than_asked_for():
    ink = np.zeros((60, 900), np.float32)
    for i in range(40):
        ink[10:50, 20 * i + 5 : 20 * i + 12] = 1
    assert len(find_pieces(ink, most=24)) == 24


def test_joined_pieces_hold_both(drawn):
    pieces = find_pieces(sheet(drawn["2026-number"]))
    whole = join(pieces)
    assert whole.ink.sum() == pytest.approx(sum(float(piece.ink.sum()) for piece in pieces), rel=1e-5)
    assert join(pieces[:1]) is pieces[0]


# --- photos ---------------------------------------------------------------------------------------------------------------


def photographed(strokes, *, dark_ink=True, slope=0.3, seed=0, exif=1):
    """A photo of a sheet: large, light falling off to one side, grain, blur, JPEG."""
    rng = np.random.default_rng(seed)
    ink = np.kron(1 - draw(strokes, brush=9).astype(np.float32) / 255, np.ones((3, 3), np.float32))
    ink = np.pad(ink, 90)
    light = 1 + slope * np.linspace(-1, 1, ink.shape[1])[None] + slope * np.linspace(-0.5, 0.5, ink.shape[0])[:, None]
    photo = (0.72 - 0.5 * ink) * light + rng.normal(0, 0.02, ink.shape)
    photo = photo if dark_ink else 1 - photo
    image = Image.fromarray((np.clip(photo, 0, 1) * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))
    if exif == 6:  # the camera was turned: the pixels lie on their side and the file says so
        image = image.transpose(Image.Transpose.ROTATE_90)
    tags = Image.Exif()
    tags[274] = exif
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=70, exif=tags)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("dark_ink", [True, False], ids=["dark on light", "light on dark"])
@pytest.mark.parametrize("slope", [0.0, 0.35], ids=["even light", "uneven light"])
def test_a_photo_of_a_number_gives_its_digits(drawn, dark_ink, slope):
    ink = photo_ink(photographed(drawn["2026-number"], dark_ink=dark_ink, slope=slope))
    assert ink.dtype == np.float32 and ink.min() >= 0 and ink.max() <= 1
    assert len(find_pieces(ink)) == 4


def test_large_thick_digits_are_not_taken_for_paper(drawn):
    file = photographed(moved(drawn["8-upright"], scale=1.2, by=(-28, -28)), slope=0.1)
    ink = photo_ink(file)
    (piece,) = find_pieces(ink)
    assert piece.height > 0.4 * ink.shape[0]


def test_a_turned_camera_is_turned_back(drawn):
    upright = photo_ink(photographed(drawn["2026-number"]))
    turned = photo_ink(photographed(drawn["2026-number"], exif=6))
    assert turned.shape == upright.shape
    assert len(find_pieces(turned)) == 4


def test_empty_paper_has_no_ink():
    rng = np.random.default_rng(1)
    paper = (200 + rng.normal(0, 4, (600, 800))).clip(0, 255).astype(np.uint8)
    assert find_ink(photo_ink(paper)) is None
    assert find_ink(photo_ink(np.full((40, 40), 128, np.uint8))) is None


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 5)])
def test_tiny_photos_do_no_harm(size):
    photo_ink(np.zeros(size, np.uint8))
