"""What a segmentation head that teaches an enhancer costs and gains, in each way of joining losses.

    python Testing/Benchmarks/gradprom.py --data FOLDER

FOLDER has the heads of heads.json with labels that people drew. The seed says who is left out. A
small network learns to undo a damage that users of the head feel, on the others; then it goes on in
each way that an arm names, taught by `brain`, which stays as it is. It is measured on the person
left out: Dice to the head's own labels of the clean scan and to people's, PSNR in tissue, and the
contrast that planted lesions keep. The network is no enhancer that ships: trainings of these
measure their own taught weights.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest import mock

# Before PyTorch comes in: figures do not depend on it, and a shared machine is kinder so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from _common import QUICK, SHARED_DATA, Part, Row, folder_of, run
from _enhancement_data import Floats, Subject
from _enhancement_lesions import contrast_kept, plant
from _heads_data import Heads, agreement
from _simulated_scanners import SCANNERS, UNIT
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.store import open_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom import SegmentConfig, segment
from MedEnhanceLib.io import load, save
from MedEnhanceLib.learning.intensity import TISSUE, scaling_for
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom import gate as gates
from MedEnhanceLib.training.gradprom.gate import GradientGate
from MedEnhanceLib.training.gradprom.structure_task import StructuresTask

HEAD = "brain"
CLEAN, DAMAGED, ALONE = "clean", "damaged", "enhancement only"
JOINT, BY_STEP, BY_LAYER, EMA = "joint", "gate by step", "gate by layer", "gate, EMA 0.99"
SEEDS = (0,) if QUICK else (0, 1, 2)
#: Weight of the task, in units of the mean norms of both gradients; of the first case others, too.
WEIGHT, WEIGHTS = 3.0, (3.0,) if QUICK else (0.3, 3.0, 30.0)
#: Steps by the main loss alone, and then in each way.
_FIRST_STEPS, _STEPS = (2, 1) if QUICK else (300, 100)
#: From 20,480 numbers on, channels × slices × rows, PyTorch has a convolution 12 times as fast.
_WINDOW, _CHANNELS = (16, 32, 32) if QUICK else (56, 48, 24), 8
#: Noise over the brightest tissue, and mm of slices.
_SIGMA, _SLICE_MM = 0.15, 8.0
Restore = Callable[[Tensor], Tensor]
#: Labels by the name of what is measured against them.
Truths = Mapping[str, Any]


def noisy(image: Floats, _spacing: Sequence[float]) -> Floats:
    """White noise; the bias of magnitudes is undone in use."""
    noise = np.random.default_rng(0).normal(0, _SIGMA, image.shape)
    return (image + noise).astype(np.float32)


def thick(image: Floats, spacing: Sequence[float]) -> Floats:
    """Thick slices, interpolated."""
    times = max(1, round(_SLICE_MM / spacing[2]))
    whole = torch.from_numpy(image[: len(image) // times * times])[None, None]
    means = F.avg_pool3d(whole, (times, 1, 1))
    return F.interpolate(means, size=image.shape, mode="trilinear")[0, 0].numpy()


def scanned(image: Floats, spacing: tuple[float, float, float]) -> Floats:
    """Low field: contrast, bias field, resolution and noise of a scanner."""
    whole = Volume(image * UNIT, Geometry(spacing), modality="MR")
    return np.asarray(SCANNERS["low field"].scan(whole, 0).voxels / UNIT, np.float32)


#: What makes a damaged image of one with values of `Scaling`, given its spacing along i, j, k.
DAMAGES = {"noise 15 %": noisy, "slices of 8 mm": thick, "another scanner": scanned}


def parts(options: Namespace) -> Iterator[Part]:
    data, truths = prepared(Heads(options.data))
    for damage in DAMAGES:
        for seed in SEEDS if data else ():
            case = cache(partial(Case, data, truths, damage, seed))
            yield f"{damage} {seed}", partial(plain_rows, case)
            for arm in (JOINT, BY_STEP, BY_LAYER, EMA):
                for weight in (WEIGHT,) if seed or damage != next(iter(DAMAGES)) else WEIGHTS:
                    yield f"{damage} {seed} {arm} {weight}", partial(rows, case, arm, weight)


def prepared(heads: Heads) -> tuple[list[Path], dict[str, Any]]:
    """The scan of each person, and people's labels by its name."""
    folder, truths = folder_of("gradprom") / "data", {}
    if QUICK:
        files = {name: SHARED_DATA / f"mr/open_ms/{name}/T1.nii.gz" for name in ("C07", "C19")}
        volumes = {name: load(file, modality="MR").single() for name, file in files.items()}
    else:
        listed = {name: entries[0] for name, entries in heads.of("manual").items()}
        volumes = {name: heads.image(entry) for name, entry in listed.items()}
        labels = {name: heads.drawn(entry, "labels") for name, entry in listed.items()}
        truths = {n: volumes[n].with_voxels(labels[n]).canonical().voxels for n in labels}
    folder.mkdir(parents=True, exist_ok=True)
    for name, volume in volumes.items():
        save(volume.canonical(), folder / f"{name}.nii.gz", overwrite=True)
    return [folder / f"{name}.nii.gz" for name in volumes], truths


