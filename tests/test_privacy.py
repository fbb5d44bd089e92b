"""What stays shut: files of the machine, other visitors' pictures, everything without the password, and the world outside."""

import json
import os
import subprocess
import sys

import httpx
import pytest
from conftest import PATIENCE, ROOT, free_port
from PIL import Image

from digitnet.drawings import draw

SECRET = "the-owner's-password"


@pytest.fixture(scope="module")
def http(address):
    with httpx.Client(base_url=address, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def drawing(drawn, tmp_path_factory):
    path = tmp_path_factory.mktemp("drawing") / "seven.png"
    Image.fromarray(draw(drawn["7-upright"], brush=16)).save(path)
    return path.read_bytes()


def upload(http, content, name="seven.png") -> str:
    (path,) = http.post("gradio_api/upload", files={"files": (name, content)}).json()
    return path


def test_an_upload_is_fetched_by_who_knows_its_name_and_the_name_cannot_be_guessed(http, served, drawing, tmp_path):
    import hashlib

    path = upload(http, drawing)
    assert http.get(f"gradio_api/file={path}").content == drawing
    folder = os.path.basename(os.path.dirname(path))
    assert len(folder) == 64 and folder != hashlib.sha256(drawing).hexdigest(), "nor by who has the same picture"
    assert http.get(f"gradio_api/file={os.path.dirname(path)}").status_code == 403, "and no folder is listed"
    assert http.get(f"gradio_api/file={os.path.dirname(os.path.dirname(path))}").status_code == 403


@pytest.mark.parametrize(
    "wanted",
    [
        "/etc/passwd",
        "//etc/passwd",
        "/proc/self/environ",
        "app.py",
        "./app.py",
        f"{ROOT}/app.py",
        f"{ROOT}/checkpoints/digitnet.pt",
        f"{ROOT}/.git/config",
        "{files}/../../../etc/passwd",
        "{files}/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "{files}/..%2f..%2f..%2fetc%2fpasswd",
        "{files}/..\\..\\..\\etc\\passwd",
        "~/.ssh/id_rsa",
        "/tmp",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        "https://example.com/",
        "\0/etc/passwd",
        "/etc/passwd%00.png",
    ],
)
def test_no_other_file_can_be_fetched_or_read(http, drawing, wanted):
    files = os.path.dirname(upload(http, drawing))
    wanted = wanted.replace("{files}", files)
    for route in (
        "gradio_api/file=",
        "gradio_api/file/",
        "static/",
        "assets/",
        "svelte/",
        "gradio_api/custom_component/",
        "proxy=",
    ):
        answer = http.get(
            httpx.URL(
                f"{http.base_url}{route}",
            ).copy_with(raw_path=f"/{route}{wanted}".replace("\0", "%00").encode())
        )
        assert answer.status_code in (400, 403, 404, 307), (route, answer.status_code)
        assert b"root:" not in answer.content and b"import " not in answer.content
    sent = httpx.URL(wanted.replace("\0", "")).path if "%" in wanted else wanted
    called = http.post("gradio_api/call/predict", json={"data": [{"path": sent, "meta": {"_type": "gradio.FileData"}}]})
    if called.status_code == 200:
        result = http.get(f"gradio_api/call/predict/{called.json()['event_id']}").text
        assert "event: error" in result and "root:" not in result
    else:
        assert called.status_code == 400 and called.json()["detail"].endswith(".")


def test_a_symlink_among_the_uploads_leads_nowhere(http, served, drawing, tmp_path):
    (tmp_path / "secret.png").write_bytes(drawing)
    link = os.path.join(os.path.dirname(upload(http, drawing)), "link.png")
    os.symlink(tmp_path / "secret.png", link)
    assert http.get(f"gradio_api/file={link}").status_code == 403
    called = http.post("gradio_api/call/predict", json={"data": [{"path": link, "meta": {"_type": "gradio.FileData"}}]}).json()
    assert "event: error" in http.get(f"gradio_api/call/predict/{called['event_id']}").text


def test_a_visitors_drawing_is_nowhere_on_the_server(http, served, drawn, drawing):
    strokes = [[False, 8, [round(float(v), 1) for point in line for v in point]] for line in drawn["4-upright"]]
    components = http.get("config").json()["components"]
    tools = next(one["id"] for one in components if one["props"].get("elem_id") == "tools")
    before = set(served[1].rglob("*"))
    message = {"data": strokes, "component_id": tools, "fn_name": "read_sheet", "session_hash": "mine"}
    assert http.post("gradio_api/component_server/", json=message).json()["label"]["label"] == "4"
    assert set(served[1].rglob("*")) == before
    assert "mine" not in http.get("gradio_api/queue/status").text


def test_another_visitors_answer_is_fetched_by_its_unguessable_name_only(http, drawing):
    message = {"data": [{"path": upload(http, drawing), "meta": {"_type": "gradio.FileData"}}]}
    event = http.post("gradio_api/call/predict", json=message).json()["event_id"]
    assert len(event) == 32
    for guess in ("0" * 32, event[:-1], "", "*", "predict"):
        answer = http.get(f"gradio_api/call/predict/{guess}")
        assert answer.status_code == 404, guess
    assert '"digit": 7' in http.get(f"gradio_api/call/predict/{event}").text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://HOST"}, 200),
        ({"Origin": "http://HOST"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "http://HOST.evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:1"}, 403),
        ({"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"}, 403),
    ],
)
def test_pages_of_other_sites_may_not_ask(http, headers, status):
    host = http.base_url.netloc.decode()
    headers = {name: value.replace("HOST", host) for name, value in headers.items()}
    for method, path in (("GET", "config"), ("GET", "gradio_api/info"), ("POST", "gradio_api/call/predict")):
        answer = http.request(method, path, headers=headers, json={"data": [None]} if method == "POST" else None)
        assert answer.status_code == status, path
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed in (None, f"http://{host}") or status == 403
    opened = http.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert opened.status_code == 200, "a link to the page works from anywhere"


