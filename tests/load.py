"""Load on the page, by Locust, with arrivals that do not wait for answers.

python tests/load.py hold | burst | class | soak | bounds

Starts the page itself, on two cores where the machine has more, sends what browsers and programs send, prints figures and
writes them with --json. Not a test: the machine must have nothing else to do. docs/reliability.md holds what came out.
"""

import argparse
import contextlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import gevent
import psutil
from locust import FastHttpUser
from locust.env import Environment
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from digitnet.drawings import draw, read_drawings  # noqa: E402

PORT = 7990
PATIENCE = 60  # seconds until a request counts as lost
BOUNDARY = "load"
numbers = count(1)


def picture_of(drawing) -> bytes:
    """The drawing as an upload's body."""
    buffer = io.BytesIO()
    Image.fromarray(draw(drawing.strokes, brush=16)).save(buffer, "PNG")
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="drawing.png"\r\n\r\n'
    return head.encode() + buffer.getvalue() + f"\r\n--{BOUNDARY}--\r\n".encode()


def strokes_of(drawing) -> list:
    return [[False, 8, [round(float(v), 1) for point in line for v in point]] for line in drawing.strokes]


DRAWN = read_drawings(ROOT / "tests" / "drawings" / "page.jsonl")
DIGITS = [(drawing.digit, picture_of(drawing), strokes_of(drawing)) for drawing in DRAWN if drawing.digit is not None]


class Visitor(FastHttpUser):
    """One who asks; Locust keeps the figures."""

    host = f"http://127.0.0.1:{PORT}"
    tools = 0  # the id of the component whose functions read the sheet
    network_timeout = connection_timeout = PATIENCE

    def __init__(self, environment):
        super().__init__(environment)
        self.wrong = 0  # what was answered, and was not the drawing
        self.become_another()

    def become_another(self) -> None:
        """A new session from a new address, as if behind a proxy, with a digit in mind."""
        number = next(numbers)
        self.name = f"{number:024x}"
        self.about = {"X-Forwarded-For": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}
        self.digit, self.picture, self.strokes = random.choice(DIGITS)

    def predict(self, name="/predict") -> str:
        """Upload, call, result, as docs/plain_http.py does, counted as one. Returns "held", "refused" or "failed"."""
        began = time.perf_counter()
        outcome = self._predict()
        self.environment.events.request.fire(
            request_type="whole",
            name=f"{name} {outcome}",
            response_time=1000 * (time.perf_counter() - began),
            response_length=0,
            exception=None if outcome != "failed" else RuntimeError(outcome),
            context={},
        )
        return outcome

    def _predict(self) -> str:
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        with self._ask("POST", "upload", data=self.picture, headers=kind) as uploaded:
            if uploaded.status_code != 200:
                return self._refusal(uploaded)
            (path,) = uploaded.json()
        message = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
        with self._ask("POST", "call/predict", json=message) as called:
            if called.status_code != 200:
                return self._refusal(called)
            event = called.json()["event_id"]
        with self._ask("GET", f"call/predict/{event}", name="call/predict/ID") as result:
            lines = dict(line.split(": ", 1) for line in (result.text or "").splitlines() if ": " in line)
        if result.status_code != 200 or lines.get("event") != "complete":
            return self._refusal(result)
        self.wrong += json.loads(lines["data"])[0]["digit"] != self.digit
        return "held"

    def read_sheet(self, strokes, name: str) -> str:
        """One call of the page's script; returns as predict() does."""
        message = {"data": strokes, "component_id": self.tools, "fn_name": "read_sheet", "session_hash": self.name}
        with self._ask("POST", "component_server/", name=name, json=message) as answer:
            if answer.status_code != 200:
                return self._refusal(answer)
            return "held" if (answer.json() or {}).get("label") else "failed"

    def _ask(self, method, path, *, name=None, headers=None, **more):
        about = {**self.about, **(headers or {})}
        return self.client.request(method, f"/gradio_api/{path}", name=name or path, headers=about, catch_response=True, **more)

    def _refusal(self, answer) -> str:
        if answer.status_code in (429, 503) and "again" in (answer.text or ""):
            answer.success()
            return "refused"
        answer.failure(f"{answer.status_code} {(answer.text or '')[:200]}")
        return "failed"


