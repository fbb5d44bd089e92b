"""Random views for training."""

import torch

from digitnet.augment import AugmentConfig, augment


def digits(n=64) -> torch.Tensor:
    batch = torch.zeros(n, 1, 28, 28)
    batch[:, :, 5:23, 12:16] = 1.0
    batch[:, :, 5:9, 4:16] = 1.0
    batch[:, :, 19:23, 12:22] = 1.0
    return batch


def test_each_digit_is_bent_its_own_way_within_range():
    bent = augment(digits(), AugmentConfig(), torch.Generator().manual_seed(0))
    assert bent.shape == (64, 1, 28, 28) and bent.dtype == torch.float32
    assert bent.min() >= 0 and bent.max() <= 1
    assert len({tuple(digit.flatten().tolist()) for digit in bent}) == 64
    assert (bent.sum((1, 2, 3)) > 0.3 * digits().sum((1, 2, 3))).all()


def test_same_generator_state_same_result():
    first = augment(digits(), AugmentConfig(), torch.Generator().manual_seed(7))
    assert torch.equal(first, augment(digits(), AugmentConfig(), torch.Generator().manual_seed(7)))
    assert not torch.equal(first, augment(digits(), AugmentConfig(), torch.Generator().manual_seed(8)))


def test_no_bending_at_all_is_the_digit():
    still = AugmentConfig(turn=0, lean=0, zoom=0, shift=0, bend=0, pen=0, fade=1)
    assert torch.allclose(augment(digits(), still, torch.Generator().manual_seed(0)), digits(), atol=1e-4)


def test_nothing_is_mirrored():
    batch = digits(200)
    bent = augment(batch, AugmentConfig(), torch.Generator().manual_seed(1))
    nearer = ((bent - batch).abs().sum((1, 2, 3)) < (bent - batch.flip(3)).abs().sum((1, 2, 3))).double().mean()
    assert nearer > 0.95