class Case:
    """A person left out, and a network that learned from the others to undo a damage."""

    def __init__(self, data: list[Path], truths: Truths, damage: str, seed: int) -> None:
        torch.manual_seed(seed)
        training = [*data]
        held_out = training.pop(seed % len(data))
        head = open_bundle(HEAD, kind="head", modality="MR")
        self.task = StructuresTask(head, "cpu")
        name = held_out.name.partition(".")[0]
        volume = load(held_out, modality="MR").single().canonical()
        known = {"dice": labels_of(volume)}
        known |= {"dice_truth": truths[name]} if name in truths else {}
        self.measured = partial(figures, volume, known, damage)
        self.shared: Row = {"case": damage, "subject": name, "seed": seed}
        scans = [load(path, modality="MR").single().canonical() for path in training]
        self.crops, self.seed = [*crops_of(self.task, scans, damage)], seed
        first = GradientGate(weight=0.0)
        self.start = taught(Restorer(), _FIRST_STEPS, first, self.task, self.crops, seed)

    def taught_by(self, gate: GradientGate) -> Restorer:
        """Let the network go on."""
        return taught(deepcopy(self.start), _STEPS, gate, self.task, self.crops, self.seed)


def plain_rows(make: Callable[[], Case]) -> Iterator[Row]:
    """Measure the clean scan, the damaged one, and what is made of it without a task."""
    case = make()
    yield case.shared | {"arm": CLEAN} | case.measured(None)
    yield case.shared | {"arm": DAMAGED} | case.measured(lambda image: image)
    alone = case.taught_by(GradientGate(weight=0.0))
    yield case.shared | {"arm": ALONE} | case.measured(alone)


def rows(make: Callable[[], Case], arm: str, weight: float) -> Iterator[Row]:
    """Teach in a way, and measure."""
    case = make()
    averages = {"ema": 0.99, "warm_up": 20} if arm == EMA else {"ema": 0.0}
    gate = GradientGate(weight=weight, relative=True, **averages)
    with ExitStack() as changes:
        for change in changes_of(arm):
            changes.enter_context(change)
        network = case.taught_by(gate)
    seen = gate.diagnostics()
    row = {"arm": arm, "weight": weight, "open": seen.share, "cosine": seen.cosine}
    yield case.shared | row | case.measured(network)


def changes_of(arm: str) -> Iterator[AbstractContextManager[Any]]:
    """Changes of the gate: open at any cosine, and one decision for all weights."""
    if arm == JOINT:
        yield mock.patch.object(GradientGate, "admits", lambda _gate, _cosine: True)
    if arm == BY_STEP:
        yield mock.patch.object(gates, "_layers", lambda weights: [[*range(len(weights))]])


def crops_of(
    task: StructuresTask, scans: Sequence[Volume], damage: str
) -> Iterator[tuple[Tensor, ...]]:
    """Clean and damaged image of each scan, numbers of its voxels, and those in structures."""
    for volume, numbers in zip(scans, task.labeled(scans, Monitor()), strict=True):
        clean = scaling_for(volume).apply(volume.voxels)
        damaged = DAMAGES[damage](clean, volume.spacing)
        images = clean, damaged, numbers.astype(np.int64), np.flatnonzero(numbers)
        yield tuple(map(torch.from_numpy, images))


class Restorer(nn.Module):
    """A correction that reaches 10 slices and 5 pixels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, _CHANNELS), *[(_CHANNELS, _CHANNELS)] * 3, (_CHANNELS, 1)):
            layers += [nn.Conv3d(inputs, outputs, (5, 3, 3), padding=(2, 1, 1)), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, image: Tensor) -> Tensor:
        return image + self.layers(image[None, None])[0, 0]


def taught(
    network: Restorer, steps: int, gate: GradientGate, task: StructuresTask, crops: Any, seed: int
) -> Restorer:
    """Go on with squared error and task; the same windows in each way."""
    rng, weights = np.random.default_rng((seed, steps)), [*network.parameters()]
    optimizer = torch.optim.Adam(weights, 1e-3)
    for _ in range(steps):
        clean, damaged, numbers, inside = crops[rng.integers(len(crops))]
        voxel = np.unravel_index(int(inside[rng.integers(len(inside))]), clean.shape)
        where = []
        for at, size, side in zip(voxel, _WINDOW, clean.shape, strict=True):
            first = max(0, min(int(at) - size // 2, side - size))
            where.append(slice(first, first + size))
        place = tuple(where)
        image = network(damaged[place])
        main = F.mse_loss(image, clean[place])
        aux = task.loss(image, numbers[place]) if gate.weight else 0 * main.detach()
        for weight, gradient in zip(weights, gate(main, aux, weights)[0], strict=True):
            weight.grad = gradient
        optimizer.step()
    return network


def labels_of(volume: Volume) -> Any:
    """The head's labels."""
    config = SegmentConfig(model=HEAD, device="cpu", force_segmenter=True)
    return np.asarray(segment(volume, config).volume.voxels).astype(np.int32)


def figures(volume: Volume, truths: Truths, damage: str, restore: Restore | None) -> Row:
    """Measure what a network makes of a damaged scan; None for the clean one."""
    scaling = scaling_for(volume)
    clean = scaling.apply(volume.voxels)

    @torch.inference_mode()
    def restored(image: Floats) -> Floats:
        damaged = DAMAGES[damage](image, volume.spacing)
        return restore(torch.from_numpy(damaged)).numpy() if restore else image

    image, tissue = restored(clean), clean > TISSUE["MR"]
    added, lesions = plant(Subject("", volume.with_voxels(clean), 1.0, tissue), 0)
    kept = contrast_kept(image, restored(clean + added), lesions)
    labels = labels_of(volume.with_voxels(scaling.undo(image)))
    return {
        **{name: fmean(agreement(labels, truth).values()) for name, truth in truths.items()},
        "psnr": psnr(clean, image, 1.0, mask=tissue) if restore else None,
        "lesions_kept": fmean(kept) if kept else None,
    }


if __name__ == "__main__":
    run("gradprom", __doc__, parts, seeds=SEEDS)
