"""What Gradio leaves open: shown in Gradio as it comes, then shut on our page.

A test named "stock_gradio_…" that fails says that Gradio has closed the gap itself: what digitnet/page/ does about it can go.
"""

import asyncio
import gc
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from conftest import PATIENCE, in_loop
from gradio import processing_utils, routes
from gradio.queueing import Queue
from PIL import Image
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from digitnet.page import gaps
from digitnet.page.gaps import Housekeeping, LeanSession, Shelf, lighten_queue
from digitnet.page.limits import LIMITS

# What Gradio serves and this page does not need.
UNUSED = [
    ("GET", "/gradio_api/proxy={url_path:path}"),
    ("GET", "/gradio_api/token"),
    ("GET", "/gradio_api/dev/reload"),
    ("GET", "/gradio_api/deep_link"),
    ("GET", "/gradio_api/vibe-code"),
    ("GET", "/monitoring"),
    ("POST", "/gradio_api/process_recording"),
    ("POST", "/gradio_api/run/{api_name}"),
    ("POST", "/gradio_api/api/{api_name}"),
    ("POST", "/gradio_api/stream/{event_id}"),
    ("POST", "/gradio_api/vibe-edit"),
]

# Gradio as it comes leaves files of broken uploads open; they are collected here, not in the middle of another test.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def swept():
    yield
    gc.collect()


