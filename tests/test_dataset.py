"""What a run learns from: who is in, who is kept out, and in which shares."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from digitnet import dataset
from digitnet.dataset import DataConfig, Pool, TrainingData, build
from digitnet.drawings import part_of

SMALL = DataConfig(copies=1, doodles=27, pairs=10)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A data root with a little made-up pen data, and MNIST's place taken by random pictures."""

    def stand_in(root, *, train):
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (60_000, 28, 28), generator=generator, dtype=torch.uint8), torch.arange(60_000) % 10

    monkeypatch.setattr(dataset, "load_mnist", stand_in)
    (tmp_path / "pen").mkdir()
    rng = np.random.default_rng(0)
    for name, labels in (("hand", "0123456789"), ("letters", "abc")):
        with open(tmp_path / "pen" / f"{name}.jsonl", "w") as file:
            for writer in range(20):
                for label in labels:
                    strokes = [rng.normal(0, 100, (5, 2)).round(1).tolist()]
                    file.write(json.dumps({"label": label, "writer": f"w{writer}", "strokes": strokes}) + "\n")
    return tmp_path


def test_only_training_writers_are_trained_on(root):
    data = build(root, SMALL, seed=0, say=lambda text: None)
    training = {f"w{i}" for i in range(20) if part_of(f"w{i}") == "train"}
    assert set(data.writers) == training and 10 < len(training) < 20
    assert len(data.pools["mnist"]) == 55_000 and len(data.validation["mnist"]) == 5_000
    choose = [f"w{i}" for i in range(20) if part_of(f"w{i}") == "choose"]
    assert len(data.validation["drawings"]) == len(choose) * 10 * 2
    assert sum(data.shares.values()) == pytest.approx(1.0)
    assert (data.pools["others"].labels == -1).all() and (data.pools["drawings"].labels >= 0).all()


def test_report_writers_are_never_rendered(root, monkeypatch):
    seen = set()
    real = dataset.render

    def watched(drawings, **options):
        seen.update(drawing.writer for drawing in drawings)
        return real(drawings, **options)

    monkeypatch.setattr(dataset, "render", watched)
    build(root, SMALL, seed=0, say=lambda text: None)
    assert seen and not any(part_of(writer) == "report" for writer in seen if writer.startswith("w"))


def test_without_drawings_it_is_said_plainly(root):
    for path in (root / "pen").iterdir():
        path.unlink()
    data = build(root, SMALL, seed=0, say=lambda text: None)
    assert set(data.pools) == {"mnist", "others"}
    assert "none found" in data.notes[0] and "MNIST alone" in data.notes[0]


def test_own_drawings_are_added_in_their_share(root):
    data = build(root, SMALL, seed=0, own=[root / "pen" / "hand.jsonl"], say=lambda text: None)
    assert data.shares["own"] == pytest.approx(SMALL.own / (SMALL.mnist + SMALL.drawings + SMALL.others + SMALL.own))
    assert "200 drawings" in data.notes[-1]


def test_an_epoch_shows_each_pool_in_its_share_without_repeats_first():
    pools = {
        "a": Pool(torch.arange(100, dtype=torch.uint8).view(-1, 1, 1).expand(-1, 28, 28), torch.zeros(100, dtype=torch.long)),
        "b": Pool(torch.zeros(10, 28, 28, dtype=torch.uint8), torch.full((10,), -1)),
    }
    data = TrainingData(pools, {"a": 0.75, "b": 0.25}, {})
    shown = data.epoch(120, torch.Generator().manual_seed(0))
    assert (shown.labels == 0).sum() == 90 and (shown.labels == -1).sum() == 30
    values = shown.digits[shown.labels == 0, 0, 0]
    assert len(values.unique()) == 90
    again = data.epoch(120, torch.Generator().manual_seed(0))
    assert torch.equal(shown.digits, again.digits)
