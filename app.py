"""The page: python app.py. Loads the checkpoint, builds the page and serves it.

Everything the page shows is in digitnet/page/; everything it reads with is in digitnet/.
"""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported: nothing is sent anywhere

import argparse
import contextlib
import io
import signal
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT = HERE / "checkpoints" / "digitnet.pt"


def build_app(recognizer, *, checkpoint=None, collect=None):
    """The page for a recognizer, as gr.Blocks that launch() can serve. See digitnet.page.site.build_page."""
    from digitnet.page.site import build_page

    return build_page(recognizer, checkpoint=checkpoint, collect=collect)


def main(arguments=None) -> int:
    """Serves the page until it is told to stop. Returns the exit code: 0, or 2 where it could not start."""
    _fill_standard_streams()
    for stream in (sys.stdout, sys.stderr):  # a terminal of another language shows what it can
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _options(arguments)
    recognizer = _remote(options) if options.backend else _recognizer(options.checkpoint)
    if isinstance(recognizer, str):
        return _fail(recognizer)
    try:
        files = _own_folder()
    except OSError as error:
        return _fail(f"No temporary files can be written ({error.strerror}). Name another folder in GRADIO_TEMP_DIR.")
    with files:
        return _serve(options, recognizer)


def _serve(options, recognizer) -> int:
    import torch

    from digitnet.page.look import launch_settings

    torch.set_num_threads(1)  # one thread a request: many visitors, few cores
    try:
        page = build_app(recognizer, checkpoint=_measured_file(options, recognizer), collect=options.collect)
    except OSError as error:
        return _fail(f"The folder {options.collect} cannot be written to ({error.strerror}). Name another with --collect.")
    os.chdir(HERE)  # the folder it was started in may go; Gradio asks for its name with every picture
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if options.share and not os.environ.get("SPACE_ID"):
        print("Asking for a public link…", flush=True)
    noise = io.StringIO()  # Gradio's own lines; ours say the same in one sentence
    try:
        with contextlib.redirect_stdout(noise):
            _, address, public = page.launch(
                server_name=options.host,
                server_port=options.port,
                share=options.share and not os.environ.get("SPACE_ID"),
                auth=options.auth,
                mcp_server=options.mcp or None,
                prevent_thread_lock=True,
                quiet=True,
                **launch_settings(proxied=options.proxied or "SPACE_ID" in os.environ),
            )
    except OSError:
        return _fail(_port_sentence(options.host, options.port))
    print(f"digitnet reads at {address}", flush=True)
    if public:
        print(f"Anyone can open {public} for a week.", flush=True)
    elif options.share:
        print("No public link could be made, probably for want of internet; the page is open here only.", flush=True)
    if options.mcp:
        missing = "MCP is not there: install it with pip install 'gradio[mcp]'."
        print(missing if page.mcp_error else f"MCP tools at {address}gradio_api/mcp/", flush=True)
    stop.wait()
    _finish(page)
    return 0


