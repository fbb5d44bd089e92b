"""The other tabs in a real browser: photos, this visit's readings, the model in the open, and collecting."""

import csv
import io

import numpy as np
import pytest
from conftest import free_port
from PIL import Image

from digitnet.drawings import draw, read_drawings


def photo_of(strokes, path, *, exif=1, dark_ink=True):
    """A photo of a sheet, light falling off to one side; exif=6: taken with the camera turned."""
    ink = np.kron(1 - draw(strokes, brush=10).astype(np.float32) / 255, np.ones((3, 3), np.float32))
    ink = np.pad(ink, 80)
    photo = (0.75 - 0.5 * ink) * (1 + 0.3 * np.linspace(-1, 1, ink.shape[1])[None])
    photo = photo if dark_ink else 1 - photo
    photo = photo + np.random.default_rng(0).normal(0, 0.015, ink.shape)
    image = Image.fromarray((np.clip(photo, 0, 1) * 255).astype(np.uint8))
    tags = Image.Exif()
    tags[274] = exif
    if exif == 6:
        image = image.transpose(Image.Transpose.ROTATE_90)
    image.convert("RGB").save(path, quality=80, exif=tags)
    return path


def send_photo(visitor, path):
    visitor.open("Photo")
    visitor.page.wait_for_selector("#photo input[type=file]", state="attached")
    visitor.page.set_input_files("#photo input[type=file]", path)
    visitor.page.wait_for_selector("#photo-answer .say")


@pytest.mark.parametrize(
    "kind", [{}, {"exif": 6}, {"dark_ink": False}], ids=["dark on light", "camera turned", "light on dark"]
)
def test_a_photo_of_a_number_is_read_with_a_box_for_each_digit(visit, drawn, tmp_path, kind):
    visitor = visit(width=390, height=844) if "exif" in kind else visit()
    send_photo(visitor, photo_of(drawn["2026-number"], tmp_path / "photo.jpg", **kind))
    assert visitor.page.inner_text("#photo-answer .photo-number") == "2026"
    assert visitor.page.locator("#photo-answer .overlay .box").count() == 4
    shown = visitor.page.locator("#photo-answer .photo-shown img")
    assert shown.evaluate("e => e.naturalWidth === e.naturalHeight"), "the sheet is square, however the camera was held"


def test_a_photo_without_writing_and_a_file_that_is_none_are_answered(visit, tmp_path):
    visitor = visit()
    Image.fromarray(np.full((300, 400), 200, np.uint8)).save(tmp_path / "empty.png")
    send_photo(visitor, tmp_path / "empty.png")
    assert "No writing found" in visitor.page.inner_text("#photo-answer .say")


def test_readings_are_listed_corrected_and_downloaded(visit, drawn, tmp_path):
    visitor = visit()
    page = visitor.page
    for name in ("7-upright", "3-upright", "2026-number"):
        visitor.draw(drawn[name])
        visitor.clear()
    visitor.open("History")
    rows = page.locator("#visit tbody tr")
    assert [row.locator(".read").inner_text() for row in rows.all()] == ["2026", "3", "7"]
    assert rows.first.locator("img.field").count() == 1

    rows.nth(0).get_by_role("button", name="Right").click()
    rows.nth(1).locator("select").select_option("5")
    assert rows.nth(1).locator(".said").inner_text() == "it was 5"
    assert "1 of 2 checked ones right" in page.inner_text("#visit .summary")

    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    table = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert [(row["read"], row["correct_answer"]) for row in table] == [("2026", "2026"), ("3", "5"), ("7", "")]

    with page.expect_download() as download:
        page.get_by_role("button", name="Download strokes").click()
    download.value.save_as(tmp_path / "drawings.jsonl")
    drawings = read_drawings(tmp_path / "drawings.jsonl")
    assert [drawing.digit for drawing in drawings] == [2, 0, 2, 6, 5], "a number gives its digits, each with its own strokes"
    assert len({drawing.writer for drawing in drawings}) == 1

    page.get_by_role("button", name="Forget all").click()
    assert rows.count() == 0
    assert "Nothing is stored on the server" in page.inner_text("#visit")


def test_one_sheet_is_one_reading_however_often_it_is_read(visit, drawn):
    visitor = visit()
    visitor.draw(drawn["7-upright"])
    visitor.draw([[[85, 140], [170, 132]]])
    visitor.page.get_by_role("button", name="Predict").click()
    visitor.settled()
    visitor.open("History")
    assert visitor.page.locator("#visit tbody tr").count() == 1


def test_the_model_is_shown_in_the_open(visit):
    visitor = visit(width=390, height=844)
    visitor.open("Model")
    model = visitor.page.locator("#model")
    model.locator("h2").first.wait_for()
    text = model.inner_text()
    assert "SHA-256" in text and "Learned from" in text
    assert visitor.page.evaluate("() => document.documentElement.scrollWidth") <= 390


def test_collecting_is_said_and_keeps_only_what_was_checked(visit, run_app, drawn, tmp_path):
    app = run_app("--port", free_port(), "--collect", tmp_path / "kept")
    visitor = visit(address=app.address())
    visitor.draw(drawn["7-upright"])
    visitor.clear()
    visitor.draw(drawn["3-upright"])
    visitor.open("History")
    assert "The owner of this page collects drawings" in visitor.page.inner_text("#visit")
    assert not (tmp_path / "kept" / "drawings.jsonl").exists()
    with visitor.page.expect_response("**/component_server/**") as kept:
        visitor.page.locator("#visit tbody tr").last.get_by_role("button", name="Right").click()
    assert "kept" in kept.value.json()
    (drawing,) = read_drawings(tmp_path / "kept" / "drawings.jsonl")
    assert drawing.digit == 7 and drawing.writer.startswith("visitor-")
