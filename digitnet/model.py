"""DigitNet: a residual CNN (He et al. 2016) from ink to eleven logits.

Ten say which digit it is, given that it is one; the eleventh says whether it is a digit at all. Normalisation lives
inside, as buffers, so nobody can hold the weights without it. Knows no data, no views and no page.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

DIGITS = 10
OUTPUTS = DIGITS + 1  # the last logit: is it a digit at all


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides DigitNet's shapes.

    widths: channels of each stage; each stage after the first halves the side. blocks: residual blocks in each stage.
    stem_kernel, stem_stride: the first convolution; stride 2 works on 14×14 from the start, at a quarter of the cost.
    dropout: share of features dropped before the last layer while training. mean, std: of the ink, for normalisation.
    """

    widths: tuple[int, ...] = (48, 96)
    blocks: tuple[int, ...] = (1, 2)
    stem_kernel: int = 5
    stem_stride: int = 2
    dropout: float = 0.2
    mean: float = 0.13
    std: float = 0.31

    def __post_init__(self):
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ValueError(f"widths {self.widths} and blocks {self.blocks} must name the same stages, at least one.")
        if min(self.widths) < 1 or min(self.blocks) < 1:
            raise ValueError("Every stage needs at least one channel and one block.")
        if self.stem_kernel % 2 == 0 or self.stem_kernel < 1 or self.stem_stride not in (1, 2):
            raise ValueError("stem_kernel must be odd and stem_stride 1 or 2.")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is a share from 0 to below 1, not {self.dropout}.")
        if self.std <= 0.0:
            raise ValueError(f"std must be above 0, not {self.std}.")


class Block(nn.Module):
    """Two 3×3 convolutions with batch-norm, and the way past them. N×C×H×W → N×C'×H/stride×W/stride."""

    def __init__(self, channels: int, width: int, *, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.past = nn.Identity()
        if stride != 1 or channels != width:
            # Averaging before the 1×1 convolution keeps the three pixels in four that a stride would skip.
            self.past = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True) if stride != 1 else nn.Identity(),
                nn.Conv2d(channels, width, 1, bias=False),
                nn.BatchNorm2d(width),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.past(x))


class DigitNet(nn.Module):
    """ink N×1×28×28, 0 paper to 1 ink → logits N×11: ten digits, then "a digit at all"."""

    def __init__(self, config: ModelConfig | None = None):
        super().__init__()
        self.config = config = config or ModelConfig()
        self.register_buffer("mean", torch.tensor(config.mean))
        self.register_buffer("std", torch.tensor(config.std))
        channels = config.widths[0]
        self.stem = nn.Conv2d(1, channels, config.stem_kernel, config.stem_stride, config.stem_kernel // 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        stages = []
        for stage, (width, count) in enumerate(zip(config.widths, config.blocks, strict=True)):
            for number in range(count):
                stages.append(Block(channels, width, stride=2 if stage and number == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*stages)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(channels, OUTPUTS)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, ink: torch.Tensor) -> torch.Tensor:
        x = (ink - self.mean) / self.std
        x = F.relu(self.stem_norm(self.stem(x)))  # N×C×14×14 (stride 2)
        x = self.blocks(x)  # N×C'×7×7
        return self.head(self.dropout(x.mean((2, 3))))

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def folded(model: DigitNet) -> DigitNet:
    """A copy for inference, its batch-norms folded into the convolutions: the same answers from half the steps."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    copy = DigitNet(model.config)
    copy.load_state_dict(model.state_dict())
    copy.eval()
    copy.stem, copy.stem_norm = fuse_conv_bn_eval(copy.stem, copy.stem_norm), nn.Identity()
    for block in copy.blocks:
        block.conv1, block.norm1 = fuse_conv_bn_eval(block.conv1, block.norm1), nn.Identity()
        block.conv2, block.norm2 = fuse_conv_bn_eval(block.conv2, block.norm2), nn.Identity()
        if isinstance(block.past, nn.Sequential):
            pool, conv, norm = block.past
            block.past = nn.Sequential(pool, fuse_conv_bn_eval(conv, norm))
    return copy.requires_grad_(False)
