"""Trains the network that restores video blocks, in the integers that it will be run in.

read volumes → code each in a few steps → draw patches → descend on the error that is left → write
Weights and activations are rounded in the forward pass and taken as they are in the backward one.
Source: Jacob et al., arXiv 1712.05877 (training with quantised arithmetic).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from MedEnhanceLib.config import check_range
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io import load
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.unicompress import restoration, video

_CHECKPOINT = "checkpoint.safetensors"
_MODEL = "restoration.safetensors"
_SOURCE_PARTS = 8
_MARGIN = 8
_EDGE = 2
_UNIT = float(1 << restoration.ACTIVATION_BITS)
_WEIGHT_UNIT = float(1 << restoration.WEIGHT_BITS)
_SUM_UNIT = float(1 << restoration.SUM_BITS)


@dataclass(frozen=True, kw_only=True)
class RestorationConfig:
    """How a restoration is trained; `presets` names three.

    modality: CT, MR or EM. width: channels of the inner layers. layers: 3 × 3 layers in all.
    steps, batch, patch (voxels), learning_rate: of the descent. codings: in how many quantiser
    steps each volume is coded. coarsest, finest: those steps, as a share of the range.
    slices: of each volume, at most.
    """

    modality: str = "CT"
    width: int = 32
    layers: int = 5
    steps: int = 4000
    batch: int = 16
    patch: int = 64
    learning_rate: float = 2e-3
    codings: int = 3
    finest: float = 0.02
    coarsest: float = 0.45
    slices: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.modality not in ("CT", "MR", "EM"):
            raise ConfigError(f"modality is {self.modality!r}", "Use CT, MR or EM.")
        check_range("width", self.width, 4, 64)
        check_range("layers", self.layers, 2, 8)
        check_range("patch", self.patch, 16, 256)
        check_range("codings", self.codings, 1, 16)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> RestorationConfig:
        """smoke: seconds, to see that it runs. cpu: minutes on one core. full: an hour or more."""
        fields: dict[str, dict[str, Any]] = {
            "smoke": {"steps": 20, "batch": 4, "width": 8, "codings": 1, "slices": 8},
            "cpu": {},
            "full": {"steps": 40000, "batch": 32, "codings": 6, "slices": 256},
        }
        if name not in fields:
            raise ConfigError(f"preset is {name!r}", "Use smoke, cpu or full.")
        return cls(**(fields[name] | changes))


@dataclass(frozen=True)
class Pair:
    """frames: decoded slices, [K, H, W]; source: what they should be, in eighths of an intensity.

    mean_square: of their difference, in intensities.
    """

    frames: npt.NDArray[np.uint16]
    source: npt.NDArray[np.uint16]
    mean_square: float


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
    rng = np.random.default_rng(config.seed)
    for number, file in enumerate(data_files):
        voxels = load(file).voxels
        first = max(0, (len(voxels) - config.slices) // 2)
        block = voxels[first : first + config.slices]
        if block.ndim != 3 or not video.fits(block):
            raise InputError(f"{file}: nothing to learn from", "Leave it out.")
        span = float(block.max()) - float(block.min())
        limits = np.log2((config.finest, config.coarsest))
        for step in span * 2.0 ** rng.uniform(limits[0], limits[1], config.codings):
            monitor.check()
            coded = video.encode(block, float(step), speed="normal")
            scaled = (block.astype(np.float64) - coded.low) * coded.top / span
            mean_square = float(np.mean(np.square(scaled - coded.frames)))
            source = np.rint(scaled * _SOURCE_PARTS).astype(np.uint16)
            yield Pair(coded.frames, source, mean_square)
        monitor.progress((number + 1) / len(data_files), "code volumes")


def fit(
    config: RestorationConfig,
    pairs: Sequence[Pair],
    out: Path,
    names: Sequence[str],
    monitor: Monitor,
) -> Path:
    """Descend on the pairs and write the model; `names` of the volumes are told in it."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    network = _Network(config.width, config.layers)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    saved: dict[str, Any] = {
        "config": dataclasses.asdict(config),
        "modules": {"network": network},
        "optimisers": {"adam": optimiser},
        "generator": rng,
    }
    checkpoint = out / _CHECKPOINT
    told: dict[str, Any] = {}
    begun = load_checkpoint(checkpoint, **saved, notes=told) if checkpoint.exists() else 0
    mean = float(told.get("error_left", 1.0))
    for step in range(begun, config.steps):
        monitor.check()
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _share(step, config.steps)
        inputs, wanted = _batch(pairs, config, rng)
        error = network(inputs) - wanted
        loss = torch.mean(torch.square(error[..., _EDGE:-_EDGE, _EDGE:-_EDGE]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        mean += (float(loss.detach()) - mean) / min(step + 1, 200)
        if (step + 1) % 200 == 0 or step + 1 == config.steps:
            monitor.metric("error left", mean, step + 1)
            monitor.progress((step + 1) / config.steps, "train")
            save_checkpoint(checkpoint, step=step + 1, notes={"error_left": mean}, **saved)
    return _write(network, config, out, names, mean)


def _share(step: int, steps: int) -> float:
    """Of the learning rate: rises over 100 steps, then falls as half a cosine."""
    return min(1.0, (step + 1) / 100) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))


