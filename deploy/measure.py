"""python -m deploy measure: what Serve, Ray Data and the page before them cost, beside the plain recogniser in the same run.

Prints the tables of docs/scale.md, the arithmetic included. Everything it needs is made in a temporary folder and removed;
every server it starts is a process of its own, whose processor time is read from the system.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import torch
from PIL import Image

from digitnet import Recognizer
from digitnet.drawings import read_drawings
from digitnet.mnist import load_mnist
from digitnet.preprocess import to_digit
from digitnet.remote import DIGITS_TYPE, MOST

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 20_000
FEW = 500  # a job that is nearly all start-up
PEOPLE, EVERY = 1_000, 0.030  # s; a page asks again no sooner than this while a pen moves (sheet.js)
MANY = 100_000_000
LOAD = 0.7  # of a core, planned for; more, and people wait for each other


@dataclass(frozen=True)
class Served:
    """One Serve under load: digits read a second, and milliseconds of a processor that one request cost."""

    alone_ms: float  # one person, one picture after the other: median time of a whole request
    singles: float  # pictures a second, each a request of its own
    packed: float  # digits a second, MOST a request: nearly all the work is the workers'
    worker_ms: float  # of a processor, per picture of its own request
    front_ms: float  # the same, of Serve's HTTP server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FILE", help="also write the figures as JSON")
    parser.add_argument("--data", metavar="FOLDER", help="root that holds MNIST (default: DIGITNET_DATA, else data/)")
    parser.add_argument("--seconds", type=float, default=6, metavar="N", help="a measurement of Serve (default: 6)")
    parser.add_argument("--pictures", type=int, default=PICTURES, metavar="N", help=f"in the batch job (default: {PICTURES})")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="of the batch job (default: 2)")


def run(args: argparse.Namespace) -> int:
    """Measures and prints. Raises DataError where MNIST is not to be had."""
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"This machine is busy (load {load:.1f}): these figures are a look and no measurement.", file=sys.stderr)
    root = Path(args.data or os.environ.get("DIGITNET_DATA") or ROOT / "data")
    with tempfile.TemporaryDirectory(prefix="digitnet-measure-") as folder:
        scans = Path(folder) / "scans"
        digits = _scans(scans, args.pictures, root)
        figures = {"machine": _machine(), "load": load, "plain": _plain(digits, scans, args.seconds)}
        for workers in (1, 2):
            with _serving(workers) as (address, process):
                figures[f"serve_{workers}"] = asdict(_served(address, process, digits, args.seconds))
                if workers == 2:
                    figures["page_ms"] = _page(address)
        figures["batch"] = _batches(Path(folder), scans, args)
    if args.out:
        Path(args.out).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(tables(figures))
    return 0


def _machine() -> str:
    told = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in told if line.startswith("model name")]
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}, {memory:.0f} GiB, torch {torch.__version__}"


def _scans(folder: Path, number: int, root: Path) -> np.ndarray:
    """Writes so many MNIST pictures as PNG files into a folder; gives the first 256 as framed digits."""
    pictures = torch.cat([load_mnist(root, train=False)[0], load_mnist(root, train=True)[0]]).view(-1, 28, 28).numpy()
    assert pictures.dtype == np.uint8 and number <= len(pictures)
    for index in range(number):
        below = folder / f"{index // 1000:03}"
        below.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - pictures[index]).save(below / f"{index:06}.png")
    return np.stack([to_digit(255 - picture) for picture in pictures[:256]])


def _each(seconds: float, work: Callable[[], object]) -> float:
    """Milliseconds a call of work(), the median of as many as fit."""
    times, end = [], time.perf_counter() + seconds
    work()
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times)


def _plain(digits: np.ndarray, scans: Path, seconds: float) -> dict:
    """The Recognizer itself on one thread: ms a picture, one at a time and in batches of 64, and a whole page's sheet."""
    recognizer = Recognizer.load()
    files = sorted(scans.rglob("*.png"))[:64]
    contents = [file.read_bytes() for file in files]
    sheet = io.BytesIO()
    Image.open(files[0]).resize((280, 280)).save(sheet, "PNG")

    def opened(content: bytes) -> Image.Image:
        return Image.open(io.BytesIO(content))

    def together(contents: list[bytes]) -> None:  # all views, as the workers read
        recognizer.read([to_digit(opened(content)) for content in contents])

    return {
        "one_ms": _each(seconds / 3, lambda: recognizer(opened(contents[0]))),
        "batch_ms": _each(seconds / 3, lambda: together(contents)) / len(contents),
        "packed_ms": _each(seconds / 3, lambda: recognizer.read(digits[:MOST])) / MOST,
        "sheet_ms": _each(seconds / 3, lambda: together(16 * [sheet.getvalue()])) / 16,
    }


