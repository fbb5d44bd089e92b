"""The warp and the fixed views."""

import torch

from digitnet.views import VIEWS, View, Viewer, affine, thicken, warp


def a_digit() -> torch.Tensor:
    digit = torch.zeros(1, 1, 28, 28)
    digit[0, 0, 5:24, 13:16] = 1.0
    digit[0, 0, 5:8, 8:16] = 1.0
    return digit


def matrices(n=1, **values) -> torch.Tensor:
    given = {"turn": 0.0, "lean": 0.0, "zoom_x": 1.0, "zoom_y": 1.0, "right": 0.0, "down": 0.0} | values
    return affine(**{name: torch.full((n,), value) for name, value in given.items()})


def test_no_movement_is_the_digit_itself():
    digit = a_digit()
    assert torch.allclose(warp(digit, matrices()), digit, atol=1e-5)


def test_a_shift_moves_the_ink_by_as_many_pixels():
    digit = a_digit()
    assert torch.allclose(warp(digit, matrices(right=2.0, down=1.0)), digit.roll((1, 2), (2, 3)), atol=1e-4)


def test_a_zoom_makes_the_digit_larger():
    digit = a_digit()
    assert warp(digit, matrices(zoom_x=1.2, zoom_y=1.2)).sum() > 1.3 * digit.sum()


def test_a_turn_is_clockwise():
    bar = torch.zeros(1, 1, 28, 28)
    bar[0, 0, 4:14, 13:15] = 1.0  # the upper half of a vertical bar
    turned = warp(bar, matrices(turn=torch.pi / 4))[0, 0]
    assert turned[:, 15:].sum() > 5 * turned[:, :13].sum()


def test_thicken_adds_ink_and_thins_it():
    digit = a_digit()
    assert thicken(digit, torch.tensor([1.0])).sum() > digit.sum() > thicken(digit, torch.tensor([-1.0])).sum()
    assert torch.equal(thicken(digit, torch.tensor([0.0])), digit)


def test_the_first_view_is_the_digit_and_the_others_are_not():
    digit = a_digit()
    views = Viewer()(digit)
    assert views.shape == (len(VIEWS), 1, 28, 28)
    assert torch.equal(views[0], digit[0])
    assert all(not torch.equal(view, digit[0]) for view in views[1:])
    assert views.min() >= 0 and views.max() <= 1


def test_views_of_a_batch_are_the_views_of_each():
    first, second = a_digit(), a_digit().roll(2, 3)
    viewer = Viewer()
    both = viewer(torch.cat([first, second]))
    assert torch.allclose(both[: len(viewer)], viewer(first), atol=1e-6)
    assert torch.allclose(both[len(viewer) :], viewer(second), atol=1e-6)
    assert torch.equal(viewer(first), viewer(first))


def test_no_view_mirrors():
    """A digit's mirror image must stay farther from every view than the digit itself is."""
    digit = a_digit()
    mirrored = digit.flip(3)
    for view in Viewer()(digit):
        assert (view - digit[0]).abs().sum() < (view - mirrored[0]).abs().sum()


def test_a_viewer_of_the_digit_alone():
    digit = a_digit()
    assert torch.equal(Viewer((View("as drawn"),))(digit), digit)