def test_a_password_shuts_page_and_programs_out_alike_and_is_never_told(run_app, drawing, tmp_path):
    app = run_app("--port", free_port(), "--auth", f"ada:{SECRET}", env={"GRADIO_TEMP_DIR": str(tmp_path / "files")})
    base = app.address()
    picture = {"path": "x", "meta": {"_type": "gradio.FileData"}}
    join = {"data": [picture], "fn_index": 0, "session_hash": "s"}
    served = {"data": [], "component_id": 1, "fn_name": "read_sheet", "session_hash": "s"}
    shut = [
        ("GET", "config", None),
        ("GET", "gradio_api/info", None),
        ("GET", "gradio_api/openapi.json", None),
        ("GET", "gradio_api/file=/tmp/x", None),
        ("GET", "gradio_api/queue/data?session_hash=s", None),
        ("GET", "gradio_api/queue/status", None),
        ("GET", "gradio_api/call/predict/x", None),
        ("GET", "gradio_api/upload_progress?upload_id=x", None),
        ("GET", "gradio_api/heartbeat/x", None),
        ("POST", "gradio_api/call/predict", {"data": [picture]}),
        ("POST", "gradio_api/call/v2/predict", {"picture": picture}),
        ("POST", "gradio_api/queue/join", join),
        ("POST", "gradio_api/component_server/", served),
        ("POST", "gradio_api/cancel", {"session_hash": "s", "fn_index": 0, "event_id": "e"}),
        ("POST", "gradio_api/reset", {"event_id": "e"}),
        ("POST", "gradio_api/run/predict", {"data": [picture]}),
    ]
    with httpx.Client(base_url=base, timeout=PATIENCE) as visitor:
        for method, path, message in shut:
            answer = visitor.request(method, path, json=message, headers={"Cookie": "access-token=x"})
            assert answer.status_code in (401, 404), (path, answer.status_code)
        assert visitor.post("gradio_api/upload", files={"files": ("a.png", drawing)}).status_code == 401
        assert "digit" not in visitor.get("/").text.partition("window.gradio_config")[2].partition("</script>")[0]
        assert visitor.post("login", data={"username": "ada", "password": SECRET}).status_code == 200
        assert visitor.get("gradio_api/info").status_code == 200
        message = {"data": [{"path": upload(visitor, drawing), "meta": {"_type": "gradio.FileData"}}]}
        event = visitor.post("gradio_api/call/predict", json=message).json()["event_id"]
        assert '"digit": 7' in visitor.get(f"gradio_api/call/predict/{event}").text
        told = visitor.get("config").text + visitor.get("/").text
    assert app.end() == 0
    assert SECRET not in told and SECRET not in app.output and "Traceback" not in app.output


ALONE = """
import socket, sys, threading

refused = []

def loopback(address):
    return not isinstance(address, tuple) or str(address[0]) in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "")

def shut(event, arguments):
    if event in ("socket.connect", "socket.sendto") and not loopback(arguments[1]):
        refused.append(arguments[1])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and not loopback((arguments[0] or "",)):
        refused.append(arguments[0])
    else:
        return
    raise OSError("no network here")

sys.addaudithook(shut)

import app

def visit():
    import httpx, json, re, signal, os, time
    base = f"http://127.0.0.1:{sys.argv[2]}/"
    while True:
        try:
            httpx.get(base)
            break
        except httpx.HTTPError:
            time.sleep(0.1)
    with httpx.Client(base_url=base, timeout=120) as http:
        page = http.get("/").text
        (path,) = http.post("gradio_api/upload", files={"files": ("a.png", open(sys.argv[1], "rb").read())}).json()
        for wanted in (path, "http://example.com/a.png"):
            picture = {"path": wanted, "url": "http://example.com/b.png", "meta": {"_type": "gradio.FileData"}}
            called = http.post("gradio_api/call/predict", json={"data": [picture]})
            if called.status_code == 200:
                print(http.get(f"gradio_api/call/predict/{called.json()['event_id']}").text)
        http.get("gradio_api/file=http://example.com/")
        http.get("gradio_api/proxy=https://x.hf.space/")
        http.get("gradio_api/startup-events")
    print("REFUSED", json.dumps(refused))
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=visit, daemon=True).start()
sys.exit(app.main(["--port", sys.argv[2]]))
"""


def test_nothing_is_asked_of_the_world_outside(drawing, tmp_path):
    """The page starts and reads with every socket refused but loopback; and nothing was even tried."""
    (tmp_path / "seven.png").write_bytes(drawing)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path / "seven.png", str(free_port())],
        cwd=ROOT,
        env={**os.environ, "GRADIO_TEMP_DIR": str(tmp_path / "files")},
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert '"digit": 7' in done.stdout
    assert json.loads(done.stdout.partition("REFUSED ")[2].splitlines()[0]) == []
