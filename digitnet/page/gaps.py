"""What Gradio 6.31 keeps without end or does without need, closed from outside.

Each gap is named where it is closed, and tests/test_page_gaps.py shows it in Gradio as it comes: where such a test fails,
Gradio has closed the gap itself and the code here can go. What comes in by requests is the business of guard.py.
"""

import asyncio
import contextlib
import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
from gradio import blocks, route_utils, routes, state_holder
from gradio.utils import get_upload_folder

from .limits import LIMITS


class LeanSession(state_holder.SessionState):
    """A session that does not describe every component of the page anew.

    Gap: each session, and each /call without one, builds and keeps the whole page's configuration, for deep links that this
    page does not have: 40 % of the time a request took, and 200 KB a visitor.
    """

    def __init__(self, page):
        super().__init__(SimpleNamespace(default_config=page.default_config, blocks={}))


def lighten_gradio() -> None:
    """Once, before a page is built."""
    for module in (state_holder, route_utils, blocks):
        module.SessionState = LeanSession
    # Gradio switches matplotlib's backend around every call, and so imports pyplot at the first one: a second and 25 MB for
    # plots that this page never draws. (The name is misspelt in Gradio.)
    if hasattr(gr.utils, "MatplotlibBackendMananger"):
        gr.utils.MatplotlibBackendMananger = contextlib.nullcontext


def lighten_queue(queue) -> None:
    """Gap: after every call, Gradio puts its last 10,000 calls through pandas, for a dashboard that is switched off."""
    queue.ANALYTICS_MAX_EVENTS = 1
    queue.ANAYLTICS_CACHE_FREQUENCY = sys.maxsize  # misspelt in Gradio


class Shelf:
    """How full the folder of uploaded files is: measured by sweep(), counted on between two of them."""

    def __init__(self, folder=None):
        self.folder = Path(folder or get_upload_folder())
        self.taken = 0

    def has_room(self, size: int) -> bool:
        """Whether `size` bytes more may be kept."""
        try:
            left = shutil.disk_usage(self.folder).free
        except OSError:  # not there yet: Gradio makes it with the first upload
            left = shutil.disk_usage(self.folder.anchor).free
        return self.taken + size <= LIMITS.folder and left - size >= LIMITS.disk_left

    def sweep(self, *, now: float) -> None:
        """Deletes what is older than LIMITS.files_live, whoever wrote it, and measures the rest.

        Gap: Gradio deletes the files it has a note of. It has none of uploads that broke off (NamedTemporaryFile with
        delete=False), and it leaves the folder of every file it deletes.
        """
        taken = 0
        for folder, _, names in os.walk(self.folder, topdown=False):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    state = path.lstat()
                    if now - state.st_mtime > LIMITS.files_live:
                        path.unlink()
                    else:
                        taken += state.st_size
            with contextlib.suppress(OSError):  # not empty
                if Path(folder) != self.folder and now - os.stat(folder).st_mtime > LIMITS.files_live:
                    os.rmdir(folder)
        self.taken = taken


class Housekeeping:
    """Sweeps what Gradio keeps in memory for clients that do not come back. Runs in the server's own loop."""

    def __init__(self, app, shelf: Shelf):
        self.app, self.shelf = app, shelf
        self._seen: dict[str, float] = {}  # calls whose answer was not fetched → when first found so
        self._uploads: set[str] = set()  # finished uploads whose progress nobody watched, at the last sweep

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LIMITS.files_sweep)
            await asyncio.to_thread(self.shelf.sweep, now=time.time())
            self.sweep(now=time.monotonic())

    def sweep(self, *, now: float) -> None:
        """One round, without waiting anywhere: nothing else runs in between."""
        self._answers(now)
        self._progress()
        page = self.app.get_blocks()
        for names in page.temp_file_sets:
            # Gap: a name whose file is gone stays in Gradio's notes.
            names.difference_update([name for name in names if not os.path.exists(name)])

    def _answers(self, now: float) -> None:
        """Gap: answers that nobody fetches stay, and of those fetched the session stays, one for each /call."""
        queue = self.app.get_blocks()._queue
        ids, messages = queue.pending_event_ids_session, queue.pending_messages_per_session
        for session in list(ids):
            found = [self._seen.setdefault(event, now) for event in ids[session]]
            at_work = any(event in queue.event_ids_to_events for event in ids[session])
            if session in messages and (at_work or any(now - first <= LIMITS.files_live for first in found)):
                continue
            del ids[session]
            messages.pop(session, None)
        left = set().union(*ids.values())
        self._seen = {event: first for event, first in self._seen.items() if event in left}

    def _progress(self) -> None:
        """Gap: the progress of an upload is kept under a name the client chose until asked for, and so is the question."""
        uploads = routes.file_upload_statuses
        done = {name for name in uploads._statuses if uploads.is_done(name)}
        for name in done & self._uploads:
            uploads.stop_tracking(name)
        self._uploads = done
        for name in [name for name in uploads._signals if name not in uploads._statuses]:
            del uploads._signals[name]


def housekeeping(shelf: Shelf):
    """A lifespan for Gradio's server, which sweeps while it runs."""

    @contextlib.asynccontextmanager
    async def lifespan(app):
        task = asyncio.create_task(Housekeeping(app, shelf).run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    return lifespan
