"""python -m digitnet predict: many pictures → lines or a CSV, in one order, in memory that does not grow with their number.

Threads decode, frame and read a few pictures each, within a bounded window. A picture that cannot be read costs its own
row and no more. Knows no page and no training.
"""

import argparse
import contextlib
import csv
import glob
import io
import itertools
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from .preprocess import PictureError, to_digit
from .recognizer import Prediction, Recognizer

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
COLUMNS = ("picture", "digit", "confidence", "verdict", "p_digit", "error")
CHUNK = 16  # pictures a worker reads at a time; with their views, enough for a full-speed batch
AHEAD = 3  # chunks a worker begun or waiting


def find_pictures(arguments: Iterable[str]) -> Iterator[str]:
    """Paths in a stable order: the arguments as given; a folder's pictures by name, then its subfolders'; a glob's by name.

    A folder is searched to any depth for SUFFIXES, hidden files left out; a file that is named is taken whatever its name.
    Only one folder's names are held at a time. What does not exist is handed on, for the reader to say so.
    """
    for argument in arguments:
        if os.path.isdir(argument):
            yield from _pictures_below(argument)
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            for path in sorted(glob.iglob(argument, recursive=True)):
                if not os.path.isdir(path):
                    yield path
        else:
            yield argument


def _pictures_below(folder: str) -> Iterator[str]:
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.join(where, name)


def read_files(
    recognizer: Recognizer, paths: Iterable[str], *, workers: int | None = None, all_views: bool = True
) -> Iterator[tuple[str, Prediction | PictureError]]:
    """(path, what was read in it, or why nothing could be), in the order of the paths, however many they are.

    workers: threads that each decode, frame and read CHUNK pictures at a time; None for one per core. Taken from `paths`
    are at most AHEAD chunks a worker more than was given out. Quickest where PyTorch itself uses one thread. all_views: as
    Recognizer.read takes it.
    """
    paths, waiting = iter(paths), deque()
    workers = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
        try:
            while True:
                while len(waiting) < AHEAD * workers and (chunk := list(itertools.islice(paths, CHUNK))):
                    waiting.append(pool.submit(_read_chunk, recognizer, chunk, all_views))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read_chunk(recognizer: Recognizer, paths: list[str], all_views: bool) -> list[tuple[str, Prediction | PictureError]]:
    digits = [_digit_of(path) for path in paths]
    answers = iter(recognizer.read([digit for digit in digits if not isinstance(digit, PictureError)], all_views=all_views))
    return [
        (path, digit if isinstance(digit, PictureError) else next(answers)) for path, digit in zip(paths, digits, strict=True)
    ]


def _digit_of(path: str) -> np.ndarray | PictureError | None:
    try:
        return to_digit(path)
    except PictureError as error:
        return error
    except ValueError as error:  # a name no file can have, such as one with a zero byte
        return PictureError(f"“{path}” cannot be a file: {error}.")


def row_of(path: str, answer: Prediction | PictureError) -> list[str]:
    """One row under COLUMNS. A blank sheet has no digit; a picture that could not be read has only its error."""
    if isinstance(answer, PictureError):
        return [path, "", "", "", "", str(answer)]
    digit = "" if answer.digit is None else str(answer.digit)
    return [path, digit, f"{answer.confidence:.6f}", answer.verdict, f"{answer.p_digit:.6f}", ""]


def line_of(path: str, answer: Prediction) -> str:
    """One line for people: the path, the digit with its confidence, and doubt where there is some."""
    if answer.digit is None:
        return f"{path}: blank"
    (first, confidence), (second, other) = answer.top(2)
    text = f"{path}: {first}  {confidence:.1%}"
    if answer.verdict == "unsure":
        text += f"  unsure, or {second} ({other:.1%})"
    return text if answer.verdict != "not_a_digit" else f"{text}  does not look like a digit"


def go_on(file: BinaryIO, paths: Iterator[str], name: str) -> tuple[int, int]:
    """Steps over the paths whose rows are in a CSV already; (rows kept, how many of them unreadable). The file is cut
    behind its last whole row and stands there, ready to be written on.

    Raises PictureError where the rows are not those of the paths, in their order.
    """
    kept, failed, end = 0, 0, 0
    for number, (row, offset) in enumerate(_whole_rows(file)):
        if number == 0:
            if row != list(COLUMNS):
                raise PictureError(f"{name} is not a CSV of this command; name another with --out, or leave --resume out.")
        else:
            path = next(paths, None)
            if len(row) != len(COLUMNS) or row[0] != path:
                raise PictureError(
                    f"{name}, row {number} is not about {path or 'any picture named now'}: the pictures have changed since; "
                    "start anew without --resume."
                )
            kept, failed = number, failed + bool(row[-1])
        end = offset
    file.seek(end)
    file.truncate()
    return kept, failed


