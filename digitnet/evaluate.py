"""python -m digitnet evaluate: what a checkpoint reads right, how sure it is, and what it refuses, in one report.

Everything is measured through the Recognizer the page uses: MNIST's test set, and the report writers' drawings rendered as
the canvas delivers them. The report is tied to the checkpoint's bytes by SHA-256. --part choose measures the validation
writers and MNIST's validation split instead, for choosing; test sets are for reporting.
"""

import argparse
import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from . import checkpoint as checkpoints
from .checkpoint import write_atomically
from .doodles import doodles, pairs
from .drawings import Drawing, Rendering, find_drawings, part_of, render
from .mnist import DISPUTED, data_root, load_mnist, split
from .model import DIGITS
from .preprocess import SIDE, frame, to_digit
from .recognizer import Recognizer

BINS = 15  # of the calibration error
COPIES = 4  # renderings of each report drawing: brush, size and place at random
BRUSH_EDGES = (0.01, 0.02, 0.04, 0.06, 0.08, 0.10)
EXTENT_EDGES = (0.20, 0.35, 0.50, 0.65, 0.80, 0.95)


@dataclass(frozen=True)
class Answers:
    """What was read from n digits. digit, label: int64 n (label -1 for what is no digit); confidence, p_digit: float64 n;
    verdict: list of n."""

    digit: np.ndarray
    label: np.ndarray
    confidence: np.ndarray
    p_digit: np.ndarray
    verdict: list[str]

    @property
    def right(self) -> np.ndarray:
        return self.digit == self.label


