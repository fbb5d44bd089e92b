"""The Draw tab: a sheet that is read while the pen moves, and how the drawing became an answer.

sheet.js sends the strokes so far and answer.js shows what comes back; the stock Sketchpad stays the sheet, and its own
picture is read too when the pen rests, as a check on the strokes.
"""

import base64
import io
import json
import threading
from collections import OrderedDict

import gradio as gr
from gradio.components.base import server
from PIL import Image

from ..drawings import SHEET, read_drawings
from ..preprocess import PictureError, open_picture
from ..remote import BackendError
from .limits import LIMITS
from .look import FOLDER, script
from .reading import BLANK, Reader, strokes_from

BRUSH_RADIUS = 8  # sheet pixels: a line of 16, 6 % of the sheet's side, as in training
SCRIPTS = ("answer.js", "visit.js", "ask.js", "sheet.js")
# Gradio finds the names of a component's own events in its script, in quotes: 'answer' tells the Label to show what came.
START = "window.digitnet.startSheet({ element, server, trigger: () => trigger('answer') });\n"


class Sheet(gr.Sketchpad):
    """gr.Sketchpad that keeps few pictures and opens one of bounded size.

    Gap: the stock one keeps whatever a client names and numbers, never forgets it, and opens as many layers as it is sent.
    """

    is_template = True

    def get_block_name(self) -> str:
        return "imageeditor"

    @server
    def accept_blobs(self, data):
        """Takes one picture of a sheet: background, layer 0 or composite, of bounded size and number."""
        index, files = data.data.get("index"), data.files
        kind, key = data.data.get("type"), str(data.data.get("id"))
        if kind not in ("background", "composite", "layer") or len(files) != 1 or index not in (None, "null", "0", 0, ""):
            return
        if len(files[0][1]) > LIMITS.blobs or len(key) > 40:
            return
        with _blobs:
            if not isinstance(self.blob_storage, OrderedDict):
                self.blob_storage = OrderedDict(self.blob_storage)
            super().accept_blobs(data)
            while len(self.blob_storage) > LIMITS.sheets:
                self.blob_storage.popitem(last=False)

    def preprocess(self, payload):
        """The composite alone; nobody here draws in layers."""
        if payload is None:
            return None
        with _blobs:
            found = self.blob_storage.pop(payload.id, None) if payload.id is not None else payload
        composite = found.composite if found is not None else None
        if composite is None:
            return {"background": None, "layers": [], "composite": None}
        try:
            picture = open_picture(io.BytesIO(composite) if isinstance(composite, bytes) else composite.path)
        except PictureError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return {"background": None, "layers": [], "composite": picture}


_blobs = threading.Lock()


