"""The Photo tab: a digit, or a line of digits on paper, uploaded, pasted or taken with the camera."""

import html
import json
import threading

import gradio as gr

from ..preprocess import PictureError
from .limits import LIMITS
from .look import script
from .reading import Reader

EMPTY = "<section class='panel photo-result'><p class='hint'>The answer will stand here.</p></section>"


def photo_tab(recognizer) -> None:
    """Builds the tab."""
    reader = Reader(recognizer)
    working = threading.BoundedSemaphore(2)

    def read_photo(path):
        if not path:
            return ""
        try:
            with working:
                return json.dumps(reader.photo(path))
        except PictureError as error:
            return json.dumps({"error": html.unescape(str(error))})

    with gr.Row(equal_height=False, elem_id="photo-desk"):
        with gr.Column(scale=5, min_width=300):
            picture = gr.Image(
                type="filepath",
                sources=["upload", "webcam", "clipboard"],
                label="Photo of digits on paper",
                height=340,
                elem_id="photo",
                buttons=[],
            )
            gr.HTML(
                "<p class='hint'>Write a digit, or a line of them with gaps, large and dark. Uneven light, a turned camera and "
                f"white on black are fine. Photos are deleted within {(LIMITS.files_live + LIMITS.files_sweep) // 60 + 1} "
                "minutes.</p>",
                js_on_load=None,
            )
        with gr.Column(scale=6, min_width=300):
            shown = gr.HTML(
                "", html_template=EMPTY, js_on_load=script("photo.js"), elem_id="photo-answer", apply_default_css=False
            )
    picture.change(
        read_photo,
        [picture],
        [shown],
        api_visibility="private",
        show_progress="hidden",
        concurrency_limit=2,
        trigger_mode="always_last",
    )
