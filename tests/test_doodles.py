"""Made-up drawings that are no digits."""

import numpy as np
import pytest

from digitnet.doodles import KINDS, WRITER, doodles, pairs
from digitnet.drawings import Drawing, render


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_leaves_ink_and_varies(kind):
    drawn = [d for d in doodles(len(KINDS) * 4, seed=1) if d.label == kind]
    assert len(drawn) == 4 and all(d.writer == WRITER and d.digit is None for d in drawn)
    rendering = render(drawn, copies=1, seed=1, vary=False)
    assert len(rendering.digits) == 4 and (rendering.labels == -1).all()
    assert all(np.isfinite(stroke).all() for d in drawn for stroke in d.strokes)
    assert any(not np.array_equal(rendering.digits[0], other) for other in rendering.digits[1:])


def test_same_seed_same_doodles():
    first, again, other = doodles(50, seed=4), doodles(50, seed=4), doodles(50, seed=5)
    for a, b in zip(first, again, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a.strokes, b.strokes, strict=True))
    assert any(
        len(a.strokes[0]) != len(b.strokes[0]) or not np.allclose(a.strokes[0], b.strokes[0])
        for a, b in zip(first, other, strict=True)
    )


def test_a_pair_is_two_digits_beside_each_other_and_no_digit():
    one = Drawing("1", "w1", (np.array([[0, 0], [0, 90]], np.float32),))
    seven = Drawing("7", "w2", (np.array([[0, 0], [40, 0], [20, 80]], np.float32),))
    made = pairs([one, seven], 20, seed=1)
    assert len(made) == 20 and all(d.digit is None and d.writer in ("w1", "w2") for d in made)
    for drawing in made:
        left, right = drawing.strokes
        assert right[:, 0].min() >= left[:, 0].max() - 1e-5
    assert pairs([], 20, seed=1) == []