def read_all(recognizer: Recognizer, digits: Sequence[np.ndarray | None], labels: np.ndarray) -> Answers:
    """Reads framed digits (float 28×28 or None) in batches."""
    predictions = [p for i in range(0, len(digits), 256) for p in recognizer.read(digits[i : i + 256])]
    return Answers(
        np.array([-2 if p.digit is None else p.digit for p in predictions], np.int64),
        np.asarray(labels, np.int64),
        np.array([p.confidence for p in predictions]),
        np.array([p.p_digit for p in predictions]),
        [p.verdict for p in predictions],
    )


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> tuple[float, list[dict]]:
    """Expected calibration error (Naeini et al. 2015) over BINS equal bins, and the reliability diagram's bars."""
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bars, error = [], 0.0
    for number in range(BINS):
        inside = place == number
        if not inside.any():
            continue
        said, was = float(confidence[inside].mean()), float(right[inside].mean())
        error += abs(said - was) * float(inside.mean())
        bars.append({"confidence": round(said, 5), "accuracy": round(was, 5), "n": int(inside.sum())})
    return error, bars


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a random positive scores above a random negative, ties half (the Mann-Whitney U over its largest)."""
    scores = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    u = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(u / (len(positive) * len(negative)))


def interval(share: float, n: int) -> list[float]:
    """95 % Wilson interval of a share measured on n independent cases."""
    z = 1.96
    middle, half = (share + z * z / (2 * n)), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [round(max(0.0, (middle - half) / (1 + z * z / n)), 5), round(min(1.0, (middle + half) / (1 + z * z / n)), 5)]


def confusion(answers: Answers) -> list[list[int]]:
    """Counts, true digit by row, digit read by column."""
    table = np.zeros((DIGITS, DIGITS), int)
    np.add.at(table, (answers.label, answers.digit), 1)
    return table.tolist()


def _mean(values: np.ndarray) -> float:
    return round(float(values.mean()), 5)


def _per_digit(answers: Answers) -> list[float]:
    return [_mean(answers.right[answers.label == d]) if (answers.label == d).any() else math.nan for d in range(DIGITS)]


def _by_bin(values: np.ndarray, edges: Sequence[float], right: np.ndarray) -> list[dict]:
    rows = []
    for low, high in pairwise(edges):
        inside = (values >= low) & (values <= high)
        if inside.any():
            rows.append({"from": low, "to": high, "n": int(inside.sum()), "accuracy": _mean(right[inside])})
    return rows


def measure_mnist(recognizer: Recognizer, digits: torch.Tensor, labels: torch.Tensor, *, disputed: Sequence[int]) -> dict:
    """digits uint8 N×28×28. Plain: the network on the pictures as they are; framed: through preprocessing, one view;
    views: a picture into the Recognizer, all views, as a user would."""
    pictures, truth = digits.numpy(), labels.numpy()
    plain = _one_view(recognizer, list(pictures.astype(np.float32) / 255))
    framed = [frame(picture) for picture in pictures.astype(np.float32) / 255]
    answers = read_all(recognizer, [to_digit(picture) for picture in pictures], truth)
    error, bars = calibration_error(answers.confidence, answers.right)
    undisputed = np.setdiff1d(np.arange(len(truth)), disputed)
    return {
        "n": len(truth),
        "plain": _mean(plain == truth),
        "framed": _mean(_one_view(recognizer, framed) == truth),
        "views": _mean(answers.right),
        "interval": interval(float(answers.right.mean()), len(truth)),
        "views_without_disputed": _mean(answers.right[undisputed]),
        "disputed": len(truth) - len(undisputed),
        "per_digit": _per_digit(answers),
        "confusion": confusion(answers),
        "calibration_error": round(error, 5),
        "reliability": bars,
        "verdicts": {verdict: answers.verdict.count(verdict) for verdict in sorted(set(answers.verdict))},
    }


def _one_view(recognizer: Recognizer, digits: Sequence[np.ndarray]) -> np.ndarray:
    stacks = torch.from_numpy(np.stack(digits)).split(256)
    return torch.cat([recognizer.logits(stack)[:, 0, :DIGITS].argmax(-1) for stack in stacks]).numpy()


def measure_drawings(answers: Answers, rendering: Rendering, drawings: Sequence[Drawing], sources: Sequence[str]) -> dict:
    """drawings and sources: by rendering.index. The interval counts drawings, not their renderings."""
    source = np.array(sources)[rendering.index]
    error, bars = calibration_error(answers.confidence, answers.right)
    table = np.array(confusion(answers))
    wrong = [(int(table[i, j]), i, j) for i in range(DIGITS) for j in range(DIGITS) if i != j and table[i, j]]
    by_source = {}
    for name in sorted(set(sources)):
        inside = source == name
        n = len(set(rendering.index[inside].tolist()))
        by_source[name] = {
            "n": n,
            "writers": len({drawings[i].writer for i in set(rendering.index[inside].tolist())}),
            "accuracy": _mean(answers.right[inside]),
            "interval": interval(float(answers.right[inside].mean()), n),
        }
    n = len(set(rendering.index.tolist()))
    return {
        "n": n,
        "renderings": len(rendering.labels),
        "writers": len({drawing.writer for drawing in drawings}),
        "accuracy": _mean(answers.right),
        "interval": interval(float(answers.right.mean()), n),
        "sources": by_source,
        "per_digit": _per_digit(answers),
        "brush": _by_bin(rendering.brush, BRUSH_EDGES, answers.right),
        "extent": _by_bin(rendering.extent, EXTENT_EDGES, answers.right),
        "confusion": table.tolist(),
        "mistaken": [{"true": i, "read": j, "n": n} for n, i, j in sorted(wrong, reverse=True)[:12]],
        "calibration_error": round(error, 5),
        "reliability": bars,
    }


def measure_refusal(digits: Answers, others: dict[str, Answers]) -> dict:
    """How well p_digit and the verdict part digits from everything else, kind by kind."""
    refused = {name: np.array([v in ("not_a_digit", "blank") for v in answers.verdict]) for name, answers in others.items()}
    scores = np.concatenate([answers.p_digit for answers in others.values()])
    return {
        "auroc": round(auroc(digits.p_digit, scores), 5),
        "digits_refused": _mean(np.array([v == "not_a_digit" for v in digits.verdict])),
        "digits_unsure": _mean(np.array([v == "unsure" for v in digits.verdict])),
        "right_when_sure": _mean(digits.right[np.array([v == "digit" for v in digits.verdict])]),
        "others_refused": _mean(np.concatenate(list(refused.values()))),
        "others": {
            name: {"n": len(v), "refused": _mean(v), "auroc": round(auroc(digits.p_digit, others[name].p_digit), 5)}
            for name, v in refused.items()
        },
    }


def evaluate(path, root, *, part: str = "report", seeds: Sequence[Path] = (), errors: Path | None = None, say=print) -> dict:
    """The report of the checkpoint at PATH. part: "report" (test sets) or "choose" (validation). seeds: checkpoints of
    the same recipe under other seeds, for the mean and the spread of its accuracies. errors: folder for contact sheets of
    what was misread.
    """
    path = Path(checkpoints.DEFAULT_PATH if path is None else path)
    loaded = checkpoints.load(path)
    recognizer = Recognizer.from_checkpoint(loaded)
    card = loaded.metadata
    report = {
        "checkpoint": {
            "sha256": checkpoints.file_digest(path),
            "parameters": loaded.model.parameter_count,
            "views": len(recognizer.viewer),
            **{key: card.get(key) for key in ("created", "epoch", "seed", "seconds", "device", "threads", "validation")},
        },
        "made": {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "part": part,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        },
    }
    say("Reading MNIST ...")
    if part == "report":
        pictures, labels = load_mnist(root, train=False)
    else:
        _, (pictures, labels) = split(*load_mnist(root, train=True), seed=0)
    disputed = DISPUTED if part == "report" else ()
    report["mnist"] = measure_mnist(recognizer, pictures, labels, disputed=disputed)
    again_trained = [Recognizer.load(seed) for seed in seeds]
    if seeds:
        say(f"Reading MNIST with {len(seeds)} other seeds of the recipe ...")
        framed = [to_digit(picture) for picture in pictures.numpy()]
        rates = [_mean(read_all(again, framed, labels.numpy()).right) for again in again_trained]
        report["mnist"]["seeds"] = _over_seeds([report["mnist"]["views"], *rates])
    sources = find_drawings(root)
    shown = [(name, d) for name, drawings in sources.items() for d in drawings if part_of(d.writer) == part]
    digits = [d for _, d in shown if d.digit is not None]
    if not digits:
        say(f"No pen drawings under {root}/pen: the report holds MNIST alone.")
        return report
    say("Reading the drawings ...")
    rendering = render(digits, copies=COPIES, seed=7, vary=False)
    answers = _read_rendering(recognizer, rendering)
    names = [name for name, d in shown if d.digit is not None]
    report["drawings"] = measure_drawings(answers, rendering, digits, names)
    if seeds:
        say(f"Reading the drawings with {len(seeds)} other seeds of the recipe ...")
        rates = [_mean(_read_rendering(again, rendering).right) for again in again_trained]
        report["drawings"]["seeds"] = _over_seeds([report["drawings"]["accuracy"], *rates])
    kinds = {name.removeprefix("unipen-"): [d for n, d in shown if n == name and d.digit is None] for name, _ in shown}
    kinds |= {"doodles": doodles(540, seed=2_000_003), "two digits": pairs(digits, 300, seed=3)}
    others = {
        name: _read_rendering(recognizer, render(drawings, copies=2, seed=8, vary=False))
        for name, drawings in kinds.items()
        if drawings
    }
    report["refusal"] = measure_refusal(answers, others)
    if errors is not None:
        errors.mkdir(parents=True, exist_ok=True)
        _contact_sheet(rendering, answers, answers.label >= 0, errors / "misread.png")
        say(f"What was misread: {errors}/misread.png (drawings of real people: keep them out of the repository).")
    return report


def _over_seeds(rates: Sequence[float]) -> dict:
    mean, spread = float(np.mean(rates)), float(np.std(rates, ddof=1))
    return {"n": len(rates), "mean": round(mean, 5), "spread": round(spread, 5), "each": list(rates)}


def _read_rendering(recognizer: Recognizer, rendering: Rendering) -> Answers:
    return read_all(recognizer, list(rendering.digits.astype(np.float32) / 255), rendering.labels)


def _contact_sheet(rendering: Rendering, answers: Answers, chosen: np.ndarray, path: Path, most: int = 200) -> None:
    """The misread digits, most confident first, each with "true→read confidence"."""
    from PIL import Image, ImageDraw

    wrong = np.flatnonzero(chosen & ~answers.right)
    wrong = wrong[np.argsort(-answers.confidence[wrong])][:most]
    columns, cell = 20, (64, 76)
    sheet = Image.new("L", (columns * cell[0], max(1, -(-len(wrong) // columns)) * cell[1]), 96)
    pen = ImageDraw.Draw(sheet)
    for number, i in enumerate(wrong):
        x, y = number % columns * cell[0], number // columns * cell[1]
        sheet.paste(Image.fromarray(rendering.digits[i]).resize((SIDE * 2, SIDE * 2), 0), (x + 4, y))
        pen.text((x + 4, y + SIDE * 2 + 2), f"{answers.label[i]}>{answers.digit[i]} {answers.confidence[i]:.2f}", fill=255)
    sheet.save(path)


def summary(report: dict) -> str:
    """The report's main figures, a line each."""
    mnist = report["mnist"]
    lines = [
        f"MNIST {report['made']['part']}, n {mnist['n']:,}: plain {mnist['plain']:.2%}, framed {mnist['framed']:.2%}, "
        f"all views {mnist['views']:.2%}"
        + (f", without the {mnist['disputed']} disputed {mnist['views_without_disputed']:.2%}" if mnist["disputed"] else "")
        + f"; calibration error {mnist['calibration_error']:.2%}",
        "  per digit " + " ".join(f"{d}:{share:.1%}" for d, share in enumerate(mnist["per_digit"])),
    ]
    lines += _seeds_line(mnist)
    if "drawings" in report:
        drawings, refusal = report["drawings"], report["refusal"]
        low, high = drawings["interval"]
        lines += [
            f"Drawings, n {drawings['n']:,} by {drawings['writers']} writers, {drawings['renderings']:,} renderings: "
            f"{drawings['accuracy']:.2%} (95 % {low:.1%} to {high:.1%}); calibration error {drawings['calibration_error']:.2%}",
            *_seeds_line(drawings),
            *(f"  {name}: {row['accuracy']:.2%} of {row['n']}" for name, row in drawings["sources"].items()),
            "  per digit " + " ".join(f"{d}:{share:.1%}" for d, share in enumerate(drawings["per_digit"])),
            "  by brush " + " ".join(f"{row['from']:.0%}-{row['to']:.0%}:{row['accuracy']:.1%}" for row in drawings["brush"]),
            "  by size " + " ".join(f"{row['from']:.0%}-{row['to']:.0%}:{row['accuracy']:.1%}" for row in drawings["extent"]),
            "  mistaken " + " ".join(f"{row['true']}>{row['read']}:{row['n']}" for row in drawings["mistaken"]),
            f"Not a digit: AUROC {refusal['auroc']:.2%}; refused {refusal['others_refused']:.2%} of what is none, "
            f"{refusal['digits_refused']:.2%} of digits (unsure {refusal['digits_unsure']:.2%}, right when sure "
            f"{refusal['right_when_sure']:.2%})",
            *(f"  {name}: refused {row['refused']:.1%} of {row['n']}" for name, row in refusal["others"].items()),
        ]
    return "\n".join(lines)


