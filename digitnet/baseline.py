"""The loop quick training is measured against, in the manner of PyTorch's basic MNIST example, written anew.

Two convolutions (32, 64), max-pool, dropout 0.25 and 0.5, 128 features; Adadelta at 1.0, StepLR 0.7, batches of 64 from a
DataLoader that converts and normalises picture by picture. Only the benchmark uses it. Nothing here is tuned.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = 0.1307, 0.3081
BATCH = 64


class BaselineNet(nn.Module):
    """Normalised pictures N×1×28×28 → log-probabilities N×10."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.features, self.head = nn.Linear(64 * 12 * 12, 128), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))  # N×64×24×24
        x = self.dropout1(F.max_pool2d(x, 2)).flatten(1)
        return F.log_softmax(self.head(self.dropout2(F.relu(self.features(x)))), 1)


def train_baseline(
    root: Path, *, epochs: int, seed: int, batches: int | None = None, say: Callable[[str], None] = print
) -> list[dict]:
    """Trains on MNIST's 60,000 pictures; one row an epoch: epoch, loss, seconds so far (tests left out), test accuracy.

    batches: stop each epoch after so many and test on 1,000 pictures; for trying the loop, not for measuring it.
    """
    from torchvision import transforms
    from torchvision.datasets import MNIST

    torch.manual_seed(seed)
    prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    began = time.perf_counter()
    loader = torch.utils.data.DataLoader(MNIST(root, train=True, transform=prepare), batch_size=BATCH, shuffle=True)
    model = BaselineNet()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    seconds, rows = time.perf_counter() - began, []
    for epoch in range(1, epochs + 1):
        began = time.perf_counter()
        model.train()
        for number, (pictures, labels) in enumerate(loader):
            if number == batches:
                break
            optimizer.zero_grad()
            loss = F.nll_loss(model(pictures), labels)
            loss.backward()
            optimizer.step()
        scheduler.step()
        seconds += time.perf_counter() - began
        row = {
            "epoch": epoch,
            "loss": loss.item(),
            "seconds": round(seconds, 2),
            "test": _test(model, root, 1_000 if batches else 10_000),
        }
        say(f"baseline seed {seed} epoch {epoch}: {row['seconds']:.1f} s, test {row['test']:.2%}")
        rows.append(row)
    return rows


@torch.inference_mode()
def _test(model: BaselineNet, root: Path, count: int) -> float:
    """Share of MNIST's first `count` test pictures read rightly; not on the clock, so it need not go through the DataLoader."""
    from torchvision.datasets import MNIST

    data = MNIST(root, train=False)
    model.eval()
    pictures = ((data.data[:count].unsqueeze(1).float() / 255 - MEAN) / STD).split(1000)
    guesses = torch.cat([model(chunk).argmax(1) for chunk in pictures])
    return (guesses == data.targets[:count]).double().mean().item()
