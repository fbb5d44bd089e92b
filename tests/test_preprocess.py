"""Properties of picture → ink → digit: what must change nothing, what must survive, what must be refused."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from digitnet.drawings import draw
from digitnet.preprocess import (
    BOX,
    MAX_PIXELS,
    SIDE,
    WORKING_SIDE,
    PictureError,
    find_ink,
    frame,
    open_picture,
    to_digit,
    to_ink,
)

SEVEN = [np.array([[60.0, 70], [200, 70], [110, 230]])]


def sheet(*, brush=18.0, shift=(0, 0), side=280) -> np.ndarray:
    return draw([stroke + np.array(shift) for stroke in SEVEN], brush=brush, side=side)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the ink that lies elsewhere."""
    return float(np.abs(a - b).sum() / max(a.sum(), b.sum()))


def test_a_digit_has_its_longer_side_at_twenty_pixels_and_its_mass_in_the_middle():
    digit = to_digit(sheet())
    box = find_ink(digit)
    assert max(box.bottom - box.top, box.right - box.left) == BOX
    rows, columns = digit.sum(1), digit.sum(0)
    centre = np.arange(SIDE) + 0.5
    assert abs((rows * centre).sum() / rows.sum() - SIDE / 2) <= 0.5
    assert abs((columns * centre).sum() / columns.sum() - SIDE / 2) <= 0.5
    assert digit.dtype == np.float32 and digit.min() == 0.0 and digit.max() == 1.0


@pytest.mark.parametrize("shift", [(-50, -60), (40, 30), (-51, 40), (69, -61)])
def test_where_it_is_drawn_changes_nothing(shift):
    assert distance(to_digit(sheet()), to_digit(sheet(shift=shift))) < 0.01


@pytest.mark.parametrize("side", [70, 140, 560, 1120, 2240])
def test_how_large_the_picture_is_changes_little(side):
    picture = Image.fromarray(sheet(side=280)).resize((side, side), Image.Resampling.BICUBIC)
    assert distance(to_digit(sheet()), to_digit(picture)) < 0.12


def test_polarity_changes_nothing():
    assert np.allclose(to_digit(sheet()), to_digit(255 - sheet()), atol=1e-5)


@pytest.mark.parametrize("ink", ["black", "white", "#123456", "#f5d0c5"])
def test_transparent_paper_is_paper_whatever_the_ink(ink):
    picture = Image.new("RGBA", (280, 280), (0, 0, 0, 0))
    picture.paste(Image.new("RGBA", (280, 280), ink), mask=Image.fromarray(255 - sheet()))
    assert distance(to_digit(sheet()), to_digit(picture)) < 0.02


def test_an_array_of_one_three_or_four_channels_reads_the_same():
    one = sheet()
    opaque = np.dstack([one, one, one, np.full_like(one, 255)])
    clear = np.dstack([np.zeros_like(one)] * 3 + [255 - one])
    for picture in (one[:, :, None], np.dstack([one] * 3), opaque, clear):
        assert np.array_equal(to_digit(one), to_digit(picture))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"])
def test_every_mode_of_pillow_reads_the_same(mode):
    picture = Image.fromarray(sheet())
    if mode == "I;16":
        picture = Image.fromarray(sheet().astype(np.uint16) * 257)
        assert picture.mode == "I;16"
    else:
        picture = picture.convert("RGB").convert(mode) if mode in ("HSV", "YCbCr", "CMYK") else picture.convert(mode)
    assert distance(to_digit(sheet()), to_digit(picture)) < (0.05 if mode == "1" else 0.02)


def test_a_palette_with_transparency_is_read_by_its_transparency():
    picture = Image.fromarray(np.where(sheet() < 128, 1, 0).astype(np.uint8), "P")
    picture.putpalette([0, 0, 0] * 256)  # both entries black: only the transparency tells them apart
    picture.info["transparency"] = 0
    hard = np.where(sheet() < 128, 0, 255).astype(np.uint8)
    assert distance(to_digit(hard), to_digit(picture)) < 0.01


@pytest.mark.parametrize(
    "mode, value", [("L", 255), ("L", 0), ("L", 131), ("RGBA", (0, 0, 0, 0)), ("RGB", (250, 240, 230)), ("I;16", 40000)]
)
def test_an_empty_sheet_is_blank(mode, value):
    assert to_digit(Image.new(mode, (280, 280), value)) is None


def test_paper_grain_is_no_ink():
    grain = np.random.default_rng(0).normal(235, 4, (280, 280)).clip(0, 255).astype(np.uint8)
    assert to_digit(grain) is None


