"""What the tests of the page share: the app in a process of its own, a real browser, and a hand that draws."""

import asyncio
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from digitnet.drawings import SHEET, read_drawings

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 120  # seconds for anything that must happen at all: a busy machine is no failure


settings.register_profile("fuzz")


def pytest_configure(config):
    """pytest -m fuzz makes up many more examples of each property than every other run does."""
    if config.getoption("-m") == "fuzz":
        settings.load_profile("fuzz")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class App:
    """python app.py, or another command, in a process of its own; its output is read as it comes."""

    def __init__(self, *arguments, env=None, cwd=None, command=(sys.executable, ROOT / "app.py")):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("GRADIO_", "SPACE_"))}
        environment.update({"PYTHONUNBUFFERED": "1", **(env or {})})
        self.process = subprocess.Popen(
            [*map(str, command), *map(str, arguments)],
            env=environment,
            cwd=cwd or ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str) -> re.Match:
        """The first match in the output, as soon as it is there; fails when the process ends without it."""
        deadline = time.monotonic() + 5 * PATIENCE
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            if match := re.search(pattern, self.output):
                return match
            if ended:
                self._reader.join()
                if match := re.search(pattern, self.output):
                    return match
                break
            time.sleep(0.05)
        raise AssertionError(f"no {pattern!r} in:\n{self.output}")

    def address(self) -> str:
        return self.wait_for(r"reads at (http://\S+)").group(1)

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(PATIENCE)
        self.process.stdout.close()
        return code


@pytest.fixture
def run_app():
    """run_app(*arguments, env=..., cwd=...) → App; ended with the test."""
    apps = []

    def run(*arguments, **settings) -> App:
        apps.append(App(*arguments, **settings))
        return apps[-1]

    yield run
    for app in apps:
        app.end()


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """The address of the page, served once for all tests, and the folder of its temporary files."""
    temporary = tmp_path_factory.mktemp("gradio")
    app = App("--port", free_port(), env={"GRADIO_TEMP_DIR": str(temporary)})
    try:
        yield app.address(), temporary
    finally:
        code = app.end()
    assert code == 0, app.output


def in_loop(function):
    """What function() returns, called where an event loop runs: Gradio makes one, and never closes it, where none does.

    In a thread of its own: where browser tests ran before, Playwright's loop still runs in this one.
    """

    async def call():
        return function()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, call()).result()


@pytest.fixture(scope="session")
def inside(weights, tmp_path_factory):
    """The page served from the tests' own process, as app.py does behind a proxy: its address, and Gradio's app to look into.

    X-Forwarded-For makes each visitor an address of its own; whatever is read is read by a small network.
    """
    from digitnet import Recognizer
    from digitnet.page.look import launch_settings
    from digitnet.page.site import build_page

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("inside")))
        page = in_loop(lambda: build_page(Recognizer.load(weights)))
        where = {"server_name": "127.0.0.1", "server_port": free_port(), "prevent_thread_lock": True, "quiet": True}
        with contextlib.redirect_stdout(io.StringIO()):
            app, address, _ = in_loop(lambda: page.launch(**where, **launch_settings(proxied=True)))
        yield address, app
        page.close(verbose=False)


@pytest.fixture(scope="session")
def address(served):
    return served[0]


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, address):
    """visit(width=..., touch=..., dark=..., address=...) → Visitor on the open page, its sheet ready.

    arrive=False: before the page is opened.
    """
    visitors = []

    def open_page(*, width=1200, height=900, touch=False, dark=False, address=address, arrive=True) -> "Visitor":
        context = browser.new_context(
            viewport={"width": width, "height": height},
            has_touch=touch,
            is_mobile=touch,
            device_scale_factor=1,
            color_scheme="dark" if dark else "light",
            accept_downloads=True,
        )
        visitors.append(Visitor(context, address, touch=touch))
        return visitors[-1].arrive() if arrive else visitors[-1]

    yield open_page
    for visitor in visitors:
        visitor.context.close()
        assert not visitor.troubles, visitor.troubles
        assert not visitor.strangers, f"the page asked elsewhere for {visitor.strangers}"


