"""Every route, with every kind of malformed body: a clear refusal, never a 500, never a hang, and nothing is left over."""

import json
import os
import re

import httpx
import psutil
import pytest
from conftest import PATIENCE, App, free_port
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from digitnet.page.limits import LIMITS

FILE = {"path": "x", "meta": {"_type": "gradio.FileData"}}
DEEP = b'{"data": ' + b"[" * 5000 + b"]" * 5000 + b"}"
JUNK = [
    b"", b"{", b"[]", b"null", b"5", b'"x"', b"{}", b"\x00\xff\xfe", DEEP, b'{"data": NaN}', b'{"data": "\\ud800"}',
    b'{"data": [1' + b"0" * 5000 + b"]}", b'{"data": [], "data": {}}', b"data=1&fn_index=2", b'{"data": []} trailing',
]  # fmt: skip
MESSAGES = [
    {"data": None}, {"data": {}}, {"data": "x"}, {"data": []}, {"data": [None]}, {"data": [[]]}, {"data": [{}]},
    {"data": [5]}, {"data": [FILE]}, {"data": [[FILE, 5]]}, {"data": [{"path": None, "meta": {"_type": "gradio.FileData"}}]},
    {"data": [{"path": "x", "meta": "y"}]}, {"data": [{"path": "x", "meta": None}]}, {"data": [{"path": "a\0b", "meta": {}}]},
    {"data": [None] * 100_000}, {"data": [], "fn_index": 10**30}, {"data": [], "fn_index": "1"}, {"data": [], "fn_index": True},
    {"data": [None], "session_hash": 5}, {"data": [None], "session_hash": "s" * 10_000}, {"data": [], "batched": True},
    {"data": [], "trigger_id": "x"}, {"picture": None}, {"picture": FILE, "more": 1}, {"pictures": [FILE] * 65},
]  # fmt: skip
QUEUED = [
    {"session_hash": "s", "data": data, "fn_index": index, **more}
    for index in (-1, 0, 1, 2, 3, 4, 5, 6, 7, 99)
    for data in ([], [None], [5], [{"background": FILE, "layers": [FILE] * 50, "composite": FILE}])
    for more in ({}, {"event_data": {"x": 1}, "trigger_id": 10**9})
]
SERVED = [
    {"session_hash": "s", "component_id": component, "fn_name": name, "data": data}
    for component in (-1, 0, 5, 10**9, "5", None)
    for name, data in (("accept_blobs", {}), ("__init__", []), ("read_sheet", []), ("launch", 5), (5, 5))
]
CANCELLED = [
    {},
    {"session_hash": "s", "fn_index": 0, "event_id": "e"},
    {"session_hash": 1},
    {"session_hash": [], "event_id": {}},
]
FORM = "multipart/form-data; boundary=b"


def part(disposition: bytes) -> bytes:
    return b"--b\r\nContent-Disposition: form-data; " + disposition + b"\r\n\r\nx\r\n--b--\r\n"


