"""Checkpoints: what is saved comes back, what is not ours is refused, and a failed save harms nothing."""

import errno
import pickle
import random
import struct
import zipfile

import pytest
import torch

from digitnet import checkpoint
from digitnet.checkpoint import Calibration, Checkpoint, CheckpointError
from digitnet.model import DigitNet, ModelConfig


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "small.pt"
    model = DigitNet(ModelConfig((8,), (1,))).eval()
    checkpoint.save(path, Checkpoint(model, Calibration(temperature=1.5), {"seed": 3, "writers": ["a"]}))
    return path, model


def refused(path) -> str:
    with pytest.raises(CheckpointError) as refusal:
        checkpoint.load(path)
    sentence = str(refusal.value)
    assert str(path) in sentence and "\n" not in sentence
    assert "python -m digitnet train" in sentence or "git " in sentence
    return sentence


def test_what_is_saved_comes_back(saved):
    path, model = saved
    loaded = checkpoint.load(path)
    ink = torch.rand(3, 1, 28, 28)
    assert torch.equal(loaded.model(ink), model(ink))
    assert loaded.calibration.temperature == 1.5
    assert loaded.metadata == {"seed": 3, "writers": ["a"]}
    assert not loaded.model.training


def test_a_missing_file_names_the_command_that_makes_one(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.pt")


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_file_is_refused(saved, tenth):
    path, _ = saved
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * tenth // 10])
    refused(path)


def test_flipped_bits_in_the_weights_are_noticed(saved):
    path, model = saved
    content = bytearray(path.read_bytes())
    weights = model.head.weight.detach().numpy().tobytes()
    place = bytes(content).find(weights)
    assert place > 0
    content[place + 40] ^= 1  # the last bit of a number: finite, plausible, wrong
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("seed", range(60))
def test_a_flipped_bit_anywhere_is_refused_or_without_effect(saved, seed):
    """torch compares no check sums; without ours, a bit in the calibration would change every answer unnoticed."""
    path, model = saved
    content = bytearray(path.read_bytes())
    content[random.Random(seed).randrange(len(content))] ^= 1 << seed % 8
    path.write_bytes(content)
    try:
        loaded = checkpoint.load(path)
    except CheckpointError:
        refused(path)
    else:
        assert checkpoint.weights_digest(loaded.model.state_dict()) == checkpoint.weights_digest(model.state_dict())
        assert loaded.calibration == Calibration(temperature=1.5) and loaded.metadata == {"seed": 3, "writers": ["a"]}


def test_a_flipped_bit_in_the_calibration_is_noticed(saved):
    path, _ = saved
    content = bytearray(path.read_bytes())
    place = bytes(content).find(struct.pack(">d", 1.5))  # as a pickle writes it
    assert place > 0
    content[place + 2] ^= 16
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(saved, value):
    path, model = saved
    model.head.weight.data[0, 0] = value
    checkpoint.save(path, Checkpoint(model))
    assert "finite" in refused(path)


def test_weights_of_another_shape_are_refused(saved):
    path, _ = saved
    content = torch.load(path, weights_only=True)
    content["config"]["widths"] = [16]
    torch.save(content, path)
    assert "do not fit" in refused(path)


def test_a_missing_weight_is_refused(saved):
    path, _ = saved
    content = torch.load(path, weights_only=True)
    del content["state"]["head.bias"]
    torch.save(content, path)
    assert "do not fit" in refused(path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "digitnet-2"},
        {"config": {"widths": ["8"], "blocks": [1]}},
        {"config": {"widths": [-8], "blocks": [1]}},
        {"config": {"widths": [], "blocks": []}},
        {"config": {"colour": "blue"}},
        {"config": 7},
        {"state": [1, 2]},
        {"state": {"head.bias": "text"}},
        {"calibration": {"temperature": "warm"}},
        {"calibration": {"temperature": float("nan")}},
        {"calibration": {"temperature": 0.0}},
        {"calibration": {"temperature": 10**400}},
        {"calibration": None},
        {"metadata": 5},
        {"digest": None},
    ],
    ids=str,
)
def test_one_part_that_is_not_as_it_should_be_is_enough(saved, change):
    path, _ = saved
    torch.save(torch.load(path, weights_only=True) | change, path)
    refused(path)


def test_other_programs_files_are_refused(saved, tmp_path):
    path = tmp_path / "other.pt"
    for content in (DigitNet(ModelConfig((8,), (1,))), torch.nn.Linear(3, 3).state_dict(), torch.zeros(3)):
        torch.save(content, path)
        refused(path)
    torch.save(torch.load(saved[0], weights_only=True), path, _use_new_zipfile_serialization=False)
    refused(path)
    for text in (b"", b"weights", b"<html></html>", bytes(5000), "völlig anders".encode("utf-16")):
        path.write_bytes(text)
        refused(path)


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, [1, 2], "weights", {"format": "other"}])
def test_a_foreign_file_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "foreign.pt")
    refused(tmp_path / "foreign.pt")


def test_a_network_too_large_to_build_is_refused(saved):
    path, _ = saved
    content = torch.load(path, weights_only=True)
    content["config"]["widths"] = [10**6]
    torch.save(content, path)
    assert "larger" in refused(path)


class Malice:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize(
    "writer", [lambda value, path: torch.save(value, path), lambda value, path: path.write_bytes(pickle.dumps(value))]
)
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, writer):
    mark = tmp_path / "ran"
    path = tmp_path / "malice.pt"
    writer({"format": "digitnet-1", "state": Malice(mark)}, path)
    refused(path)
    assert not mark.exists()


def test_an_lfs_pointer_is_told_as_such(tmp_path):
    path = tmp_path / "pointer.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refused(path)


def test_a_folder_and_another_zip_are_refused(tmp_path):
    refused(tmp_path)
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as other:
        other.writestr("readme.txt", "hello")
    refused(tmp_path / "other.pt")


def test_an_interrupted_save_leaves_the_old_file(saved, monkeypatch):
    path, _ = saved
    before = path.read_bytes()

    def cut_short(content, file):
        file.write(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", cut_short)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, Checkpoint(DigitNet(ModelConfig((8,), (1,)))))
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(saved, monkeypatch):
    path, _ = saved
    before = path.read_bytes()

    def full(content, file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left") as refusal:
        checkpoint.save(path, Checkpoint(DigitNet(ModelConfig((8,), (1,)))))
    assert str(path) in str(refusal.value)
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_the_shipped_checkpoint_says_how_it_was_made():
    card = checkpoint.load().metadata
    assert {"epoch", "validation", "seed", "versions", "created", "recipe", "writers", "history"} <= set(card)


def test_no_writer_kept_for_choosing_or_reporting_was_trained_on():
    from digitnet.drawings import part_of

    writers = checkpoint.load().metadata["writers"]
    assert writers and all(part_of(writer) == "train" for writer in writers)