def _seeds_line(measured: dict) -> list[str]:
    seeds = measured.get("seeds")
    return [f"  over {seeds['n']} seeds {seeds['mean']:.3%} ± {seeds['spread']:.3%}"] if seeds else []


def readme_rows(report: dict) -> list[str]:
    """The rows of the README's table of figures, as they must stand there: what, figure, n. For a report with drawings."""
    mnist, drawings, refusal = report["mnist"], report["drawings"], report["refusal"]
    low, high = drawings["interval"]
    n, renderings = f"{mnist['n']:,} pictures", f"{drawings['n']:,} drawings, {drawings['renderings']:,} renderings"
    others = ", ".join(f"{row['n']:,} {name}" for name, row in refusal["others"].items())
    rows = [
        ("MNIST test, through `Recognizer`", f"{mnist['views']:.2%}", n),
        (
            "… without the 15 disputed labels",
            f"{mnist['views_without_disputed']:.2%}",
            f"{mnist['n'] - mnist['disputed']:,} pictures",
        ),
        ("… the network alone, one view", f"{mnist['plain']:.2%}", n),
        *_seed_rows(mnist),
        ("**Pen drawings of people it never saw**", f"**{drawings['accuracy']:.2%}** ({low:.1%} to {high:.1%})", renderings),
        *(
            (f"… from {name}", f"{row['accuracy']:.2%}", f"{row['n']:,} drawings by {row['writers']} writers")
            for name, row in drawings["sources"].items()
        ),
        *_seed_rows(drawings),
        ("Calibration error (15 bins), drawings", f"{drawings['calibration_error']:.2%}", renderings),
        ("Calibration error (15 bins), MNIST test", f"{mnist['calibration_error']:.2%}", n),
        ("Digits against everything else, AUROC of `p_digit`", f"{refusal['auroc']:.2%}", others),
        ("Other things answered “not a digit”", f"{refusal['others_refused']:.2%}", others),
        ("Digits wrongly answered “not a digit”", f"{refusal['digits_refused']:.2%}", renderings),
    ]
    return [f"| {what} | {figure} | {size} |" for what, figure, size in rows]


