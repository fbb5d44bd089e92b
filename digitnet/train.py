"""One training run: fit() is the loop, train() the run around it, from data to a calibrated checkpoint in a folder.

AdamW, a short warm-up, ReduceLROnPlateau and early stopping on the validation loss of the averaged weights (an exponential
moving average; Polyak & Juditsky 1992). Everything random follows from (seed, epoch), so a run that was cut off goes on to
the same result. The report writers and MNIST's test set are never looked at here.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch.nn import functional as F

from . import checkpoint as checkpoints
from .augment import AugmentConfig, augment
from .checkpoint import Checkpoint, CheckpointError
from .dataset import DataConfig, Pool, TrainingData, build
from .engine import fast_bf16
from .mnist import data_root
from .model import DIGITS, DigitNet, ModelConfig

try:
    import fcntl
except ImportError:  # Windows has no such locks; there a second trainer in the same folder is not noticed
    fcntl = None


@dataclass(frozen=True)
class TrainConfig:
    """One recipe. An "epoch" is `samples` pictures.

    lr falls by plateau_factor after more than plateau_patience epochs without a validation loss lower by
    min_gain (a share of the best); after stop_patience such epochs, or at lr below min_lr, training ends. average: decay
    of the moving average of the weights, a step. reject_weight: of the loss that says whether it is a digit at all.
    """

    epochs: int = 24
    samples: int = 60_000
    batch_size: int = 128
    lr: float = 2e-3
    min_lr: float = 1e-5
    warmup: int = 500
    weight_decay: float = 0.02
    average: float = 0.9985
    reject_weight: float = 0.3
    plateau_factor: float = 0.5
    plateau_patience: int = 0
    stop_patience: int = 6
    min_gain: float = 0.02
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self):
        if min(self.epochs, self.samples, self.batch_size) < 1:
            raise ValueError("epochs, samples and batch_size must be at least 1.")
        if not 0.0 < self.lr < 1.0:
            raise ValueError(f"lr must lie between 0 and 1, not {self.lr}.")
        if not 0.0 <= self.average < 1.0:
            raise ValueError(f"average must lie between 0 and 1, not {self.average}.")
        if self.stop_patience < 2 * (self.plateau_patience + 1):
            raise ValueError("stop_patience must be at least 2 × (plateau_patience + 1), or the rate has no time to fall.")


QUICK = TrainConfig(
    epochs=10,
    samples=55_000,
    batch_size=256,
    lr=1.5e-2,
    warmup=40,
    average=0.98,
    min_gain=0.01,
    stop_patience=20,
    model=ModelConfig(widths=(16, 32, 64), blocks=(1, 1, 1), dropout=0.0),
    data=DataConfig(mnist=0.95, others=0.05, doodles=250, use_drawings=False),
    augment=AugmentConfig(turn=8, lean=0.1, zoom=0.08, bend=0.4, pen=0.3, fade=0.8),
)
"""The quick recipe: MNIST and doodles alone, a minute and a half on two cores; for the first start without a checkpoint. Its
length is fixed, chosen on MNIST's validation split for 99.5 % of the test set."""
QUICK_TO_99 = 2
"""Epochs of the quick recipe that suffice for 99.0 %, chosen likewise; the benchmark times both lengths."""


def pick_device(name: str | None = None) -> torch.device:
    """The device named, or else the best one here: CUDA, MPS or CPU. Picked once a run."""
    if name:
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def loss_of(logits: torch.Tensor, labels: torch.Tensor, reject_weight: float) -> torch.Tensor:
    """Cross-entropy of the digits among themselves, plus binary cross-entropy of digit or not. logits N×11, labels N."""
    is_digit = labels >= 0
    digit_loss = F.cross_entropy(logits[:, :DIGITS], labels.clamp(min=0), reduction="none")
    reject_loss = F.binary_cross_entropy_with_logits(logits[:, DIGITS], is_digit.float())
    return (digit_loss * is_digit).sum() / is_digit.sum().clamp(min=1) + reject_weight * reject_loss


