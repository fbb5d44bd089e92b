"""python -m digitnet benchmark: every figure beside a floor measured in the same run, as a table and as JSON.

What is compared is measured in turns, after a warm-up; medians with the range that holds eight in ten. What must not
disturb each other (engines, memory, start-up) runs in processes of its own. Run it with nothing else running.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from .checkpoint import DEFAULT_PATH
from .drawings import draw, read_drawings

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = Path(__file__).parent / "page" / "examples.jsonl"
WOBBLE = 4.0  # pixels of a sheet, standard deviation at each point: the network is then as sure as of people's drawings
SEVEN = [np.array([[70.0, 70], [200, 72], [160, 140], [120, 230]])]
SHEETS = 32  # different ones
BATCHES = (1, 4, 16, 64, 256, 1024)
PATIENCE = 120  # seconds for a page that must come up at all


@dataclass(frozen=True)
class Figure:
    """One measured quantity: median, low and high (10 % and 90 %) of n measurements in `unit`.

    floor: the name of the figure in the same part that it stands beside, or None.
    """

    part: str
    name: str
    unit: str
    median: float
    low: float
    high: float
    n: int
    floor: str | None = None


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds of one answer, of a batch, of a start; predictions for the memory; seeds and epochs of
    the two training loops; steps of the throughput; strokes in the browser."""

    answers: int = 300
    batches: int = 7
    starts: int = 5
    predictions: int = 10_000
    seeds: int = 5
    baseline_seeds: int = 3
    baseline_epochs: int = 5
    steps: int = 60
    strokes: int = 15


QUICK_LOOK = Effort(
    answers=60, batches=3, starts=2, predictions=500, seeds=1, baseline_seeds=1, baseline_epochs=1, steps=15, strokes=4
)


def figure(part: str, name: str, values: Sequence[float], *, unit: str, floor: str | None = None) -> Figure:
    """The figure of these measurements."""
    low, high = np.quantile(values, [0.1, 0.9]).tolist()
    return Figure(part, name, unit, statistics.median(values), low, high, len(values), floor)


def in_turns(calls: dict[str, Callable[[], object]], *, rounds: int, warmup: int) -> dict[str, list[float]]:
    """Seconds of each call in each round; the calls take turns, so that what slows the machine slows all of them."""
    for call in calls.values():
        for _ in range(warmup):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def sheets(count: int, *, seed: int = 0) -> list[np.ndarray]:
    """As many different sheets as the page would deliver them: uint8 280×280, the page's examples by an unsteady hand."""
    rng = np.random.default_rng(seed)
    examples = [drawing for drawing in read_drawings(EXAMPLES) if drawing.digit is not None]

    def sheet(number: int) -> np.ndarray:
        strokes = examples[number % len(examples)].strokes
        return draw([stroke + rng.normal(0, WOBBLE, stroke.shape) for stroke in strokes], brush=rng.uniform(6, 22))

    return [sheet(number) for number in range(count)]


def resident(pid: int | str = "self", *, peak: bool = False) -> float:
    """Resident memory of a process in MB, now or at its highest. Linux only."""
    field = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


# What runs in a process of its own: each takes the settings and returns what JSON can hold.


def child_one(settings: dict) -> dict:
    """One sheet on one thread: each stage, the whole Recognizer, and the bare forward passes in the same precision."""
    import torch

    from . import checkpoint as checkpoints
    from .engine import TorchEngine
    from .preprocess import SIDE, to_digit
    from .recognizer import Recognizer

    torch.set_num_threads(1)
    checkpoint = checkpoints.load(settings["checkpoint"])
    recognizer = Recognizer.from_checkpoint(checkpoint)
    engine = TorchEngine(checkpoint.model)
    full = TorchEngine(checkpoint.model, half=False)
    (sheet,) = sheets(1)
    digit = torch.from_numpy(to_digit(sheet)).view(1, 1, SIDE, SIDE)
    views = recognizer.viewer(digit)
    plain = checkpoint.model

    def unfolded():
        with torch.inference_mode():
            plain(views)

    calls = {
        "preprocessing": lambda: to_digit(sheet),
        "making the views": lambda: recognizer.viewer(digit),
        "bare forward, one view": lambda: engine(digit),
        "bare forward, all views": lambda: engine(views),
        "bare forward, all views, float32": lambda: full(views),
        "bare forward, all views, as trained": unfolded,
        "Recognizer, one sheet": lambda: recognizer(sheet),
    }
    seconds = in_turns(calls, rounds=settings["answers"], warmup=20)
    return {"seconds": seconds, "bfloat16": engine.half, "views": len(views), "parameters": plain.parameter_count}