class _Network(nn.Module):
    """The layers of `restoration.Network`, in units where an activation's step is a 16th."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        widths = [restoration.INPUTS, *[width] * (layers - 1), restoration.OUTPUTS]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in itertools.pairwise(widths)
        )
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]

    def forward(self, cells: Tensor) -> Tensor:
        """[N, 12, h, w], in eighths of σ / 16 → the error, [N, 4, h, w], in σ."""
        for number, layer in enumerate(self.layers):
            weight, bias = rounded(layer)
            cells = functional.conv2d(cells, weight, bias, padding=1)
            if number < len(self.layers) - 1:
                cells = _through(cells, torch.floor(cells * _UNIT) / _UNIT)
                cells = torch.clamp(cells, 0, restoration.LARGEST_ACTIVATION / _UNIT)
        return cells


def rounded(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """A layer's weight and bias as the integers will be, passing gradients as if they were not."""
    weight, bias = layer.weight, layer.bias
    largest = restoration.LARGEST_WEIGHT
    whole = torch.clamp(torch.round(weight * _WEIGHT_UNIT), -largest, largest)  # type: ignore[operator,arg-type]
    whole_bias = torch.round(bias * _SUM_UNIT)  # type: ignore[operator,arg-type]
    return (
        _through(weight, whole / _WEIGHT_UNIT),  # type: ignore[arg-type]
        _through(bias, whole_bias / _SUM_UNIT),  # type: ignore[arg-type]
    )


def _through(values: Tensor, rounded_values: Tensor) -> Tensor:
    return values + (rounded_values - values).detach()


def _batch(
    pairs: Sequence[Pair], config: RestorationConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    weights = np.sqrt([pair.frames.size for pair in pairs])
    chosen = rng.choice(len(pairs), config.batch, p=weights / weights.sum())
    drawn = [_patch(pairs[number], config.patch, rng) for number in chosen]
    inputs, wanted = (np.stack(part) for part in zip(*drawn, strict=True))
    return torch.from_numpy(inputs / np.float32(_UNIT)), torch.from_numpy(wanted)


def _patch(
    pair: Pair, side: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    noise = restoration.noise_code(pair.mean_square)
    # The file tells one number for a block; a network that has seen others errs less on it.
    noise = int(np.clip(noise + rng.integers(-2, 3), 0, restoration.MOST_NOISE))
    slices, height, width = pair.frames.shape
    around = side + 2 * _MARGIN
    k = int(rng.integers(slices))
    j, i = (int(rng.integers(max(1, extent - around + 1))) for extent in (height, width))
    three = [min(max(k + step, 0), slices - 1) for step in (-1, 0, 1)]
    frames = _filled(pair.frames[three, j : j + around, i : i + around], around)
    source = _filled(pair.source[k : k + 1, j : j + around, i : i + around], around)
    turned = _turned(np.concatenate([frames, source]).astype(np.int32), rng)
    inputs = restoration.inputs_of(turned[:3], noise)
    sigma = 2.0 ** ((noise - 32) / 8)
    error = (turned[3] / _SOURCE_PARTS - turned[1]) / sigma
    half = around // 2
    wanted = error.reshape(half, 2, half, 2).transpose(1, 3, 0, 2).reshape(4, half, half)
    inside = slice(_MARGIN // 2, half - _MARGIN // 2)
    return inputs[:, inside, inside], wanted[:, inside, inside].astype(np.float32)


def _filled(part: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    short = [(0, 0), *((0, side - extent) for extent in part.shape[1:])]
    return np.pad(part, short, mode="edge")


def _turned(planes: npt.NDArray[np.int32], rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Mirrored and transposed at random; the slice before and the one after change places."""
    flips = rng.integers(2, size=4)
    if flips[0]:
        planes = planes[[2, 1, 0, 3]]
    planes = planes[:, :: -1 if flips[1] else 1, :: -1 if flips[2] else 1]
    return np.ascontiguousarray(planes.transpose(0, 2, 1) if flips[3] else planes)


def _write(
    network: _Network, config: RestorationConfig, out: Path, names: Sequence[str], left: float
) -> Path:
    tensors: dict[str, npt.NDArray[Any]] = {}
    for number, layer in enumerate(network.layers):
        weight, bias = (part.detach() for part in rounded(layer))
        tensors[f"weight{number}"] = (weight * _WEIGHT_UNIT).round().to(torch.int8).numpy()
        tensors[f"bias{number}"] = (bias * _SUM_UNIT).round().to(torch.int32).numpy()
    facts = {
        "layout": restoration.LAYOUT,
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
