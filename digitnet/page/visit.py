"""The tab of this visit's readings, and the collector that an owner may switch on.

The readings live in the visitor's browser (visit.js); the server keeps nothing unless a folder to collect into was named.
"""

import contextlib
import errno
import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import gradio as gr

from ..drawings import Drawing, DrawingError, read_drawings, write_drawings
from ..preprocess import PictureError
from .limits import LIMITS
from .look import script


class Collector:
    """Appends drawings that visitors have checked to FOLDER/drawings.jsonl, up to LIMITS.collected bytes."""

    def __init__(self, folder):
        self.path = Path(folder).resolve() / "drawings.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

    def keep(self, row) -> dict:
        """row: {"label", "writer", "strokes"} as in a stroke file. PictureError if it is none, or the folder is full."""
        text = json.dumps(row) if isinstance(row, dict) else ""
        if not 0 < len(text) < LIMITS.message:
            raise PictureError("This drawing cannot be kept: it is not a drawing.")
        with self._lock:
            if self.path.exists() and self.path.stat().st_size + len(text) > LIMITS.collected:
                raise PictureError("This drawing was not kept: the collection is full.")
            # Written and read back by the stroke file's own rules, so that nothing else can get in.
            incoming = self.path.with_suffix(".incoming.tmp")
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                incoming.write_text(text + "\n", encoding="utf-8")
                (drawing,) = read_drawings(incoming)
                points = sum(len(stroke) for stroke in drawing.strokes)
                if len(drawing.label) > 20 or len(drawing.writer) > 40 or points > LIMITS.points:
                    raise PictureError("This drawing cannot be kept: it is too large.")
                write_drawings(incoming, [Drawing(drawing.label, drawing.writer, drawing.strokes)])
                _append(self.path, incoming.read_bytes())
            except OSError as error:
                raise PictureError("This drawing was not kept: the folder to collect in cannot be written to.") from error
            except (DrawingError, ValueError) as error:
                if isinstance(error, PictureError):
                    raise
                raise PictureError("This drawing cannot be kept: it is not a drawing.") from error
            finally:
                with contextlib.suppress(OSError):
                    incoming.unlink()
        return {"kept": datetime.now(UTC).isoformat(timespec="seconds")}


def _append(path: Path, lines: bytes) -> None:
    """All of it or nothing: half a line, left by a full disk, would spoil the next one too."""
    with open(path, "ab", buffering=0) as file:
        before = file.tell()
        try:
            if file.write(lines) < len(lines):
                raise OSError(errno.ENOSPC, "only a part was written")
        except OSError:
            file.truncate(before)
            raise


def visit_tab(*, collects: bool) -> None:
    """Builds the tab. collects: whether checked drawings go to the owner of this page."""
    notice = (
        "<p class='notice'><strong>The owner of this page collects drawings.</strong> A drawing that you mark as right or "
        "correct here is sent to them, without your name.</p>"
        if collects
        else "<p class='hint'>Kept in this browser until you close the tab. Nothing is stored on the server.</p>"
    )
    gr.HTML(
        html_template=script("visit.html").replace("@notice", notice).replace("@collects", "yes" if collects else "no"),
        js_on_load="window.digitnet.visit.open(element);",
        elem_id="visit",
        apply_default_css=False,
    )