def child_batches(settings: dict) -> dict:
    """Seconds per sheet: one by one, and in batches; preprocessing included. settings["engine"]: a checkpoint or .onnx."""
    import torch

    from .preprocess import to_digit
    from .recognizer import Recognizer

    torch.set_num_threads(settings["threads"])
    recognizer = Recognizer.load(settings["engine"])
    few = sheets(SHEETS)
    pictures = few * (max(BATCHES) // SHEETS)
    framed = [to_digit(picture) for picture in few]
    digits = framed * (max(BATCHES) // SHEETS)
    sure = recognizer.sure(recognizer.logits(torch.from_numpy(np.stack(framed)))[:, 0])
    calls: dict[str, Callable] = {"one by one": lambda: [recognizer(picture) for picture in few]}
    counts = {"one by one": len(few)}
    for size in settings["sizes"]:
        again = max(1, SHEETS // size)
        calls[f"many(), {size}"] = lambda size=size, again=again: [recognizer.many(pictures[:size]) for _ in range(again)]
        calls[f"network alone, {size}"] = lambda size=size, again=again: [
            recognizer.read(digits[:size], all_views=False) for _ in range(again)
        ]
        counts[f"many(), {size}"] = counts[f"network alone, {size}"] = size * again
    seconds = in_turns(calls, rounds=settings["rounds"], warmup=1)
    return {
        "seconds": {name: [value / counts[name] for value in values] for name, values in seconds.items()},
        "read_by_one_view": sure.double().mean().item(),
    }


def child_memory(settings: dict) -> dict:
    """MB resident after 20 and after many predictions of a Recognizer, in a process that has imported nothing else."""
    import torch

    from .recognizer import Recognizer

    torch.set_num_threads(1)  # as the page does
    recognizer = Recognizer.load(settings["engine"])
    pictures = sheets(20)
    for picture in pictures:
        recognizer(picture)
    after_20 = resident()
    for number in range(settings["predictions"] - 20):
        recognizer(pictures[number % 20])
    return {"after_20": after_20, "after_all": resident()}


def child_throughput(settings: dict) -> dict:
    """Seconds a picture of the quick recipe's steps, with and without augmentation, and of the baseline's, in turns."""
    import torch
    from torch.nn import functional as F

    from .augment import augment
    from .baseline import BATCH, BaselineNet
    from .engine import fast_bf16
    from .model import DigitNet
    from .train import QUICK, loss_of

    device = torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    digits = torch.rand(QUICK.batch_size, 1, 28, 28, generator=generator)
    labels = torch.randint(0, 10, (QUICK.batch_size,), generator=generator)
    model = DigitNet(QUICK.model).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    theirs = BaselineNet()
    their_optimizer = torch.optim.Adadelta(theirs.parameters(), lr=1.0)

    def step(*, bend: bool) -> None:
        ink = augment(digits, QUICK.augment, generator) if bend else digits
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16(device)):
            logits = model(ink.contiguous(memory_format=torch.channels_last))
        optimizer.zero_grad()
        loss_of(logits.float(), labels, QUICK.reject_weight).backward()
        optimizer.step()

    def baseline() -> None:
        their_optimizer.zero_grad()
        F.nll_loss(theirs(digits[:BATCH]), labels[:BATCH]).backward()
        their_optimizer.step()

    calls = {
        "quick recipe, a step": lambda: step(bend=True),
        "quick recipe, a step without augmentation": lambda: step(bend=False),
        "baseline network, a step without its loader": baseline,
    }
    seconds = in_turns(calls, rounds=settings["steps"], warmup=3)
    counts = dict.fromkeys(calls, QUICK.batch_size) | {"baseline network, a step without its loader": BATCH}
    return {"seconds": {name: [value / counts[name] for value in values] for name, values in seconds.items()}}


def child_quick(settings: dict) -> dict:
    """The quick recipe at one of its fixed lengths: seconds from nothing to a network (data included), test accuracy."""
    import torch
    import torchvision.datasets  # noqa: F401  imports are not on the clock, here as for the baseline

    from .dataset import build
    from .mnist import load_mnist
    from .model import DIGITS
    from .recognizer import Recognizer
    from .train import QUICK, fit, pick_device

    before = resident(peak=True)
    config = replace(QUICK, epochs=settings["epochs"], seed=settings["seed"])
    began = time.perf_counter()
    data = build(settings["data"], config.data, seed=config.seed, say=lambda _: None)
    loaded = time.perf_counter()
    model, history = fit(config, data, device=pick_device("cpu"))
    done = time.perf_counter()
    peak = resident(peak=True)
    digits, labels = load_mnist(settings["data"], train=False)
    ink = digits.float().div(255)
    with torch.inference_mode():
        plain = torch.cat([model(chunk.unsqueeze(1))[:, :DIGITS].argmax(1) for chunk in ink.split(1000)])
    recognizer = Recognizer(model)
    views = torch.cat([recognizer.logits(chunk).mean(1)[:, :DIGITS].argmax(1) for chunk in ink.split(200)])
    return {
        "seconds": done - began,
        "data_seconds": loaded - began,
        "test": (plain == labels).double().mean().item(),
        "test_views": (views == labels).double().mean().item(),
        "validation": [row["validation_mnist_accuracy"] for row in history],
        "imports_mb": before,
        "peak_mb": peak,
    }


def child_baseline(settings: dict) -> dict:
    from .baseline import train_baseline

    rows = train_baseline(settings["data"], epochs=settings["epochs"], seed=settings["seed"], say=lambda _: None)
    return {"log": rows}


CHILDREN = {name.removeprefix("child_"): work for name, work in globals().items() if name.startswith("child_")}


def in_child(work: str, settings: dict) -> dict:
    """Runs child_WORK in a fresh process; what it returns."""
    command = [sys.executable, "-m", "digitnet.benchmark", work, json.dumps(settings)]
    return json.loads(_run(command).splitlines()[-1])


def _run(command: list[str]) -> str:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"A measurement failed: {' '.join(command[1:4])} …\n{done.stderr.strip()[-2000:]}")
    return done.stdout


# The parts: each returns its figures, and notes for the JSON.


def measure_one(effort: Effort, settings: dict) -> tuple[list[Figure], dict]:
    result = in_child("one", settings | {"answers": effort.answers})
    floors = {"Recognizer, one sheet": "bare forward, all views"}
    figures = [
        figure("one sheet, one thread", name, [1000 * value for value in values], unit="ms", floor=floors.get(name))
        for name, values in result.pop("seconds").items()
    ]
    return figures, result


def measure_batches(effort: Effort, settings: dict) -> tuple[list[Figure], dict]:
    figures, notes = [], {}
    engines = {"PyTorch": settings["checkpoint"]}
    with tempfile.TemporaryDirectory() as folder:
        exported = _exported(settings["checkpoint"], Path(folder))
        if exported:
            engines["ONNX Runtime"] = exported
        for threads in sorted({1, os.cpu_count() or 1}):
            for engine, path in engines.items():
                part = f"sheets a second, {engine}, {threads} thread{'s' * (threads > 1)}"
                # The large batches take seconds each; how ONNX Runtime grows with the batch shows at two sizes.
                sizes = BATCHES if engine == "PyTorch" else (1, 64)
                work = {"engine": str(path), "threads": threads, "rounds": effort.batches, "sizes": sizes}
                result = in_child("batches", work)
                notes["read_by_one_view"] = result["read_by_one_view"]
                for name, seconds in result["seconds"].items():
                    floor = "one by one" if name != "one by one" else None
                    figures.append(figure(part, name, [1 / value for value in seconds], unit="/s", floor=floor))
        memory = {engine: in_child("memory", {"engine": str(path), "predictions": 20 + 64}) for engine, path in engines.items()}
    return figures, notes | {"memory_by_engine": memory}


def _exported(checkpoint: str, folder: Path) -> Path | None:
    """The checkpoint as an ONNX file in FOLDER; None where the packages for that are missing."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return None
    try:
        _run(
            [
                sys.executable,
                "-m",
                "digitnet",
                "export",
                "--checkpoint",
                checkpoint,
                "--out",
                str(folder / "x.onnx"),
                "--data",
                str(folder),
            ]
        )
    except RuntimeError:
        return None
    return folder / "x.onnx"


def measure_training(effort: Effort, settings: dict) -> tuple[list[Figure], dict]:
    seconds = in_child("throughput", {"steps": effort.steps})["seconds"]
    figures = []
    for name, values in seconds.items():
        floor = "baseline network, a step without its loader" if name.startswith("quick") else None
        figures.append(figure("training, pictures a second", name, [1 / value for value in values], unit="/s", floor=floor))
    return figures, {}


def measure_accuracy(effort: Effort, settings: dict) -> tuple[list[Figure], dict]:
    from .train import QUICK, QUICK_TO_99

    lengths = {"99.0 %": QUICK_TO_99, "99.5 %": QUICK.epochs}
    runs: dict[str, list[dict]] = {name: [] for name in lengths}
    logs = []
    for seed in range(max(effort.seeds, effort.baseline_seeds)):
        if seed < effort.baseline_seeds:
            work = {"data": settings["data"], "epochs": effort.baseline_epochs, "seed": seed}
            logs.append(in_child("baseline", work)["log"])
        for name, epochs in lengths.items():
            if seed < effort.seeds:
                runs[name].append(in_child("quick", {"data": settings["data"], "epochs": epochs, "seed": seed}))
    part, figures = "training from nothing", []
    means = [statistics.mean(log[epoch]["test"] for log in logs) for epoch in range(effort.baseline_epochs)]
    reached = next((epoch for epoch, mean in enumerate(means) if mean >= 0.99), None)
    for epoch in range(effort.baseline_epochs):
        label = " (first mean of 99.0 %)" if epoch == reached else ""
        name = f"baseline, {epoch + 1} epochs{label}"
        figures.append(figure(part, name, [log[epoch]["seconds"] for log in logs], unit="s"))
        figures.append(
            figure(
                part,
                f"  its test accuracy, mean {means[epoch]:.2%}",
                [100 * log[epoch]["test"] for log in logs],
                unit="%",
            )
        )
    floor = figures[2 * reached].name if reached is not None else None
    for name, rows in runs.items():
        figures.append(
            figure(part, f"quick recipe, the length for {name}", [row["seconds"] for row in rows], unit="s", floor=floor)
        )
        for key, what in (("test", "test accuracy, one view"), ("test_views", "test accuracy, all views")):
            mean = statistics.mean(row[key] for row in rows)
            figures.append(figure(part, f"  its {what}, mean {mean:.2%}", [100 * row[key] for row in rows], unit="%"))
        above = [row["peak_mb"] - row["imports_mb"] for row in rows]
        figures.append(figure(part, "  its peak memory above imports", above, unit="MB"))
    return figures, {"baseline_logs": logs, "quick_runs": runs, "lengths": lengths}


IMPORTS = """
import time; began = time.perf_counter()
import torch; torch_at = time.perf_counter()
import gradio; gradio_at = time.perf_counter()
status = open("/proc/self/status").read().split()
mb = int(status[status.index("VmRSS:") + 1]) / 1024
import json; print(json.dumps({"torch": torch_at - began, "gradio": gradio_at - torch_at, "mb": mb}))
"""
LOAD = """
import json, sys, time; began = time.perf_counter()
from digitnet import Recognizer; imported = time.perf_counter()
recognizer = Recognizer.load(sys.argv[1]); loaded = time.perf_counter()
import numpy as np; from digitnet.benchmark import sheets; sheet = sheets(1)[0]; drawn = time.perf_counter()
recognizer(sheet); first = time.perf_counter()
recognizer(sheet); second = time.perf_counter()
print(json.dumps({"import digitnet": imported - began, "load the checkpoint": loaded - imported,
    "first answer": first - drawn, "second answer": second - first}))
"""


class Page:
    """python app.py in a process of its own, asked over plain HTTP."""

    def __init__(self, checkpoint: str):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.began = time.perf_counter()
        command = [
            sys.executable,
            str(ROOT / "app.py"),
            "--port",
            str(port),
            "--host",
            "127.0.0.1",
            "--checkpoint",
            checkpoint,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()

    def wait(self) -> float:
        """Seconds from the start of the process until the page is delivered."""
        while time.perf_counter() - self.began < PATIENCE:
            if self.process.poll() is not None:
                raise RuntimeError(f"app.py stopped: {self.process.stderr.read().decode()[-2000:]}")
            try:
                with urllib.request.urlopen(self.url, timeout=PATIENCE) as page:
                    page.read()
                return time.perf_counter() - self.began
            except OSError:
                time.sleep(0.01)
        raise RuntimeError(f"app.py did not answer within {PATIENCE} s.")

    def ask(self, png: bytes) -> dict:
        """/predict's answer, by Gradio's plain HTTP routes: upload, call, result."""
        mark = uuid.uuid4().hex
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="sheet.png"\r\nContent-Type: image/png\r\n\r\n'
        )
        body = head.encode() + png + f"\r\n--{mark}--\r\n".encode()
        (path,) = self._post("upload", body, f"multipart/form-data; boundary={mark}")
        picture = {"path": path, "meta": {"_type": "gradio.FileData"}}
        event = self._post("call/predict", json.dumps({"data": [picture]}).encode(), "application/json")["event_id"]
        with urllib.request.urlopen(f"{self.url}/gradio_api/call/predict/{event}", timeout=PATIENCE) as stream:
            told = stream.read().decode()
        _, complete, after = told.partition("event: complete\ndata: ")
        if not complete:
            raise RuntimeError(f"/predict did not answer: {told}")
        return json.loads(after.splitlines()[0])[0]

    def _post(self, route: str, body: bytes, kind: str):
        request = urllib.request.Request(f"{self.url}/gradio_api/{route}", body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)


def _png(sheet: np.ndarray) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "PNG")
    return file.getvalue()


def measure_start(effort: Effort, settings: dict) -> tuple[list[Figure], dict]:
    """Start-up and memory of the page against bare imports, in turns; then the Recognizer's memory as it goes on."""
    times: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}

    def note(table: dict[str, list[float]], name: str, value: float) -> None:
        table.setdefault(name, []).append(value)

    png, wrong = _png(draw(SEVEN, brush=16)), 0
    for turn in range(effort.starts + 1):
        began = time.perf_counter()
        bare = json.loads(_run([sys.executable, "-c", IMPORTS]))
        whole = time.perf_counter() - began
        load = json.loads(_run([sys.executable, "-c", LOAD, settings["checkpoint"]]))
        with Page(settings["checkpoint"]) as page:
            delivered = page.wait()
            wrong += page.ask(png)["digit"] != 7
            ready = time.perf_counter() - page.began
            for _ in range(19):
                page.ask(png)
            answered = resident(page.process.pid)
        if turn == 0:
            continue  # the first start reads everything from the disk
        note(times, "bare imports, whole process", whole)
        note(times, "  import torch", bare["torch"])
        note(times, "  import gradio", bare["gradio"])
        for name, value in load.items():
            note(times, name, value)
        note(times, "page delivered", delivered)
        note(times, "page ready: first answer", ready)
        note(memory, "bare imports", bare["mb"])
        note(memory, "page after 20 answers", answered)
    floor = "bare imports, whole process"
    figures = [
        figure("start-up", name, values, unit="s", floor=floor if name.startswith("page") else None)
        for name, values in times.items()
    ]
    figures += [
        figure("memory", name, values, unit="MB", floor="bare imports" if name.startswith("page") else None)
        for name, values in memory.items()
    ]
    going_on = in_child("memory", {"engine": settings["checkpoint"], "predictions": effort.predictions})
    many = f"Recognizer after {effort.predictions:,} predictions"
    figures.append(figure("memory", "Recognizer after 20 predictions", [going_on["after_20"]], unit="MB"))
    figures.append(figure("memory", many, [going_on["after_all"]], unit="MB", floor="Recognizer after 20 predictions"))
    return figures, {"first_answers_wrong": wrong}


