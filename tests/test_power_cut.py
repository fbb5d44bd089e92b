"""A training run killed at any moment: the checkpoint loads, and --resume goes on to the very weights of an unbroken run.

Each run is a real process that SIGKILLs itself between two steps of the work or of a write, so that nothing of its own can
tidy up; a fork server that has already imported torch makes them cheap.
"""

import functools
import json
import multiprocessing
import os
import random
import shlex
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import PATIENCE, ROOT

from digitnet import checkpoint, train
from digitnet.checkpoint import CheckpointError, weights_digest
from digitnet.dataset import Pool, TrainingData

COMMAND = shlex.split("train --epochs 3 --samples 192 --batch-size 64 --widths 8 --blocks 1 --seed 4 --device cpu")
WRITES = ("torch.save", "os.fsync", "os.chmod", "os.replace")  # what one atomic write does, in this order
STEPS = 9  # 3 epochs of 3 batches


def tiny_data(*_, **__) -> TrainingData:
    """One to ten bars over noise, and noise alone."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(200) % 10
    digits = torch.randint(0, 60, (200, 28, 28), generator=generator, dtype=torch.uint8)
    for digit, label in zip(digits, labels, strict=True):
        digit[4 : 6 + 2 * int(label) : 2, 4:24] = 255
    noise = Pool(torch.randint(0, 255, (40, 28, 28), generator=generator, dtype=torch.uint8), torch.full((40,), -1))
    shown = {"mnist": Pool(digits[:160], labels[:160]), "others": noise}
    return TrainingData(shown, {"mnist": 0.8, "others": 0.2}, {"mnist": Pool(digits[160:], labels[160:]), "others": noise})


def run_command(arguments: list[str], dies: tuple[str, int] | None) -> None:
    """python -m digitnet ARGUMENTS in this process, on tiny data. dies: at the n-th call of this function, killed."""
    from digitnet.__main__ import main

    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    train.build = tiny_data
    if dies:
        lay_mine(*dies)
    os._exit(main(arguments))


def lay_mine(name: str, nth: int) -> None:
    owner = {"torch": torch, "os": os, "train": train}[name.split(".")[0]]
    attribute, calls = name.split(".")[1], 0
    real = getattr(owner, attribute)

    @functools.wraps(real)
    def mined(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == nth:
            if name == "torch.save":  # half of the file is on the disk
                arguments[1].write(b"PK\x03\x04" + bytes(5000))
                arguments[1].flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    setattr(owner, attribute, mined)


@pytest.fixture(scope="module")
def run():
    """run(folder, resume=..., dies=...) → exit code of the run; negative: the signal that killed it."""
    context = multiprocessing.get_context("forkserver")
    # Python 3.11's fork server imports what it is told to by its own path alone.
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    context.set_forkserver_preload(
        ["digitnet.train", "digitnet.calibrate", "digitnet.__main__", "test_power_cut", "torch._dynamo", "tqdm"]
    )

    def run_once(folder: Path, *extra: str, dies: tuple[str, int] | None = None) -> int:
        process = context.Process(target=run_command, args=([*COMMAND, "--run", str(folder), *extra], dies))
        process.start()
        process.join(5 * PATIENCE)
        code = process.exitcode
        process.close()
        return code

    return run_once


def outcome(folder: Path) -> tuple:
    """What a run comes to: the weights' digest, the calibration, and every figure of its history that is no time."""
    loaded = checkpoint.load(folder / "digitnet.pt")
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in loaded.metadata["history"]]
    written = [
        {k: v for k, v in row.items() if k != "seconds"} for row in json.loads((folder / "history.json").read_text("utf-8"))
    ]
    assert rows == written
    return weights_digest(loaded.model.state_dict()), loaded.calibration, rows


@pytest.fixture(scope="module")
def unbroken(run, tmp_path_factory) -> tuple:
    folder = tmp_path_factory.mktemp("unbroken")
    assert run(folder) == 0
    return outcome(folder)