FORMS = [
    ("multipart/form-data", b""),
    (FORM, b""),
    (FORM, b"--b\r\n"),
    (FORM, b"--b--\r\n"),
    (FORM + "; charset=nonsense", part(b'name="files"')),
    (FORM, part(b'name="files"; filename=""')),
    (FORM, part(b'name="files"; filename="../../x"')),
    (FORM, part(b'filename="x"')),
    (FORM, part(b'name="component_id"')),
    (FORM, b"--b\r\nX: " + b"y" * 20_000 + b"\r\n\r\nx\r\n--b--\r\n"),
    ("application/x-www-form-urlencoded", b"username=%ff&password=%00"),
    ("text/plain", b"{}"),
    ("application/json; charset=utf-16", b"{}"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The page in a process of its own, behind a proxy as it believes, so that a test is as many visitors as it likes."""
    folder = tmp_path_factory.mktemp("files")
    app = App("--port", free_port(), "--proxied", env={"GRADIO_TEMP_DIR": str(folder)})
    try:
        app.folder, app.base = folder, app.address()
        yield app
    finally:
        code = app.end()
    assert code == 0, app.output
    assert not list(folder.iterdir()), "no temporary file outlives it"


class Stranger:
    """Asks as many visitors would, and looks at nothing but the status."""

    def __init__(self, server):
        self.http = httpx.Client(base_url=server.base, timeout=PATIENCE)
        self.asked = 0

    def ask(self, method: str, path: str, **more) -> int:
        self.asked += 1
        headers = {"X-Forwarded-For": f"10.{self.asked >> 16 & 255}.{self.asked >> 8 & 255}.{self.asked & 255}"}
        headers |= more.pop("headers", {})
        with self.http.stream(method, path, headers=headers, **more) as answer:
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                return answer.status_code  # a stream stays open for hours
            answer.read()
            if answer.status_code in (400, 403, 404, 413, 429, 503):
                assert "Traceback" not in answer.text and "site-packages" not in answer.text
            return answer.status_code


@pytest.fixture(scope="module")
def stranger(server):
    stranger = Stranger(server)
    yield stranger
    stranger.http.close()


def routes_of(app) -> set[tuple[str, str]]:
    """All routes Gradio has, those too that this page keeps shut."""
    found, waiting = set(), list(app.routes)
    while waiting:
        route = waiting.pop()
        waiting += getattr(getattr(route, "original_router", None), "routes", [])
        found |= {(method, route.path) for method in getattr(route, "methods", None) or ()}
    return found


def filled(path: str) -> list[str]:
    """The route with something in its places."""
    paths = [path]
    for place, values in {
        "{api_name}": ["predict", "predict_many", "nothing", "%00", "a" * 3000],
        "{event_id}": ["0" * 32, "%2e%2e"],
        "{session_hash}": ["x"],
    }.items():
        paths = [one.replace(place, value) for one in paths for value in (values if place in one else [""])]
    return [re.sub(r"\{[^}]*\}", "..%2f..%2fetc%2fpasswd", one) for one in paths]


def test_every_route_survives_every_malformed_body(server, stranger, inside):
    routes = sorted(routes_of(inside[1]))
    assert len(routes) > 60 and ("POST", "/gradio_api/call/{api_name}") in routes
    bodies = [("application/json", body) for body in JUNK]
    bodies += [("application/json", json.dumps(message).encode()) for message in MESSAGES + CANCELLED]
    bodies += FORMS
    memory = psutil.Process(server.process.pid)
    for round_ in range(2):
        for method, route in routes:
            for path in filled(route):
                if method != "POST":
                    status = stranger.ask(method, path)
                    assert status < 500, (method, path, status)
                    continue
                shut = stranger.ask("POST", path, json={}) == 404
                chosen = bodies[:3] if shut or round_ else bodies
                for kind, body in chosen:
                    status = stranger.ask("POST", path, content=body, headers={"Content-Type": kind})
                    assert status < 500, (path, kind, body[:200], status)
        if not round_:
            before = memory.memory_info().rss
    assert stranger.asked > 1000
    assert memory.memory_info().rss < before + 50 * 2**20


@pytest.mark.parametrize(
    ("path", "messages"),
    [("queue/join", QUEUED), ("component_server/", SERVED), ("cancel", CANCELLED)],
    ids=lambda v: str(v)[:12],
)
def test_messages_of_the_right_shape_and_wrong_content(stranger, path, messages):
    for message in messages:
        status = stranger.ask("POST", f"/gradio_api/{path}", json=message)
        assert status < 500, (message, status)


words = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
values = st.recursive(
    words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["path", "url", "meta", "x"]), inner),
    max_leaves=12,
)
NAMES = ["data", "session_hash", "fn_index", "component_id", "fn_name", "event_id", "picture", "pictures", "batched"]
PLACES = ["queue/join", "component_server/", "call/predict", "call/predict_many", "call/v2/predict", "cancel", "reset"]


AT_LENGTH = settings.get_current_profile_name() == "fuzz"  # under -m fuzz, see conftest


@pytest.mark.fuzz
@settings(
    max_examples=5000 if AT_LENGTH else 120,
    deadline=None,
    derandomize=not AT_LENGTH,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(path=st.sampled_from(PLACES), message=st.dictionaries(st.sampled_from(NAMES), values))
def test_any_message_at_all(stranger, path, message):
    assert stranger.ask("POST", f"/gradio_api/{path}", content=json.dumps(message)) < 500


strokes = st.lists(st.tuples(values, values, st.lists(st.floats(width=32), max_size=12) | values), max_size=5)


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["read_sheet", "sheet_steps", "sheet_why", "sheet_picture"]), data=strokes | values)
def test_the_sheets_own_functions_answer_any_strokes(server, stranger, tools, name, data):
    message = {"data": data, "component_id": tools, "fn_name": name, "session_hash": f"s{stranger.asked}"}
    assert stranger.ask("POST", "/gradio_api/component_server/", content=json.dumps(message)) < 500


@pytest.fixture(scope="module")
def tools(server):
    components = httpx.get(f"{server.base}config", timeout=PATIENCE).json()["components"]
    return next(one["id"] for one in components if one["props"].get("elem_id") == "tools")


def test_after_all_that_it_still_reads(server, stranger, drawn, tools):
    strokes = [[False, 8, [round(float(v), 1) for point in line for v in point]] for line in drawn["7-upright"]]
    message = {"data": strokes, "component_id": tools, "fn_name": "read_sheet", "session_hash": "last"}
    answer = httpx.post(f"{server.base}gradio_api/component_server/", json=message, timeout=PATIENCE)
    assert answer.json()["label"]["label"] == "7"
    kept = sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(server.folder) for name in names)
    assert kept < LIMITS.upload, "and has kept next to nothing"