class Visitor:
    """Somebody with a browser, in front of the page: draws with mouse or finger, reads what it says."""

    def __init__(self, context, address, *, touch):
        self.context, self.address, self.touch = context, address, touch
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.requests: list[str] = []
        self.strangers: list[str] = []
        self.troubles: list[str] = []
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("console", lambda m: self.troubles.append(m.text) if m.type == "error" else None)
        self._touches = context.new_cdp_session(self.page) if touch else None

    def _note(self, request):
        if request.url.startswith(("data:", "blob:")):
            return
        self.requests.append(f"{request.method} {request.url}")
        if not request.url.startswith(self.address):
            self.strangers.append(request.url)

    def arrive(self) -> "Visitor":
        self.page.goto(self.address)
        self.page.wait_for_selector("#pad .overlay", state="attached")
        self.until("() => window.editor.current_tool === 'draw'")
        return self

    def until(self, script: str, argument=None):
        """Waits for a condition in the page."""
        return self.page.wait_for_function(script, arg=argument, polling=50)

    # --- the sheet ---

    def places(self, stroke) -> list[tuple[float, float]]:
        sheet = self.page.locator("canvas").first.bounding_box()
        scale = sheet["width"] / SHEET
        return [(sheet["x"] + float(x) * scale, sheet["y"] + float(y) * scale) for x, y in stroke]

    def down(self, place):
        if self.touch:
            self._touch("touchStart", place)
        else:
            self.page.mouse.move(*place)
            self.page.mouse.down()

    def move(self, place):
        if self.touch:
            self._touch("touchMove", place)
        else:
            self.page.mouse.move(*place)

    def up(self):
        if self.touch:
            self._touches.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        else:
            self.page.mouse.up()

    def _touch(self, kind, place):
        point = {"x": place[0], "y": place[1], "id": 1, "radiusX": 4, "radiusY": 4}
        self._touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})

    def draw(self, strokes):
        """Draws strokes (sheet pixels) and waits until the answer to exactly that has come."""
        self.page.locator("canvas").first.scroll_into_view_if_needed()
        for stroke in strokes:
            first, *rest = self.places(straightened(stroke))
            self.down(first)
            for place in rest or [first]:
                self.move(place)
            self.up()
        self.settled()

    def settled(self):
        self.until("() => window.digitnet.idle()")

    def clear(self):
        self.page.get_by_role("button", name="Clear").last.click()
        self.until("() => window.digitnet.idle() && window.editor.current_tool === 'draw'")
        self.until("() => !document.querySelector('#pad').dataset.inked")

    # --- what it says ---

    @property
    def label(self) -> str:
        return self.page.evaluate(
            "() => document.querySelector(\"#answer [data-testid='label-output-value']\")?.textContent.trim() ?? ''"
        )

    @property
    def said(self) -> str:
        return self.page.inner_text("#say")

    @property
    def answers(self) -> int:
        return int(self.page.get_attribute("#answer", "data-answers") or 0)

    def open(self, tab: str):
        self.page.get_by_role("tab", name=tab).click()

    def box(self, selector: str) -> tuple[float, ...]:
        box = self.page.locator(selector).first.bounding_box()
        return tuple(round(box[key], 1) for key in ("x", "y", "width", "height"))


def straightened(points, tolerance=1.2) -> np.ndarray:
    """The same line with as few points as keep it within `tolerance` (Ramer, Douglas and Peucker): quicker to draw."""
    points = np.asarray(points, dtype=np.float64)
    if len(points) < 3:
        return points
    chord = points[-1] - points[0]
    away = points[1:-1] - points[0]
    length = float(np.hypot(*chord))
    if length < 1e-9:
        distance = np.hypot(*away.T)
    else:
        along = np.clip(away @ chord / length**2, 0, 1)
        distance = np.hypot(*(away - along[:, None] * chord).T)
    far = int(distance.argmax())
    if distance[far] <= tolerance:
        return points[[0, -1]]
    head, tail = straightened(points[: far + 2], tolerance), straightened(points[far + 1 :], tolerance)
    return np.vstack([head[:-1], tail])


@pytest.fixture(scope="session")
def drawn() -> dict[str, list]:
    """This project's own drawings by name: {"7-upright": strokes, "2026-number": strokes, "A-other": ...}."""
    drawings = read_drawings(Path(__file__).parent / "drawings" / "page.jsonl")
    return {f"{d.label}-{d.writer.split('/')[-1]}": list(d.strokes) for d in drawings}


# --- data ---


def data_root() -> Path:
    """DIGITNET_DATA, else the data beside the project, else data/."""
    if "DIGITNET_DATA" in os.environ:
        return Path(os.environ["DIGITNET_DATA"]).resolve()
    beside = ROOT.parent / "shared" / "data"
    return beside if beside.is_dir() else ROOT / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The data root; without the pen drawings under it the test skips, on a user's machine only."""
    root = data_root()
    if not (root / "pen" / "unipen.jsonl.gz").is_file():
        message = f"needs the pen drawings under {root}/pen; name their root with DIGITNET_DATA"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return root


@pytest.fixture(scope="session")
def mnist_test():
    """MNIST's test set, downloaded where it is missing: (digits uint8 10,000×28×28, labels)."""
    from digitnet.mnist import load_mnist

    return load_mnist(data_root(), train=False)


@pytest.fixture(scope="session")
def mnist_root(mnist_test) -> Path:
    """A data root that holds MNIST's files for certain."""
    return data_root()


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> str:
    """A small network's checkpoint, for tests to which it does not matter what is read, only that it is."""
    import torch

    from digitnet import checkpoint
    from digitnet.model import DigitNet, ModelConfig

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    checkpoint.save(path, checkpoint.Checkpoint(DigitNet(ModelConfig((8,), (1,))).eval()))
    return str(path)