chance = random.Random(6)
MOMENTS = [
    *(("train.augment", step) for step in sorted(chance.sample(range(1, STEPS + 1), 4))),
    # An epoch writes resume.pt, digitnet.pt (where it is better) and history.json; the run config.json, and all at its end.
    *((name, nth) for name in WRITES for nth in sorted(chance.sample(range(1, 9), 3)) if name != "torch.save"),
    *(("torch.save", nth) for nth in (1, 2, 3, 5)),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment[0]}-{moment[1]}")
def test_killed_at_any_moment_it_goes_on_to_the_same_weights(run, unbroken, tmp_path, moment):
    folder = tmp_path / "run"
    assert run(folder, dies=moment) == -signal.SIGKILL
    if (folder / "digitnet.pt").exists():
        checkpoint.load(folder / "digitnet.pt")
    for name in ("history.json", "config.json"):
        if (folder / name).exists():
            json.loads((folder / name).read_text("utf-8"))
    assert run(folder, "--resume") == 0
    assert outcome(folder) == unbroken
    assert not list(folder.glob(".*.tmp")), "what the killed run left half written is cleared away"


def test_killed_again_and_again_it_still_arrives(run, unbroken, tmp_path):
    folder = tmp_path / "run"
    for moment in (("train.augment", 5), ("os.replace", 1), ("train.augment", 2), ("os.fsync", 3), ("torch.save", 2)):
        assert run(folder, "--resume", dies=moment) == -signal.SIGKILL
    assert run(folder, "--resume") == 0
    assert outcome(folder) == unbroken


def test_a_finished_run_resumed_is_the_same_run(run, unbroken, tmp_path):
    folder = tmp_path / "run"
    assert run(folder) == 0 and run(folder, "--resume") == 0
    assert outcome(folder) == unbroken


def test_a_stale_resume_file_is_refused_and_kept(run, tmp_path):
    folder = tmp_path / "run"
    assert run(folder, dies=("train.augment", 8)) == -signal.SIGKILL
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run(folder, "--resume", "--lr", "0.01") == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_mistake_in_the_data_costs_no_resume_file(tmp_path, monkeypatch):
    from digitnet.mnist import DataError

    (tmp_path / "resume.pt").write_bytes(b"the state of a week")

    def absent(*_, **__):
        raise DataError("MNIST is not there.")

    monkeypatch.setattr(train, "build", absent)
    with pytest.raises(DataError):
        train.train(train.QUICK, tmp_path, tmp_path, device=torch.device("cpu"), bar=False, say=lambda text: None)
    assert (tmp_path / "resume.pt").read_bytes() == b"the state of a week"


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_in_the_resume_file_is_refused_or_without_effect(kept, tmp_path, seed):
    config, content, state = kept
    flipped = bytearray(content)
    flipped[random.Random(seed).randrange(len(content))] ^= 1 << seed % 8
    (tmp_path / "resume.pt").write_bytes(flipped)
    try:
        again = checkpoint.read_weights(tmp_path / "resume.pt")
    except Exception:
        with pytest.raises(CheckpointError, match="resume.pt is damaged.* start anew without --resume"):
            train.fit(config, tiny_data(), device=torch.device("cpu"), resume=tmp_path / "resume.pt")
    else:
        assert weights_digest(again["model"]) == state["digest"] and again["recipe"] == state["recipe"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A recipe, the bytes of the resume file of its run, and what stands in it."""
    path = tmp_path_factory.mktemp("kept") / "resume.pt"
    config = replace(train.QUICK, epochs=1, samples=64, model=train.ModelConfig((8,), (1,)))
    train.fit(config, tiny_data(), device=torch.device("cpu"), resume=path)
    state = checkpoint.read_weights(path)
    return config, path.read_bytes(), {"digest": weights_digest(state["model"]), "recipe": state["recipe"]}
