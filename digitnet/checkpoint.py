"""Weights that describe themselves: config, weights, calibration and plain metadata in one .pt file.

Written atomically, loaded with weights_only=True, strictly, and checked: keys, shapes, finiteness and a digest of the
weights' bytes. Whatever is not a whole file of ours is refused with one sentence; nothing is ever loaded unsafely.
"""

import hashlib
import os
import tempfile
import zipfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch

from .model import DigitNet, ModelConfig

FORMAT = "digitnet-1"
MAX_BYTES = 64 * 2**20  # ours are near 1.5 MB; a larger file is not ours
DEFAULT_PATH = Path(__file__).resolve().parent.parent / "checkpoints" / "digitnet.pt"
LFS_MARK = b"version https://git-lfs"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used. Its text names the file and the next command."""


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities and verdicts; fitted on validation data, never on test data.

    temperature: divides the ten digit logits. digit_scale, digit_shift: p_digit = sigmoid(scale · logit + shift).
    refuse_below: p_digit under which ink is "not_a_digit". doubt_below: p_digit or confidence under which it is "unsure".
    """

    temperature: float = 1.0
    digit_scale: float = 1.0
    digit_shift: float = 0.0
    refuse_below: float = 0.5
    doubt_below: float = 0.7


@dataclass(frozen=True)
class Checkpoint:
    """A network, ready in evaluation mode, with its calibration and what is known of its making (plain values)."""

    model: DigitNet
    calibration: Calibration = field(default_factory=Calibration)
    metadata: dict = field(default_factory=dict)


def weights_digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names and bytes of the weights, hex."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def file_digest(path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint so that PATH holds either the old file or the whole new one, whatever happens meanwhile.

    metadata: dict, list, str, numbers, bool and None only. Raises CheckpointError where the disk refuses.
    """
    state = {name: value.detach().cpu().clone() for name, value in checkpoint.model.state_dict().items()}
    config = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(checkpoint.model.config).items()}
    content = {
        "format": FORMAT,
        "config": config,
        "state": state,
        "digest": weights_digest(state),
        "calibration": asdict(checkpoint.calibration),
        "metadata": checkpoint.metadata,
    }
    write_atomically(path, lambda file: torch.save(content, file))


def write_atomically(path, write) -> None:
    """Calls write(file) on a new binary file beside PATH and moves it over PATH once it is safely on the disk.

    Raises CheckpointError naming PATH where that fails; PATH is then as it was.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # a temporary file is private; a checkpoint is for everybody who may read the folder
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        # torch's writer reports a full disk as RuntimeError.
        if isinstance(error, (OSError, RuntimeError)):
            raise CheckpointError(
                f"{path} could not be written ({error}); the file that was there before is untouched: free some space or "
                "name another place with --out."
            ) from error
        raise


def _sync_folder(folder: Path) -> None:
    """Until the folder is on the disk too, a power cut may bring the old file back."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_weights(path):
    """torch.load of a whole file that torch.save wrote: weights and plain values only, onto the CPU.

    Raises whatever damaged bytes make the readers trip over; torch itself does not compare check sums.
    """
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile(f"{path}: a check sum does not fit")
    return torch.load(path, map_location="cpu", weights_only=True)


def load(path=None) -> Checkpoint:
    """Reads a checkpoint; None is the repository's own. Raises CheckpointError, in one sentence, for anything else."""
    path = Path(DEFAULT_PATH if path is None else path)
    content = _read(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _refusal(path, "is not a digitnet checkpoint")
    try:
        config = ModelConfig(**content["config"])
        calibration = Calibration(**{key: float(value) for key, value in content["calibration"].items()})
        state, metadata = content["state"], dict(content["metadata"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _refusal(path, "does not describe a network this version of digitnet knows") from error
    if config_too_large(config):
        raise _refusal(path, "describes a network far larger than digitnet's")
    model = DigitNet(config)
    try:
        model.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise _refusal(path, "holds weights that do not fit the network it describes") from error
    weights = model.state_dict()
    if not all(torch.isfinite(value).all() for value in weights.values()):
        raise _refusal(path, "holds weights that are not finite numbers")
    if weights_digest(weights) != content.get("digest"):
        raise _refusal(path, "is damaged: its weights are not the ones that were saved")
    values = [getattr(calibration, item.name) for item in fields(calibration)]
    if not torch.isfinite(torch.tensor(values)).all() or calibration.temperature <= 0:
        raise _refusal(path, "holds a calibration that is not finite numbers")
    return Checkpoint(model.eval(), calibration, metadata)


def config_too_large(config: ModelConfig) -> bool:
    """Whether building the network would itself be an attack on memory."""
    return max(config.widths) > 1024 or sum(config.blocks) > 64 or config.stem_kernel > 15


def _read(path: Path):
    if path.is_dir():
        raise _refusal(path, "is a folder, not a checkpoint")
    try:
        with open(path, "rb") as file:
            start = file.read(len(LFS_MARK))
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; train one with: python -m digitnet train --out {path}") from error
    except OSError as error:
        raise _refusal(path, f"cannot be read ({error.strerror})") from error
    if start == LFS_MARK:
        raise CheckpointError(f"{path} is only a Git LFS pointer to the weights; fetch them with: git lfs pull")
    if size > MAX_BYTES:
        raise _refusal(path, f"is larger than {MAX_BYTES // 2**20} MB, so it is not a digitnet checkpoint")
    try:
        return read_weights(path)
    # The unpickler and the zip reader raise whatever damaged bytes make them trip over.
    except Exception as error:
        raise _refusal(path, "is damaged, or holds more than weights and was not opened") from error


def _refusal(path: Path, why: str) -> CheckpointError:
    restore = f"git checkout -- {path}" if path == DEFAULT_PATH else f"python -m digitnet train --out {path}"
    return CheckpointError(f"{path} {why}; restore it, or make a new one with: {restore}")
