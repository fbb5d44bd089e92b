"""Stroke files, their rendering, and the split of writers."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digitnet.drawings import (
    PARTS,
    SHEET,
    Drawing,
    DrawingError,
    draw,
    find_drawings,
    part_of,
    place,
    read_drawings,
    redraw,
    render,
    write_drawings,
)

TWO = (np.array([[10, 20], [40, 5], [60, 30], [10, 80], [70, 80]], np.float32),)
ONE = (np.array([[0, 0], [1, 40], [0, 90]], np.float32),)
ZERO = (np.array([[np.cos(a) * 30, np.sin(a) * 45] for a in np.linspace(0, 6.3, 30)], np.float32),)


def test_what_is_written_is_read_back(tmp_path):
    drawings = [Drawing("2", "w1", TWO), Drawing("a", "w2", (TWO[0] / 3, np.array([[1.5, 2.25]], np.float32)))]
    for name in ("d.jsonl", "d.jsonl.gz"):
        write_drawings(tmp_path / name, drawings)
        again = read_drawings(tmp_path / name)
        assert [(d.label, d.writer, d.digit) for d in again] == [("2", "w1", 2), ("a", "w2", None)]
        for old, new in zip(drawings, again, strict=True):
            assert all(np.allclose(a, b, atol=0.01) for a, b in zip(old.strokes, new.strokes, strict=True))


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        "{}",
        '{"label": 1}',
        '{"label": 1, "strokes": []}',
        '{"label": 1, "strokes": [[]]}',
        '{"label": 1, "strokes": [[[1, 2, 3]]]}',
        '{"label": 1, "strokes": [[[1, null]]]}',
        '{"label": 1, "strokes": [[["a", "b"]]]}',
        '{"label": 1, "strokes": [[[1, NaN]]]}',
        '{"label": 1, "strokes": 7}',
        '"' + "[" * 5000,
    ],
)
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"label": 1, "writer": "w", "strokes": [[[1, 2]]]}\n' + line + "\n")
    with pytest.raises(DrawingError, match=r"bad\.jsonl, line 2"):
        read_drawings(path)


def test_a_damaged_archive_and_a_missing_file_are_told(tmp_path):
    whole = gzip.compress(json.dumps({"label": 1, "strokes": [[[1, 2]]]}).encode() * 50)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-10])
    (tmp_path / "no.jsonl.gz").write_bytes(b"plain text")
    for name in ("cut.jsonl.gz", "no.jsonl.gz", "none.jsonl"):
        with pytest.raises(DrawingError, match=name.replace(".", r"\.")):
            read_drawings(tmp_path / name)


def test_the_brush_is_as_wide_as_said():
    for brush in (3.0, 8.0, 28.0):
        sheet = draw([np.array([[40.0, 140], [240, 140]])], brush=brush)
        assert sheet.shape == (SHEET, SHEET) and sheet.dtype == np.uint8
        assert (255 - sheet[:, 140].astype(float)).sum() / 255 == pytest.approx(brush, abs=1.1)


def test_a_tap_leaves_a_round_dot():
    sheet = draw([np.array([[140.0, 140]])], brush=20)
    assert (255 - sheet.astype(float)).sum() / 255 == pytest.approx(np.pi * 100, rel=0.1)


@settings(max_examples=50, deadline=None)
@given(extent=st.floats(0.2, 0.9), x=st.floats(0, 1), y=st.floats(0, 1), scale=st.floats(0.01, 1000))
def test_placed_strokes_lie_on_the_sheet_at_their_extent(extent, x, y, scale):
    placed = np.concatenate(place([stroke * scale for stroke in TWO], extent=extent, at=(x, y), margin=0.05))
    assert placed.min() >= 0.05 - 1e-6 and placed.max() <= 0.95 + 1e-6
    assert np.ptp(placed, axis=0).max() == pytest.approx(extent, rel=1e-3)


def test_rendering_is_repeatable_and_says_what_it_shows():
    drawings = [Drawing("2", "w", TWO), Drawing("1", "w", ONE), Drawing("x", "w", TWO)]
    first = render(drawings, copies=3, seed=1, vary=True)
    again = render(drawings, copies=3, seed=1, vary=True, workers=2)
    assert np.array_equal(first.digits, again.digits)
    assert first.labels.tolist() == [2] * 3 + [1] * 3 + [-1] * 3
    assert first.index.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert first.digits.shape == (9, 28, 28) and first.digits.dtype == np.uint8
    assert not np.array_equal(first.digits, render(drawings, copies=3, seed=2, vary=True).digits)


def test_rendering_nothing_is_empty():
    assert render([], copies=3, seed=1, vary=False).digits.shape == (0, 28, 28)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), which=st.sampled_from([("2", TWO), ("1", ONE), ("0", ZERO)]))
def test_drawn_again_it_is_still_about_the_same(seed, which):
    label, strokes = which
    again = redraw(Drawing(label, "w", strokes), np.random.default_rng(seed))
    assert again.label == label and len(strokes) <= len(again.strokes) <= len(strokes) + 1
    points = np.concatenate(again.strokes)
    assert np.isfinite(points).all()
    assert np.abs(points).max() < 1.5  # about its own middle, in units of its size


def test_a_split_is_for_ever():
    """Moving a single writer would mix people trained on with people measured on."""
    assert [part_of(f"writer {i}") for i in range(12)] == EXPECTED_PARTS
    shares = [part_of(str(i)) for i in range(5000)]
    assert [round(shares.count(part) / 5000, 1) for part in PARTS] == [0.8, 0.1, 0.1]


EXPECTED_PARTS = ["train", "train", "report", "train", "choose", "train", "train", "train", "train", "report", "train", "train"]


def test_the_drawings_under_the_data_root_are_found_by_source(data):
    sources = find_drawings(data)
    assert {"pendigits", "unipen", "unipen-letters", "unipen-symbols"} <= set(sources)
    assert all(d.digit is not None for d in sources["unipen"])
    assert all(d.digit is None for d in sources["unipen-letters"])
    assert find_drawings(data / "nowhere") == {}