class Page:
    """The page in a process of its own: its address, its memory, its temporary files."""

    def __init__(self, cores: int, *, port: int = PORT, start: tuple[str, ...] = (str(ROOT / "app.py"),)):
        self.folder = tempfile.TemporaryDirectory(prefix="load-")
        with open(Path(self.folder.name) / "out.txt", "wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, *start, "--port", str(port), "--proxied"],
                cwd=ROOT,
                env={**os.environ, "GRADIO_TEMP_DIR": f"{self.folder.name}/files", "PYTHONUNBUFFERED": "1"},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.watched = psutil.Process(self.process.pid)
        if len(os.sched_getaffinity(0)) > cores:
            self.watched.cpu_affinity(sorted(os.sched_getaffinity(0))[:cores])
        while "reads at" not in self.output:
            assert self.process.poll() is None, self.output
            gevent.sleep(0.2)

    @property
    def output(self) -> str:
        return (Path(self.folder.name) / "out.txt").read_text(errors="replace")

    @property
    def memory(self) -> float:
        return round(self.watched.memory_info().rss / 2**20, 1)  # MB

    @property
    def files(self) -> int:
        return sum(len(names) for _, _, names in os.walk(f"{self.folder.name}/files"))

    def close(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


def arrivals(environment, visit, *, rate: float, seconds: float) -> list:
    """Open loop: visits begin at random moments, `rate` a second on average, whether earlier ones have ended or not."""
    greenlets, due = [], time.perf_counter()
    end = due + seconds
    while (due := due + random.expovariate(rate)) < end:
        gevent.sleep(max(0.0, due - time.perf_counter()))
        greenlets.append(gevent.spawn(visit, environment))
    return greenlets


def whole(environment) -> dict:
    """Figures of the visits begun so far, by name."""
    found = {}
    for (name, kind), entry in environment.stats.entries.items():
        if kind == "whole":
            found[name] = {
                "n": entry.num_requests,
                "p50_ms": round(entry.get_response_time_percentile(0.5) or 0),
                "p95_ms": round(entry.get_response_time_percentile(0.95) or 0),
                "max_ms": round(entry.max_response_time or 0),
            }
    return found


at_rest: list[Visitor] = []  # whose connections are open: a new one for each prediction would measure that


def predicting(environment) -> None:
    visitor = at_rest.pop() if at_rest else Visitor(environment)
    visitor.become_another()
    visitor.predict()
    at_rest.append(visitor)


def run_at(environment, rate: float, seconds: float, name: str) -> dict:
    environment.stats.reset_all()
    began = time.perf_counter()
    gevent.joinall(arrivals(environment, predicting, rate=rate, seconds=seconds))
    took = time.perf_counter() - began
    found = whole(environment)
    held = found.get("/predict held", {"n": 0, "p95_ms": 0})
    figures = {"asked_per_s": rate, "seconds": round(took, 1), "held_per_s": round(held["n"] / max(took, seconds), 1), **found}
    print(name, json.dumps(figures), flush=True)
    return figures


def held_well(figures: dict) -> bool:
    return set(figures) & {"/predict refused", "/predict failed"} == set() and figures["/predict held"]["p95_ms"] <= 1200


def hold(environment, page, options) -> dict:
    """The highest rate at which every /predict is answered, 95 % of them within 1.2 s."""
    rates = options.rate or [10, 20, 30, 40, 50, 60, 80, 100, 120]
    steps, best = [], None
    for rate in rates:
        steps.append(run_at(environment, rate, options.seconds, "hold"))
        if not held_well(steps[-1]):
            break
        best = rate
    return {"held_per_s": best, "steps": steps, "wrong": sum(visitor.wrong for visitor in at_rest)}


def burst(environment, page, options) -> dict:
    """Three times what it holds: what was refused, how fast, and how soon all is as before."""
    rate = (options.rate or [40])[0]
    before = run_at(environment, rate / 2, options.seconds / 2, "before")
    over = run_at(environment, 3 * rate, options.seconds, "burst")
    ended, recovered = time.perf_counter(), None
    while recovered is None and time.perf_counter() - ended < 60:
        began = time.perf_counter()
        if Visitor(environment).predict("/recovery") == "held" and time.perf_counter() - began < 1.2:
            recovered = round(time.perf_counter() - ended, 1)
    after = run_at(environment, rate / 2, options.seconds / 2, "after")
    return {"before": before, "burst": over, "recovered_s": recovered, "after": after}


def classroom(environment, page, options) -> dict:
    """Thirty people who draw at once: each stroke is read while it grows, one call in flight, and once more when it ends."""

    def pupil():
        someone = Visitor(environment)
        for _ in range(options.drawings):
            someone.digit, someone.picture, someone.strokes = random.choice(DIGITS)
            _draw_once(environment, someone)
            gevent.sleep(random.uniform(0.5, 1.5))

    environment.stats.reset_all()
    began = time.perf_counter()
    gevent.joinall([gevent.spawn(pupil) for _ in range(options.people)])
    figures = {"people": options.people, "seconds": round(time.perf_counter() - began, 1), **whole(environment)}
    live = figures.get("live held", {"n": 0})
    figures["live_per_person_s"] = round(live["n"] / options.people / figures["seconds"], 1)
    print("class", json.dumps(figures), flush=True)
    return figures


def _draw_once(environment, someone) -> None:
    """A drawing of one to two seconds, as sheet.js sends it."""
    strokes = someone.strokes
    points = sum(len(flat) // 2 for _, _, flat in strokes)
    begin, takes, last = time.perf_counter(), random.uniform(1.0, 2.0), 0.0
    while (share := (time.perf_counter() - begin) / takes) < 1:
        outcome = _timed(environment, someone, _first(strokes, max(2, round(share * points))), "live")
        # As ask.js does: at least 30 ms between two calls, and a refused one waits half a second at most.
        rest = random.uniform(0.25, 0.5) if outcome == "refused" else 0.03 - (time.perf_counter() - last)
        gevent.sleep(max(0.0, rest))
        last = time.perf_counter()
    began = time.perf_counter()
    for _ in range(4):
        if (outcome := someone.read_sheet(strokes, "final")) != "refused":
            break
        gevent.sleep(random.uniform(0.5, 1.5))
    _note(environment, f"final {outcome}", began)


def _timed(environment, someone, strokes, name: str) -> str:
    began = time.perf_counter()
    outcome = someone.read_sheet(strokes, name)
    _note(environment, f"{name} {outcome}", began)
    return outcome


def _note(environment, name: str, began: float) -> None:
    environment.events.request.fire(
        request_type="whole",
        name=name,
        response_time=1000 * (time.perf_counter() - began),
        response_length=0,
        exception=None,
        context={},
    )


def _first(strokes: list, points: int) -> list:
    """The strokes as they were when that many points had been drawn."""
    drawn = []
    for erases, radius, flat in strokes:
        if points <= 0:
            break
        drawn.append([erases, radius, flat[: 2 * points]])
        points -= len(flat) // 2
    return drawn


def soak(environment, page, options) -> dict:
    """Many predictions at a rate it holds: memory, temporary files, answers."""
    rate = (options.rate or [25])[0]
    rounds = max(4, round(options.predictions / rate / options.seconds))
    marks, answered, refused, failed = [], 0, 0, 0
    for number in range(rounds):
        figures = run_at(environment, rate, options.seconds, f"soak {number + 1}/{rounds}")
        answered += figures.get("/predict held", {"n": 0})["n"]
        refused += figures.get("/predict refused", {"n": 0})["n"]
        failed += figures.get("/predict failed", {"n": 0})["n"]
        marks.append({"answered": answered, "memory_mb": page.memory, "files": page.files})
        print(json.dumps(marks[-1]), flush=True)
    asked = answered + refused + failed
    # What caches fill in the first tenth is no growth.
    first, last = marks[len(marks) // 10], marks[-1]
    growth = round(100 * (last["memory_mb"] / first["memory_mb"] - 1), 2)
    return {
        "asked": asked,
        "answered": answered,
        "refused": refused,
        "lost": failed,
        "wrong": sum(visitor.wrong for visitor in at_rest),
        "memory_growth_percent": growth,
        "most_files": max(mark["files"] for mark in marks),
        "marks": marks,
    }


# The page as it would be without limits.py, guard.py, rates.py and gaps.py.
BARE = """
import sys
from digitnet.page import gaps
gaps.lighten_gradio = lambda: None
gaps.lighten_queue = lambda queue: None
from digitnet.page import look
bounded = look.launch_settings
look.launch_settings = lambda **how: {name: value for name, value in bounded(**how).items() if name != "app_kwargs"}
import app
sys.exit(app.main(sys.argv[1:]))
"""


class BareVisitor(Visitor):
    host = f"http://127.0.0.1:{PORT + 1}"


def bounds(environment, page, options) -> dict:
    """What the bounds cost whom nothing bounds: calls one after the other, of the page and of one without them, in turns."""
    with contextlib.closing(Page(options.cores, port=PORT + 1, start=("-c", BARE))):
        visitors = {"page": Visitor(environment), "without bounds": BareVisitor(environment)}
        calls = {
            "read_sheet": lambda visitor: visitor.read_sheet(visitor.strokes, "read_sheet"),
            "/predict": lambda visitor: visitor.predict(),
        }
        figures = {}
        for name, call in calls.items():
            taken = {who: [] for who in visitors}
            for _ in range(options.calls):
                drawn = random.choice(DIGITS)
                for who, visitor in visitors.items():
                    visitor.become_another()
                    visitor.digit, visitor.picture, visitor.strokes = drawn
                    began = time.perf_counter()
                    assert call(visitor) == "held"
                    taken[who].append(1000 * (time.perf_counter() - began))
            medians = {who: statistics.median(ms) for who, ms in taken.items()}
            p95 = {who: statistics.quantiles(ms, n=20)[-1] for who, ms in taken.items()}
            figures[name] = {
                "n": options.calls,
                "p50_ms": {who: round(ms, 2) for who, ms in medians.items()},
                "p95_ms": {who: round(ms, 2) for who, ms in p95.items()},
                "p50_ratio": round(medians["page"] / medians["without bounds"], 3),
            }
            print(name, json.dumps(figures[name]), flush=True)
    return figures


RUNS = {"hold": hold, "burst": burst, "class": classroom, "soak": soak, "bounds": bounds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--rate", type=float, nargs="+", help="per second: the steps of hold, what burst triples, soak's")
    parser.add_argument("--seconds", type=float, default=30, help="of each step (default 30)")
    parser.add_argument("--people", type=int, default=30)
    parser.add_argument("--drawings", type=int, default=15, help="of each person in class")
    parser.add_argument("--predictions", type=int, default=50_000, help="of soak")
    parser.add_argument("--calls", type=int, default=400, help="of bounds, of each kind and page (default 400)")
    parser.add_argument("--cores", type=int, default=2, help="for the page, where there are more")
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    page = Page(options.cores)
    environment = Environment(user_classes=[Visitor])
    environment.create_local_runner()  # it is what counts the requests
    try:
        Visitor.tools = _tools(environment)
        for _ in range(10):
            predicting(environment)
        figures = {"run": options.run, "memory_before_mb": page.memory, **RUNS[options.run](environment, page, options)}
        figures |= {"memory_after_mb": page.memory, "tracebacks": page.output.count("Traceback")}
        print(json.dumps(figures, indent=1))
        if options.json:
            Path(options.json).write_text(json.dumps(figures, indent=1) + "\n")
    finally:
        code = page.close()
    return code


def _tools(environment) -> int:
    config = Visitor(environment).client.get("/config").json()
    return next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "tools")


if __name__ == "__main__":
    sys.exit(main())
