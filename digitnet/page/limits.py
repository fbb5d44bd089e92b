"""Every limit of the page in one place: what a stranger may send, how much is kept, and for how long.

A public page is open to clients that are no browser. What lies beyond a limit is answered by a sentence, never by work.
"""

from dataclasses import dataclass

MB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds, counts as they say."""

    upload: int = 12 * MB  # one picture file
    uploads: int = 16 * MB  # one request with files, whatever their number
    message: int = 1 * MB  # any other request
    blobs: int = 3 * MB  # one picture that the sheet hands over
    strokes: int = 400  # on one sheet
    points: int = 12_000  # on one sheet
    reach: float = 3.0  # how far beyond the sheet a point may lie, in sheet sides
    pictures: int = 64  # in one /predict_many
    pieces: int = 24  # digits looked for in one picture
    waiting: int = 64  # calls in the queue; the next one is told to come back
    at_once: int = 4  # pictures read at the same time
    files_live: int = 300  # an uploaded file is deleted when it is this old
    files_sweep: int = 60  # how often old files are looked for
    sheets: int = 64  # pictures of sheets waiting to be read, all visitors together
    sessions: int = 2_000  # visitors whose session is remembered
    collected: int = 256 * MB  # the collecting folder's file; then nothing more is kept


LIMITS = Limits()
