"""Ray Serve, Ray Data and the balancer, with two workers: who dies is replaced, and nothing that was asked is lost."""

import contextlib
import csv
import io
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from conftest import PATIENCE, ROOT, App, free_port
from gradio_client import Client, handle_file
from PIL import Image

from digitnet import Recognizer
from digitnet.__main__ import main as digitnet
from digitnet.drawings import draw
from digitnet.predict import COLUMNS
from digitnet.preprocess import to_digit
from digitnet.remote import DIGITS_TYPE, MOST, BackendError, RemoteRecognizer, prediction_from

NGINX = next((path for path in ("/usr/sbin/nginx", "/usr/bin/nginx") if os.access(path, os.X_OK)), "nginx")

# Who joins a Ray by its address must know its token: this one is made for these tests, and goes with them.
SHARED = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@pytest.fixture(scope="module")
def crowd():
    """python -m deploy serve, from one worker to two: (address of HTTP, address of Ray, the process)."""
    port = free_port()
    command = (sys.executable, "-m", "deploy", "serve")
    served = App("--port", port, "--workers", 2, "--least", 1, "--rest", 4, "--cpus", 4, command=command, env=SHARED)
    try:
        ray = served.wait_for(r"Ray listens at (\S+)").group(1)
        yield f"http://127.0.0.1:{port}", ray, served
    finally:
        code = served.end()
    assert code == 0, served.output


@pytest.fixture(scope="module")
def backend(crowd):
    return crowd[0]


@pytest.fixture(scope="module")
def plain():
    return Recognizer.load()


@pytest.fixture(scope="module")
def pictures(drawn, tmp_path_factory):
    """A folder of 241 PNG files, the eleventh of which is damaged, and a blank one."""
    folder = tmp_path_factory.mktemp("pictures")
    sheets = [draw(strokes, brush=brush) for brush in (6, 12, 18, 24) for strokes in drawn.values()]
    for number in range(240):
        Image.fromarray(sheets[number % len(sheets)]).rotate(number % 7 - 3, fillcolor=255).save(folder / f"{number:03}.png")
    (folder / "010.png").write_bytes((folder / "010.png").read_bytes()[:300])
    Image.fromarray(np.full((50, 50), 255, np.uint8)).save(folder / "blank.png")
    return folder


@pytest.fixture(scope="module")
def table(pictures, tmp_path_factory) -> bytes:
    """What python -m digitnet predict writes of them."""
    out = tmp_path_factory.mktemp("plain") / "table.csv"
    assert digitnet(["predict", str(pictures), "--out", str(out)]) == 1  # one cannot be read
    return out.read_bytes()


def png(array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def same(one, other) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("digit", "confidence", "probabilities", "p_digit", "verdict", "seen")
    )


