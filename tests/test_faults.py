"""What breaks around the program: each fault ends in one clear sentence, loses nothing, and is over when it is over.

Limits of the system's own (file size, memory, open files) stand in for full disks and the like: they bind root too and need
no rights. One page process serves all faults of serving; it was started in as odd a place as it may be.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import torch
from conftest import PATIENCE, ROOT, App, free_port
from PIL import Image

from digitnet import Recognizer, checkpoint
from digitnet.__main__ import main
from digitnet.checkpoint import Checkpoint, CheckpointError
from digitnet.drawings import draw, read_drawings
from digitnet.mnist import SHA256, DataError, load_mnist
from digitnet.model import DigitNet, ModelConfig
from digitnet.page.gaps import Shelf
from digitnet.page.limits import LIMITS
from digitnet.page.visit import Collector
from digitnet.preprocess import PictureError

NOWHERE = Path("/sys/digitnet")  # no process, not even root's, can make a file there
ROW = {"label": 7, "writer": "w", "strokes": [[[70, 70], [200, 72], [120, 230]]]}


@contextlib.contextmanager
def limited(what: int, most: int, pid: int = 0):
    """A limit of the system's for a process (0: this one), taken back at the end."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def disk_full(after: int = 0, pid: int = 0):
    """No file can grow beyond `after` bytes: what a full disk does, one file earlier."""
    return limited(resource.RLIMIT_FSIZE, after, pid)


def is_sentence(text: str) -> bool:
    return text.isprintable() and 20 < len(text) < 400 and "Traceback" not in text


@pytest.fixture
def seven(drawn, tmp_path) -> Path:
    Image.fromarray(draw(drawn["7-upright"], brush=16)).save(tmp_path / "seven.png")
    return tmp_path / "seven.png"


def small(seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    return Checkpoint(DigitNet(ModelConfig((8,), (1,))).eval())


def run_python(*arguments, **options) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, timeout=5 * PATIENCE, **options)


# --- saving ---------------------------------------------------------------------------------------------------------------


def test_disk_full_while_saving_a_checkpoint(tmp_path):
    path = tmp_path / "digitnet.pt"
    checkpoint.save(path, small())
    before = path.read_bytes()
    with disk_full(3000), pytest.raises(CheckpointError, match="untouched") as refusal:
        checkpoint.save(path, small(1))
    assert is_sentence(str(refusal.value)) and str(path) in str(refusal.value)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]
    checkpoint.save(path, small(1))
    assert path.read_bytes() != before


def test_disk_full_while_writing_a_report(weights, tmp_path, monkeypatch, capsys):
    from digitnet import evaluate

    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: {"filler": "x" * 9000})
    monkeypatch.setattr(evaluate, "summary", lambda report: "measured")
    (tmp_path / "report.json").write_text('{"old": true}')
    with disk_full(3000):
        code = main(["evaluate", "--checkpoint", weights, "--out", str(tmp_path / "report.json"), "--data", str(tmp_path)])
    assert code == 2 and is_sentence(capsys.readouterr().err.strip())
    assert json.loads((tmp_path / "report.json").read_text()) == {"old": True}


def test_disk_full_while_writing_results_and_going_on_afterwards(weights, seven, tmp_path, capsys):
    out = tmp_path / "out.csv"
    command = ["predict", *[str(seven)] * 90, "--out", str(out), "--checkpoint", weights, "--workers", "1"]
    assert main(command) == 0
    whole = out.read_bytes()
    out.unlink()
    with disk_full(len(whole) // 2):
        assert main(command) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert is_sentence(told) and str(out) in told
    assert 0 < out.stat().st_size <= len(whole) // 2
    assert main([*command, "--resume"]) == 0
    assert out.read_bytes() == whole


def test_disk_full_while_printing(weights, seven):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "digitnet", "predict", str(seven), "--checkpoint", weights]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=5 * PATIENCE)
    assert done.returncode == 2 and is_sentence(done.stderr.strip()) and "--out" in done.stderr


