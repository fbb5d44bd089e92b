"""python -m deploy batch: folders of pictures → one CSV or Parquet table, by Ray Data.

The work is cut into parts, listed before any is read; each part's rows are written whole or not at all, so a job that was
broken off goes on with the parts that are missing. Rows, columns and order are those of `python -m digitnet predict`.
digitnet is imported where it is used: to import PyTorch takes two seconds, which pass while Ray starts.
"""

import argparse
import contextlib
import csv
import io
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .cluster import count, joined  # isort: skip  # sets what Ray reads when it is imported

import ray

PART = 500  # pictures; what a broken job reads again, at most, per worker
PLAN = "plan.json"
TYPES = {"digit": "int8", "confidence": "float64", "p_digit": "float64"}  # of the Parquet columns; the others are strings


class PartReader:
    """Reads one part after another with one Recognizer, on one thread; made by Ray Data, once in each worker."""

    def __init__(self, work: str, checkpoint: str | None):
        import torch

        from digitnet import Recognizer

        torch.set_num_threads(1)
        self._work = Path(work)
        plan = json.loads((self._work / PLAN).read_text())
        self._base, self._all_views = plan["base"], plan["all_views"]
        self._recognizer = Recognizer.load(checkpoint)

    def __call__(self, batch: dict) -> dict:
        """{"part": [number, ...]} → the same with "read" and "failed", how many pictures were and could not be read."""
        counts = [self._read(int(part)) for part in batch["part"]]
        return {"part": batch["part"], "read": [n for n, _ in counts], "failed": [failed for _, failed in counts]}

    def _read(self, part: int) -> tuple[int, int]:
        from digitnet import PictureError
        from digitnet.checkpoint import write_atomically
        from digitnet.predict import read_files, row_of

        names = _listed(self._work, part)
        rows, failed = io.StringIO(newline=""), 0
        writer = csv.writer(rows, lineterminator="\n")
        # One thread: a worker is given one core.
        paths = (os.path.join(self._base, name) for name in names)
        answers = read_files(self._recognizer, paths, workers=1, all_views=self._all_views)
        for name, (_, answer) in zip(names, answers, strict=True):
            failed += isinstance(answer, PictureError)
            writer.writerow(row_of(name, answer))
        write_atomically(_rows(self._work, part), lambda file: file.write(os.fsencode(rows.getvalue())))
        return len(names), failed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Reads the digit in each picture on many workers and writes one table. Started again after it was broken off, by the\n"
        "same command, it goes on with what is missing."
    )
    parser.epilog = (
        "columns: as python -m digitnet predict explains them.\n\n"
        "While it works, what is done lies in a folder beside the table, named like it with .work behind. On a cluster, the\n"
        "pictures and that folder must be reached by the same paths from every machine (NFS or the like).\n\n"
        "exit code: 0 every picture was read; 1 some could not be read (their rows hold the error); 2 refused."
    )
    parser.add_argument("pictures", nargs="+", metavar="FOLDER|GLOB|FILE", help='such as scans/ or "scans/**/*.png"')
    parser.add_argument("--out", required=True, metavar="FILE", type=_table, help="the table to write: .csv or .parquet")
    parser.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster to work on (default: this machine alone)")
    parser.add_argument("--workers", type=count, metavar="N", help="workers at most, a core each (default: as many as cores)")
    parser.add_argument("--part", type=count, default=PART, metavar="N", help=f"pictures a part (default: {PART})")
    parser.add_argument("--spare-views", action="store_true", help="ask the other views only where the first is not sure")
    parser.add_argument("--anew", action="store_true", help="forget what a broken job has done already")
    parser.add_argument("--checkpoint", metavar="FILE", type=os.path.abspath, help="another checkpoint, there on every machine")


def _table(text: str) -> Path:
    if not text.endswith((".csv", ".parquet")):
        raise argparse.ArgumentTypeError(f"{text} is neither .csv nor .parquet")
    return Path(text)


def run(args: argparse.Namespace) -> int:
    """Reads what is missing and writes the table. Raises PictureError, CheckpointError, ClusterError for refusals."""
    began = time.perf_counter()
    out = args.out
    work = out.with_name(out.name + ".work").absolute()
    here = args.workers or os.cpu_count() or 1
    with ThreadPoolExecutor(1) as aside:
        planning = aside.submit(_planned, work, args)
        with joined(args.address, workers=here):
            plan = planning.result()
            read = _read_parts(work, plan, args)
    from digitnet import PictureError

    try:
        failed = _join(work, plan["parts"], out)
        shutil.rmtree(work)
    except OSError as error:
        raise PictureError(f"{out} cannot be written ({error.strerror}); free some space and start it again.") from error
    seconds = time.perf_counter() - began
    trouble = f"; {failed:,} could not be read: their rows hold the error (exit code 1)" if failed else ""
    rate = f"{read:,} read in {seconds:.0f} s ({read / max(seconds, 1e-9):,.0f} a second)"
    print(f"{out}: {plan['pictures']:,} rows; {rate}{trouble}.", file=sys.stderr)
    return 1 if failed else 0


