"""Temperatures, scales and thresholds fitted on what a network says of validation pools."""

import torch

from digitnet.calibrate import _platt, _temperature, _weighted_quantile, calibrate
from digitnet.dataset import Pool
from digitnet.model import DigitNet, ModelConfig


def test_the_temperature_that_made_the_labels_is_found():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 10, generator=generator, dtype=torch.float64) * 6
    labels = torch.multinomial((logits / 2.5).softmax(-1), 1, generator=generator)[:, 0]
    assert abs(_temperature(logits, labels, torch.ones(20_000, dtype=torch.float64)) - 2.5) < 0.1


def test_the_scale_that_parted_digits_from_others_is_found():
    generator = torch.Generator().manual_seed(0)
    logit = torch.randn(40_000, generator=generator, dtype=torch.float64) * 4
    is_digit = torch.rand(40_000, generator=generator, dtype=torch.float64) < (0.5 * logit).sigmoid()
    scale, shift = _platt(logit, is_digit, torch.ones(40_000, dtype=torch.float64))
    assert abs(scale - 0.5) < 0.05 and abs(shift) < 0.1
    assert _platt(logit, torch.ones(40_000, dtype=torch.bool), torch.ones(40_000)) == (1.0, 0.0)


def test_a_weighted_quantile_counts_weights():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert _weighted_quantile(values, torch.tensor([1.0, 1.0, 1.0, 1.0]), 0.3) == 2.0
    assert _weighted_quantile(values, torch.tensor([9.0, 1.0, 1.0, 1.0]), 0.3) == 1.0


def test_pools_of_every_sort_give_a_calibration():
    model = DigitNet(ModelConfig((4,), (1,))).eval()
    digits = Pool(torch.randint(0, 256, (40, 28, 28), dtype=torch.uint8), torch.arange(40) % 10)
    others = Pool(torch.randint(0, 256, (20, 28, 28), dtype=torch.uint8), torch.full((20,), -1))
    for pools in ({"mnist": digits}, {"mnist": digits, "others": others}):
        calibration, figures = calibrate(model, pools)
        assert 0.02 <= calibration.refuse_below <= 0.9 and calibration.temperature > 0
        assert 0 <= figures["accuracy"] <= 1 and figures["digits"] == 40