def test_read_only_disk_while_saving(weights, seven, capsys):
    with pytest.raises(CheckpointError, match="could not be written"):
        checkpoint.save(NOWHERE / "digitnet.pt", small())
    for command in (
        ["predict", str(seven), "--checkpoint", weights, "--out", str(NOWHERE / "out.csv")],
        ["train", "--run", str(NOWHERE / "run"), "--data", "/nowhere"],
    ):
        assert main(command) == 2
        told = capsys.readouterr().err.strip()
        assert is_sentence(told) and "/sys/digitnet" in told


def test_results_into_a_device(weights, seven, capsys):
    assert main(["predict", str(seven), "--checkpoint", weights, "--out", "/dev/full"]) == 2
    assert is_sentence(capsys.readouterr().err.strip().splitlines()[-1])


def test_two_who_write_one_checkpoint(tmp_path):
    """Whoever reads meanwhile gets the whole of one of them, never a mixture."""
    path, versions = tmp_path / "digitnet.pt", [small(0), small(1)]
    whole = {checkpoint.weights_digest(version.model.state_dict()) for version in versions}
    checkpoint.save(path, versions[0])
    writers = [threading.Thread(target=lambda v=v: [checkpoint.save(path, v) for _ in range(12)]) for v in versions]
    for writer in writers:
        writer.start()
    read = set()
    while any(writer.is_alive() for writer in writers):
        read.add(checkpoint.weights_digest(checkpoint.load(path).model.state_dict()))
    assert read <= whole and os.listdir(tmp_path) == [path.name]


def test_two_trainers_in_one_folder(tmp_path, capsys):
    from digitnet import train

    with train._alone_in(tmp_path / "run"):
        (tmp_path / "run" / "resume.pt").write_bytes(b"the first one's")
        assert main(["train", "--run", str(tmp_path / "run"), "--data", str(tmp_path)]) == 2
    told = capsys.readouterr().err.strip()
    assert is_sentence(told) and "Another training run" in told and "--run" in told
    assert (tmp_path / "run" / "resume.pt").read_bytes() == b"the first one's"


def test_a_clock_set_back_leads_into_no_earlier_run(tmp_path, monkeypatch):
    from digitnet import train

    monkeypatch.chdir(tmp_path)
    first = train.new_run("20260101-000000-seed0")
    first.mkdir(parents=True)
    second = train.new_run("20260101-000000-seed0")
    second.mkdir()
    assert len({first, second, train.new_run("20260101-000000-seed0")}) == 3


def test_a_clock_that_jumps_while_reading(weights, seven, monkeypatch):
    backwards = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: next(backwards))
    assert Recognizer.load(weights)(seven).digit is not None
    assert "kept" in Collector(seven.parent).keep(ROW)


# --- data -----------------------------------------------------------------------------------------------------------------


def test_no_network_for_the_data(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(DataError, match="could not be downloaded") as refusal:
        load_mnist(tmp_path, train=True)
    assert is_sentence(str(refusal.value)) and "--data" in str(refusal.value)


@pytest.mark.parametrize("damage", ["tampered", "cut", "empty"])
def test_a_data_file_cut_or_tampered_with(mnist_root, tmp_path, damage):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in SHA256:
        (raw / name).symlink_to(mnist_root.resolve() / "MNIST" / "raw" / name)
    labels = raw / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[5000] ^= 1
    labels.unlink()
    labels.write_bytes({"tampered": content, "cut": content[:7000], "empty": b""}[damage])
    with pytest.raises(DataError, match="t10k-labels.* is damaged") as refusal:
        load_mnist(tmp_path, train=False)
    assert is_sentence(str(refusal.value))


def test_a_picture_that_goes_while_others_are_read(weights, seven, tmp_path, monkeypatch, capsys):
    from digitnet import predict

    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        shutil.copy(seven, folder / name)
    listed = predict._pictures_below

    def then_gone(where):
        found = list(listed(where))
        (folder / "b.png").unlink(missing_ok=True)
        return iter(found)

    monkeypatch.setattr(predict, "_pictures_below", then_gone)
    assert main(["predict", str(folder), "--checkpoint", weights]) == 1
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2 and "“b.png” does not exist." in told.err


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"drawings": 5}', '{"mnist": {"views": "x"}}', "[" * 90_000, "\xff"])
def test_a_report_damaged_beside_the_checkpoint(weights, tmp_path, content):
    from digitnet.page.model import model_html
    from digitnet.page.site import _measured

    shutil.copy(weights, tmp_path / "digitnet.pt")
    (tmp_path / "digitnet.json").write_text(content, encoding="latin-1")
    report, digest = _measured(tmp_path / "digitnet.pt")
    assert isinstance(report, dict) and digest == checkpoint.file_digest(weights)
    assert isinstance(model_html({}, report, digest=digest), str)