class WeightAverage:
    """Exponential moving average of everything a network is made of, batch-norm statistics included."""

    def __init__(self, model: DigitNet, decay: float):
        self.model = DigitNet(model.config).to(next(model.parameters()).device)
        self.model.load_state_dict(model.state_dict())
        self.model.eval().requires_grad_(False)
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, model: DigitNet) -> None:
        self.steps += 1
        # Early on, a long average would mostly remember the random start.
        pull = 1 - min(self.decay, self.steps / (self.steps + 10))
        mine, new = list(self.model.state_dict().values()), list(model.state_dict().values())
        floats = [i for i, value in enumerate(mine) if value.is_floating_point()]
        torch._foreach_lerp_([mine[i] for i in floats], [new[i] for i in floats], pull)


@torch.inference_mode()
def measure(model: DigitNet, pools: dict[str, Pool], reject_weight: float) -> dict[str, float]:
    """Validation figures: the loss (mean over the pools, so that small ones count), and accuracy pool by pool."""
    device = next(model.parameters()).device
    figures, losses, rejects = {}, [], []
    for name, pool in pools.items():
        chunks = pool.digits.split(1024)
        logits = torch.cat([model(_to_input(chunk, device)).float().cpu() for chunk in chunks])
        is_digit = pool.labels >= 0
        rejects.append(F.binary_cross_entropy_with_logits(logits[:, DIGITS], is_digit.float()).item())
        if is_digit.any():
            losses.append(F.cross_entropy(logits[is_digit, :DIGITS], pool.labels[is_digit]).item())
            figures[f"{name}_accuracy"] = (logits[is_digit, :DIGITS].argmax(1) == pool.labels[is_digit]).double().mean().item()
        else:
            figures[f"{name}_refused"] = (logits[:, DIGITS] < 0).double().mean().item()
    figures["loss"] = sum(losses) / len(losses) + reject_weight * sum(rejects) / len(rejects)
    return figures


def _to_input(digits: torch.Tensor, device: torch.device) -> torch.Tensor:
    """uint8 N×28×28 → float32 N×1×28×28 in 0..1 on the device."""
    return digits.to(device).unsqueeze(1).float().div_(255)


