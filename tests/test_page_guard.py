"""What a stranger may send: request sizes, the sheet's pictures, and drawings to be collected."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from digitnet import PictureError
from digitnet.drawings import read_drawings
from digitnet.page.draw import Sheet
from digitnet.page.guard import Guard
from digitnet.page.limits import LIMITS
from digitnet.page.visit import Collector

FILES = ("/gradio_api/upload", "/gradio_api/component_server")


def ask(path, *, body=(b"",), length=None):
    """Sends a request through the guard to an application that reads all of it; returns status and text."""
    answer = {"status": None, "text": b""}
    parts = list(body)

    async def application(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    async def receive():
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message):
        if message["type"] == "http.response.start":
            answer["status"] = message["status"]
        else:
            answer["text"] += message["body"]

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    headers.append((b"content-type", b"multipart/form-data; boundary=b" if path.startswith(FILES) else b"application/json"))
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "client": ("10.0.0.1", 5)}
    # In a thread of its own: where browser tests ran before, Playwright's loop still runs in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(Guard(application)(scope, receive, send))).result()
    return answer["status"], answer["text"].decode()


def test_small_requests_pass():
    assert ask("/gradio_api/call/predict", body=[b'{"data":', b"[]}"], length=11) == (200, "fine")


@pytest.mark.parametrize("path", ["/gradio_api/call/predict", "/gradio_api/call/v2/predict/", "/gradio_api/queue/join"])
def test_a_large_message_is_refused_by_its_length(path):
    status, text = ask(path, length=LIMITS.message + 1)
    assert status == 413 and json.loads(text)["detail"] == "This is too large: at most 1 MB are taken at once."


def test_files_may_be_larger_but_not_without_end():
    assert ask("/gradio_api/upload", length=LIMITS.message + 1)[0] == 200
    assert ask("/gradio_api/component_server/", length=LIMITS.uploads + 1)[0] == 413


def test_a_body_without_a_length_is_counted():
    assert ask("/gradio_api/queue/join", body=[b"x" * 400_000] * 4)[0] == 413
    assert ask("/gradio_api/queue/join", length="many")[0] == 413


def blob(key, *, kind="composite", index=None, content=b"png"):
    return SimpleNamespace(data={"type": kind, "index": index, "id": key}, files=[("a.png", content)])


def test_the_sheet_keeps_few_pictures():
    sheet = Sheet(canvas_size=(280, 280))
    for number in range(3 * LIMITS.sheets):
        sheet.accept_blobs(blob(f"visitor{number}"))
    assert len(sheet.blob_storage) == LIMITS.sheets
    assert f"visitor{3 * LIMITS.sheets - 1}" in sheet.blob_storage


@pytest.mark.parametrize(
    "sent",
    [
        blob("a", kind="layer", index="999999999"),
        blob("a", kind="other"),
        blob("k" * 1000),
        blob("a", content=b"x" * (LIMITS.blobs + 1)),
    ],
)
def test_the_sheet_takes_no_numbered_layers_and_nothing_large(sent):
    sheet = Sheet(canvas_size=(280, 280))
    sheet.accept_blobs(sent)
    assert not sheet.blob_storage


def test_a_checked_drawing_is_kept_as_a_stroke_file(tmp_path):
    collector = Collector(tmp_path / "kept")
    row = {"label": 7, "writer": "visitor-1", "strokes": [[[1, 2], [3.456, 4]]], "more": "is dropped"}
    assert "kept" in collector.keep(row)
    collector.keep({**row, "label": "not a digit"})
    first, second = read_drawings(tmp_path / "kept" / "drawings.jsonl")
    assert first.digit == 7 and second.digit is None
    assert "more" not in json.loads((tmp_path / "kept" / "drawings.jsonl").read_text().splitlines()[0])
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["drawings.jsonl"]


@pytest.mark.parametrize(
    "row",
    [
        None,
        [],
        {},
        {"label": 1},
        {"label": 1, "strokes": "abc"},
        {"label": 1, "strokes": [[[1, 2, 3]]]},
        {"label": "x" * 50, "strokes": [[[1, 2]]]},
        {"label": 1, "writer": "y" * 50, "strokes": [[[1, 2]]]},
        {"label": 1, "strokes": [[[0, 0]] * (LIMITS.points + 1)]},
    ],
)
def test_what_is_no_drawing_is_not_kept(tmp_path, row):
    with pytest.raises(PictureError):
        Collector(tmp_path).keep(row)
    assert list(tmp_path.iterdir()) == []
