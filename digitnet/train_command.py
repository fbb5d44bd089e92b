"""python -m digitnet train: flags → TrainConfig → train(), into a new folder under runs/."""

import argparse
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from .mnist import data_root
from .train import QUICK, TrainConfig, new_run, pick_device, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    recipe = TrainConfig()
    parser.add_argument(
        "--quick", action="store_true", help="the quick recipe: a small network, MNIST only, a minute and a half"
    )
    parser.add_argument("--data", metavar="FOLDER", help="data root with MNIST/ and pen/ (default: DIGITNET_DATA, else data/)")
    parser.add_argument("--out", metavar="FILE", help="also write the finished checkpoint here, replacing what is there")
    parser.add_argument("--run", metavar="FOLDER", help="folder of this run (default: a new one under runs/)")
    parser.add_argument("--resume", action="store_true", help="go on with the cut-off run in the folder named by --run")
    parser.add_argument("--from", dest="start", metavar="CHECKPOINT", help="fine-tune this checkpoint instead of starting anew")
    parser.add_argument(
        "--drawings",
        metavar="FILE",
        action="append",
        default=[],
        help="stroke file of your own to train on as well; may be repeated",
    )
    parser.add_argument("--mnist-only", action="store_true", help="leave the pen drawings under the data root out")
    parser.add_argument(
        "--epochs", type=int, help=f"at most this many (default {recipe.epochs}; fine-tuning 6; quick {QUICK.epochs})"
    )
    parser.add_argument("--samples", type=int, help=f"pictures an epoch (default {recipe.samples:,})")
    parser.add_argument("--batch-size", type=int, help=f"pictures a step (default {recipe.batch_size})")
    parser.add_argument("--lr", type=float, help=f"learning rate (default {recipe.lr}; fine-tuning 0.0003)")
    parser.add_argument(
        "--widths",
        type=int,
        nargs="+",
        metavar="N",
        help=f"channels of each stage (default {' '.join(map(str, recipe.model.widths))})",
    )
    parser.add_argument(
        "--blocks",
        type=int,
        nargs="+",
        metavar="N",
        help=f"residual blocks of each stage (default {' '.join(map(str, recipe.model.blocks))})",
    )
    parser.add_argument("--dropout", type=float, help=f"share of features dropped (default {recipe.model.dropout})")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")
    parser.add_argument(
        "--patience", type=int, help=f"epochs without gain before the rate falls (default {recipe.plateau_patience})"
    )
    parser.add_argument(
        "--stop-patience", type=int, help=f"epochs without gain before training stops (default {recipe.stop_patience})"
    )
    parser.add_argument(
        "--average", type=float, help=f"decay of the weights' moving average, a step (default {recipe.average})"
    )
    parser.add_argument(
        "--shares",
        type=float,
        nargs=3,
        metavar=("MNIST", "DRAWINGS", "OTHERS"),
        help=f"of what an epoch shows (default {recipe.data.mnist} {recipe.data.drawings} {recipe.data.others})",
    )
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), help="default: the best one here")


def config_from(args: argparse.Namespace) -> TrainConfig:
    """The recipe the flags describe. Raises SystemExit with a sentence for flags that contradict each other."""
    recipe = QUICK if args.quick else TrainConfig()
    if args.start:  # fine-tuning: gently, briefly, without the warm-up's detour
        recipe = replace(recipe, epochs=6, lr=3e-4, samples=20_000, warmup=50, average=0.99)
        if args.drawings:  # a person waits: of everybody else's, as many pictures as six short epochs show
            recipe = replace(recipe, data=replace(recipe.data, copies=2, doodles=1_000, pairs=1_000))
    given = {
        "epochs": args.epochs,
        "samples": args.samples,
        "batch_size": args.batch_size,
        "lr": args.lr,
        "average": args.average,
        "plateau_patience": args.patience,
        "stop_patience": args.stop_patience,
    }
    shape = {"widths": args.widths, "blocks": args.blocks, "dropout": args.dropout}
    if args.mnist_only:
        recipe = replace(recipe, data=replace(recipe.data, use_drawings=False))
    if args.shares:
        recipe = replace(
            recipe, data=replace(recipe.data, **dict(zip(("mnist", "drawings", "others"), args.shares, strict=True)))
        )
    try:
        model = replace(recipe.model, **{name: value for name, value in shape.items() if value is not None})
        return replace(recipe, model=model, seed=args.seed, **{n: value for n, value in given.items() if value is not None})
    except ValueError as error:
        raise SystemExit(str(error)) from error


def run(args: argparse.Namespace) -> int:
    if args.resume and not args.run:
        raise SystemExit("--resume needs --run FOLDER: the folder of the run to go on with.")
    name = f"{datetime.now():%Y%m%d-%H%M%S}-seed{args.seed}"
    folder = Path(args.run) if args.run else new_run(name)
    try:
        path = train(
            config_from(args),
            data_root(args.data),
            folder,
            out=Path(args.out) if args.out else None,
            device=pick_device(args.device),
            start=Path(args.start) if args.start else None,
            own=tuple(args.drawings),
            resume=args.resume,
        )
    except FloatingPointError as error:
        raise SystemExit(str(error)) from error
    print(f"Try it on the page: python app.py --checkpoint {path}")
    print(f"Measure it:         python -m digitnet evaluate --checkpoint {path}")
    return 0