def fit(
    config: TrainConfig,
    data: TrainingData,
    *,
    device: torch.device,
    start: DigitNet | None = None,
    resume: Path | None = None,
    on_epoch: Callable[[list[dict], DigitNet], None] = lambda history, best: None,
    progress: Callable = lambda steps, label: steps,
) -> tuple[DigitNet, list[dict]]:
    """Trains and returns (the best averaged network on the CPU, in evaluation mode; one row of figures an epoch).

    start: weights to begin with. resume: a file to keep the state of the run in and, where it exists, to go on from.
    on_epoch: told after each epoch of the rows and of the best network so far. progress: wraps the batches, such as tqdm.
    Ctrl-C ends training early and keeps the best network so far.
    """
    torch.manual_seed(config.seed)
    model = DigitNet(config.model)
    if start is not None:
        model.load_state_dict(start.state_dict())
    model.to(device, memory_format=torch.channels_last)
    average = WeightAverage(model, config.average)
    optimizer = torch.optim.AdamW(_parameter_groups(model, config.weight_decay), lr=config.lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=config.plateau_factor, patience=config.plateau_patience, threshold=config.min_gain
    )
    half = fast_bf16(device)
    best, best_state, since_best, history = math.inf, None, 0, []
    if resume is not None and resume.exists():
        best, best_state, since_best, history = _restore(resume, config, model, average, optimizer, scheduler)
    steps_per_epoch = -(-config.samples // config.batch_size)

    for epoch in range(len(history) + 1, config.epochs + 1):
        if since_best >= config.stop_patience or (history and history[-1]["next_lr"] < config.min_lr):
            break
        began = time.perf_counter()
        torch.manual_seed(config.seed * 1_000_003 + epoch)  # dropout
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        shown = data.epoch(config.samples, generator)
        model.train()
        total = torch.zeros((), device=device)
        batches = zip(shown.digits.split(config.batch_size), shown.labels.split(config.batch_size), strict=True)
        rate = optimizer.param_groups[0]["lr"]
        try:
            for step, (digits, labels) in enumerate(progress(batches, f"epoch {epoch}"), (epoch - 1) * steps_per_epoch):
                warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
                for group in optimizer.param_groups:
                    group["lr"] = rate * warm
                ink = augment(_to_input(digits, device), config.augment, generator)
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    logits = model(ink.contiguous(memory_format=torch.channels_last))
                loss = loss_of(logits.float(), labels.to(device), config.reject_weight)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                average.update(model)
                total += loss.detach()
        except KeyboardInterrupt:
            if best_state is None:
                best_state = _snapshot(average.model)
            break
        for group in optimizer.param_groups:
            group["lr"] = rate
        figures = measure(average.model, data.validation, config.reject_weight)
        # One meaning of "better" for the schedule, the stop and the kept weights.
        if figures["loss"] < best * (1 - config.min_gain):
            best, best_state, since_best = figures["loss"], _snapshot(average.model), 0
        else:
            since_best += 1
        scheduler.step(figures["loss"])
        row = {
            "epoch": epoch,
            "train_loss": total.item() / steps_per_epoch,
            **{f"validation_{name}": value for name, value in figures.items()},
            "lr": rate,
            "next_lr": optimizer.param_groups[0]["lr"],
            "seconds": round(time.perf_counter() - began, 2),
            "best": since_best == 0,
        }
        if not math.isfinite(row["train_loss"]):
            raise FloatingPointError(f"The loss became {row['train_loss']} in epoch {epoch}; try a lower --lr.")
        history.append(row)
        if resume is not None:
            _keep(resume, config, (best, best_state, since_best, history), model, average, optimizer, scheduler)
        on_epoch(history, _network(config.model, best_state))
    return _network(config.model, best_state or _snapshot(average.model)), history


def _parameter_groups(model: DigitNet, weight_decay: float) -> list[dict]:
    """Convolutions and the last layer's matrix decay; batch-norm and biases do not."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _snapshot(model: DigitNet) -> dict[str, torch.Tensor]:
    # state_dict() shares memory with the live weights: without clone() the "best" would go on changing.
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _network(config: ModelConfig, state: dict[str, torch.Tensor]) -> DigitNet:
    model = DigitNet(config)
    model.load_state_dict(state)
    return model.eval()


def _keep(path: Path, config: TrainConfig, progress: tuple, model, average, optimizer, scheduler) -> None:
    state = {
        "recipe": json.dumps(asdict(config), sort_keys=True),
        "progress": progress,
        "model": model.state_dict(),
        "average": average.model.state_dict(),
        "average_steps": average.steps,
        "optimizer": optimizer.state_dict(),
        "scheduler": {key: value for key, value in scheduler.state_dict().items() if isinstance(value, (int, float, str))},
    }
    checkpoints.write_atomically(path, lambda file: torch.save(state, file))


def _restore(path: Path, config: TrainConfig, model, average, optimizer, scheduler) -> tuple:
    try:
        state = checkpoints.read_weights(path)
        recipe = json.loads(state["recipe"])
        # How long to go on may change between the runs; nothing else may.
        same = recipe | {"epochs": config.epochs} == json.loads(json.dumps(asdict(config)))
        if same:
            model.load_state_dict(state["model"])
            average.model.load_state_dict(state["average"])
            average.steps = state["average_steps"]
            optimizer.load_state_dict(state["optimizer"])
            scheduler.load_state_dict(state["scheduler"])
            return state["progress"]
    # The unpickler and the zip reader raise whatever damaged bytes make them trip over.
    except Exception as error:
        raise CheckpointError(f"{path} is damaged, so the run cannot go on; start anew without --resume.") from error
    raise CheckpointError(f"{path} belongs to a run with other settings; use those, or start anew without --resume.")


def train(
    config: TrainConfig,
    root,
    folder: Path,
    *,
    out: Path | None = None,
    device: torch.device | None = None,
    start: Path | None = None,
    own: tuple[str, ...] = (),
    resume: bool = False,
    bar: bool = True,
    say: Callable[[str], None] = print,
) -> Path:
    """A whole run: data, fit, calibration, checkpoint. Returns the checkpoint's path: `out`, or FOLDER/digitnet.pt.

    FOLDER gets digitnet.pt (the best so far, after every better epoch), history.json, config.json and resume.pt; one run at
    a time may write there. start: a checkpoint to fine-tune, its shapes are kept; own: stroke files of the person's own.
    Raises DataError, DrawingError, CheckpointError: one sentence each.
    """
    with _alone_in(folder):
        return _train(config, root, folder, out, device, start, own, resume, bar, say)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Holds the folder against a second trainer, and clears away what a killed one left half written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written to ({error.strerror}); name another folder with --run.") from error
    try:
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of by the system, however this process ends
        except OSError as error:
            raise CheckpointError(
                f"Another training run is writing into {folder}; wait for its end or name another folder with --run."
            ) from error
        for left in folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)


def _train(config: TrainConfig, root, folder: Path, out, device, start, own, resume: bool, bar: bool, say) -> Path:
    from tqdm import tqdm

    from .calibrate import calibrate

    device = device or pick_device()
    parent = checkpoints.load(start) if start else None
    first = parent.model if parent else None
    if parent is not None:
        config = replace(config, model=replace(first.config, dropout=config.model.dropout))
    began = time.perf_counter()
    data = build(root, config.data, seed=config.seed, own=own, say=say)
    for note in data.notes:
        say(note)
    if first is None:
        every = torch.cat([pool.digits[:: max(1, len(pool) // 10_000)] for pool in data.pools.values()]).float() / 255
        config = replace(
            config, model=replace(config.model, mean=round(every.mean().item(), 4), std=round(every.std().item(), 4))
        )
    count = DigitNet(config.model).parameter_count
    say(f"Training {count:,} parameters on {device}, seed {config.seed}; Ctrl-C stops early and keeps the best so far.")
    path, kept = folder / "digitnet.pt", folder / "resume.pt"
    if not resume:
        kept.unlink(missing_ok=True)
    if not kept.exists():  # else the folder says with what the run began, and other settings are refused
        _write_json(folder / "config.json", asdict(config))

    def metadata(history: list[dict]) -> dict:
        best = [row for row in history if row["best"]][-1:] or history[-1:]
        return {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "epoch": best[0]["epoch"] if best else 0,
            "validation": {k.removeprefix("validation_"): v for k, v in best[0].items() if "validation_" in k} if best else {},
            "seed": config.seed,
            "seconds": round(sum(row["seconds"] for row in history), 1),
            "device": str(device),
            "threads": torch.get_num_threads(),
            "versions": {"torch": torch.__version__},
            "recipe": asdict(config),
            "pools": {name: len(pool) for name, pool in data.pools.items()},
            "writers": data.writers,
            "history": history,
            "started_from": parent and {"sha256": checkpoints.file_digest(start), **parent.metadata},
        }

    def on_epoch(history: list[dict], best: DigitNet) -> None:
        row = history[-1]
        if row["best"]:
            checkpoints.save(path, Checkpoint(best, metadata=_plain(metadata(history))))
        _write_json(folder / "history.json", history)
        figures = "  ".join(
            f"{key.removeprefix('validation_').replace('_', ' ')} {value * 100:.2f} %"
            for key, value in row.items()
            if key.endswith(("_accuracy", "_refused"))
        )
        mark = "best" if row["best"] else "    "
        figures += f"  lr {row['lr']:.1e}  {row['seconds']:.0f} s"
        say(f"epoch {row['epoch']:3d}  {mark}  loss {row['validation_loss']:.4f}  {figures}")

    def progress(batches, label: str):
        total = -(-config.samples // config.batch_size)
        return tqdm(batches, total=total, desc=label, unit="batch", leave=False, disable=not bar)

    best, history = fit(config, data, device=device, start=first, resume=kept, on_epoch=on_epoch, progress=progress)
    calibration, fitted = calibrate(best, data.validation)
    checkpoint = Checkpoint(best, calibration, _plain(metadata(history) | {"calibration": fitted}))
    checkpoints.save(path, checkpoint)
    _write_json(folder / "history.json", history)
    if out is not None:
        checkpoints.save(out, checkpoint)
        path = out
    say(f"Saved {path} after {time.perf_counter() - began:.0f} s.")
    return path


def _write_json(path: Path, value) -> None:
    text = json.dumps(value, indent=1) + "\n"
    checkpoints.write_atomically(path, lambda file: file.write(text.encode()))


def new_run(name: str) -> Path:
    """A folder under runs/ that is not there yet: a clock that was set back must not lead into an earlier run's."""
    folders = (Path("runs") / f"{name}{ending}" for ending in ("", *(f"-{number}" for number in range(2, 10_000))))
    return next(folder for folder in folders if not folder.exists())


def train_quick(out: Path, root=None, *, say: Callable[[str], None] = print) -> Path:
    """The quick recipe, saved as OUT: for the page's first start where there is no checkpoint. root: see data_root."""
    folder = new_run(f"quick-{datetime.now():%Y%m%d-%H%M%S}")
    return train(QUICK, root or data_root(), folder, out=out, say=say)


def _plain(value):
    """Tuples and other containers as lists and dicts: what a checkpoint's metadata may hold."""
    return json.loads(json.dumps(value))