def processes_of(served: App, name: str) -> list[psutil.Process]:
    """The living processes of a Ray that was started there whose title begins so."""
    found = []
    for process in psutil.Process(served.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith(name) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def until(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return value


# --- HTTP -----------------------------------------------------------------------------------------------------------------


def test_a_picture_posted_is_answered_as_the_contract_says(backend, drawn, plain):
    sheet = draw(drawn["7-upright"], brush=16)
    expected = plain(sheet)
    raw = httpx.post(f"{backend}/predict", content=png(sheet), timeout=PATIENCE).json()
    form = httpx.post(f"{backend}/predict", files={"picture": ("seven.png", png(sheet))}, timeout=PATIENCE).json()
    assert raw == form and raw["digit"] == 7
    assert set(raw) == {"digit", "confidence", "verdict", "p_digit", "top"}
    assert raw["top"] == [list(pair) for pair in expected.top(3)] and raw["p_digit"] == expected.p_digit
    full = httpx.post(f"{backend}/predict?full", content=png(sheet), timeout=PATIENCE).json()
    assert same(prediction_from(full), expected)


@pytest.mark.parametrize(
    ("status", "says", "request_"),
    [
        (422, "not a picture", {"content": b"Dear network,"}),
        (422, "not a picture", {"content": b""}),
        (422, "damaged", {"content": png(np.random.default_rng(0).integers(0, 255, (50, 50), np.uint8))[:900]}),
        (422, "not a picture", {"files": {"picture": ("a.png", b"Dear network,")}}),
        (400, "no file", {"files": {"picture": (None, "seven.png")}}),
        (400, "form", {"content": b"--", "headers": {"content-type": "multipart/form-data; boundary=x"}}),
        (413, "at most 12 MB", {"content": bytes(13 * 2**20)}),
        (413, "at most 12 MB", {"content": (bytes(2**20) for _ in range(13))}),
        (400, f"1 to {MOST} digits", {"content": b"1234", "headers": {"content-type": DIGITS_TYPE}}),
        (400, "from 0, paper, to 1", {"content": b"\xff" * 3136, "headers": {"content-type": DIGITS_TYPE}}),
    ],
)
def test_what_cannot_be_read_is_told_in_one_sentence(backend, status, says, request_):
    got = httpx.post(f"{backend}/predict", timeout=PATIENCE, **request_)
    assert got.status_code == status
    assert list(got.json()) == ["error"] and says in got.json()["error"] and got.json()["error"].count(". ") <= 1


def test_other_paths_and_methods_are_told_where_to_go(backend):
    assert httpx.get(f"{backend}/predict", timeout=PATIENCE).status_code == 405
    elsewhere = httpx.post(f"{backend}/read", timeout=PATIENCE)
    assert elsewhere.status_code == 404 and "/predict" in elsewhere.json()["error"]


def test_the_remote_recognizer_is_the_plain_one(backend, drawn, plain):
    sheets = [draw(strokes, brush=brush) for brush in (10, 20) for strokes in drawn.values()]
    sheets.append(np.full((280, 280), 255, np.uint8))
    assert len(sheets) > MOST / 2
    ours = plain.many(3 * sheets)
    digit = to_digit(sheets[0])
    with contextlib.closing(RemoteRecognizer(backend)) as remote:
        assert all(map(same, remote.many(3 * sheets), ours)) and ours[-1].verdict == "blank"
        for one, other in zip(remote.views_of(digit), plain.views_of(digit), strict=True):
            assert np.array_equal(one, other)
        for against in (None, 3):
            assert np.allclose(remote.saliency(digit, against=against), plain.saliency(digit, against=against), atol=1e-6)
        assert remote.card == plain.card


# --- who dies is replaced -------------------------------------------------------------------------------------------------


def test_workers_come_with_the_crowd_a_killed_one_is_replaced_and_no_request_is_lost(crowd, drawn, plain):
    backend, _, served = crowd
    sheet = draw(drawn["7-upright"], brush=16)
    picture, expected = png(sheet), plain(sheet).p_digit
    workers = lambda: {process.pid for process in processes_of(served, "ray::ServeReplica:digitnet:Worker")}  # noqa: E731
    stop, answers = threading.Event(), []

    def ask():
        with httpx.Client(timeout=PATIENCE) as http:
            while not stop.is_set():
                got = http.post(f"{backend}/predict", content=picture)
                answers.append((got.status_code, got.json().get("p_digit")))

    with ThreadPoolExecutor(24) as people:
        asking = [people.submit(ask) for _ in range(24)]
        try:
            until("a second worker for the crowd", lambda: len(workers()) == 2)
            first = workers()
            # The second one has begun to answer, or its end would tell nothing.
            until("both at work", lambda: all(busy(pid) for pid in first))
            for victim in sorted(first):  # both of those that were there, one after the other
                before = len(answers)
                os.kill(victim, signal.SIGKILL)
                until("another in its place", lambda v=victim: v not in workers() and len(workers()) == 2)
                until("answers meanwhile", lambda n=before: len(answers) > n + 100)
        finally:
            stop.set()
        for asked in asking:
            asked.result()  # a connection cut would be raised here
    assert not first & workers()
    assert set(answers) == {(200, expected)}, f"{sum(a != (200, expected) for a in answers)} of {len(answers)} were lost"
    until("one worker for nobody", lambda: len(workers()) == 1)


def busy(pid: int) -> bool:
    """Whether a process has computed for longer than its imports take."""
    times = psutil.Process(pid).cpu_times()
    time.sleep(0.3)
    later = psutil.Process(pid).cpu_times()
    return later.user - times.user > 0 and later.user > 1


# --- the page -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def forwarded(port: int, to: str):
    """Makes a port of this machine the address `to`, HOST:PORT, for the length of a with block."""
    host, other = to.removeprefix("http://").split(":")

    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve(listener):
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(other)))
                opened.extend([near, far])
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    opened = [socket.create_server(("127.0.0.1", port))]
    accepting = threading.Thread(target=serve, args=opened)
    accepting.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            opened[0].shutdown(socket.SHUT_RDWR)
        accepting.join(PATIENCE)
        for end in opened:
            end.close()


