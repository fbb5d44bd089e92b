"""python docs/fine_tune.py [--data FOLDER]: what a corrected export does for a hand that the network misreads.

Takes the twenty drawings of the validation writers that the shipped checkpoint reads worst, as the page exports them,
fine-tunes on them by the README's command, and reads them and the rest of the validation part before and after. They say
nothing of unseen people: the validation part chose the checkpoint's length, and the test sets are left alone.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from digitnet import Recognizer  # noqa: E402  the package beside this folder, installed or not
from digitnet.checkpoint import DEFAULT_PATH  # noqa: E402
from digitnet.drawings import SHEET, Drawing, draw, find_drawings, part_of, place, write_drawings  # noqa: E402
from digitnet.mnist import data_root, load_mnist, split  # noqa: E402

HOW_MANY = 20
BRUSH = 16  # sheet pixels, the page's normal line


def sheet(drawing: Drawing) -> np.ndarray:
    """The drawing as a visitor leaves it on the page's sheet, 60 % of its side: uint8 280×280."""
    placed = place(drawing.strokes, extent=0.6, at=(0.5, 0.5), margin=BRUSH / SHEET)
    return draw([stroke * SHEET for stroke in placed], brush=BRUSH)


def right_share(recognizer: Recognizer, pictures, labels) -> float:
    read = [prediction.digit for prediction in recognizer.many(pictures)]
    return float(np.mean(np.array(read) == np.array(labels)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FOLDER", help="data root (default: DIGITNET_DATA, else data/)")
    root = data_root(parser.parse_args().data).resolve()
    every = [d for drawings in find_drawings(root).values() for d in drawings if d.digit is not None]
    drawings = [d for d in every if part_of(d.writer) == "choose"]
    sheets = [sheet(d) for d in drawings]
    shipped = Recognizer.load()
    given = np.array([p.probabilities[d.digit] for p, d in zip(shipped.many(sheets), drawings, strict=True)])
    worst = set(np.argsort(given)[:HOW_MANY].tolist())
    rest = [i for i in range(len(drawings)) if i not in worst]
    _, (pictures, labels) = split(*load_mnist(root, train=True), seed=0)
    parts = {
        f"the {HOW_MANY} drawings": ([sheets[i] for i in worst], [drawings[i].digit for i in worst]),
        "other validation drawings": ([sheets[i] for i in rest], [drawings[i].digit for i in rest]),
        "MNIST, validation": (list(pictures.numpy()), labels.tolist()),
    }
    with tempfile.TemporaryDirectory() as folder:
        export, tuned = Path(folder) / "my-drawings.jsonl", Path(folder) / "tuned.pt"
        write_drawings(export, [Drawing(drawings[i].label, "me", drawings[i].strokes) for i in worst])
        command = [sys.executable, "-m", "digitnet", "train", "--from", str(DEFAULT_PATH), "--drawings", str(export)]
        command += ["--data", str(root), "--run", str(Path(folder) / "run"), "--out", str(tuned)]
        subprocess.run(command, cwd=ROOT, check=True)
        after = Recognizer.load(tuned)
    for name, (shown, wanted) in parts.items():
        before_rate, after_rate = right_share(shipped, shown, wanted), right_share(after, shown, wanted)
        print(f"{name}, n {len(wanted):,}: {before_rate:.2%} before, {after_rate:.2%} after")
    return 0


if __name__ == "__main__":
    sys.exit(main())
