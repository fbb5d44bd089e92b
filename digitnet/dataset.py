"""What one training run learns from, and what it is chosen by: pools of digits in memory.

MNIST's training pictures; renderings of the training writers' digits; and what is no digit: their letters and symbols,
pairs of their digits, doodles. The validation pools are other pictures by other writers. The report writers and MNIST's
test set are never opened here. Knows no network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from .doodles import WRITER, doodles, pairs
from .drawings import Drawing, find_drawings, part_of, read_drawings, render
from .mnist import load_mnist, split


@dataclass(frozen=True)
class DataConfig:
    """How the pools are made.

    mnist, drawings, others: their shares of what an epoch shows, kept in proportion where one is missing. own: share of
    the person's own drawings when fine-tuning. copies: renderings of each of a writer's drawings; writers with few
    drawings get up to four times as many. doodles, pairs: how many of each are made up. use_drawings: False trains on
    MNIST and doodles alone.
    """

    mnist: float = 0.42
    drawings: float = 0.40
    others: float = 0.18
    own: float = 0.15
    copies: int = 10
    doodles: int = 4_000
    pairs: int = 4_000
    use_drawings: bool = True

    def __post_init__(self):
        if min(self.mnist, self.drawings, self.others, self.own) < 0 or self.mnist + self.drawings + self.others <= 0:
            raise ValueError("Shares are at least 0, and not all of them 0.")


@dataclass(frozen=True)
class Pool:
    """digits: uint8 N×28×28, ink 255 on 0; labels: int64 N, -1 for what is no digit."""

    digits: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class TrainingData:
    """pools: what is shown, by name; shares: how much of each an epoch shows, sum 1; validation: pools to choose by;
    writers: pseudonyms of everyone trained on; notes: sentences for the person who started the training."""

    pools: dict[str, Pool]
    shares: dict[str, float]
    validation: dict[str, Pool]
    writers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def epoch(self, samples: int, generator: torch.Generator) -> Pool:
        """`samples` pictures in random order: from each pool its share, without repeats until it is used up."""
        parts = [self._draw(name, round(samples * share), generator) for name, share in self.shares.items()]
        digits, labels = torch.cat([part.digits for part in parts]), torch.cat([part.labels for part in parts])
        order = torch.randperm(len(labels), generator=generator)
        return Pool(digits[order], labels[order])

    def _draw(self, name: str, count: int, generator: torch.Generator) -> Pool:
        pool = self.pools[name]
        rounds = -(-count // len(pool))
        chosen = torch.cat([torch.randperm(len(pool), generator=generator) for _ in range(rounds)])[:count]
        return Pool(pool.digits[chosen], pool.labels[chosen])


def build(root, config: DataConfig, *, seed: int, own: Sequence[str] = (), say: Callable[[str], None] = print) -> TrainingData:
    """Reads and renders everything under the data root. own: stroke files of the person's own, to fine-tune on.

    Raises DataError, DrawingError in one sentence.
    """
    trained, held = split(*load_mnist(root, train=True), seed=0)  # the split is fixed: seeds must compare on the same 5,000
    pools, validation = {"mnist": Pool(*trained)}, {"mnist": Pool(*held)}
    notes, writers = [], []
    sources = find_drawings(root) if config.use_drawings else {}
    digits = [d for drawings in sources.values() for d in drawings if d.digit is not None]
    others = [d for drawings in sources.values() for d in drawings if d.digit is None]
    if digits:
        learn, choose = _part(digits, "train"), _part(digits, "choose")
        writers = sorted({d.writer for d in learn + _part(others, "train")})
        notes.append(
            f"Drawings: {len(learn):,} digits and {len(_part(others, 'train')):,} letters and symbols by {len(writers)} "
            f"writers to learn from; {len(choose):,} digits by {len({d.writer for d in choose})} others to choose by."
        )
        say("Drawing the strokes of the training writers ...")
        pools["drawings"] = _render_by_writer(learn, config.copies, seed)
        validation["drawings"] = _rendered(choose, copies=2, seed=1, vary=False)
    else:
        learn = choose = []
        where = "left out as asked" if not config.use_drawings else f"none found under {root}/pen"
        notes.append(f"Drawings: {where}; training on MNIST alone, which reads pen drawings less well.")
    other_learn = _part(others, "train") * 3 + pairs(learn, config.pairs, seed=seed) + doodles(config.doodles, seed=seed)
    other_choose = _part(others, "choose") + pairs(choose, len(choose) // 4, seed=1) + doodles(270, seed=1_000_003)
    pools["others"] = _rendered(other_learn, copies=2, seed=seed + 1, vary=True)
    validation["others"] = _rendered(other_choose, copies=1, seed=2, vary=False)
    shares = {name: getattr(config, name) for name in pools if getattr(config, name) > 0}
    if own:
        mine = [drawing for path in own for drawing in read_drawings(path)]
        copies = max(1, 6_000 // max(len(mine), 1))
        pools["own"] = _rendered(mine, copies=copies, seed=seed + 2, vary=True)
        shares["own"] = config.own
        notes.append(f"Your own: {len(mine)} drawings, drawn again {copies} times each.")
    total = sum(shares.values())
    return TrainingData(pools, {name: share / total for name, share in shares.items()}, validation, writers, notes)


def _part(drawings: Sequence[Drawing], part: str) -> list[Drawing]:
    return [drawing for drawing in drawings if drawing.writer != WRITER and part_of(drawing.writer) == part]


def _rendered(drawings: Sequence[Drawing], *, copies: int, seed: int, vary: bool) -> Pool:
    rendering = render(drawings, copies=copies, seed=seed, vary=vary)
    return Pool(torch.from_numpy(rendering.digits), torch.from_numpy(rendering.labels))


def _render_by_writer(drawings: Sequence[Drawing], copies: int, seed: int) -> Pool:
    """`copies` of everything, and more of writers who drew little: a hand counts, not its diligence."""
    writers, counts = np.unique([drawing.writer for drawing in drawings], return_counts=True)
    weight = dict(zip(writers, np.clip(np.sqrt(counts.max() / counts), 1, 4), strict=True))
    times = {name: max(1, round(copies * w / 2)) for name, w in weight.items()}
    pools = []
    for number in sorted(set(times.values())):
        same = [drawing for drawing in drawings if times[drawing.writer] == number]
        pools.append(_rendered(same, copies=number, seed=seed * 101 + number, vary=True))
    return Pool(torch.cat([pool.digits for pool in pools]), torch.cat([pool.labels for pool in pools]))