# --- surroundings ---------------------------------------------------------------------------------------------------------


def test_an_odd_terminal_no_home_no_input_and_no_latin_names(weights, seven, tmp_path):
    """ASCII alone may be printed, the home folder is unknown, standard input is closed, and the path is everything at once."""
    folder = tmp_path / "Zeichnungen 书 İı"
    folder.mkdir()
    shutil.copy(seven, folder / "sieben ✍️.png")
    (folder / "zerstört.png").write_bytes(b"no picture")
    shutil.copy(weights, folder / "netz 书.pt")
    code = 'exec "$@" <&-'
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    command = ["env", "-u", "HOME", "sh", "-c", code, "sh", sys.executable, "-m", "digitnet", "predict", str(folder)]
    done = subprocess.run(
        [*command, "--checkpoint", str(folder / "netz 书.pt")],
        env=os.environ | plain,
        cwd=folder,
        capture_output=True,
        timeout=5 * PATIENCE,
    )
    assert done.returncode == 1, done.stderr
    assert len(done.stdout.splitlines()) == 1 and b"%" in done.stdout
    assert b"is not a picture this program reads" in done.stderr and b"Traceback" not in done.stderr


def test_memory_that_runs_out_while_a_large_picture_is_read(tmp_path):
    Image.new("RGB", (6300, 6300), "white").save(tmp_path / "large.png", compress_level=1)
    code = """
import resource, sys
from digitnet.preprocess import PictureError, to_digit
from digitnet.drawings import draw
import numpy as np
sheet = draw([np.array([[40.0, 40], [140, 240]])], brush=14)
to_digit(sheet)
used = int(open("/proc/self/statm").read().split()[0]) * 4096
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, hard))
try:
    to_digit(sys.argv[1])
except PictureError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
assert to_digit(sys.argv[1]) is None and to_digit(sheet) is not None
"""
    done = run_python("-c", code, tmp_path / "large.png", text=True)
    assert done.returncode == 0, done.stderr
    assert "needs more memory than there is left here" in done.stdout and is_sentence(done.stdout.strip())


# --- the collection -------------------------------------------------------------------------------------------------------


def test_the_collecting_folder_vanishes_and_comes_back(tmp_path):
    collector = Collector(tmp_path / "kept")
    collector.keep(ROW)
    shutil.rmtree(tmp_path / "kept")
    assert "kept" in collector.keep(ROW), "made anew"
    assert len(read_drawings(tmp_path / "kept" / "drawings.jsonl")) == 1
    shutil.rmtree(tmp_path / "kept")
    (tmp_path / "kept").write_text("a file in its place")
    with pytest.raises(PictureError, match="was not kept") as refusal:
        collector.keep(ROW)
    assert is_sentence(str(refusal.value))


@pytest.mark.parametrize("spare", [0, 20, 60])
def test_disk_full_while_collecting_leaves_whole_lines(tmp_path, spare):
    collector = Collector(tmp_path)
    for _ in range(3):
        collector.keep(ROW)
    before = (tmp_path / "drawings.jsonl").read_bytes()
    with disk_full(len(before) + spare), pytest.raises(PictureError, match="was not kept"):
        collector.keep(ROW)
    assert (tmp_path / "drawings.jsonl").read_bytes() == before
    collector.keep(ROW)
    assert len(read_drawings(tmp_path / "drawings.jsonl")) == 4


# --- serving --------------------------------------------------------------------------------------------------------------


