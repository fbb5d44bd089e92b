"""Takes the README's pictures from the real page: python docs/screenshot.py [--out docs].

Starts python app.py on a free port, draws with the mouse in a headless Chromium as a visitor would, and saves PNG files:
the page by day and by night, on a phone, and reading a number. Needs playwright and a Chromium (tests/requirements.txt).
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"
SHEET = 280
SHOTS = (  # name, width, height, dark, drawing, panels to open
    ("page", 1200, 900, False, "4", ("All ten digits",)),
    ("page-dark", 1200, 900, True, "2026", ()),
    ("page-phone", 390, 844, False, "3", ()),
    ("page-steps", 1200, 1300, False, "8", ("Step by step", "Why this answer?")),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder for the pictures (default: docs)")
    parser.add_argument("--chromium", default=CHROMIUM, help=f"the browser (default: {CHROMIUM})")
    parser.add_argument("--address", help="of a page that is already served (default: start one)")
    options = parser.parse_args()
    if options.address:
        take_all(options.address, options)
        return 0
    app = subprocess.Popen([sys.executable, str(ROOT / "app.py")], stdout=subprocess.PIPE, text=True)
    try:
        for line in app.stdout:
            if match := re.search(r"reads at (http://\S+)", line):
                take_all(match.group(1), options)
                return 0
        return 1  # it could not start, and has said why
    finally:
        app.terminate()
        app.wait()
        app.stdout.close()


def take_all(address: str, options) -> None:
    from playwright.sync_api import sync_playwright

    lines = (ROOT / "tests" / "drawings" / "page.jsonl").read_text(encoding="utf-8").splitlines()
    drawings = {str(row["label"]): row["strokes"] for row in reversed([json.loads(line) for line in lines])}
    options.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, width, height, dark, drawing, panels in SHOTS:
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", device_scale_factor=2
            )
            page.set_default_timeout(120_000)
            page.goto(address)
            page.wait_for_selector("#pad .overlay", state="attached")
            page.wait_for_function("() => window.editor.current_tool === 'draw'")
            draw(page, drawings[drawing])
            for panel in panels:
                page.get_by_text(panel).click()
            page.mouse.move(2, 2)
            page.wait_for_timeout(400)
            page.wait_for_function("() => window.digitnet.idle()")
            page.wait_for_timeout(300)
            page.screenshot(path=options.out / f"{name}.png")
            print(f"Saved {options.out / name}.png")
            page.close()
        browser.close()


def draw(page, strokes) -> None:
    sheet = page.locator("canvas").first.bounding_box()
    scale = sheet["width"] / SHEET
    for stroke in strokes:
        places = [(sheet["x"] + x * scale, sheet["y"] + y * scale) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place)
        page.mouse.up()
    page.wait_for_function("() => window.digitnet.idle()")


if __name__ == "__main__":
    sys.exit(main())