def test_grain_and_a_gray_sheet_do_not_hide_the_ink():
    grain = np.random.default_rng(0).normal(200, 4, (280, 280))
    picture = np.where(sheet() < 128, 40, grain).clip(0, 255).astype(np.uint8)
    assert distance(to_digit(sheet()), to_digit(picture)) < 0.1


def test_framing_a_picture_of_mnist_returns_nearly_that_picture(mnist_test):
    digits, _ = mnist_test
    for digit in digits[:500].numpy().astype(np.float32) / 255:
        again = frame(digit)
        # A pixel of shift is within MNIST's own rounding; beyond it nothing may move.
        near = min(distance(np.roll(digit, (down, right), (0, 1)), again) for down in (-1, 0, 1) for right in (-1, 0, 1))
        assert near < 0.12


def test_framing_twice_is_framing_once():
    once = to_digit(sheet())
    assert distance(once, frame(once)) < 0.02


def test_one_dot_a_full_line_and_ink_at_the_border_have_results():
    dot = np.full((280, 280), 255, np.uint8)
    dot[100, 100] = 0
    line = np.full((280, 280), 255, np.uint8)
    line[140:143] = 0
    corner = np.full((280, 280), 255, np.uint8)
    corner[:90, :90] = 0
    for picture in (dot, line, corner):
        digit = to_digit(picture)
        assert digit is not None and np.isfinite(digit).all() and digit.max() == 1.0
        box = find_ink(digit)
        assert max(box.bottom - box.top, box.right - box.left) == BOX


def test_thin_ink_is_raised_to_full_strength():
    digit = to_digit(sheet(brush=2.8))
    assert np.quantile(digit[digit > 0.04], 0.9) > 0.95


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    seed=st.integers(0, 2**32 - 1),
    density=st.sampled_from([0.0, 0.002, 0.05, 0.5, 1.0]),
    channels=st.sampled_from([None, 1, 3, 4]),
)
def test_any_array_gives_a_digit_or_none(height, width, seed, density, channels):
    rng = np.random.default_rng(seed)
    shape = (height, width) if channels is None else (height, width, channels)
    picture = np.where(rng.random(shape) < density, rng.integers(0, 256, shape), 255).astype(np.uint8)
    ink = to_ink(picture)
    assert ink.shape == (height, width) and ink.dtype == np.float32
    assert ink.min() >= 0.0 and ink.max() <= 1.0
    digit = to_digit(picture)
    assert digit is None or (digit.shape == (SIDE, SIDE) and np.isfinite(digit).all() and 0 < digit.max() <= 1.0)


def test_a_huge_picture_is_worked_on_at_a_bounded_size():
    assert max(to_ink(Image.new("L", (9000, 40), 255)).shape) <= WORKING_SIDE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(tmp_path, orientation):
    upright = Image.fromarray(sheet())
    stored = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose a camera has undone before it stores
    picture = upright if orientation == 1 else upright.transpose(Image.Transpose(stored[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(np.asarray(open_picture(tmp_path / "photo.png")), sheet())


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("letter.txt", b"hello", "not a picture"),
        ("empty.png", b"", "not a picture"),
        ("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        ("paper.pdf", b"%PDF-1.4", "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PictureError, match=says) as refusal:
        to_digit(tmp_path / name)
    assert name in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_missing_file_a_folder_and_a_wrong_object_are_refused(tmp_path):
    with pytest.raises(PictureError, match="does not exist"):
        to_digit(tmp_path / "none.png")
    with pytest.raises(PictureError, match="folder"):
        to_digit(tmp_path)
    with pytest.raises(PictureError, match="not a list|not list"):
        to_digit([1, 2])
    with pytest.raises(PictureError, match="uint8"):
        to_digit(np.zeros((28, 28), np.float64))
    with pytest.raises(PictureError, match="no pixels"):
        to_digit(np.zeros((0, 28), np.uint8))


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_truncated_file_is_refused(tmp_path, tenth):
    whole = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8)  # noise, so that every tenth holds pixels
    Image.fromarray(noise).save(whole, "PNG")
    content = whole.getvalue()
    (tmp_path / "cut.png").write_bytes(content[: len(content) * tenth // 10])
    with pytest.raises(PictureError, match="damaged|not a picture"):
        to_digit(tmp_path / "cut.png")


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path):
    side = int(MAX_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(tmp_path / "large.png")
    with pytest.raises(PictureError, match="million"):
        to_digit(tmp_path / "large.png")


def test_deep_pictures_with_holes_are_read():
    picture = sheet().astype(np.float32) / 255
    picture[0, 0] = np.nan
    picture[1, 1] = np.inf
    assert distance(to_digit(sheet()), to_digit(Image.fromarray(picture))) < 0.01
