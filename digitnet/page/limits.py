"""Every limit of the page in one place: what a stranger may send, how much is kept, and for how long.

A public page is open to clients that are no browser. What lies beyond a limit is answered by a sentence, never by work.
docs/reliability.md explains them; what a picture may be (formats, pixels) stands in digitnet/preprocess.py.
"""

from dataclasses import dataclass

MB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds, rates per second, counts as they say."""

    # what one request may bring
    upload: int = 12 * MB  # one picture file
    uploads: int = 16 * MB  # one request with files, whatever their number
    files: int = 64  # files in one request
    message: int = 1 * MB  # any other request
    depth: int = 16  # lists in lists in a message
    name: int = 128  # letters of a session's name
    blobs: int = 3 * MB  # one picture that the sheet hands over
    canvas: int = 1_000_000  # pixels of that picture; the sheet has 78,400, on sharp screens four to nine times that
    strokes: int = 400  # on one sheet
    points: int = 12_000  # on one sheet
    reach: float = 3.0  # how far beyond the sheet a point may lie, in sheet sides
    pictures: int = 64  # in one /predict_many
    pieces: int = 24  # digits looked for in one picture

    # how often: a page asks 33 times a second at most, and a class of thirty behind one router is one address
    session_rate: float = 40
    session_burst: float = 80
    address_rate: float = 150
    address_burst: float = 900
    visit_rate: float = 20  # opening the page, by address
    visit_burst: float = 300
    login_rate: float = 0.5  # names and passwords tried, by address
    login_burst: float = 40  # a class that logs in together
    remembered: int = 10_000  # sessions and addresses whose rate is known; who was not seen longest is forgotten first

    # how much at the same time
    requests: int = 256  # being answered, files of the page and open streams aside
    streams: int = 1_000  # open, waiting for answers
    streams_address: int = 160  # of them by one address
    waiting: int = 64  # calls in the queue; the next one is told to come back
    at_once: int = 4  # pictures read at the same time
    uncollected: int = 32  # answers of one session that wait to be fetched

    # how long
    sending: float = 60  # until a request must have arrived
    answering: float = 60  # until it must have been answered
    stream: float = 300  # until a stream that waits for answers ends
    heartbeat: float = 6 * 3600  # until the stream ends that tells an open page from a closed one
    files_live: int = 300  # an uploaded file, or an answer nobody fetched, is deleted when it is this old
    files_sweep: int = 60  # how often old files and answers are looked for

    # how much is kept
    folder: int = 1024 * MB  # all uploaded files together
    disk_left: int = 256 * MB  # what must stay free on the disk they lie on
    sheets: int = 64  # pictures of sheets waiting to be read, all visitors together
    sessions: int = 2_000  # visitors whose session is remembered
    collected: int = 256 * MB  # the collecting folder's file; then nothing more is kept


LIMITS = Limits()
