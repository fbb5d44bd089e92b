"""Puts the tabs together into one page."""

import json
from pathlib import Path

import gradio as gr

from ..checkpoint import file_digest
from .draw import draw_tab
from .endpoints import add_endpoints
from .gaps import lighten_gradio, lighten_queue
from .limits import LIMITS
from .look import script
from .model import model_tab
from .photo import photo_tab
from .visit import Collector, visit_tab

lighten_gradio()


def build_page(recognizer, *, checkpoint=None, collect=None) -> gr.Blocks:
    """The whole page as gr.Blocks, not launched.

    recognizer: a Recognizer; checkpoint: the path of its file: what evaluate measured on it (the same name, .json) is shown
    where it exists; collect: a folder to keep checked drawings in, or None.
    """
    collector = Collector(collect) if collect else None
    with gr.Blocks(
        title="digitnet: handwritten digits, read while you draw",
        analytics_enabled=False,
        delete_cache=(LIMITS.files_sweep, LIMITS.files_live),
    ) as page:
        gr.HTML(
            script("head.html").replace("@icon", script("icon.svg")),
            js_on_load=script("theme.js"),
            apply_default_css=False,
            elem_id="head",
        )
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Draw", id="draw"):
                draw_tab(recognizer, collect=collector)
            with gr.Tab("Photo", id="photo"):
                photo_tab(recognizer)
            with gr.Tab("History", id="history"):
                visit_tab(collects=collector is not None)
            with gr.Tab("Model", id="model"):
                model_tab(getattr(recognizer, "card", None), *_measured(checkpoint))
        add_endpoints(recognizer)
    # The guard refuses at LIMITS.waiting, in our words; what has passed it by then must find room, or Gradio would refuse.
    page.queue(max_size=LIMITS.waiting + LIMITS.requests, default_concurrency_limit=LIMITS.at_once, api_open=False)
    lighten_queue(page._queue)
    return page


def _measured(checkpoint) -> tuple[dict, str | None]:
    """What evaluate wrote beside the checkpoint ({} where there is nothing readable), and the checkpoint's SHA-256."""
    if checkpoint is None:
        return {}, None
    path = Path(checkpoint)
    try:
        report = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        report = {}
    return report if isinstance(report, dict) else {}, file_digest(path) if path.is_file() else None