class Page(App):
    """The page, and what a program asks of it."""

    def __init__(self, place: Path, weights: str):
        self.place = place
        place.mkdir()
        self.weights = place / "netz 书.pt"
        shutil.copy(ROOT / "checkpoints" / "digitnet.pt", self.weights)
        self.temporary = place / "Ablage İı"
        working = place / "gone"
        working.mkdir()
        super().__init__(
            *("--port", free_port(), "--checkpoint", self.weights, "--collect", place / "gesammelt"),
            env={"GRADIO_TEMP_DIR": str(self.temporary), "LC_ALL": "C"},
            cwd=working,
            command=("env", "-u", "HOME", "sh", "-c", 'exec "$@" <&-', "sh", sys.executable, ROOT / "app.py"),
        )
        self.url = self.address()
        working.rmdir()

    def upload(self, path: Path) -> httpx.Response:
        return httpx.post(f"{self.url}gradio_api/upload", files={"files": (path.name, path.read_bytes())}, timeout=5 * PATIENCE)

    def call(self, uploaded: str) -> str:
        """Asks for an answer; the event to fetch it by."""
        data = {"data": [{"path": uploaded, "meta": {"_type": "gradio.FileData"}}]}
        answer = httpx.post(f"{self.url}gradio_api/call/predict", json=data, timeout=5 * PATIENCE)
        assert answer.status_code == 200, answer.text
        return answer.json()["event_id"]

    def result(self, event: str) -> tuple[str, object]:
        text = httpx.get(f"{self.url}gradio_api/call/predict/{event}", timeout=5 * PATIENCE).text
        lines = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        return lines["event"], json.loads(lines["data"])

    def read(self, path: Path) -> tuple[str, object]:
        return self.result(self.call(self.upload(path).json()[0]))

    def reads(self, path: Path) -> bool:
        """Whether the page answers as it should: a seven is a seven."""
        kind, data = self.read(path)
        return kind == "complete" and data[0]["digit"] == 7 and data[0]["verdict"] == "digit"

    def files(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def page(tmp_path_factory, weights):
    page = Page(tmp_path_factory.mktemp("odd") / "Ein Ort 书", weights)
    try:
        yield page
    finally:
        code = page.end()
    assert code == 0, page.output
    assert "Traceback" not in page.output, page.output


def test_the_page_started_in_an_odd_place_reads(page, seven):
    """No home folder, the C locale, no standard input, paths with spaces and other letters, its working folder gone."""
    assert page.reads(seven)
    assert httpx.get(page.url, timeout=PATIENCE).status_code == 200


def test_disk_full_while_serving(page, seven):
    with disk_full(0, page.process.pid):
        refused = page.upload(seven)
        assert refused.status_code >= 400 and "Traceback" not in refused.text, refused.text
        assert httpx.get(page.url, timeout=PATIENCE).status_code == 200
    assert page.reads(seven)


def test_the_temporary_folder_is_gone_while_serving(page, seven):
    for folder in page.temporary.iterdir():
        shutil.rmtree(folder)
    assert page.upload(seven).status_code < 600
    assert page.reads(seven)


def test_a_temporary_folder_that_cannot_be_written_to_while_serving(page, seven):
    """A file in its place: nothing can be written below it, root or not."""
    (folder,) = page.temporary.iterdir()
    folder.rename(page.place / "aside")
    folder.write_text("in the way")
    try:
        refused = page.upload(seven)
        assert refused.status_code >= 400 and "Traceback" not in refused.text
        assert httpx.get(page.url, timeout=PATIENCE).status_code == 200
    finally:
        folder.unlink()
        (page.place / "aside").rename(folder)
    assert page.reads(seven)


def test_an_upload_deleted_before_it_is_read(page, seven):
    (uploaded,) = page.upload(seven).json()
    os.unlink(uploaded)
    kind, data = page.result(page.call(uploaded))
    assert kind == "error" and is_sentence(data["error"])


def test_the_checkpoint_vanishes_while_serving(page, seven):
    page.weights.rename(page.place / "aside.pt")
    assert page.reads(seven)
    (page.place / "aside.pt").rename(page.weights)


def connect(page) -> socket.socket:
    host, port = page.url.removeprefix("http://").rstrip("/").split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def test_a_client_that_leaves_mid_upload(page, seven, tmp_path):
    before = len(page.files())
    for _ in range(10):
        with connect(page) as client:
            head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {page.url.split('/')[2]}\r\nContent-Length: 900000\r\n"
            body = '--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n' + "x" * 300_000
            client.sendall((head + "Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body).encode())
    assert page.reads(seven)
    assert len(page.files()) <= before + 11, "at most what was begun, until the sweep"
    shutil.copytree(page.temporary, tmp_path / "copy")
    Shelf(tmp_path / "copy").sweep(now=time.time() + LIMITS.files_live + 1)
    assert not [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]


def test_a_client_that_does_not_wait_for_its_answer(page, seven):
    (uploaded,) = page.upload(seven).json()
    for _ in range(5):
        event = page.call(uploaded)
        with connect(page) as client:
            client.sendall(f"GET /gradio_api/call/predict/{event} HTTP/1.1\r\nHost: {page.url.split('/')[2]}\r\n\r\n".encode())
    assert page.reads(seven)


def test_slow_clients_hold_nobody_up(page, seven):
    slow = [connect(page) for _ in range(60)]
    try:
        for client in slow:
            client.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Le")
        assert page.reads(seven)
        for client in slow:
            client.sendall(b"n")
        assert page.reads(seven)
    finally:
        for client in slow:
            client.close()


def test_no_more_files_can_be_opened_while_serving(page, seven):
    process = psutil.Process(page.process.pid)
    with limited(resource.RLIMIT_NOFILE, process.num_fds() + 1, page.process.pid):
        waiting = [connect(page) for _ in range(8)]
        for client in waiting:
            client.close()
    assert page.reads(seven)


def test_memory_that_runs_out_while_serving(page, seven, tmp_path):
    large = tmp_path / "large.png"
    Image.new("L", (6300, 6300), 255).save(large, compress_level=1)
    (uploaded,) = page.upload(large).json()
    used = psutil.Process(page.process.pid).memory_info().vms
    with limited(resource.RLIMIT_AS, used + 60_000_000, page.process.pid):
        kind, data = page.result(page.call(uploaded))
    assert kind == "error" and "memory" in data["error"] and is_sentence(data["error"])
    assert page.reads(seven)


def test_told_to_end_it_answers_what_is_being_read(page, tmp_path):
    """Last, for it ends the page: SIGTERM while a picture that takes a while is read."""
    large = tmp_path / "large.png"
    ink = np.full((6000, 6000), 255, np.uint8)
    ink[1000:5000, 2900:3100] = 0
    Image.fromarray(ink).save(large, compress_level=1)
    (uploaded,) = page.upload(large).json()
    event = f"{page.url}gradio_api/call/predict/{page.call(uploaded)}"
    with httpx.stream("GET", event, timeout=5 * PATIENCE) as answer:
        page.process.send_signal(signal.SIGTERM)
        text = answer.read().decode()
    assert "event: complete" in text and '"digit": 1' in text, text
    assert page.wait() == 0


# --- starting -------------------------------------------------------------------------------------------------------------


def test_nowhere_for_temporary_files_is_told_at_the_start(run_app):
    app = run_app("--port", free_port(), env={"GRADIO_TEMP_DIR": str(NOWHERE)})
    assert app.wait() == 2
    assert is_sentence(app.lines[-1]) and "GRADIO_TEMP_DIR" in app.lines[-1]


def test_nowhere_to_collect_is_told_at_the_start(run_app):
    app = run_app("--port", free_port(), "--collect", NOWHERE)
    assert app.wait() == 2
    assert is_sentence(app.lines[-1]) and "--collect" in app.lines[-1]


def test_what_is_on_the_disk_is_synced_before_it_is_named(tmp_path, monkeypatch):
    """A power cut keeps what was synced, in the order it was: the file first, then its name, then the folder."""
    done = []
    sync, name = os.fsync, os.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: (done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file"), sync(handle)),
    )
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("name"), name(*paths)))
    checkpoint.save(tmp_path / "digitnet.pt", small())
    assert done == ["file", "name", "folder"]