def test_while_the_backend_is_away_the_page_says_so_and_reads_the_drawing_when_it_is_back(backend, visit, run_app, drawn):
    port = free_port()
    app = run_app("--port", free_port(), "--backend", f"http://127.0.0.1:{port}")
    visitor = visit(address=app.address())
    visitor.draw(drawn["7-upright"])
    assert "cannot be reached just now" in visitor.said and visitor.label == ""
    with forwarded(port, backend):
        # Nobody touches the sheet: what was drawn is read as soon as that works again.
        visitor.until("() => document.querySelector('#say').textContent.includes('That is a 7')")
        assert visitor.label == "7"


def test_a_backend_that_is_away_slow_or_something_else_is_one_sentence(monkeypatch, backend):
    def refusal_of(address: str) -> str:
        with contextlib.closing(RemoteRecognizer(address)) as remote, pytest.raises(BackendError) as refused:
            remote.read([np.eye(28, dtype=np.float32)])
        return str(refused.value)

    assert "cannot be reached just now" in refusal_of(f"http://127.0.0.1:{free_port()}")
    assert "not understood" in refusal_of(f"{backend}/elsewhere")
    monkeypatch.setattr("digitnet.remote.PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "takes too long" in refusal_of(f"http://127.0.0.1:{silent.getsockname()[1]}")
    with pytest.raises(ValueError, match="no address"):
        RemoteRecognizer("localhost:8000")


@pytest.fixture
def nginx_folder():
    """A folder that nginx's workers reach, too, which are not root."""
    with tempfile.TemporaryDirectory(prefix="digitnet-nginx-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_two_pages_behind_nginx_share_the_visitors_and_each_visitor_stays(backend, visit, run_app, drawn, nginx_folder):
    pages = {}
    for page in [run_app("--port", free_port(), "--backend", backend, "--proxied") for _ in range(2)]:
        pages[page.address().removeprefix("http://").rstrip("/")] = page
    first, second = pages
    listening = free_port()
    configured = (ROOT / "deploy" / "nginx.conf").read_text()
    for written, meant in (
        ("127.0.0.1:7861", first),
        ("127.0.0.1:7862", second),
        ("127.0.0.1:8000", backend.removeprefix("http://")),
        ("listen 8080", f"listen 127.0.0.1:{listening}"),
    ):
        assert configured.count(written) == 1
        configured = configured.replace(written, meant)
    (nginx_folder / "nginx.conf").write_text(configured)
    nginx = App("-p", nginx_folder, "-c", "nginx.conf", command=(NGINX,))

    def served_by(seat: str) -> list[str]:
        lines = (nginx_folder / "access.log").read_text().splitlines()
        # Where one page did not answer, two are named: the last one did.
        return [line.split('"')[1].split(", ")[-1] for line in lines if line.endswith(f"seat={seat}")]

    try:
        address = f"http://127.0.0.1:{listening}/"
        until("nginx", lambda: _answers(address) or nginx.process.poll() is not None)
        assert nginx.process.poll() is None, nginx.output
        # Many visitors: each stays where it came to, and both pages get some.
        homes = set()
        for _ in range(24):
            with httpx.Client(base_url=address, timeout=PATIENCE) as http:
                seat = http.get("/").cookies["digitnet_seat"]
                assert http.get("/config").status_code == http.get("/theme.css").status_code == 200
            until("nginx's log", lambda seat=seat: len(served_by(seat)) == 3)
            assert len(set(served_by(seat))) == 1
            homes.update(served_by(seat))
        assert homes == set(pages)
        # A browser's whole session is with one page.
        visitor = visit(address=address)
        visitor.draw(drawn["7-upright"])
        assert visitor.label == "7"
        (seat,) = [cookie["value"] for cookie in visitor.context.cookies() if cookie["name"] == "digitnet_seat"]
        assert len(served_by(seat)) > 20 and len(set(served_by(seat))) == 1
        # A program has no cookie: its upload, call and answer still meet in one process.
        sheet = nginx_folder / "seven.png"
        sheet.write_bytes(png(draw(drawn["7-upright"], brush=16)))
        client = Client(address, verbose=False, download_files=nginx_folder)
        assert client.predict(handle_file(sheet), api_name="/predict")["digit"] == 7
        client.close()
        assert httpx.post(f"{address}predict", content=sheet.read_bytes(), timeout=PATIENCE).json()["digit"] == 7
        # The page that the browser is with ends: its visitor goes on with the other.
        pages[served_by(seat)[0]].end()
        visitor.clear()
        visitor.draw(drawn["7-upright"])
        assert visitor.label == "7" and set(served_by(seat)) == set(pages)
        visitor.troubles.clear()  # the browser notes that a stream was cut
    finally:
        nginx.end()


def _answers(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(address, timeout=PATIENCE).status_code == 200
    return False


# --- batches --------------------------------------------------------------------------------------------------------------


def batch(*arguments) -> App:
    return App(*arguments, command=(sys.executable, "-m", "deploy", "batch"), env=SHARED)


def test_a_broken_job_goes_on_where_it_stopped_and_a_dead_worker_costs_nothing(crowd, pictures, table, tmp_path):
    _, ray, served = crowd
    out, work = tmp_path / "table.csv", tmp_path / "table.csv.work"
    command = (pictures, "--out", out, "--address", ray, "--workers", 2, "--part", 4)
    done = lambda: sorted(work.glob("*.csv"))  # noqa: E731
    job = batch(*command)
    try:
        until("first parts", lambda: len(done()) >= 3 or job.process.poll() is not None)
    finally:
        job.process.kill()
        job.wait()
    kept = done()
    assert 3 <= len(kept) < 61 and not out.exists(), job.output
    # What is there is not read again: a row that only this file can have comes through.
    kept[1].write_text(kept[1].read_text().replace("digit,", "marked,", 1))
    job = batch(*command)
    try:
        until("new parts", lambda: len(done()) > len(kept) or job.process.poll() is not None)
        victims = processes_of(served, "ray::MapWorker")
        for victim in victims[:1]:
            victim.kill()
        assert job.wait() == 1 and victims, job.output  # 1: one picture cannot be read, and it costs its own row
    finally:
        job.end()
    assert f"{len(kept)} of 61 parts are there already" in job.output
    text = out.read_text()
    assert text.count("marked,") == 1 and text.replace("marked,", "digit,").encode() == table
    assert not work.exists()


def test_one_command_on_one_machine_writes_parquet_like_the_plain_one(pictures, table, tmp_path):
    from pyarrow import parquet

    out = tmp_path / "table.parquet"
    job = batch(pictures, "--out", out, "--workers", 2, "--part", 50, "--spare-views")
    assert job.wait() == 1, job.output
    rows = parquet.read_table(out)
    assert rows.column_names == list(COLUMNS)
    assert digitnet(["predict", str(pictures), "--out", str(tmp_path / "plain.csv"), "--spare-views"]) == 1
    spared = (tmp_path / "plain.csv").read_bytes()
    assert spared != table
    expected = list(csv.DictReader(io.StringIO(spared.decode())))
    assert len(expected) == 241 and rows.num_rows == 241
    for row, plain in zip(rows.to_pylist(), expected, strict=True):
        for name in COLUMNS:
            assert row[name] == (type(row[name])(plain[name]) if plain[name] else None), (row, plain)
    (unread,) = [row for row in rows.to_pylist() if row["error"]]
    assert unread["picture"].endswith("010.png") and unread["digit"] is None and "damaged" in unread["error"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("batch", "nowhere/*.png", "--out", "{}/a.csv"), "No pictures in"),
        (("batch", "{}", "--out", "{}/a.txt"), "neither .csv nor .parquet"),
        (("batch", "{}", "--out", "{}/a.csv", "--checkpoint", "none.pt"), "none.pt"),
        (("serve", "--least", "3", "--workers", "2"), "--least"),
    ],
)
def test_refusals_are_one_sentence(arguments, says, tmp_path):
    command = [sys.executable, "-m", "deploy", *(argument.format(tmp_path) for argument in arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and says in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.work"))


def test_another_job_of_the_same_name_is_not_mixed_in(pictures, tmp_path):
    work = tmp_path / "table.csv.work"
    work.mkdir()
    (work / "plan.json").write_text('{"pictures_of": ["others/"], "parts": 1, "pictures": 1}')
    command = [sys.executable, "-m", "deploy", "batch", str(pictures), "--out", str(tmp_path / "table.csv")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "holds another job" in done.stderr and "--anew" in done.stderr
    assert (work / "plan.json").exists()