def _planned(work: Path, args: argparse.Namespace) -> dict:
    """The plan in the folder, made if there is none. Raises PictureError or CheckpointError for what cannot be done."""
    from digitnet import PictureError, Recognizer
    from digitnet.checkpoint import DEFAULT_PATH, file_digest

    Recognizer.load(args.checkpoint)  # what is wrong with it is said here, not by a worker
    job = {
        "pictures_of": args.pictures,
        "base": os.getcwd(),
        "checkpoint": file_digest(args.checkpoint or DEFAULT_PATH),
        "part": args.part,
        "all_views": not args.spare_views,
    }
    try:
        if args.anew:
            shutil.rmtree(work, ignore_errors=True)
        if not (work / PLAN).exists():
            return _listed_anew(work, job)
        plan = json.loads((work / PLAN).read_text())
    except OSError as error:
        raise PictureError(f"{work} cannot be written ({error.strerror}); name another place with --out.") from error
    if {key: plan.get(key) for key in job} != job:
        raise PictureError(f"{work} holds another job, begun but not ended; add --anew to forget it, or name another --out.")
    return plan


def _listed_anew(work: Path, job: dict) -> dict:
    """Lists the pictures of a job, part by part, into its folder; the plan, which is there once all are listed."""
    from digitnet import PictureError
    from digitnet.checkpoint import write_atomically
    from digitnet.predict import find_pictures

    shutil.rmtree(work, ignore_errors=True)  # listing was broken off
    paths, parts, pictures = find_pictures(job["pictures_of"]), 0, 0
    while names := list(itertools.islice(paths, job["part"])):
        work.mkdir(parents=True, exist_ok=True)
        _list(work, parts).write_bytes(b"\0".join(map(os.fsencode, names)))
        parts, pictures = parts + 1, pictures + len(names)
    if not parts:
        where = ", ".join(job["pictures_of"])
        raise PictureError(f"No pictures in {where}; name a folder, a file, or a glob in quotes.")
    plan = {**job, "parts": parts, "pictures": pictures}
    write_atomically(work / PLAN, lambda file: file.write(json.dumps(plan).encode()))
    return plan


def _list(work: Path, part: int) -> Path:
    return work / f"{part:07}.names"


def _rows(work: Path, part: int) -> Path:
    return work / f"{part:07}.csv"


def _listed(work: Path, part: int) -> list[str]:
    return [os.fsdecode(name) for name in _list(work, part).read_bytes().split(b"\0")]


def _read_parts(work: Path, plan: dict, args: argparse.Namespace) -> int:
    """Has the missing parts read; how many pictures that were. A worker that dies is replaced, its part read again."""
    from tqdm import tqdm

    parts = [part for part in range(plan["parts"]) if not _rows(work, part).exists()]
    if len(parts) < plan["parts"]:
        print(f"{plan['parts'] - len(parts)} of {plan['parts']} parts are there already; going on.", file=sys.stderr)
    if not parts:
        return 0
    most = max(1, min(args.workers or int(ray.cluster_resources().get("CPU", 1)), len(parts)))
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.DataContext.get_current().print_on_execution_start = False
    jobs = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=min(len(parts), 50 * most))
    jobs = jobs.map_batches(
        PartReader,
        fn_constructor_args=(str(work), args.checkpoint),
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
    )
    read = 0
    with tqdm(total=len(parts), unit="part", disable=not sys.stderr.isatty()) as bar:
        for done in jobs.iter_rows():
            read += done["read"]
            bar.update()
    return read


def _join(work: Path, parts: int, out: Path) -> int:
    """All parts, in their order, as one table that is there whole or not at all; how many of its rows are errors."""
    failed = 0
    with _writer(out) as write:
        for part in range(parts):
            content = _rows(work, part).read_bytes()
            rows = list(csv.reader(io.StringIO(os.fsdecode(content), newline="")))
            failed += sum(bool(row[-1]) for row in rows)
            write(content)
    return failed


@contextlib.contextmanager
def _writer(out: Path) -> Iterator:
    """A function that takes rows as bytes of CSV, for a with block; the table is at its place when that ends well."""
    from digitnet.predict import COLUMNS

    handle, temporary = tempfile.mkstemp(dir=out.absolute().parent, prefix=f".{out.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            if out.suffix == ".csv":
                file.write((",".join(COLUMNS) + "\n").encode())
                yield file.write
            else:
                with _parquet(file, COLUMNS) as write:
                    yield write
        os.chmod(temporary, 0o644)
        os.replace(temporary, out)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _parquet(file, columns: tuple[str, ...]) -> Iterator:
    """A function that turns rows as bytes of CSV into Parquet; bytes of a name that are no text are written as \\xNN."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    schema = pa.schema([(name, pa.type_for_alias(TYPES.get(name, "string"))) for name in columns])
    reading = arrow_csv.ReadOptions(column_names=list(columns))
    parsing = arrow_csv.ParseOptions(newlines_in_values=True)
    turning = arrow_csv.ConvertOptions(column_types=schema, strings_can_be_null=True, null_values=[""])
    with parquet.ParquetWriter(file, schema) as writer:

        def write(content: bytes) -> None:
            text = content.decode("utf-8", "backslashreplace").encode()
            table = arrow_csv.read_csv(io.BytesIO(text), reading, parsing, turning)
            writer.write_table(table.cast(schema))

        yield write
