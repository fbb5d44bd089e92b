"""Whatever is sent, the answer is a valid one or a sentence of ours: Hypothesis makes it up.

A small share runs with all the tests; `pytest -m fuzz` runs these alone, with more than 10,000 examples in all.
"""

import base64
import gzip
import io
import json
import math

import numpy as np
import pytest
from conftest import in_loop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from digitnet import PictureError, Recognizer
from digitnet.drawings import DrawingError, draw, read_drawings
from digitnet.preprocess import SIDE, frame, open_picture, to_digit, to_ink
from digitnet.recognizer import VERDICTS

pytestmark = pytest.mark.fuzz
SHORT, LONG = 50, 1000  # examples of every property: in every run of the tests, and under -m fuzz (see conftest)


def fuzzed(*strategies):
    """A property of whatever these strategies make up."""
    quiet = settings(
        max_examples=LONG if settings.get_current_profile_name() == "fuzz" else SHORT,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: quiet(given(*strategies)(test))


def check_sentence(error: Exception) -> None:
    text = str(error)
    assert text.endswith(".") and text.isprintable() and len(text) < 400, text


# --- what is made up ------------------------------------------------------------------------------------------------------

dtypes = st.one_of(npst.boolean_dtypes(), npst.integer_dtypes(), npst.unsigned_integer_dtypes(), npst.floating_dtypes())
any_array = npst.arrays(dtypes, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12))
bytes_array = npst.arrays(
    np.uint8,
    st.tuples(st.integers(1, 70), st.integers(1, 70)).flatmap(
        lambda size: st.sampled_from([size, (*size, 1), (*size, 3), (*size, 4)])
    ),
    elements=st.integers(0, 255),
    fill=st.sampled_from([0, 128, 255]),
)
STARTS = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*", b"RIFF\x30\x00\x00\x00WEBP"]
SEVEN = draw([np.array([[70.0, 70], [200, 72], [160, 140], [120, 230]])], brush=16)
FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"]
numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.floats(-50, 400),
    st.integers(-10, 300),
    st.sampled_from([math.nan, -0.0, 1e39, 10**400]),
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=6), inside, max_size=4),
    max_leaves=12,
)
points = st.lists(numbers, max_size=14)
stroke = st.one_of(
    st.tuples(st.booleans(), st.floats(0.5, 140), st.lists(st.floats(-300, 600), max_size=20)).map(list),
    st.tuples(anything, numbers, points).map(list),
    anything,
)
sent_strokes = st.one_of(st.lists(stroke, max_size=6), anything)


def whole(format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(SEVEN).convert("RGB").save(file, format)
    return file.getvalue()


WHOLE = {format: whole(format) for format in FORMATS}
damage = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6)), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def recognizer(weights):
    return Recognizer.load(weights)


@pytest.fixture(scope="module")
def server(weights):
    """What the page's script may call, by name, over a small network: {"read_sheet": function, ...}."""
    import gradio as gr

    from digitnet.page.draw import draw_tab

    def build() -> gr.Blocks:
        with gr.Blocks(analytics_enabled=False) as blocks:
            draw_tab(Recognizer.load(weights))
        return blocks

    blocks = in_loop(build)
    (tools,) = (block for block in blocks.blocks.values() if getattr(block, "elem_id", None) == "tools")
    return {name: getattr(tools, name) for name in ("read_sheet", "sheet_steps", "sheet_why", "sheet_picture")}


# --- picture → ink → digit ------------------------------------------------------------------------------------------------


def check_ink(ink: np.ndarray) -> None:
    assert ink.dtype == np.float32 and ink.ndim == 2 and np.isfinite(ink).all() and ink.min() >= 0 and ink.max() <= 1
    digit = frame(ink)
    if ink.any():
        assert digit.shape == (SIDE, SIDE) and digit.dtype == np.float32 and np.isfinite(digit).all()
        assert digit.min() >= 0 and 0 < digit.max() <= 1
    else:
        assert digit is None


@fuzzed(any_array)
def test_an_array_of_any_kind(array):
    try:
        check_ink(to_ink(array))
    except PictureError as error:
        check_sentence(error)
        taken = array.dtype == np.uint8 and array.ndim in (2, 3) and array.shape[2:] in ((), (1,), (3,), (4,))
        assert not (taken and array.size)
    else:
        assert array.dtype == np.uint8


@fuzzed(bytes_array)
def test_an_array_that_is_a_picture(array):
    check_ink(to_ink(array))
    mirrored = to_ink(np.ascontiguousarray(array[:, ::-1]))
    assert np.array_equal(mirrored[:, ::-1], to_ink(array)), "no side is preferred"