def draw_tab(recognizer, *, collect=None) -> None:
    """Builds the tab. collect: a visit.Collector, or None where nothing is kept."""
    reader = Reader(recognizer)

    def answered(read):
        """Runs read() and gives its Reading, or one sentence about what is wrong with what was sent."""
        try:
            return read()
        except BackendError as error:
            return {"error": str(error), "again": True}  # nothing is wrong with the drawing: the script asks again
        except PictureError as error:
            return {"error": str(error)}

    def read_sheet(strokes):
        return answered(lambda: reader.sheet(strokes_from(strokes)))

    def sheet_steps(strokes):
        return answered(lambda: reader.sheet(strokes_from(strokes), steps=True))

    def sheet_why(question):
        question = question if isinstance(question, dict) else {}
        against = question.get("against")
        against = against if isinstance(against, int) and 0 <= against <= 9 else None
        return answered(lambda: reader.why(strokes_from(question.get("strokes")), against=against))

    def keep_drawing(row):
        return answered(lambda: collect.keep(row)) if collect else {"error": "Nothing is collected here."}

    def sheet_picture(png):
        """The Sketchpad's own picture, as base64: a check on the strokes."""
        return answered(lambda: reader.picture(_small_enough(_decoded(png))))

    def read_picture(sheet):
        """The same through Gradio's own way, for a page whose script cannot reach the Sketchpad."""
        composite = (sheet or {}).get("composite")
        blank = {"verdict": "blank", "say": BLANK, "label": None}
        return json.dumps(blank if composite is None else answered(lambda: reader.picture(_small_enough(composite))))

    with gr.Row(elem_id="desk", equal_height=False):
        with gr.Column(scale=5, min_width=300, elem_id="paper"):
            pad = Sheet(
                elem_id="pad",
                type="pil",
                canvas_size=(SHEET, SHEET),
                fixed_canvas=True,
                layers=False,
                transforms=(),
                buttons=[],
                brush=gr.Brush(default_size=BRUSH_RADIUS, colors=["#000000"], color_mode="fixed"),
                eraser=gr.Eraser(default_size=14),
                show_label=False,
                label="Sheet to draw a digit on",
                container=False,
            )
            live = gr.HTML(
                html_template=script("tools.html"),
                js_on_load=script(*SCRIPTS) + START,
                server_functions=[read_sheet, sheet_steps, sheet_why, sheet_picture] + ([keep_drawing] if collect else []),
                elem_id="tools",
                apply_default_css=False,
            )
            with gr.Row(elem_id="buttons"):
                predict = gr.Button("Predict", variant="primary", min_width=120)
                clear = gr.Button("Clear", min_width=120)
            gr.HTML(_examples(), elem_id="examples", apply_default_css=False, js_on_load=None)
        with gr.Column(scale=6, min_width=300, elem_id="result"):
            with gr.Column(elem_id="answer"):
                label = gr.Label(num_top_classes=3, label="Answer", show_label=False, container=False)
            gr.HTML(script("result.html"), elem_id="shown", apply_default_css=False, js_on_load=None)
    # Out of sight: the way by Gradio's own upload, and what was read in that picture.
    picture = gr.HTML(
        "",
        html_template="<i></i>",
        js_on_load="watch('value', () => window.digitnet?.pictureRead(props.value));",
        elem_id="picture",
        visible="hidden",
    )
    by_picture = gr.Button("Read the picture", elem_id="read-picture", visible="hidden")

    quiet = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    # The Sketchpad's change event has no listener on purpose: for each it would upload three pictures up to five times.
    # Through the queue: without it, Gradio would take calls by /run, past every bound.
    by_picture.click(read_picture, [pad], [picture], trigger_mode="always_last", **{**quiet, "queue": True})
    live.answer(None, None, [label], js="() => window.digitnet.label()", **quiet)
    predict.click(None, None, None, js="() => window.digitnet.predict()", **quiet)
    clear.click(None, None, None, js="() => window.digitnet.clear()", **quiet)


def _decoded(png) -> Image.Image:
    """A picture that came as base64. PictureError if it is none, or too large."""
    try:
        content = base64.b64decode(png, validate=True) if isinstance(png, str) and len(png) < LIMITS.blobs else b""
    except ValueError:
        content = b""
    return open_picture(io.BytesIO(content))


def _small_enough(picture: Image.Image) -> Image.Image:
    """PictureError where it is larger than any screen's sheet."""
    if picture.width * picture.height > LIMITS.canvas:
        raise PictureError("This picture is too large for a sheet. Use the Photo tab for pictures from elsewhere.")
    return picture


def _examples() -> str:
    """Drawings to click: this project's own strokes, as small pictures; the script draws them on the sheet."""
    groups: dict[str, list[str]] = {}
    for drawing in read_drawings(FOLDER / "examples.jsonl"):
        group, name = drawing.writer.split("/")[-1], drawing.label
        strokes = [[[round(float(x), 1), round(float(y), 1)] for x, y in stroke] for stroke in drawing.strokes]
        paths = "".join(f'<polyline points="{" ".join(f"{x},{y}" for x, y in stroke)}"/>' for stroke in strokes)
        title = f"a {name}" if drawing.digit is not None else name
        groups.setdefault(group, []).append(
            f"<button type='button' class='example' data-strokes='{json.dumps(strokes, separators=(',', ':'))}' "
            f"aria-label='Draw the example: {title}' title='{title}'>"
            f"<svg viewBox='0 0 {SHEET} {SHEET}' aria-hidden='true'>{paths}</svg></button>"
        )
    rows = "".join(
        f"<div class='group'><span class='group-name'>{group}</span>{''.join(buttons)}</div>"
        for group, buttons in groups.items()
    )
    return f"<p class='examples-title'>Or watch one being drawn</p><div class='groups'>{rows}</div>"