# --- Serve ----------------------------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _started(pattern: str, *command: str) -> Iterator[tuple[str, psutil.Process]]:
    """A server as a process of its own, for a with block: what the pattern finds in its output, and the process."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            told = []
            for line in server.stdout:
                told.append(line)
                if match := re.search(pattern, line):
                    break
            else:
                from .cluster import ClusterError  # only here: it sets what every process started afterwards inherits

                raise ClusterError(f"{' '.join(command[1:4])} did not start: {''.join(told)[-500:]}")
            yield match.group(1), psutil.Process(server.pid)
        finally:
            server.terminate()
            server.wait()


def _serving(workers: int):
    own = (sys.executable, "-m", "deploy", "serve", "--port", str(_free_port()))
    return _started(r"answers at (http://[^/]+)/", *own, "--workers", str(workers), "--least", str(workers))


def _served(address: str, server: psutil.Process, digits: np.ndarray, seconds: float) -> Served:
    buffer = io.BytesIO()
    Image.fromarray(np.round(255 * (1 - digits[0])).astype(np.uint8)).save(buffer, "PNG")
    picture, pack = buffer.getvalue(), digits[:MOST].astype("<f4").tobytes()
    _asked(address, pack, seconds=1, at_once=8, kind=DIGITS_TYPE)  # every worker's first request
    with httpx.Client(timeout=60) as http:
        alone = _each(seconds / 2, lambda: http.post(f"{address}/predict", content=picture).raise_for_status())
    worker, front = _processor(server, "ray::ServeReplica"), _processor(server, "ray::ProxyActor")
    singles = _asked(address, picture, seconds=seconds, at_once=16)
    worker_s = _processor(server, "ray::ServeReplica") - worker
    front_s = _processor(server, "ray::ProxyActor") - front
    packs = _asked(address, pack, seconds=seconds, at_once=8, kind=DIGITS_TYPE)
    return Served(
        alone_ms=alone,
        singles=singles / seconds,
        packed=packs * MOST / seconds,
        worker_ms=1000 * worker_s / singles,
        front_ms=1000 * front_s / singles,
    )


def _asked(address: str, content: bytes, *, seconds: float, at_once: int, kind: str = "image/png") -> int:
    """How many requests were answered in so many seconds, so many of them under way at any time."""
    end = time.perf_counter() + seconds

    def ask(_) -> int:
        answered = 0
        with httpx.Client(timeout=60) as http:
            while time.perf_counter() < end:
                http.post(f"{address}/predict", content=content, headers={"content-type": kind}).raise_for_status()
                answered += 1
        return answered

    with ThreadPoolExecutor(at_once) as people:
        return sum(people.map(ask, range(at_once)))


def _processor(server: psutil.Process, name: str) -> float:
    """Seconds of a processor that the processes below a server whose title begins so have used."""
    total = 0.0
    for process in server.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith(name):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def _page(backend: str) -> float:
    """Milliseconds of a processor that a page process spends on one reading of a sheet that a backend reads."""
    drawing = next(d for d in read_drawings(ROOT / "digitnet" / "page" / "examples.jsonl") if d.digit is not None)
    strokes = [[False, 8, [round(float(v), 1) for v in stroke.reshape(-1)]] for stroke in drawing.strokes]
    port = str(_free_port())
    command = (sys.executable, "app.py", "--port", port, "--backend", backend)
    with _started(r"reads at (http://\S+)", *command) as (address, page), httpx.Client(timeout=60) as http:
        parts = http.get(f"{address}config").raise_for_status().json()["components"]
        tools = next(part["id"] for part in parts if part["props"].get("elem_id") == "tools")
        call = {"component_id": tools, "fn_name": "read_sheet", "data": strokes}

        def read(number: int) -> None:
            # A visitor a call, and no faster than one address may ask.
            got = http.post(f"{address}gradio_api/component_server", json={**call, "session_hash": f"measure{number}"})
            assert got.raise_for_status().json().get("verdict") == "digit", got.text
            time.sleep(0.01)

        for number in range(20):
            read(number)
        before, count = page.cpu_times(), 200
        for number in range(count):
            read(number)
        after = page.cpu_times()
    return 1000 * (after.user + after.system - before.user - before.system) / count


# --- batches --------------------------------------------------------------------------------------------------------------


def _batches(folder: Path, scans: Path, args: argparse.Namespace) -> dict:
    """Seconds from the start of each command to its end, in turns; the tables of both are compared, byte by byte."""
    few = scans / "000"
    for path in sorted(few.iterdir())[FEW:]:
        path.rename(scans / path.name)  # still among all
    plain = [sys.executable, "-m", "digitnet", "predict", "--workers", "2"]
    ours = [sys.executable, "-m", "deploy", "batch"]
    times: dict[str, list[float]] = {name: [] for name in ("plain", "ray_2", "plain_few", "ray_few", "ray_1")}

    def take(name: str, *command: str) -> None:
        begin = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        times[name].append(time.perf_counter() - begin)

    tables = [str(folder / name) for name in ("plain.csv", "ray.csv", "few.csv")]
    for _ in range(args.rounds):
        take("plain", *plain, str(scans), "--out", tables[0])
        take("ray_2", *ours, str(scans), "--out", tables[1], "--workers", "2")
        assert Path(tables[0]).read_bytes() == Path(tables[1]).read_bytes(), "both commands write the same table"
        take("plain_few", *plain, str(few), "--out", tables[2])
        take("ray_few", *ours, str(few), "--out", tables[2], "--workers", "2")
    take("ray_1", *ours, str(scans), "--out", tables[1], "--workers", "1")
    return {"pictures": args.pictures, **{name: statistics.median(values) for name, values in times.items()}}


# --- the tables -----------------------------------------------------------------------------------------------------------


def tables(figures: dict) -> str:
    """What was measured, and what follows from it, as Markdown."""
    plain, one, two, batch = (figures[name] for name in ("plain", "serve_1", "serve_2", "batch"))
    n = batch["pictures"]
    rest = n - FEW
    ray_each = (batch["ray_2"] - batch["ray_few"]) / rest  # s a picture, both workers together
    plain_each = (batch["plain"] - batch["plain_few"]) / rest
    ray_start = batch["ray_few"] - FEW * ray_each
    plain_start = batch["plain_few"] - FEW * plain_each
    one_each = (batch["ray_1"] - ray_start) / n
    return "\n".join(
        [
            f"Measured {time.strftime('%Y-%m-%d')} on {figures['machine']}; load before: {figures['load']:.1f}.",
            "",
            "| what | figure | beside |",
            "| --- | --- | --- |",
            f"| one picture by HTTP, nobody else asking | {two['alone_ms']:.1f} ms | "
            f"{plain['one_ms']:.1f} ms by `Recognizer` itself |",
            f"| processor time of one picture by HTTP, 16 people asking | {one['worker_ms']:.1f} ms in the worker, "
            f"{one['front_ms']:.1f} ms in Serve's HTTP server | {plain['batch_ms']:.1f} ms by `Recognizer` in batches of 64 |",
            f"| pictures a second by HTTP, one worker → two | {one['singles']:.0f} → {two['singles']:.0f} "
            f"(×{two['singles'] / one['singles']:.2f}) | the asking program and Serve's HTTP server run on the same cores |",
            f"| digits a second, {MOST} a request, one worker → two | {one['packed']:.0f} → {two['packed']:.0f} "
            f"(×{two['packed'] / one['packed']:.2f}) | {1000 / plain['packed_ms']:.0f} by `Recognizer` on one thread |",
            f"| processor time of a page process, per reading, with `--backend` | {figures['page_ms']:.1f} ms | |",
            f"| batch of {n:,} pictures, two workers | {batch['ray_2']:.1f} s | {batch['plain']:.1f} s by "
            f"`python -m digitnet predict`: {batch['ray_2'] / batch['plain'] - 1:+.0%} |",
            f"| … of which the start of Ray | {ray_start:.1f} s | {plain_start:.1f} s |",
            f"| … and each picture | {1000 * ray_each:.2f} ms | {1000 * plain_each:.2f} ms |",
            f"| … pictures a second once started, one worker → two | {1 / one_each:.0f} → {1 / ray_each:.0f} "
            f"(×{one_each / ray_each:.2f}) | |",
            "",
            *_arithmetic(figures, ray_each, plain_each, ray_start - plain_start, one_each),
        ]
    )


def _arithmetic(figures: dict, ray_each: float, plain_each: float, start: float, core_each: float) -> list[str]:
    """What 1,000 people and 100 million pictures need, line by line; times in seconds, core_each on one worker."""
    plain, one, page = figures["plain"], figures["serve_1"], figures["page_ms"]
    asked = PEOPLE / EVERY
    lines = [
        f"**{PEOPLE:,} people drawing at once**, every pen on the sheet, so that each page asks every {1000 * EVERY:.0f} ms:",
        "",
        f"- readings a second: {PEOPLE:,} ÷ {EVERY} s = {asked:,.0f}",
    ]
    total = 0.0
    shares = {"page processes": page, "Serve's HTTP servers": one["front_ms"], "workers": one["worker_ms"]}
    for name, cost in shares.items():
        cores = asked * cost / 1000 / LOAD
        total += cores
        lines.append(f"- {name}: {asked:,.0f} × {cost:.1f} ms ÷ {LOAD} = {cores:,.0f} cores")
    lines += [
        f"- together {total:,.0f} cores: {total / 2:,.0f} machines like this one, or {total / 64:,.0f} of 64 cores",
        f"- where a pen is on the sheet two fifths of the time: 0.4 × {total:,.0f} = {0.4 * total:,.0f} cores",
        "",
        f"**{MANY:,} pictures** of 28×28, read from one file each:",
        "",
    ]
    hours, dearer = MANY * core_each / 3600, plain["sheet_ms"] / plain["batch_ms"]
    lines += [
        f"- processor time: {MANY:,} × {1000 * core_each:.2f} ms = {hours:,.0f} core hours",
        f"- on this machine, two workers: {MANY:,} × {1000 * ray_each:.2f} ms = {MANY * ray_each / 3600:,.0f} hours",
        f"- on ten like it: {MANY * ray_each / 36000:,.1f} hours; on 16 of 64 cores: {hours:,.0f} ÷ 1,024 = {hours / 1024:.1f}",
        f"- sheets of 280×280: {plain['sheet_ms']:.1f} ÷ {plain['batch_ms']:.1f} ms = {dearer:.1f} times as much",
        "",
        "**When it pays.** On one machine never: `python -m digitnet predict` uses every core, too, and starts sooner.",
    ]
    gain = plain_each - ray_each / 2
    if gain > 0:
        lines.append(
            f"A second machine of this kind pays from {start:.1f} s ÷ ({1000 * plain_each:.2f} − {1000 * ray_each:.2f} ÷ 2) ms "
            f"= {max(start, 0) / gain:,.0f} pictures on, where Ray is started for the job, and sooner where it runs already."
        )
    alone = LOAD * 1000 / (page + plain["one_ms"])
    lines.append(
        f"A page process that reads by itself answers {LOAD} × 1,000 ÷ ({page:.1f} + {plain['one_ms']:.1f}) ms = {alone:.0f} "
        f"readings a second on a core: {alone * EVERY:.1f} pens moving all the time. From there on, more page processes behind "
        "the balancer; and workers of their own, where these should grow and shrink with the crowd, or serve programs, too."
    )
    return lines
