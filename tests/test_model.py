"""DigitNet and its configuration."""

import pytest
import torch

from digitnet import Recognizer
from digitnet.model import OUTPUTS, DigitNet, ModelConfig, folded


def trained_a_little(config: ModelConfig) -> DigitNet:
    model = DigitNet(config)
    model.train()
    for _ in range(3):  # batch-norm statistics away from their start
        model(torch.rand(16, 1, 28, 28))
    return model.eval()


@pytest.mark.parametrize(
    "config",
    [ModelConfig(), ModelConfig((8,), (1,)), ModelConfig((8, 8, 16), (1, 2, 1), stem_kernel=3, stem_stride=1)],
)
def test_ink_in_eleven_logits_out(config):
    assert trained_a_little(config)(torch.rand(5, 1, 28, 28)).shape == (5, OUTPUTS)


@pytest.mark.parametrize("stride", [1, 2])
def test_folding_batch_norm_changes_no_answer(stride):
    model = trained_a_little(ModelConfig((8, 16), (1, 2), stem_stride=stride))
    ink = torch.rand(4, 1, 28, 28)
    with torch.inference_mode():
        assert torch.allclose(folded(model)(ink), model(ink), atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded(model).modules())


def test_dropout_acts_in_training_only():
    model = trained_a_little(ModelConfig((8,), (1,), dropout=0.5))
    ink = torch.rand(2, 1, 28, 28)
    assert torch.equal(model(ink), model(ink))
    model.train()
    assert not torch.equal(model(ink), model(ink))


def test_normalisation_lives_inside():
    model = DigitNet(ModelConfig((8,), (1,), mean=0.2, std=0.5))
    assert {"mean", "std"} <= set(model.state_dict())
    assert not {"mean", "std"} & {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    "wrong",
    [
        {"widths": (8, 16), "blocks": (1,)},
        {"widths": (), "blocks": ()},
        {"widths": (0,), "blocks": (1,)},
        {"stem_kernel": 4},
        {"stem_stride": 3},
        {"dropout": 1.0},
        {"std": 0.0},
    ],
)
def test_contradictions_are_refused_at_construction(wrong):
    with pytest.raises(ValueError):
        ModelConfig(**wrong)


def test_the_shipped_network_stays_small():
    from digitnet import checkpoint

    assert checkpoint.load().model.parameter_count <= 1_000_000
    assert Recognizer.load().card["recipe"]["seed"] == Recognizer.load().card["seed"]
