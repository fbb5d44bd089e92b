"""MNIST as tensors: a seeded split into train and validation, and the test set apart.

torchvision reads and downloads it; it is imported only here and only when asked, for it costs a server seconds and memory.
"""

import hashlib
import os
from pathlib import Path

import torch

VALIDATION = 5_000
DISPUTED = (947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729)
"""Test labels most raters dispute (Northcutt, Athalye & Mueller 2021, cleanlab)."""
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class DataError(RuntimeError):
    """Data that is missing or damaged. Its text is one sentence that says what to do."""


def data_root(given: str | None = None) -> Path:
    """Where data lies: `given` (--data), else DIGITNET_DATA, else data/ in the working directory."""
    return Path(given or os.environ.get("DIGITNET_DATA") or "data")


def load_mnist(root, *, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(digits uint8 N×28×28, labels int64 N) of the 60,000 training or 10,000 test pictures.

    root: the data root, holding MNIST/raw; downloaded there where it is missing. Raises DataError without both data and
    network, and for files that are not MNIST's.
    """
    from torchvision.datasets import MNIST

    root = Path(root)
    raw = root / "MNIST" / "raw"
    missing = [name for name in SHA256 if not (raw / name).is_file()]
    try:
        if not missing:
            _check(raw)
        data = MNIST(root, train=train, download=bool(missing))
        if missing:
            _check(raw)
    except DataError:
        raise
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"MNIST is not in {raw} and could not be downloaded ({type(error).__name__}); connect to the internet, or "
            "name a folder that holds it with --data or DIGITNET_DATA."
        ) from error
    return data.data, data.targets


def _check(raw: Path) -> None:
    for name, expected in SHA256.items():
        if hashlib.sha256((raw / name).read_bytes()).hexdigest() != expected:
            raise DataError(f"{raw / name} is damaged or not MNIST's; delete it and run the command again.")


def split(digits: torch.Tensor, labels: torch.Tensor, *, seed: int = 0):
    """((digits, labels) to train on, (digits, labels) to validate on): all but VALIDATION, and VALIDATION, by seed."""
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))
    kept, held = order[VALIDATION:], order[:VALIDATION]
    return (digits[kept], labels[kept]), (digits[held], labels[held])