WATCH = """() => {
    const answer = document.getElementById("answer");
    const text = () => answer.innerText, count = () => answer.dataset.answers;
    window.seen = {text: text(), count: count(), changed: 0, counted: 0, up: 0};
    new MutationObserver(() => {
        const seen = window.seen, now = performance.now();
        if (text() !== seen.text) { seen.text = text(); seen.changed = now; }
        if (count() !== seen.count) { seen.count = count(); seen.counted = now; }
    }).observe(answer, {subtree: true, childList: true, characterData: true, attributes: true});
    window.addEventListener("pointerup", () => { window.seen.up = performance.now(); }, true);
}"""


def measure_browser(effort: Effort, settings: dict) -> tuple[list[Figure], dict]:
    """From the end of a stroke to the last answer shown, and to the label's last change, in a real Chromium, by mouse.

    The label follows the pen, so it often reads at pointer-up what it reads at the end: then its last change counts as 0.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return [], {"skipped": "Playwright is not installed: pip install -r tests/requirements.txt"}
    chromium = next((path for path in ("/usr/bin/chromium", "/usr/bin/google-chrome") if os.path.exists(path)), None)
    waits: dict[str, list[float]] = {"counted": [], "changed": []}
    shown = []
    with Page(settings["checkpoint"]) as page, sync_playwright() as playwright:
        page.wait()
        arguments = [
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-sync",
        ]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.goto(page.url)
        canvas = tab.locator("canvas").first
        canvas.wait_for()
        tab.wait_for_timeout(2500)
        tab.evaluate(WATCH)
        for number in range(effort.strokes + 2):
            box = canvas.bounding_box()
            points = [(box["x"] + x / 280 * box["width"], box["y"] + y / 280 * box["height"]) for x, y in SEVEN[0]]
            tab.evaluate("() => { window.seen.changed = 0; window.seen.counted = 0; }")
            tab.mouse.move(*points[0])
            tab.mouse.down()
            for point in points[1:]:
                tab.mouse.move(*point, steps=12)
            tab.mouse.up()
            tab.wait_for_timeout(2500)
            seen = tab.evaluate("() => window.seen")
            if number >= 2:  # the first strokes warm the page up
                shown.append(seen["text"].split("\n")[0])
                for name, values in waits.items():
                    if seen[name]:
                        values.append(max(0.0, seen[name] - seen["up"]))
            tab.get_by_role("button", name="Clear").last.click()
            tab.wait_for_timeout(600)
        browser.close()
    names = {"counted": "stroke end → last answer shown", "changed": "stroke end → label's last change"}
    figures = [figure("in the browser", names[key], values, unit="ms") for key, values in waits.items() if values]
    return figures, {"labels": shown}


PARTS = {
    "one": (measure_one, "one sheet on one thread: each stage, the whole, the bare forward passes"),
    "batches": (measure_batches, "sheets a second, one by one and in batches, by each engine"),
    "training": (measure_training, "training throughput, with and without augmentation"),
    "accuracy": (measure_accuracy, "time to 99.0 % and 99.5 % beside the baseline loop, and peak memory"),
    "start": (measure_start, "start-up phases and memory of the page beside bare imports"),
    "browser": (measure_browser, "stroke end → label, in a real browser"),
}


def table(figures: Sequence[Figure]) -> str:
    """The figures as text, part by part, each with its range and its ratio to its floor."""
    lines, part = [], None
    by_name = {(item.part, item.name): item for item in figures}
    width = max((len(item.name) for item in figures), default=0)
    for item in figures:
        if item.part != part:
            part = item.part
            lines += ["", part]
        line = f"  {item.name:<{width}} {_number(item.median):>9} {item.unit:<3} "
        line += f"{_number(item.low):>9} … {_number(item.high):<9} n={item.n}"
        floor = by_name.get((item.part, item.floor))
        if floor is not None and floor.median and item.median:
            # A rate is better when it is higher, a time when it is lower; the ratio says it in the unit's own way.
            line += f"  {item.median / floor.median:.2f} × “{floor.name.strip()}”"
        lines.append(line)
    return "\n".join(lines).strip("\n")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 10 else f"{value:.2f}"


def machine() -> dict:
    """What the figures were measured on."""
    import torch

    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "bfloat16": torch.cpu._is_avx512_bf16_supported(),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Measures speed and memory, each figure beside a floor measured in the same run, and prints a table and JSON.\n"
        "Run it with nothing else running: about 25 minutes on two cores, about 4 with --quick. Linux only."
    )
    parser.epilog = "parts:\n" + "\n".join(f"  {name:<9} {what}" for name, (_, what) in PARTS.items())
    parser.add_argument(
        "--quick", action="store_true", help="a look, not a measurement: few rounds, one seed, one baseline epoch"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help="only these parts")
    parser.add_argument("--checkpoint", metavar="FILE", default=str(DEFAULT_PATH), help="default: checkpoints/digitnet.pt")
    parser.add_argument("--data", metavar="FOLDER", help="data root with MNIST/ (default: DIGITNET_DATA, else data/)")
    parser.add_argument("--out", metavar="FILE", help="write the JSON here (default: printed behind the table)")


def run(args: argparse.Namespace) -> int:
    """Exit code 0: all measured. 1: a part could not be; the others are there."""
    from . import checkpoint as checkpoints
    from .mnist import data_root, load_mnist

    checkpoints.load(args.checkpoint)  # a missing one is told before minutes are spent
    settings = {"checkpoint": str(Path(args.checkpoint).resolve()), "data": str(data_root(args.data).resolve())}
    parts = args.only or list(PARTS)
    if "accuracy" in parts:
        load_mnist(settings["data"], train=False)
    effort = QUICK_LOOK if args.quick else Effort()
    report = {"machine": machine(), "effort": asdict(effort), "figures": [], "notes": {}, "failed": {}}
    if report["machine"]["load_before"] > 0.5:
        print(
            f"The machine is busy (load {report['machine']['load_before']}); these figures are no measurement.",
            file=sys.stderr,
        )
    figures: list[Figure] = []
    for part in parts:
        measure, what = PARTS[part]
        print(f"Measuring {what} ...", file=sys.stderr, flush=True)
        began = time.perf_counter()
        try:
            measured, notes = measure(effort, settings)
        except (RuntimeError, OSError) as error:
            print(f"{part}: {error}", file=sys.stderr)
            report["failed"][part] = str(error)
            continue
        figures += measured
        report["notes"][part] = notes | {"seconds": round(time.perf_counter() - began, 1)}
    report["figures"] = [asdict(item) for item in figures]
    print(table(figures))
    text = json.dumps(report, indent=1) + "\n"
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(text)
        print(f"\nWrote {args.out}.")
    else:
        print(f"\n{text}")
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    print(json.dumps(CHILDREN[sys.argv[1]](json.loads(sys.argv[2]))))
