"""What computes logits: PyTorch, or ONNX Runtime for an exported file; each a callable from ink to logits.

Both take float32 N×1×28×28 (0 paper … 1 ink) and give float32 N×11, whatever they compute in. ONNX Runtime is imported
only when an .onnx file is loaded. Knows no pictures, no views and no page.
"""

import copy
import json
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .checkpoint import LFS_MARK, MAX_BYTES, Calibration, CheckpointError
from .model import OUTPUTS, DigitNet, folded
from .preprocess import SIDE

PACKED_FOR = 6  # pictures a call; the layout serves larger and smaller batches as well
ONNX_FORMAT = "digitnet-onnx-1"
OUTPUT_NAMES = ("probabilities", "p_digit", "logits")  # N×10, N, N×11


def fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 convolutions are quicker than float32 ones there, by what the hardware says of itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported()


class TorchEngine:
    """A trained DigitNet, folded for inference; in bfloat16 where the processor computes that faster.

    Its answers then differ from float32's by less than 0.01 in probability: the first convolution, the last block and the last
    layer, where rounding would cost most, stay in float32. fused: whether each convolution, its ReLU and a block's sum are one
    oneDNN call (see _FusedNet), which takes a third of the time away.
    """

    def __init__(self, model: DigitNet, *, half: bool | None = None, fused: bool | None = None):
        """half: compute in bfloat16; None asks the processor. fused: None takes it where this build of PyTorch has it."""
        self.half = fast_bf16(torch.device("cpu")) if half is None else half
        network = folded(model)
        plain = _plain(network, half=self.half)
        joined = _fused(network, plain, half=self.half) if fused in (None, True) else None
        assert joined or not fused, "this build of PyTorch cannot fuse"
        self.fused = joined is not None
        self._network = joined or plain

    def __call__(self, ink: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self._network(ink.contiguous(memory_format=torch.channels_last))


def _plain(network: DigitNet, *, half: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """The folded network by PyTorch's public functions alone."""
    network = copy.deepcopy(network)
    if half:
        # Weights already in bfloat16 are not cast again on every call.
        network.blocks[:-1].to(torch.bfloat16)
        network.blocks[-1] = _Full(network.blocks[-1])
        network.stem, network.head = _Full(network.stem), _Full(network.head)
    network = network.to(memory_format=torch.channels_last)

    def forward(ink: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return network(ink)

    return forward


class _Full(nn.Module):
    """A layer that computes in float32 whatever is around it."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return self.layer(x.float())


def _fused(network: DigitNet, plain, *, half: bool) -> "_FusedNet | None":
    """The network in fused calls; None where they are missing here or answer otherwise than `plain`."""
    probe = torch.linspace(0, 1, 2 * SIDE * SIDE).view(2, 1, SIDE, SIDE)
    with torch.inference_mode():
        # The calls are PyTorch's own, made for torch.compile, and no public promise: whatever they raise, there is another way.
        try:
            fused = _FusedNet(network, half=half)
            agree = torch.allclose(fused(probe), plain(probe), rtol=0.0, atol=0.2 if half else 1e-3)
        except Exception:
            return None
    return fused if agree else None


class _FusedNet:
    """A folded DigitNet whose convolutions are oneDNN calls with what follows them inside, as torch.compile makes them."""

    def __init__(self, network: DigitNet, *, half: bool):
        low = torch.bfloat16 if half else torch.float32
        self._mean, self._std, self._head = network.mean, network.std, network.head
        side = SIDE
        self._stem = _FusedConv(network.stem, torch.float32, side)
        side //= network.config.stem_stride
        self._blocks = []
        for block in network.blocks:
            kind = torch.float32 if block is network.blocks[-1] else low
            conv1 = _FusedConv(block.conv1, kind, side)
            side = -(-side // block.conv1.stride[0])
            past = None
            if isinstance(block.past, nn.Sequential):
                pool, conv = block.past
                past = (pool, _FusedConv(conv, kind, side))
            self._blocks.append((conv1, _FusedConv(block.conv2, kind, side), past))

    def __call__(self, ink: torch.Tensor) -> torch.Tensor:
        x = self._stem((ink - self._mean) / self._std, "relu")
        for conv1, conv2, past in self._blocks:
            x = x.to(conv1.kind)
            y = conv1(x, "relu")
            # conv2 writes the block's sum over `beside`; x is not needed after it.
            beside = x if past is None else past[1](past[0](x), "none")
            x = conv2.onto(beside, y)
        return self._head(x.float().mean((2, 3)))


class _FusedConv:
    """One convolution in `kind`, its weights laid out beforehand as oneDNN wants them for fields of `side` pixels."""

    def __init__(self, conv: nn.Conv2d, kind: torch.dtype, side: int):
        self.kind = kind
        self._how = (list(conv.padding), list(conv.stride), [1, 1], 1)
        padding, stride, dilation, groups = self._how
        self._bias = conv.bias.to(kind)
        # Without a size, oneDNN picks a layout that a small batch has to undo on every call.
        self._weight = torch._C._nn.mkldnn_reorder_conv2d_weight(
            conv.weight.to(kind).to_mkldnn(), padding, stride, dilation, groups, [PACKED_FOR, conv.in_channels, side, side]
        )

    def __call__(self, x: torch.Tensor, after: str) -> torch.Tensor:
        """after: "relu" or "none"."""
        return torch.ops.mkldnn._convolution_pointwise(x, self._weight, self._bias, *self._how, after, [], "")

    def onto(self, beside: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """relu(beside + convolution of x), in the memory of `beside`."""
        join = torch.ops.mkldnn._convolution_pointwise_.binary
        return join(beside, x, self._weight, self._bias, *self._how, "add", 1.0, "relu", [], "")


class OnnxEngine:
    """A file that `python -m digitnet export` wrote, run by ONNX Runtime in float32; calibration and card come with it."""

    def __init__(self, source: str | os.PathLike | bytes):
        """source: the file, or its bytes. Raises CheckpointError, in one sentence, for anything but an export of ours."""
        name = "The exported network" if isinstance(source, bytes) else str(source)
        content = source if isinstance(source, bytes) else _read_onnx(Path(source))
        try:
            import onnxruntime
        except ImportError as error:
            raise CheckpointError(f"{name} needs ONNX Runtime; install it with: pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # A spinning pool would take the cores from everything else in the process, PyTorch first of all.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what goes wrong is raised, and told in one sentence
        try:
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            notes = session.get_modelmeta().custom_metadata_map
            known = notes.get("format") == ONNX_FORMAT
            if known:
                values = json.loads(notes["calibration"])
                self.calibration = Calibration(**{item.name: float(values[item.name]) for item in fields(Calibration)})
                self.card = dict(json.loads(notes["card"]))
        # ONNX Runtime raises types of its own, which share no base but Exception.
        except Exception as error:
            raise _refusal(name, "is damaged or not an ONNX file this version reads") from error
        outputs = [output.name for output in session.get_outputs()]
        if not known or [item.name for item in session.get_inputs()] != ["ink"] or outputs != list(OUTPUT_NAMES):
            raise _refusal(name, "is an ONNX file, but not one of digitnet's")
        if not np.isfinite([getattr(self.calibration, item.name) for item in fields(Calibration)]).all():
            raise _refusal(name, "holds a calibration that is not finite numbers")
        self._session = session

    def __call__(self, ink: torch.Tensor) -> torch.Tensor:
        (logits,) = self._session.run(["logits"], {"ink": ink.contiguous().numpy()})
        return torch.from_numpy(logits)

    def answers(self, ink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float32 N×1×28×28 → what the file itself says: probabilities N×10, p_digit N; one view, no averaging."""
        return tuple(self._session.run(list(OUTPUT_NAMES[:2]), {"ink": np.ascontiguousarray(ink, dtype=np.float32)}))


def _read_onnx(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; make it with: python -m digitnet export --out {path}") from error
    except OSError as error:
        raise _refusal(path, f"cannot be read ({error.strerror})") from error
    if content.startswith(LFS_MARK):
        raise CheckpointError(f"{path} is only a Git LFS pointer to the network; fetch it with: git lfs pull")
    if len(content) > MAX_BYTES:
        raise _refusal(path, f"is larger than {MAX_BYTES // 2**20} MB, so it is not an export of digitnet's")
    return content


def _refusal(name, why: str) -> CheckpointError:
    return CheckpointError(f"{name} {why}; make a new one with: python -m digitnet export --out {name}")


assert OUTPUTS == 11 and SIDE == 28, "the shapes named above are the exported file's contract"