def _fill_standard_streams() -> None:
    """Where one was closed, its number would go to the server's first socket, and libuv aborts rather than close that."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _finish(page) -> None:
    """Takes nothing new, answers what has come, and closes. (Gradio's own close() stops its queue first, answered or not.)"""
    from digitnet.page.limits import LIMITS

    page.server.should_exit = True
    page.app.stop_event.set()  # ends the streams that only tell whether a page is still open
    page.server.thread.join(LIMITS.answering)
    page.close(verbose=False)


def _own_folder() -> tempfile.TemporaryDirectory:
    """A folder for uploads and all other temporary files, which no other program shares; made before gradio is imported.

    Gradio's own default is one folder for all its apps, and each serves what lies there.
    """
    parent = os.environ.get("GRADIO_TEMP_DIR")
    if parent:
        os.makedirs(parent, exist_ok=True)
    files = tempfile.TemporaryDirectory(prefix="digitnet-", dir=parent, ignore_cleanup_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = files.name
    # uvicorn would believe X-Forwarded-For of any local program; guard.py reads it, where --proxied says so.
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    return files


def _options(arguments) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python app.py", description="Serve the page that reads handwritten digits.")
    parser.add_argument("--port", type=int, help="port (default: GRADIO_SERVER_PORT, else the first free one from 7860)")
    parser.add_argument("--host", help="address to listen on (default: GRADIO_SERVER_NAME, else 127.0.0.1: this machine only)")
    parser.add_argument("--share", action="store_true", help="ask Gradio for a public link, which works for a week")
    parser.add_argument("--checkpoint", metavar="FILE", help="another checkpoint than checkpoints/digitnet.pt")
    parser.add_argument("--backend", metavar="URL", help="read with the workers that answer there (python -m deploy serve)")
    parser.add_argument("--auth", metavar="USER:PASSWORD", type=_pair, help="ask visitors for this name and password")
    parser.add_argument("--proxied", action="store_true", help="behind a proxy of yours: believe its X-Forwarded-For and -Host")
    parser.add_argument("--collect", metavar="FOLDER", help="keep the drawings visitors have checked; the page says so")
    parser.add_argument("--mcp", action="store_true", help="also serve /predict as an MCP tool (needs gradio[mcp])")
    return parser.parse_args(arguments)


def _pair(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise argparse.ArgumentTypeError("write it as USER:PASSWORD")
    return user, password


def _recognizer(checkpoint):
    """The recognizer, or one sentence on why there is none. Where the default checkpoint is absent, trains one first."""
    from digitnet import CheckpointError, Recognizer

    try:
        if checkpoint is None and not DEFAULT.exists():
            if os.environ.get("SPACE_ID"):
                return (
                    "checkpoints/digitnet.pt is missing from this Space and a Space does not train: upload it (with Git LFS)."
                )
            print("There is no trained network yet: training the quick recipe first. This happens once.", flush=True)
            sentence = _train_quick()
            if sentence:
                return sentence
        recognizer = Recognizer.load(checkpoint) if checkpoint else Recognizer.load()
    except CheckpointError as error:
        return str(error)
    import numpy as np

    warm = np.full((280, 280), 255, np.uint8)
    warm[60:220, 130:150] = 0
    recognizer(warm)  # the first call is slow; the first visitor's is not
    return recognizer


def _remote(options):
    """The recognizer whose network is at --backend, or one sentence on why there is none. It need not be up yet."""
    from digitnet.remote import RemoteRecognizer

    if options.checkpoint:
        return "--backend reads with the network it has there: leave --checkpoint out here, and give it to the backend."
    try:
        return RemoteRecognizer(options.backend)
    except ValueError as error:
        return str(error)


def _measured_file(options, recognizer):
    """The checkpoint whose figures the page may show: the one it reads with, or None where that is not here."""
    if not options.backend:
        return options.checkpoint or DEFAULT
    from digitnet.checkpoint import file_digest

    return DEFAULT if DEFAULT.is_file() and recognizer.digest == file_digest(DEFAULT) else None


def _train_quick() -> str | None:
    """Trains the quick recipe into the default checkpoint; one sentence where that could not be done."""
    from digitnet.mnist import DataError
    from digitnet.train import train_quick

    try:
        train_quick(DEFAULT)
    except DataError as error:
        return str(error)
    except KeyboardInterrupt:
        pass
    return None if DEFAULT.exists() else "Training was stopped before there was anything to keep; start python app.py again."


def _port_sentence(host, port) -> str:
    port = port or os.environ.get("GRADIO_SERVER_PORT")
    if host and port:
        return f"{host}:{port} cannot be listened on: the port is taken or the address is not this machine's. Choose others."
    if port:
        return f"Port {port} is taken. Stop the program that uses it, or choose another one with --port."
    return "All ports from 7860 on are taken. Choose another one with --port."


def _fail(sentence: str) -> int:
    print(sentence, file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
