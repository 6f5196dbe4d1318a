"""What statistics of a cohort leave to gain in two tasks that no distillation here is made for.

    python Testing/Benchmarks/distillation_tasks.py         writes results

CT: a sharp kernel from a smooth one. MR: brain tissue. What all raw images gain over statistics is
the most that matching could add; for tissue, where that is much, matching is tried: gradients of a
segmenting network on the prior's labels and on the patient's. Labels of tissue are those that the
shipped head finds in the clean volumes: no reader has drawn them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

# Before PyTorch comes in: figures do not depend on it, and a shared machine is kinder so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import torch
from _common import gate, write
from _distillation_cases import Case, config_of
from _enhancement_statistics import Difference, difference
from distillation_cohorts import GROUPS, cohort_of
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from scipy.ndimage import gaussian_filter
from torch import Tensor

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.spg.comparison_arms import gather
from MedEnhanceLib.spg.config import DistillConfig, ImageConfig
from MedEnhanceLib.spg.images import Floats, spread_over, window_of
from MedEnhanceLib.spg.networks import Generator
from MedEnhanceLib.spg.objective import StructureLoss, cosine_distance, layer_gradients
from MedEnhanceLib.spg.prepare import Prior, with_intensities, with_statistics
from MedEnhanceLib.spg.restorer import restored_psnr, train_restorer
from MedEnhanceLib.spg.tasks import Task
from MedEnhanceLib.spg.worth import LEAST_ROOM

_SEEDS = 3
#: A smooth kernel beside a sharp one: σ in pixels of 1 mm, and what noise is left, of [0, 1].
_KERNEL_SIGMA, _KERNEL_NOISE = 1.0, 0.003
_STEPS, _BATCH, _CROP, _SLICES = 600, 6, 96, 10
_CLASSES = 4
#: Of matching: networks, matches of each, steps that each learns after a match.
_NETWORKS, _MATCHES, _TEACHING = 10, 10, 10
ARMS = {
    "public": "public prior",
    "prior": "with the cohort's intensities",
    "statistics": "with its 101 statistics",
    "matching": "matching from there",
    "full": "all raw images",
}


class Kernel(Task):
    """A smooth kernel; drawn: the noise that is left, [B, 1, H, W]."""

    on_patches = False

    def draw(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """White noise, as the smooth image has it."""
        noise = rng.standard_normal(tuple(images.shape), dtype=np.float32)
        return torch.from_numpy(noise * np.float32(_KERNEL_NOISE)).to(images.device)

    def damage(self, images: Tensor, drawn: Tensor) -> Tensor:
        """The blurred image plus its noise."""
        sigma = (0, 0, _KERNEL_SIGMA, _KERNEL_SIGMA)
        return torch.from_numpy(gaussian_filter(images.numpy(), sigma)) + drawn


@dataclass(frozen=True)
class Labeled:
    """Slices with their labels: float32 and uint8, [N, H, W]."""

    images: Floats
    labels: npt.NDArray[np.uint8]


def main() -> None:
    """Measure, then write the results."""
    kernel, tissue = _kernel(), _tissue()
    gates = [
        _gate("CT kernel, dB: all raw images", "full", kernel, LEAST_ROOM),
        _gate("tissue, Dice: all raw images", "full", tissue, 0.02),
        _gate("tissue, Dice: matching", "matching", tissue, 0.02),
    ]
    rows = [*kernel, *tissue]
    write("distillation_tasks", gates=gates, rows=rows, seeds=range(_SEEDS))


def _kernel() -> list[dict[str, Any]]:
    group = GROUPS["STS-CT"]
    config = config_of(Case("CT", "denoise", _STEPS), seeds=_SEEDS, draws=1, quick=False)
    distill = replace(config.distill, prior=group.prior, held_out=group.held_out)
    material = gather(cohort_of(group), distill, Monitor())
    scaling, task = material.scaling, Kernel()
    sets = {
        **_starts(material.public, material.training.values(), "CT", scaling),
        "full": material.pool,
    }
    rows = []
    for arm, images in sets.items():
        for seed in range(_SEEDS):
            training = replace(config.restorer, seed=seed)
            network = train_restorer(images, task, "CT", training, scaling=scaling)
            for subject, test in enumerate(material.held_out.values()):
                chosen = spread_over(test, min(_SLICES, len(test)))
                floor, found = restored_psnr(network, chosen, task, "CT", scaling=scaling)
                rows.append(_row("CT kernel", arm, seed, subject, found, floor))
            print(rows[-1], flush=True)
    return rows


def _tissue() -> list[dict[str, Any]]:
    cohort = cohort_of(GROUPS["brains-T1"])
    patients = [_labeled(me.load(patient.paths[0], modality="MR")) for patient in cohort]
    held = round(GROUPS["brains-T1"].held_out * len(patients))
    training, test = patients[:-held], patients[-held:]
    template = _labeled(me.load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR"))
    starts = _starts(template.images, [one.images for one in training], "MR", ImageConfig())
    sets = {arm: replace(template, images=images) for arm, images in starts.items()}
    matched = [_matched(sets["statistics"], one, n) for n, one in enumerate(training)]
    sets["matching"] = Labeled(
        np.concatenate([one.images for one in matched]),
        np.concatenate([one.labels for one in matched]),
    )
    sets["full"] = Labeled(
        np.concatenate([one.images for one in training]),
        np.concatenate([one.labels for one in training]),
    )
    rows = []
    for arm, given in sets.items():
        for seed in range(_SEEDS):
            network = _segmenter(given, seed)
            for subject, one in enumerate(test):
                rows.append(_row("MR tissue", arm, seed, subject, _dice(network, one), None))
            print(rows[-1], flush=True)
    return rows


def _starts(
    public: Floats, patients: Any, modality: str, scaling: ImageConfig
) -> dict[str, Floats]:
    start, raw = Prior(public, "file"), list(patients)
    return {
        "public": public,
        "prior": with_intensities(start, raw, modality, scaling).images,
        "statistics": with_statistics(start, raw, modality, scaling).images,
    }


def _labeled(volume: Volume) -> Labeled:
    """Slices with brain at equal quantiles, in pixels of 1 mm, and what the shipped head finds."""
    found = me.segment(volume, model="brain-tissue").volume
    fine = (1.0, 1.0, volume.geometry.spacing[2])
    _, top = window_of(volume, ImageConfig())
    images = np.clip(volume.resample(fine).voxels / np.float32(top), 0, 1).astype(np.float32)
    labels = found.resample(fine).voxels
    has_brain = np.flatnonzero((labels > 0).mean(axis=(1, 2)) > 0.1)
    chosen = spread_over(has_brain, 2 * _SLICES)
    return Labeled(images[chosen], labels[chosen])


def _matched(start: Labeled, raw: Labeled, seed: int) -> Labeled:
    """The start's slices, changed by SPG's generator until a segmenter learns from them alike."""
    rows, columns = (size // 8 * 8 for size in start.images.shape[1:])
    prior = torch.from_numpy(start.images[::2, None, :rows, :columns].copy())
    labels = start.labels[::2, :rows, :columns]
    config = DistillConfig().generator
    rng = np.random.default_rng([seed, 7])
    generator = Generator(config, len(prior), (rows, columns), rng)
    adam = torch.optim.Adam(generator.parameters(), lr=config.rate)
    for number in range(_NETWORKS):
        torch.manual_seed(1000 * seed + number)
        network = _network()
        teacher = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(_MATCHES):
            wanted = layer_gradients(
                _loss(network, *_batch(raw, rng)), network, differentiable=False
            )
            residual = generator.residual(prior)
            images = generator.add(prior, residual)
            places = [_place(labels, rng) for _ in range(_BATCH)]
            cuts = torch.stack([images[n, :, top, left] for n, top, left in places])
            own = torch.from_numpy(np.stack([labels[place] for place in places]))[:, None]
            found = layer_gradients(_loss(network, cuts, own.long()), network, differentiable=True)
            far = StructureLoss()(images, prior)
            loss = cosine_distance(wanted, found) + config.structure[0] * far
            adam.zero_grad()
            (loss + config.restraint * residual.square().mean()).backward()
            torch.nn.utils.clip_grad_norm_(generator.parameters(), config.clip)
            adam.step()
            now = Labeled(images.detach()[:, 0].numpy(), labels)
            for _ in range(_TEACHING):
                teacher.zero_grad()
                _loss(network, *_batch(now, rng)).backward()
                teacher.step()
        print("match", seed, number, loss.item(), flush=True)
    with torch.no_grad():
        return Labeled(generator(prior)[:, 0].numpy(), labels)


def _network() -> torch.nn.Module:
    return UNet(2, 1, _CLASSES, channels=(16, 32, 64), strides=(2, 2), num_res_units=1)


def _loss(network: torch.nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    loss: Tensor = DiceCELoss(to_onehot_y=True, softmax=True)(network(images), labels)
    return loss


def _segmenter(given: Labeled, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = _network()
    adam = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(_STEPS):
        adam.zero_grad()
        _loss(network, *_batch(given, rng)).backward()
        adam.step()
    return network.eval()


def _batch(given: Labeled, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    places = [_place(given.labels, rng) for _ in range(_BATCH)]
    turns = [int(rng.choice((-1, 1))) for _ in places]
    images, labels = (
        np.stack([array[place][:, ::turn] for place, turn in zip(places, turns, strict=True)])
        for array in (given.images, given.labels)
    )
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels)[:, None].long()


def _place(labels: npt.NDArray[np.uint8], rng: np.random.Generator) -> tuple[int, slice, slice]:
    top, left = (int(rng.integers(size - _CROP + 1)) for size in labels.shape[1:])
    return int(rng.integers(len(labels))), slice(top, top + _CROP), slice(left, left + _CROP)


@torch.no_grad()
def _dice(network: torch.nn.Module, test: Labeled) -> float:
    rows, columns = (size // 4 * 4 for size in test.images.shape[1:])
    images = torch.from_numpy(test.images[:, None, :rows, :columns])
    found = torch.cat([network(part).argmax(1) for part in torch.split(images, 4)]).numpy()
    wanted = test.labels[:, :rows, :columns]
    shares = [
        2
        * np.sum((found == value) & (wanted == value))
        / max(1, np.sum(found == value) + np.sum(wanted == value))
        for value in range(1, _CLASSES)
    ]
    return float(np.mean(shares))


def _row(
    case: str, arm: str, seed: int, subject: int, value: float, floor: float | None
) -> dict[str, Any]:
    return {
        "case": case,
        "arm": arm,
        "seed": seed,
        "subject": subject,
        "value": value,
        "floor": floor,
    }


def _gain(rows: list[dict[str, Any]], arm: str, other: str) -> Difference | None:
    return difference(rows, "value", [(rows[0]["case"], arm, other)])


def _gate(name: str, arm: str, rows: list[dict[str, Any]], least: float) -> dict[str, Any]:
    gain = _gain(rows, arm, "statistics")
    value = gain.mean if gain else None
    passed = gain is not None and gain.mean >= least and gain.low > 0
    return gate(f"{name} over statistics", value, f"≥ {least:g}, for certain", passed)


if __name__ == "__main__":
    main()