@fuzzed(npst.arrays(np.float32, npst.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.floats(width=32)))
def test_a_picture_of_floats(array):
    check_ink(to_ink(Image.fromarray(array)))


@fuzzed(st.sampled_from(STARTS), st.binary(max_size=600))
def test_bytes_that_may_be_a_picture(start, content):
    try:
        image = open_picture(io.BytesIO(start + content))
    except PictureError as error:
        check_sentence(error)
    else:
        check_ink(to_ink(image))


@fuzzed(st.sampled_from(FORMATS), damage)
def test_a_damaged_picture(format, damage):
    content = bytearray(WHOLE[format])
    for place, bytes_ in damage:
        at = int(place * len(content))
        content[at : at + len(bytes_)] = bytes_
    try:
        image = open_picture(io.BytesIO(bytes(content)))
    except PictureError as error:
        check_sentence(error)
    else:
        check_ink(to_ink(image))


# --- the recognizer -------------------------------------------------------------------------------------------------------


@fuzzed(st.lists(bytes_array, min_size=1, max_size=4))
def test_what_a_prediction_is(recognizer, arrays):
    for array, p in zip(arrays, recognizer.many(arrays), strict=True):
        assert p.verdict in VERDICTS and p.seen.shape == (28, 28) and p.seen.dtype == np.uint8
        assert len(p.probabilities) == 10 and math.isclose(sum(p.probabilities), 1.0, abs_tol=1e-9)
        assert all(type(share) is float and 0 <= share <= 1 for share in p.probabilities)
        assert type(p.p_digit) is float and 0 <= p.p_digit <= 1
        blank = to_digit(array) is None
        assert blank == (p.verdict == "blank") == (p.digit is None) == (not p.seen.any())
        if not blank:
            assert p.confidence == max(p.probabilities) == p.top(1)[0][1] and p.digit == p.top(1)[0][0]


# --- stroke files ---------------------------------------------------------------------------------------------------------

rows = st.one_of(
    anything.map(json.dumps),
    st.fixed_dictionaries({"label": anything, "strokes": anything}, optional={"writer": anything}).map(json.dumps),
    st.fixed_dictionaries(
        {"label": st.integers(0, 9), "strokes": st.lists(st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=5))}
    ).map(json.dumps),
    st.text(max_size=60),
)


@fuzzed(st.lists(rows, max_size=4), st.sampled_from(["plain", "gzip", "cut gzip", "not gzip"]))
def test_a_stroke_file_of_any_lines(tmp_path_factory, lines, kind):
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    path = tmp_path_factory.getbasetemp() / ("fuzzed.jsonl" if kind == "plain" else "fuzzed.jsonl.gz")
    packed = gzip.compress(content, 1) if "gzip" in kind and kind != "not gzip" else content
    path.write_bytes(packed[:-5] if kind == "cut gzip" else packed)
    try:
        drawings = read_drawings(path)
    except DrawingError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        for drawing in drawings:
            assert drawing.strokes and all(s.shape[1:] == (2,) and len(s) and np.isfinite(s).all() for s in drawing.strokes)
            assert drawing.digit is None or 0 <= drawing.digit <= 9


# --- what the page's script may call --------------------------------------------------------------------------------------


def check_reading(reading) -> None:
    assert isinstance(reading, dict)
    json.dumps(reading, allow_nan=False)
    if "error" in reading:
        check_sentence(ValueError(reading["error"]))
    else:
        assert reading["verdict"] in VERDICTS and reading["say"]
        assert reading["label"] is None or reading["label"]["label"].isdigit()


@fuzzed(sent_strokes)
def test_the_live_strokes(server, strokes):
    check_reading(server["read_sheet"](strokes))


@fuzzed(sent_strokes)
def test_the_steps_of_a_sheet(server, strokes):
    check_reading(server["sheet_steps"](strokes))


@fuzzed(
    st.one_of(anything, st.fixed_dictionaries({"strokes": sent_strokes}, optional={"against": anything | st.integers(-1, 10)}))
)
def test_why(server, question):
    answer = server["sheet_why"](question)
    json.dumps(answer, allow_nan=False)
    assert answer.get("say") or answer["error"]


@fuzzed(
    st.one_of(
        anything,
        st.binary(max_size=300).map(lambda content: base64.b64encode(content).decode()),
        st.sampled_from(FORMATS).map(lambda format: base64.b64encode(WHOLE[format]).decode()),
    )
)
def test_the_sheets_own_picture(server, png):
    check_reading(server["sheet_picture"](png))


def test_at_length_there_are_more_than_ten_thousand():
    properties = [test for name, test in globals().items() if name.startswith("test_") and hasattr(test, "hypothesis")]
    assert len(properties) * LONG > 10_000