def _whole_rows(file: BinaryIO) -> Iterator[tuple[list[str], int]]:
    """Each whole row and the place behind it. A row may span lines, for a name may hold a line break; the last one may be
    cut anywhere."""
    pending, offset = b"", 0
    for line in file:
        pending += line
        offset += len(line)
        if pending.endswith(b"\n") and pending.count(b'"') % 2 == 0:
            text = pending.decode("utf-8", "surrogateescape")
            yield next(csv.reader(io.StringIO(text, newline=""))), offset
            pending = b""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Reads the digit in each picture (PNG, JPEG, WebP, BMP, GIF, TIFF; dark on light or light on dark)\n"
        "and prints one line a picture, or writes a CSV. Folders of any size: memory does not grow with them."
    )
    parser.epilog = (
        f"columns of the CSV: {', '.join(COLUMNS)}\n"
        "  digit is empty on a blank sheet; verdict is digit, unsure, not_a_digit or blank; p_digit says how likely it\n"
        "  is a digit at all. A picture that cannot be read has only its error, a sentence. The order is that of the\n"
        "  arguments, a folder's pictures by name, so that two runs write the same file.\n\n"
        "With --spare-views it takes a little over half the time, and no probability moves by more than 0.005. Without, a\n"
        "picture is answered here as on the page.\n\n"
        "exit code: 0 every picture was read; 1 some could not be read (each is told on stderr and has a row of its\n"
        "  own, the others are unaffected); 2 refused, nothing was read."
    )
    parser.add_argument(
        "pictures",
        nargs="+",
        metavar="FOLDER|GLOB|FILE",
        help='such as scans/ or "scans/**/*.png" (in quotes) or seven.png',
    )
    parser.add_argument("--out", metavar="FILE", help="write this CSV, replacing what is there; without it, lines are printed")
    parser.add_argument(
        "--resume", action="store_true", help="go on where the CSV of the same command stopped, even within a line"
    )
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="a checkpoint, or an export in .onnx (default: checkpoints/digitnet.pt)"
    )
    parser.add_argument("--spare-views", action="store_true", help="ask the other views only where the first is not sure")
    parser.add_argument("--workers", type=int, metavar="N", help="threads that read pictures (default: one per core)")


def run(args: argparse.Namespace) -> int:
    if args.resume and not args.out:
        raise PictureError("--resume needs --out FILE: the CSV to go on with.")
    if args.workers is not None and args.workers < 1:
        raise PictureError(f"--workers is at least 1, not {args.workers}.")
    paths = find_pictures(args.pictures)
    first = next(paths, None)
    if first is None:
        raise PictureError(f"No pictures in {', '.join(args.pictures)}; name a folder, a file, or a glob in quotes.")
    paths = itertools.chain([first], paths)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the workers are the threads: inside one of them, more would only wait for each other
    try:
        recognizer = Recognizer.load(args.checkpoint)
        return (_write if args.out else _print)(recognizer, paths, args)
    finally:
        torch.set_num_threads(threads)


def _print(recognizer: Recognizer, paths: Iterator[str], args: argparse.Namespace) -> int:
    failed = 0
    try:
        for path, answer in read_files(recognizer, paths, workers=args.workers, all_views=not args.spare_views):
            if isinstance(answer, PictureError):
                failed += 1
                print(f"{_shown(path)}: {answer}", file=sys.stderr)
            else:
                print(_shown(line_of(path, answer)))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the lines has had enough (`| head`); nothing more may reach the closed pipe, at exit least of all.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise PictureError(f"The answers could not be printed ({error.strerror}); write them elsewhere with --out.") from error
    if failed:
        print(f"{failed} could not be read (exit code 1).", file=sys.stderr)
    return 1 if failed else 0


def _write(recognizer: Recognizer, paths: Iterator[str], args: argparse.Namespace) -> int:
    from tqdm import tqdm

    out, began = Path(args.out), time.perf_counter()
    with _opened(out, keep=args.resume) as file:
        kept, failed = go_on(file, paths, str(out)) if args.resume else (0, 0)
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        if file.tell() == 0:
            writer.writerow(COLUMNS)
        if kept:
            print(f"{out} holds {kept:,} pictures already; going on behind them.", file=sys.stderr)
        # Counting walks the folders once more; only a bar that someone sees is worth that.
        shown = sys.stderr.isatty()
        total = sum(1 for _ in find_pictures(args.pictures)) if shown else None
        read = 0
        with tqdm(total=total, initial=kept, unit="picture", disable=not shown, smoothing=0.05) as bar:
            for path, answer in read_files(recognizer, paths, workers=args.workers, all_views=not args.spare_views):
                writer.writerow(row_of(path, answer))
                read += 1
                if isinstance(answer, PictureError):
                    failed += 1
                    with bar.external_write_mode(file=sys.stderr):
                        print(f"{_shown(path)}: {answer}", file=sys.stderr)
                if read % CHUNK == 0:
                    file.flush()  # what is lost to a cut is at most a chunk
                bar.update()
        text.detach()
    seconds = time.perf_counter() - began
    rate = f"{read:,} pictures in {seconds:.0f} s ({read / max(seconds, 1e-9):,.0f} a second)"
    trouble = f"; {failed:,} could not be read: their rows hold the error (exit code 1)" if failed else ""
    print(f"{out}: {kept + read:,} rows; read {rate}{trouble}.", file=sys.stderr)
    return 1 if failed else 0


@contextlib.contextmanager
def _opened(out: Path, *, keep: bool) -> Iterator[BinaryIO]:
    """The CSV, open for reading and writing; as it is if `keep` and it is there, else empty. PictureError if it cannot be."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out, "r+b" if keep and out.exists() else "w+b") as file:
            yield file
    except OSError as error:
        raise PictureError(f"{out} cannot be written ({error.strerror}); name another place with --out.") from error


def _shown(text: str) -> str:
    """Text that any terminal takes: names may hold bytes that are no text, and line breaks."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")
