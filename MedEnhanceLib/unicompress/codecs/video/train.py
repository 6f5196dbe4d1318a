"""Trains the network that restores video blocks, and writes it in the integers it is run in.

read volumes → code each in a few steps → draw patches → descend on the error that is left →
fold the normalization into the weights → round → write
Little of a code's error can be seen in its slices, so a descent is slow where its start is bad:
layers are normalized by batch, and inputs stay within 8 σ. Rounded once at the end, weights of 8
bits with a scale for each channel lose nothing that could be measured.
Source: DnCNN (arXiv 1608.03981) for residuals and normalization; Jacob et al., arXiv 1712.05877,
for the folding and the scales.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from MedEnhanceLib.core.options import WithPresets, check_range, option
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io import load
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.codecs.video import video

_CHECKPOINT = "checkpoint.safetensors"
_MODEL = "restoration.safetensors"
_SOURCE_PARTS = 8
_MARGIN = 8
_EDGE = 2
_TILE = 16
#: Of a tile, in σ²: what counts at most, and what is added, when places are drawn by their error.
_MOST_ERROR, _LEAST_ERROR = 8.0, 0.15
_UNIT = float(1 << video.ACTIVATION_BITS)
_HIGHEST = video.LARGEST_ACTIVATION / _UNIT
#: Far inputs count in 8 σ.
_FAR_SHARE = 8.0
#: Outputs begin small, as what can be predicted is.
_FIRST_OUTPUT = 0.03


@dataclass(frozen=True, kw_only=True)
class RestorationConfig(WithPresets):
    """How a restoration is trained.

    Presets: smoke: seconds, to see that it runs; cpu: minutes on one core; full: an hour or more.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"steps": 20, "batch": 4, "width": 8, "codings": 1, "slices": 8},
        "cpu": {},
        "full": {"steps": 40000, "batch": 32, "codings": 6, "slices": 256},
    }

    modality: Literal["CT", "MR", "EM"] = option("CT", help="of the volumes")
    width: int = option(48, help="channels of the inner layers", low=4, high=64)
    layers: int = option(5, help="3 × 3 layers in all", low=2, high=8)
    steps: int = option(4000, help="of the optimizer", low=1, high=1 << 31)
    batch: int = option(16, help="patches per step", low=1, high=1 << 31)
    patch: int = option(72, help="side of a patch", low=16, high=256, unit="voxels")
    learning_rate: float = option(2e-3, help="of the optimizer", low=1e-6, high=1)
    codings: int = option(3, help="quantizer steps in which each volume is coded", low=1, high=16)
    finest: float = option(0.02, help="of them, as a share of the range", low=1e-6, high=1)
    coarsest: float = option(0.25, help="of them, as a share of the range")
    slices: int = option(48, help="of each volume, from its middle, at most", low=1, high=1 << 31)
    seed: int = option(0, help="of everything that is drawn")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("coarsest", self.coarsest, self.finest, 1.0)


