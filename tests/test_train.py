"""The training loop on a small problem: what is kept, when the rate falls, what a seed and a resumed run repeat."""

import json
from dataclasses import replace

import pytest
import torch

from digitnet import checkpoint, train
from digitnet.augment import AugmentConfig
from digitnet.dataset import Pool, TrainingData
from digitnet.model import ModelConfig
from digitnet.train import QUICK, TrainConfig, fit, loss_of

CPU = torch.device("cpu")
TINY = TrainConfig(
    epochs=3,
    samples=256,
    batch_size=64,
    warmup=4,
    average=0.8,
    model=ModelConfig((8,), (1,), dropout=0.1),
    augment=AugmentConfig(turn=3, lean=0, zoom=0, shift=0.5, bend=0, pen=0),
)


def stripes(n: int, seed: int) -> Pool:
    """Ten classes anybody can learn: one to ten bars, over noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (n,), generator=generator)
    digits = torch.randint(0, 60, (n, 28, 28), generator=generator, dtype=torch.uint8)
    for i, label in enumerate(labels):
        digits[i, 4 : 6 + 2 * label : 2, 4:24] = 255
    return Pool(digits, labels)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    noise = torch.randint(0, 255, (128, 28, 28), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    others = Pool(noise, torch.full((128,), -1))
    return TrainingData(
        {"mnist": stripes(512, 1), "others": others},
        {"mnist": 0.8, "others": 0.2},
        {"mnist": stripes(128, 2), "others": others},
    )


def figures(history: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def test_it_learns(data):
    _, history = fit(replace(TINY, epochs=12, samples=512, lr=0.01), data, device=CPU)
    assert history[-1]["validation_loss"] < 0.7 * history[0]["validation_loss"]
    assert history[-1]["validation_mnist_accuracy"] > 0.5


def test_same_seed_same_history_and_another_seed_another(data):
    first, again = fit(TINY, data, device=CPU)[1], fit(TINY, data, device=CPU)[1]
    assert figures(first) == figures(again)
    assert figures(first) != figures(fit(replace(TINY, seed=1), data, device=CPU)[1])


def test_the_kept_weights_are_the_best_epochs(data, monkeypatch):
    """The validation loss is scripted; the network returned must be the one measured at its lowest."""
    losses, measured = iter([0.9, 0.5, 0.7, 0.8]), []

    def scripted(model, pools, reject_weight):
        measured.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"loss": next(losses)}

    monkeypatch.setattr(train, "measure", scripted)
    best, history = fit(replace(TINY, epochs=4), data, device=CPU)
    assert [row["best"] for row in history] == [True, True, False, False]
    kept = best.state_dict()
    assert all(torch.equal(kept[name], measured[1][name]) for name in kept)
    assert any(not torch.equal(measured[1][name], measured[3][name]) for name in kept)


def test_the_rate_falls_before_training_stops(data, monkeypatch):
    monkeypatch.setattr(train, "measure", lambda model, pools, weight: {"loss": 1.0})
    config = replace(TINY, epochs=40, plateau_patience=1, stop_patience=5, samples=64)
    _, history = fit(config, data, device=CPU)
    rates = [row["next_lr"] for row in history]
    assert len(history) == 1 + config.stop_patience  # the first is the best; then five without a gain
    assert rates[1] == config.lr and rates[2] == pytest.approx(config.lr * config.plateau_factor)
    assert rates[4] == pytest.approx(config.lr * config.plateau_factor**2)


def test_a_gain_too_small_counts_as_none_for_all_three(data, monkeypatch):
    losses = iter([1.0, 0.999, 0.998, 0.997, 0.996, 0.9])
    monkeypatch.setattr(train, "measure", lambda model, pools, weight: {"loss": next(losses)})
    _, history = fit(replace(TINY, epochs=6, samples=64, stop_patience=5, min_gain=0.01), data, device=CPU)
    assert [row["best"] for row in history] == [True, False, False, False, False, True]
    assert history[2]["next_lr"] < TINY.lr


def test_ctrl_c_keeps_the_best_so_far(data):
    def interrupted(batches, label):
        for number, batch in enumerate(batches):
            if label == "epoch 3" and number == 1:
                raise KeyboardInterrupt
            yield batch

    model, history = fit(replace(TINY, epochs=9), data, device=CPU, progress=interrupted)
    assert len(history) == 2
    whole, _ = fit(replace(TINY, epochs=2), data, device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), whole.state_dict().values(), strict=True))


def test_a_resumed_run_ends_like_an_unbroken_one(data, tmp_path):
    whole, history = fit(replace(TINY, epochs=4), data, device=CPU)
    kept = tmp_path / "resume.pt"
    fit(replace(TINY, epochs=2), data, device=CPU, resume=kept)
    model, resumed = fit(replace(TINY, epochs=4), data, device=CPU, resume=kept)
    assert figures(resumed) == figures(history)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), whole.state_dict().values(), strict=True))


def test_a_resume_file_of_another_recipe_or_damaged_is_refused(data, tmp_path):
    kept = tmp_path / "resume.pt"
    fit(replace(TINY, epochs=1), data, device=CPU, resume=kept)
    with pytest.raises(checkpoint.CheckpointError, match="other settings"):
        fit(replace(TINY, lr=0.01), data, device=CPU, resume=kept)
    kept.write_bytes(kept.read_bytes()[:500])
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        fit(TINY, data, device=CPU, resume=kept)


def test_the_loss_of_others_moves_only_the_last_logit():
    logits = torch.zeros(2, 11, requires_grad=True)
    loss_of(logits, torch.tensor([3, -1]), 0.5).backward()
    assert logits.grad[1, :10].abs().sum() == 0 and logits.grad[1, 10] > 0
    assert logits.grad[0, 3] < 0 and logits.grad[0, 10] < 0


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"lr": 0.0}, {"lr": 2.0}, {"batch_size": 0}, {"stop_patience": 1}])
def test_contradictions_are_refused_at_construction(wrong):
    with pytest.raises(ValueError):
        TrainConfig(**wrong)


def test_a_whole_run_writes_a_checkpoint_that_loads_and_says_how_it_was_made(data, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "build", lambda *args, **options: data)
    said = []
    path = train.train(TINY, tmp_path, tmp_path / "run", out=tmp_path / "out.pt", device=CPU, bar=False, say=said.append)
    loaded = checkpoint.load(path)
    assert path == tmp_path / "out.pt" and (tmp_path / "run" / "digitnet.pt").exists()
    assert loaded.metadata["seed"] == 0 and loaded.metadata["recipe"]["lr"] == TINY.lr
    assert loaded.metadata["epoch"] == [row["epoch"] for row in loaded.metadata["history"] if row["best"]][-1]
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert len(history) == 3
    assert {"train_loss", "validation_loss", "validation_mnist_accuracy", "lr", "seconds"} <= set(history[0])
    assert any("best" in line for line in said)


def test_fine_tuning_starts_from_the_weights_given(data, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "build", lambda *args, **options: data)
    quiet = {"device": CPU, "bar": False, "say": lambda text: None}
    first = train.train(replace(TINY, epochs=6), tmp_path, tmp_path / "one", **quiet)
    before = checkpoint.load(first).metadata["history"][-1]["validation_loss"]
    second = train.train(replace(TINY, epochs=1, lr=1e-5), tmp_path, tmp_path / "two", start=first, **quiet)
    after = checkpoint.load(second).metadata["history"][0]["validation_loss"]
    assert after < 1.2 * before  # a fresh network would begin far above


def test_the_quick_recipe_needs_no_drawings():
    assert not QUICK.data.use_drawings and QUICK.epochs * QUICK.samples < 600_000
