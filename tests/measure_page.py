"""python tests/measure_page.py [--strokes 20] [--drawings 500]: how quickly the page answers, and whether it grows.

Draws with the mouse in headless Chromium on a page of its own. Strokes of one second: how often the answer moved meanwhile,
when it first did, and how long after the pen was lifted it was settled; then the requests of a page at rest; then many
drawings: the server's memory and temporary files. Run it with nothing else running; Linux only.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from conftest import ARGUMENTS, CHROMIUM, App, Visitor, free_port
from playwright.sync_api import sync_playwright

from digitnet.benchmark import resident
from digitnet.drawings import read_drawings

DRAWINGS = Path(__file__).parent / "drawings" / "page.jsonl"
MOVES = 20  # of the pen in its second; headless Chromium takes some 30 ms for each
WATCH = """() => {
    window.times = { down: 0, up: 0, answers: [] };
    addEventListener("pointerdown", () => Object.assign(window.times, { down: performance.now(), up: 0, answers: [] }), true);
    addEventListener("pointerup", () => { window.times.up = performance.now(); }, true);
    new MutationObserver(() => window.times.answers.push(performance.now()))
        .observe(document.querySelector("#answer"), { attributeFilter: ["data-answers"] });
}"""


def evenly(stroke: np.ndarray, count: int) -> np.ndarray:
    """The same line by `count` points at equal distances; sheet pixels count×2."""
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(stroke, axis=0).T))])
    at = np.linspace(0, along[-1], count)
    return np.stack([np.interp(at, along, stroke[:, axis]) for axis in (0, 1)], -1)


def one_second_stroke(visitor: Visitor, stroke: np.ndarray) -> dict:
    """Draws it and returns {"moved": answers while the pen was down, "first", "last": ms after pen down, after pen up}."""
    places = visitor.places(evenly(np.asarray(stroke, np.float64), MOVES))
    began = time.perf_counter()
    visitor.down(places[0])
    for number, place in enumerate(places[1:], 1):
        time.sleep(max(0.0, began + number / MOVES - time.perf_counter()))
        visitor.move(place)
    time.sleep(max(0.0, began + 1 - time.perf_counter()))
    visitor.up()
    visitor.settled()
    times = visitor.page.evaluate("() => window.times")
    during = [at for at in times["answers"] if at <= times["up"]]
    return {
        "moved": len(during),
        "first": during[0] - times["down"] if during else float("inf"),
        "last": max(0.0, times["answers"][-1] - times["up"]) if times["answers"] else float("inf"),
    }


def spread(values) -> str:
    low, high = np.quantile(values, [0.1, 0.9])
    return f"median {statistics.median(values):.0f}, {low:.0f} to {high:.0f} (10 % to 90 %), worst {max(values):.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strokes", type=int, default=20, help="strokes of one second (default 20)")
    parser.add_argument("--drawings", type=int, default=500, help="drawings for memory and temporary files (default 500)")
    parser.add_argument("--out", metavar="FILE", help="write the figures here as JSON too")
    options = parser.parse_args()
    drawings = {f"{d.label}-{d.writer.split('/')[-1]}": list(d.strokes) for d in read_drawings(DRAWINGS)}
    figures = {"load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        app = App("--port", free_port(), env={"GRADIO_TEMP_DIR": temporary})
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
        visitor = Visitor(context, app.address(), touch=False).arrive()
        visitor.page.evaluate(WATCH)
        strokes = []
        for _ in range(options.strokes + 2):
            strokes.append(one_second_stroke(visitor, drawings["2-upright"][0]))
            visitor.clear()
        strokes = strokes[2:]  # the first ones warm the page up
        for key, what in (
            ("moved", "answers while the pen was down"),
            ("first", "first answer, ms after pen down"),
            ("last", "last answer, ms after pen up"),
        ):
            figures[key] = [round(row[key], 1) for row in strokes]
            print(f"{what}: {spread(figures[key])}; n={len(strokes)}", flush=True)

        visitor.page.wait_for_timeout(1000)
        asked = len(visitor.requests)
        visitor.page.wait_for_timeout(10_000)
        figures["requests_at_rest"] = len(visitor.requests) - asked
        print(f"requests in ten seconds at rest: {figures['requests_at_rest']}", flush=True)

        names = [name for name in drawings if name.split("-")[0].isdigit()]
        memory, wrong = [], 0
        for number in range(options.drawings):
            name = names[number % len(names)]
            visitor.draw(drawings[name])
            wrong += visitor.label != name.split("-")[0]
            visitor.clear()
            if number % 50 == 49 or number == options.drawings - 1:
                files = [path.stat().st_size for path in Path(temporary).rglob("*") if path.is_file()]
                memory.append({"drawings": number + 1, "mb": round(resident(app.process.pid), 1), "files": len(files)})
                memory[-1]["files_mb"] = round(sum(files) / 2**20, 2)
                print(
                    f"after {number + 1} drawings: {memory[-1]['mb']} MB, {len(files)} temporary files of "
                    f"{memory[-1]['files_mb']} MB, {wrong} misread",
                    flush=True,
                )
        figures |= {"memory": memory, "misread": wrong}
        browser.close()
        assert app.end() == 0, app.output
    if options.out:
        Path(options.out).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