def _seed_rows(measured: dict) -> list[tuple[str, str, str]]:
    if "seeds" not in measured:
        return []
    seeds = measured["seeds"]
    figure = f"{seeds['mean']:.2%} ± {seeds['spread']:.2%}"
    return [("… the recipe, mean ± standard deviation", figure, f"{seeds['n']} seeds")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", metavar="FILE", help="default: the repository's own")
    parser.add_argument("--data", metavar="FOLDER", help="data root with MNIST/ and pen/ (default: DIGITNET_DATA, else data/)")
    parser.add_argument("--part", choices=("report", "choose"), default="report", help="test sets (default) or validation sets")
    parser.add_argument("--seeds", metavar="FILE", nargs="+", default=[], help="checkpoints of the same recipe, other seeds")
    parser.add_argument("--out", metavar="FILE", help="the report (default: beside the checkpoint, .json; validation: none)")
    parser.add_argument("--results", metavar="FOLDER", default="results", help="folder for charts and the sheet of errors")


def run(args: argparse.Namespace) -> int:
    path = Path(args.checkpoint or checkpoints.DEFAULT_PATH)
    results = Path(args.results)
    report = evaluate(path, data_root(args.data), part=args.part, seeds=[Path(seed) for seed in args.seeds], errors=results)
    print(summary(report))
    out = Path(args.out) if args.out else path.with_suffix(".json") if args.part == "report" else None
    if out is not None:
        write_atomically(out, lambda file: file.write((json.dumps(report, indent=1) + "\n").encode()))
        print(f"Saved {out}.")
    if "drawings" in report:
        print("For the README:", *readme_rows(report), sep="\n")
    from .charts import draw_charts

    for chart in draw_charts(report, checkpoints.load(path).metadata.get("history", []), results):
        print(f"Saved {chart}.")
    return 0