@dataclass(frozen=True)
class Pair:
    """frames: decoded slices, [K, H, W]; source: what they should be, in eighths of an intensity.

    mean_square: of their difference, in intensities.
    """

    frames: npt.NDArray[np.uint16]
    source: npt.NDArray[np.uint16]
    mean_square: float

    @property
    def noise(self) -> int:
        """As a file holds it."""
        return video.noise_code(self.mean_square)

    @cached_property
    def chances(self) -> npt.NDArray[np.float64]:
        """Of each tile to be drawn, [K, rows, columns]: more where the error is larger."""
        _, height, width = self.frames.shape
        rows, columns = max(1, height // _TILE), max(1, width // _TILE)
        inside = (slice(None), slice(rows * _TILE), slice(columns * _TILE))
        error = self.source[inside] / np.float32(_SOURCE_PARTS) - self.frames[inside]
        squares = np.square(error) / np.float32(max(self.mean_square, 1e-9))
        of_rows = np.add.reduceat(squares, range(0, squares.shape[1], _TILE), axis=1)
        tiles = np.add.reduceat(of_rows, range(0, squares.shape[2], _TILE), axis=2) / _TILE**2
        chances = np.minimum(tiles, _MOST_ERROR).astype(np.float64) + _LEAST_ERROR
        shares: npt.NDArray[np.float64] = chances / chances.sum()
        return shares


def train_restoration(
    config: RestorationConfig, data_files: Sequence[Path], out: Path, monitor: Monitor | None = None
) -> Path:
    """Train on volumes and write the model into the folder `out`; goes on where it was stopped.

    Raises InputError where a volume cannot be read or none is given, ConfigError where `out`
    holds a training of another configuration, Cancelled.
    """
    monitor = monitor or Monitor()
    if not data_files:
        raise InputError("no volumes to train on", "Name one at least.")
    pairs = list(pairs_of(config, data_files, monitor.part(0.0, 0.3)))
    names = [Path(file).name for file in data_files]
    return fit(config, pairs, out, names, monitor.part(0.3, 1.0))


def pairs_of(
    config: RestorationConfig, data_files: Sequence[Path], monitor: Monitor
) -> Iterator[Pair]:
    """Each volume's middle slices, coded in as many steps as `config` asks."""
    for number, file in enumerate(data_files):
        rng = np.random.default_rng([config.seed, number])
        voxels = load(file).voxels
        first = max(0, (len(voxels) - config.slices) // 2)
        block = voxels[first : first + config.slices]
        if block.ndim != 3 or not video.fits(block):
            raise InputError(f"{file}: nothing to learn from", "Leave it out.")
        span = float(block.max()) - float(block.min())
        shares = (np.arange(config.codings) + rng.random(config.codings)) / config.codings
        for coding, share in enumerate(shares):
            done = (number + coding / config.codings) / len(data_files)
            monitor.progress(done, "code volumes")
            step = span * config.finest * (config.coarsest / config.finest) ** share
            coded = video.encode(block, float(step), speed="normal")
            scaled = (block.astype(np.float64) - coded.low) * coded.top / span
            mean_square = float(np.mean(np.square(scaled - coded.frames)))
            source = np.rint(scaled * _SOURCE_PARTS).astype(np.uint16)
            yield Pair(coded.frames, source, mean_square)


def fit(
    config: RestorationConfig,
    pairs: Sequence[Pair],
    out: Path,
    names: Sequence[str],
    monitor: Monitor,
) -> Path:
    """Descend on the pairs and write the model; `names` of the volumes are recorded in it."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    network = _Network(config.width, config.layers)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99))
    saved: dict[str, Any] = {
        "config": dataclasses.asdict(config),
        "modules": {"network": network},
        "optimizers": {"adam": optimizer},
        "generator": rng,
    }
    checkpoint = out / _CHECKPOINT
    notes: dict[str, Any] = {}
    begun = load_checkpoint(checkpoint, **saved, notes=notes) if checkpoint.exists() else 0
    mean = float(notes.get("error_left", 1.0))
    for step in range(begun, config.steps):
        monitor.progress(step / config.steps, "train the restoration")
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _share(step, config.steps)
        inputs, wanted = _batch(pairs, config, rng)
        error = network(inputs) - wanted
        loss = torch.mean(torch.square(error[..., _EDGE:-_EDGE, _EDGE:-_EDGE]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        mean += (float(loss.detach()) - mean) / min(step + 1, 200)
        if (step + 1) % 200 == 0 or step + 1 == config.steps:
            monitor.metric("error left", mean, step + 1)
            save_checkpoint(checkpoint, step=step + 1, notes={"error_left": mean}, **saved)
    monitor.progress(1.0, "trained")
    return _write(network, config, out, names, mean)


def _share(step: int, steps: int) -> float:
    """Of the learning rate: rises over 100 steps, then falls as half a cosine."""
    return min(1.0, (step + 1) / 50) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))


class _Network(nn.Module):
    """The layers of `restoration.Network` in floats, each but the last normalized by batch."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        widths = [video.INPUTS, *[width] * (layers - 1), video.OUTPUTS]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(layers - 1))
        with torch.no_grad():
            for layer in self.layers:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            self.layers[-1].weight.mul_(_FIRST_OUTPUT)  # type: ignore[operator]

    def forward(self, cells: Tensor) -> Tensor:
        """[N, 25, h, w], in σ (far ones in 8 σ) → the error, [N, 4, h, w], in σ."""
        # The first layer works with differences of inputs: these need all their bits.
        cells = functional.relu(self.norms[0](self.layers[0](cells)))
        with torch.autocast("cpu", torch.bfloat16):
            for layer, norm in zip(self.layers[1:-1], self.norms[1:], strict=True):
                cells = functional.relu(norm(layer(cells)))
            outputs: Tensor = self.layers[-1](cells)
        return outputs.float()

    def folded(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each layer with its normalization in them."""
        layers = [(layer.weight.detach(), layer.bias.detach()) for layer in self.layers]  # type: ignore[operator]
        for number, norm in enumerate(self.norms):
            weight, bias = layers[number]
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)  # type: ignore[operator,arg-type]
            shifted = (bias - norm.running_mean) * scale + norm.bias  # type: ignore[operator]
            layers[number] = (weight * scale[:, None, None, None]).detach(), shifted.detach()
        return layers

    def integers(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Weights, biases and shifts of each layer, as a model has them."""
        layers = self.folded()
        last = len(layers) - 1
        return [
            rounded(*layer, of_inputs=number == 0, is_last=number == last)
            for number, layer in enumerate(layers)
        ]


def rounded(
    weight: Tensor, bias: Tensor, *, of_inputs: bool = False, is_last: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's weights in 8 bits, biases, and for each output the power of two they count in.

    Inputs and what is passed on are rounded down; biases make up for it. of_inputs: the first
    layer; is_last: of the last layer, whose sums are hardly rounded.
    """
    limit = video.LARGEST_WEIGHT
    largest = torch.clamp(weight.abs().amax(dim=(1, 2, 3)), min=1e-9)
    shift = torch.floor(torch.log2(limit / largest))
    shift = torch.clamp(shift, 0, video.MOST_SHIFT)
    scale = torch.exp2(shift)
    whole = torch.clamp(torch.round(weight * scale[:, None, None, None]), -limit, limit)
    lost = 0.5 * weight.sum(dim=(1, 2, 3)) if of_inputs else torch.zeros_like(bias)
    whole_bias = torch.round((bias * _UNIT + lost + (0.0 if is_last else 0.5)) * scale)
    return whole.to(torch.int8), whole_bias.to(torch.int32), shift.to(torch.int8)


def inputs_of(slices: Tensor, sigma: Tensor) -> Tensor:
    """`restoration.inputs_of` of a batch, in floats, [N, 5, H, W] → [N, 25, H / 2, W / 2], in σ."""
    middle = slices[:, video.AROUND :][:, :1]
    unit = sigma[:, None, None, None]
    near = functional.pixel_unshuffle((slices - _mean(middle, video.NEAR)) / unit, 2)
    far = slices - _mean(middle, video.FAR)
    far = functional.avg_pool2d(far, 2) / (_FAR_SHARE * unit)
    return torch.clamp(torch.cat([near, far], 1), -_HIGHEST, _HIGHEST)


def _mean(image: Tensor, reach: int) -> Tensor:
    padded = functional.pad(image, [reach] * 4, mode="replicate")
    return functional.avg_pool2d(padded, 2 * reach + 1, 1)


def _batch(
    pairs: Sequence[Pair], config: RestorationConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    weights = np.sqrt([pair.frames.size for pair in pairs])
    chosen = rng.choice(len(pairs), config.batch, p=weights / weights.sum())
    drawn = np.stack([_patch(pairs[number], config.patch, rng) for number in chosen])
    sigmas = [2.0 ** ((pairs[number].noise - 32) / 8) for number in chosen]
    sigma = torch.tensor(sigmas, dtype=torch.float32)
    planes = torch.from_numpy(drawn)
    slices, source = planes[:, :-1], planes[:, -1:]
    wanted = (source - slices[:, video.AROUND :][:, :1]) / sigma[:, None, None, None]
    cut = slice(_MARGIN, -_MARGIN)
    inside = slice(_MARGIN // 2, -_MARGIN // 2)
    inputs = inputs_of(slices, sigma)[..., inside, inside]
    wanted = functional.pixel_unshuffle(wanted[..., cut, cut], 2)
    return inputs.contiguous(memory_format=torch.channels_last), wanted


def _patch(pair: Pair, side: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Slices and the middle one's source in intensities, with a margin, [6, side, side]."""
    slices, height, width = pair.frames.shape
    around = side + 2 * _MARGIN
    chances = pair.chances
    tile = rng.choice(chances.size, p=chances.ravel())
    k, *places = (int(place) for place in np.unravel_index(tile, chances.shape))
    j, i = (
        int(np.clip(place * _TILE + rng.integers(_TILE) - around // 2, 0, max(0, extent - around)))
        for place, extent in zip(places, (height, width), strict=True)
    )
    around_k = np.arange(k - video.AROUND, k + video.AROUND + 1)
    stack = np.clip(around_k, 0, slices - 1)
    frames = _filled(pair.frames[stack, j : j + around, i : i + around], around)
    source = _filled(pair.source[k : k + 1, j : j + around, i : i + around], around)
    planes = np.concatenate([frames, source / np.float32(_SOURCE_PARTS)]).astype(np.float32)
    return _turned(planes, rng)


def _filled(part: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    short = [(0, 0), *((0, side - extent) for extent in part.shape[1:])]
    return np.pad(part, short, mode="edge")


def _turned(planes: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Mirrored and transposed at random, the order of the slices too; the last is the source."""
    flips = rng.integers(2, size=4)
    if flips[0]:
        planes = np.concatenate([planes[-2::-1], planes[-1:]])
    planes = planes[:, :: -1 if flips[1] else 1, :: -1 if flips[2] else 1]
    return np.ascontiguousarray(planes.transpose(0, 2, 1) if flips[3] else planes)


def _write(
    network: _Network, config: RestorationConfig, out: Path, names: Sequence[str], left: float
) -> Path:
    tensors: dict[str, npt.NDArray[Any]] = {}
    for number, layer in enumerate(network.integers()):
        for name, values in zip(("weight", "bias", "shift"), layer, strict=True):
            tensors[f"{name}{number}"] = values.numpy()
    facts = {
        "layout": video.LAYOUT,
        "modality": config.modality,
        "trained_on": ", ".join(dict.fromkeys(names)),
        "steps": str(config.steps),
        "seed": str(config.seed),
        "error_left": f"{left:.4f}",
    }
    path = out / _MODEL
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_bytes(_serialised(tensors, facts))
    return path


def _serialised(tensors: dict[str, npt.NDArray[Any]], facts: dict[str, str]) -> bytes:
    """A safetensors file whose bytes, and so whose hash, are the same each time."""
    header: dict[str, Any] = {"__metadata__": facts}
    data = b""
    for name, values in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        start, data = len(data), data + np.ascontiguousarray(values).tobytes()
        kind = {"int8": "I8", "int32": "I32"}[values.dtype.name]
        shape = list(values.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, len(data)]}
    text = json.dumps(header, sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data