def run(coroutine):
    """In a thread of its own: where browser tests ran before, Playwright's loop still runs in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("stock")
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def stock(uploads):
    """A page as Gradio makes it by default, with a function that takes a file and a Sketchpad."""

    def build():
        with gr.Blocks(analytics_enabled=False) as page:
            pad = gr.Sketchpad()
            file = gr.File()
            button = gr.Button()
            button.click(lambda path: str(path), [file], [gr.Textbox()], api_name="read")
            button.click(lambda text: text, [gr.Textbox()], [gr.Textbox()], api_name="echo")
        page.queue()
        page.max_file_size = 1000
        return page, pad, routes.App.create_app(page)

    page, pad, app = in_loop(build)
    with TestClient(app, base_url="http://digits.example") as client:
        client.get("/gradio_api/startup-events")
        yield SimpleNamespace(client=client, app=app, page=page, pad=pad)


@pytest.fixture
def ours(inside):
    """Our page, asked by a visitor whom it has not seen before."""
    address, app = inside
    visitor = f"10.1.{os.urandom(1)[0]}.{os.urandom(1)[0]}"
    with httpx.Client(base_url=address, headers={"X-Forwarded-For": visitor}, timeout=PATIENCE) as client:
        yield SimpleNamespace(client=client, app=app, page=app.get_blocks())


def files(count: int) -> list:
    return [("files", (f"{number}.txt", b"x")) for number in range(count)]


def file_at(path: str, **more) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def blobs(pad: int, index: str, *, name: str = "a") -> dict:
    data = {"component_id": pad, "fn_name": "accept_blobs", "session_hash": "s", "type": "layer", "index": index, "id": name}
    return {"data": {key: str(value) for key, value in data.items()}, "files": {"file": ("a.png", b"png")}}


def test_stock_gradio_serves_what_nobody_asked_for(stock):
    served = {(method, route.path) for route in stock.app.routes for method in getattr(route, "methods", None) or ()}
    for included in stock.app.routes:  # newer FastAPI keeps the included router as one
        router = getattr(included, "original_router", None) or getattr(included, "router", None)
        for route in getattr(router, "routes", ()):
            served |= {(method, route.path) for method in getattr(route, "methods", None) or ()}
    assert set(UNUSED) <= served


@pytest.mark.parametrize(("method", "path"), UNUSED)
def test_our_page_does_not(ours, method, path):
    path = path.replace("{url_path:path}", "https://x.hf.space/").replace("{api_name}", "predict").replace("{event_id}", "x")
    assert ours.client.request(method, path, json={"data": []} if method == "POST" else None).status_code == 404


def test_stock_gradio_takes_any_number_of_files(stock):
    assert len(stock.client.post("/gradio_api/upload", files=files(200)).json()) == 200


def test_our_page_takes_few_files_at_once(ours):
    assert len(ours.client.post("/gradio_api/upload", files=files(LIMITS.files)).json()) == LIMITS.files
    answer = ours.client.post("/gradio_api/upload", files=files(LIMITS.files + 20))
    assert answer.status_code == 413 and answer.text == "These are too many files: at most 64 are taken at once."


def test_stock_gradio_keeps_what_a_client_names_and_numbers(stock):
    for name in range(100):
        answer = stock.client.post("/gradio_api/component_server", **blobs(stock.pad._id, "50000", name=f"{name}"))
        assert answer.status_code == 200
    assert len(stock.pad.blob_storage) == 100
    assert len(stock.pad.blob_storage["7"].layers) == 50_001
    stock.pad.blob_storage.clear()


def test_our_page_keeps_neither(ours):
    (pad,) = [block for block in ours.page.blocks.values() if getattr(block, "elem_id", None) == "pad"]
    assert ours.client.post("/gradio_api/component_server", **blobs(pad._id, "50000")).status_code == 200
    assert not pad.blob_storage
    large = blobs(pad._id, "0")
    large["files"] = {"file": ("a.png", b"x" * (LIMITS.blobs + 100_000))}
    assert ours.client.post("/gradio_api/component_server", **large).status_code == 413


def test_stock_gradio_opens_as_many_layers_as_it_is_sent(uploads):
    Image.new("RGB", (20, 20)).save(uploads / "layer.png")
    layer = gr.FileData(path=str(uploads / "layer.png"), orig_name="layer.png")
    pad = gr.Sketchpad(layers=False)
    opened = pad.preprocess(pad.data_model(background=None, layers=[layer] * 50, composite=layer))
    assert len(opened["layers"]) == 50


def test_our_sheet_opens_its_picture_alone(uploads):
    from digitnet.page.draw import Sheet

    Image.new("RGB", (20, 20)).save(uploads / "layer.png")
    (uploads / "letter.png").write_text("Dear network,")
    sheet = Sheet(canvas_size=(280, 280))
    layer, letter = (gr.FileData(path=str(uploads / f"{name}.png")) for name in ("layer", "letter"))
    opened = sheet.preprocess(sheet.data_model(background=letter, layers=[letter] * 50, composite=layer))
    assert opened["layers"] == [] and opened["background"] is None and opened["composite"].size == (20, 20)
    with pytest.raises(gr.Error, match="not a picture"):
        sheet.preprocess(sheet.data_model(background=None, layers=[], composite=letter))


@pytest.fixture
def fetched(monkeypatch, uploads):
    """The addresses that Gradio would have fetched."""
    addresses = []

    def fetch(url, cache_dir):
        addresses.append(url)
        path = uploads / "fetched.png"
        path.write_bytes(b"")
        return str(path)

    async def stream(url, request):
        addresses.append(url)
        return PlainTextResponse("fetched")

    monkeypatch.setattr(processing_utils, "ssrf_protected_download", fetch)
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", lambda url, cache_dir: later(fetch, url, cache_dir))
    monkeypatch.setattr(routes, "secure_url_stream_response", stream)
    return addresses


async def later(function, *arguments):
    return function(*arguments)


ELSEWHERE = "http://elsewhere.example/a.png"


def test_stock_gradio_fetches_addresses_for_strangers(stock, fetched):
    assert stock.client.post("/gradio_api/run/read", json={"data": [file_at(ELSEWHERE)]}).status_code == 200
    assert stock.client.get(f"/gradio_api/file={ELSEWHERE}").text == "fetched"
    assert fetched == [ELSEWHERE] * 2


@pytest.mark.parametrize("at", [ELSEWHERE, "https://127.0.0.1/x", "HTTP://x/y", "ftp://x/y", "file:///etc/passwd"])
def test_our_page_fetches_nothing(ours, fetched, at):
    for path, message in (
        ("call/predict", {"data": [file_at(at)]}),
        ("call/predict_many", {"data": [[file_at(at)]]}),
        ("call/v2/predict", {"picture": file_at(at)}),
        ("queue/join", {"data": [file_at(at)], "fn_index": _index(ours.page, "predict"), "session_hash": "s"}),
    ):
        answer = ours.client.post(f"/gradio_api/{path}", json=message)
        assert answer.status_code == 400 and answer.json()["detail"].startswith("Upload the picture"), path
    assert ours.client.get(f"/gradio_api/file={at}").status_code == 403
    assert not fetched


def _index(page, name: str) -> int:
    return next(fn._id for fn in page.fns.values() if fn.api_name == name)


def test_an_address_beside_an_uploaded_path_is_dropped(ours, fetched):
    buffer = io.BytesIO()
    Image.new("L", (40, 40), 255).save(buffer, "PNG")
    (path,) = ours.client.post("/gradio_api/upload", files={"files": ("a.png", buffer.getvalue())}).json()
    called = ours.client.post("/gradio_api/call/predict", json={"data": [file_at(path, url=ELSEWHERE)]}).json()
    result = ours.client.get(f"/gradio_api/call/predict/{called['event_id']}").text
    assert "complete" in result and not fetched


def test_stock_gradio_describes_every_component_to_every_session(stock):
    (original,) = LeanSession.__bases__
    assert len(original(stock.page).config_values) > 3


def test_our_sessions_do_not(ours):
    assert not LeanSession(ours.page).config_values
    assert type(ours.app.state_holder["somebody"]) is LeanSession


def test_stock_gradio_counts_every_call_with_pandas(stock):
    class Counted(Exception):
        pass

    def count(records):
        raise Counted

    queue = in_loop(lambda: Queue(True, 1, 1, None, stock.page))
    queue._get_df, queue.events_recorded = count, 1
    assert queue.ANALYTICS_MAX_EVENTS > 1000
    with pytest.raises(Counted):
        queue.compute_analytics_summary([{"function": "f"}])
    lighten_queue(queue)
    queue.compute_analytics_summary([{"function": "f"}])  # ours does not
    assert queue.ANALYTICS_MAX_EVENTS == 1


def test_stock_gradio_remembers_every_call_for_ever(stock):
    for _ in range(5):
        event = stock.client.post("/gradio_api/call/echo", json={"data": ["x"]}).json()["event_id"]
        assert "complete" in stock.client.get(f"/gradio_api/call/echo/{event}").text
        stock.client.post("/gradio_api/call/echo", json={"data": ["never fetched"]})
    queue = stock.page._queue
    assert len(queue.pending_event_ids_session) == len(queue.pending_messages_per_session) == 10


def test_our_housekeeping_forgets_answers_fetched_and_answers_grown_old(ours):
    queue = ours.page._queue
    keeper = Housekeeping(ours.app, Shelf())
    event = ours.client.post("/gradio_api/call/predict", json={"data": [None]}).json()["event_id"]
    ours.client.get(f"/gradio_api/call/predict/{event}")
    kept = ours.client.post("/gradio_api/call/predict", json={"data": [None]}).json()["event_id"]
    while kept in queue.event_ids_to_events:  # at work
        time.sleep(0.01)
    keeper.sweep(now=0)
    assert event not in queue.pending_event_ids_session and event not in queue.pending_messages_per_session
    assert queue.pending_event_ids_session[kept] == {kept}
    keeper.sweep(now=LIMITS.files_live)
    assert "error" in ours.client.get(f"/gradio_api/call/predict/{kept}").text, "until then it can be fetched"
    late = ours.client.post("/gradio_api/call/predict", json={"data": [None]}).json()["event_id"]
    while late in queue.event_ids_to_events:
        time.sleep(0.01)
    keeper.sweep(now=LIMITS.files_live + 1)
    keeper.sweep(now=2 * LIMITS.files_live + 2)
    assert not queue.pending_event_ids_session and not keeper._seen
    assert late not in queue.pending_messages_per_session


def test_a_session_that_never_fetches_its_answers_is_told_to(ours):
    message = {"data": [None], "fn_index": _index(ours.page, "predict"), "session_hash": "hoarder"}
    statuses = [ours.client.post("/gradio_api/queue/join", json=message).status_code for _ in range(LIMITS.uncollected + 2)]
    assert statuses[-1] == 429 and set(statuses) <= {200, 429}


def broken_off(app) -> None:
    """An upload whose sender goes away in the middle."""
    disposition = b'Content-Disposition: form-data; name="files"; filename="a"'
    parts = [
        {"type": "http.request", "body": b"\r\n".join([b"--b", disposition, b"", b"abc"]), "more_body": True},
        {"type": "http.disconnect"},
    ]  # fmt: skip

    async def receive():
        return parts.pop(0) if len(parts) > 1 else parts[0]

    async def send(message):
        pass

    headers = [(b"content-type", b"multipart/form-data; boundary=b"), (b"host", b"x")]
    scope = {
        "type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": headers, "query_string": b"",
        "client": ("10.0.0.1", 1), "server": ("x", 80), "scheme": "http", "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes.traceback, "print_exc", lambda: None)
        run(app(scope, receive, send))


def test_stock_gradio_keeps_what_was_broken_off_and_empty_folders(stock, uploads):
    before = set(uploads.iterdir())
    with pytest.raises(Exception):  # noqa: B017 (ClientDisconnect, or what newer versions make of it)
        broken_off(stock.app)
    (left,) = set(uploads.iterdir()) - before
    assert left.is_file() and str(left) not in stock.page.upload_file_set
    (path,) = stock.client.post("/gradio_api/upload", files={"files": ("a.txt", b"kept")}).json()
    routes.route_utils.delete_files_created_by_app(stock.page, age=None)
    assert not os.path.exists(path) and os.path.isdir(os.path.dirname(path))


def test_our_sweep_deletes_whatever_is_old(tmp_path):
    shelf = Shelf(tmp_path)
    for name in ("broken-off", "hash/a.png", "young/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    now = time.time()
    for name in ("broken-off", "hash/a.png"):
        os.utime(tmp_path / name, (now, now - LIMITS.files_live - 1))
    shelf.sweep(now=now)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["hash", "young", "b.png"]
    assert shelf.taken == 5
    shelf.sweep(now=now + LIMITS.files_live + 60)
    shelf.sweep(now=time.time() + LIMITS.files_live + 60)
    assert not list(tmp_path.iterdir()) and shelf.taken == 0


def test_the_folder_of_uploads_is_bounded(tmp_path, monkeypatch):
    shelf = Shelf(tmp_path)
    assert shelf.has_room(LIMITS.upload)
    shelf.taken = LIMITS.folder
    assert not shelf.has_room(1)
    monkeypatch.setattr(gaps.shutil, "disk_usage", lambda folder: SimpleNamespace(free=LIMITS.disk_left + 10))
    shelf.taken = 0
    assert shelf.has_room(10) and not shelf.has_room(11), "nor is the disk filled"


def test_stock_gradio_remembers_every_upload_that_was_watched(stock):
    before = len(routes.file_upload_statuses._statuses)
    for name in range(5):
        stock.client.post(f"/gradio_api/upload?upload_id=stock{name}", files=files(1))
    assert len(routes.file_upload_statuses._statuses) == before + 5


def test_our_housekeeping_forgets_them(ours):
    keeper = Housekeeping(ours.app, Shelf())
    ours.client.post("/gradio_api/upload?upload_id=ours", files=files(1))
    routes.file_upload_statuses._signals["asked for, never sent"].is_set()
    keeper.sweep(now=0)
    assert "ours" in routes.file_upload_statuses._statuses, "its sender may still ask"
    keeper.sweep(now=1)
    assert not routes.file_upload_statuses._statuses
    keeper.sweep(now=2)
    assert not routes.file_upload_statuses._signals


def test_stock_gradio_lets_any_site_ask_with_a_visitors_cookies(stock):
    answer = stock.client.get("/config", headers={"Origin": "https://evil.example"})
    assert answer.headers["access-control-allow-origin"] == "https://evil.example"
    assert answer.headers["access-control-allow-credentials"] == "true"


def test_stock_gradio_answers_some_routes_without_a_password(stock):
    try:
        stock.app.auth, stock.page.auth_message = {"ada": "lovelace"}, None
        message = {"session_hash": "s", "fn_index": 0, "event_id": "e"}
        assert stock.client.post("/gradio_api/cancel", json=message).status_code == 200
        assert stock.client.post("/gradio_api/call/echo", json={"data": []}).status_code == 401
    finally:
        stock.app.auth = None


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_stock_gradio_stumbles_over_malformed_messages(stock):
    quiet = TestClient(stock.app, raise_server_exceptions=False)
    assert quiet.post("/gradio_api/queue/join", json={"data": [], "fn_index": 99, "session_hash": "s"}).status_code == 500
    assert quiet.post("/gradio_api/call/nothing", json={"data": []}).status_code == 500
    fields = quiet.post("/gradio_api/upload", files={"other": ("a", b"")}, data={"files": "no file"})
    assert fields.status_code == 500
    gc.collect()  # the file it left open, while the warning is ignored


def test_uvicorn_believes_forwarded_addresses_of_any_local_program(monkeypatch):
    import uvicorn

    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    assert uvicorn.Config(app=None).forwarded_allow_ips.startswith("127.0.0.1")


def test_limits_do_not_contradict_each_other():
    assert LIMITS.session_rate >= 1000 / 30, "the page asks every 30 ms at most"
    assert LIMITS.address_burst >= 30 * LIMITS.at_once and LIMITS.streams_address >= 2 * 30, "a class of thirty"
    assert LIMITS.visit_burst >= 30 * 6, "who open the page together"
    assert LIMITS.upload < LIMITS.uploads < LIMITS.folder and LIMITS.blobs < LIMITS.uploads
    assert LIMITS.waiting + LIMITS.at_once < LIMITS.requests
    assert replace(LIMITS, files_live=1) != LIMITS
