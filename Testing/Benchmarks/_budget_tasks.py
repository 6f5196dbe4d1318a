"""Tasks with a frozen segmenter: patients, noisy and filtered images, and what is to be found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from _common import REPOSITORY, SHARED_DATA
from _enhancement_cache import code_hash, key_of
from _gradprom_data import FILES, around, reduced
from scipy.ndimage import median_filter

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import Degradation, LowDose, Rician
from MedEnhanceLib.gradprom import AdaptConfig
from MedEnhanceLib.gradprom.adapt import Example, Sampler
from MedEnhanceLib.gradprom.config import HeadConfig
from MedEnhanceLib.gradprom.head import make_head
from MedEnhanceLib.gradprom.segmenters import Segmenter, open_segmenter
from MedEnhanceLib.gradprom.train import segmentation_loss
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.intensity import TISSUE, Scaling, scaling_for
from MedEnhanceLib.nets.training import averaged_weights, set_learning_rate

FOLDER = REPOSITORY / "runs" / "budget"
#: The segmenter of brains, which ships.
_HEAD = "brain-tissue"
#: Noisy versions of each volume: the first is what a test uses.
_VERSIONS = 4
#: Slices of a brain, from this share of its height on.
_SLICES, _HEIGHT = 24, 0.5
_RICIAN, _PHOTONS, _ELECTRONIC = 0.15, 1500.0, 5.0
#: Tissues of a CT by their HU, as body composition is measured: fat, muscle and organs, bone.
_TISSUES = ((-190.0, -30.0), (-29.0, 150.0), (150.0, 4000.0))
_LABELS = ("fat", "muscle and organs", "bone")
_WINDOW = (-0.16, 0.24)
_SEGMENTER_STEPS, _RATE = 1000, 3e-3
#: Brightness and offset of MR vary while its segmenter learns.
_GAIN, _SHIFT = (0.8, 1.25), (-0.05, 0.05)


@dataclass(frozen=True)
class Case:
    """A patient: what a test sees, and what is learned from.

    noisy, filtered: of the test, [K, J, I] on the network's scale, as is `example`.
    """

    subject: str
    noisy: npt.NDArray[np.float32]
    filtered: npt.NDArray[np.float32]
    example: Example


@dataclass(frozen=True)
class Task:
    """What is to be found in which images.

    about: for the page. target: where its labels come from.
    """

    name: str
    modality: str
    about: str

    @property
    def is_brain(self) -> bool:
        return self.modality == "MR"

    @property
    def weights(self) -> str:
        """The SHA-256 of a segmenter that ships: with it results change; "" for one trained here.

        It is part of the keys of what is kept.
        """
        return _shipped_weights() if self.is_brain else ""

    def segmenter(self, cases: list[Case], seed: int) -> Segmenter:
        """The shipped head, or one that has learned from the undamaged images of `cases`."""
        return open_segmenter(_HEAD) if self.is_brain else _trained(cases, seed)


@cache
def _shipped_weights() -> str:
    return open_segmenter(_HEAD).sha256


TASKS = (
    Task(
        "MR",
        "MR",
        "brain tissue in T1 (open_ms, studyforrest and the sample template: 8 brains, 24 slices "
        f"each), Rician noise of {_RICIAN:.0%}; the frozen segmenter is the shipped head "
        "*brain-tissue*, and the target is what it finds in the undamaged image",
    ),
    Task(
        "CT",
        "CT",
        f"fat, muscle and bone around tumours of 26 patients (STS), {_PHOTONS:g} photons per ray; "
        "the frozen segmenter is a small U-Net that has learned from the training patients' "
        "undamaged images, and the target are tissues by HU in the undamaged image after a median "
        "filter",
    ),
)


def load_cases(task: Task, most: int = 0) -> list[Case]:
    """All patients, or the first `most`; kept on disk, as noise and filter take minutes."""
    paths = sorted(_files(task))
    if not paths:
        raise SystemExit(f"no images below {SHARED_DATA}: the open volumes are not there")
    code = code_hash("_budget_tasks.py", "MedEnhanceLib/nets/grouped.py")
    cases = []
    for path in paths[: most or None]:
        key = key_of(task.name, path.name, path.parent.name, task.weights, code)
        kept = FOLDER / "data" / f"{key}.npz"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(".partial.npz")
            np.savez(partial, **_simulated(task, path))
            partial.replace(kept)
        cases.append(_case(task, path.parent.name, dict(np.load(kept))))
    return cases


def _files(task: Task) -> list[Path]:
    if not task.is_brain:
        folder, image, _ = FILES["CT"]
        return list((SHARED_DATA / folder).glob(f"*/{image}"))
    brains = [SHARED_DATA / "mr/studyforrest/T1.nii.gz", SHARED_DATA / "sample/mni152_t1.nii.gz"]
    found = [*brains, *(SHARED_DATA / "mr/open_ms").glob("*/*T1*.nii.gz")]
    return [path for path in found if path.is_file() and "T1WKS" not in path.name]


def _case(task: Task, subject: str, stored: dict[str, Any]) -> Case:
    versions = stored["versions"]
    pairs = [(versions[2 * n], versions[2 * n + 1]) for n in range(len(versions) // 2)]
    clean = stored["clean"]
    inside = clean > TISSUE[task.modality]
    return Case(subject, *pairs[0], Example(clean, tuple(pairs[1:]), stored["target"], inside))


def volume_of(task: Task, scaled: npt.NDArray[np.float32]) -> Volume:
    """An image on the network's scale as a volume, CT in HU."""
    if task.is_brain:
        return Volume(scaled, modality="MR")
    return Volume(scaled * np.float32(1000), modality="CT", units="HU")


def with_view(task: Task, case: Case, segmenter: Segmenter) -> Case:
    """The case with what the segmenter measures in its undamaged image."""
    volume = volume_of(task, case.example.clean)
    scaling = Scaling(0.0, 1.0 if task.is_brain else 1000.0)
    return replace(case, example=replace(case.example, view=segmenter.view_of(volume, scaling)))


def _simulated(task: Task, path: Path) -> dict[str, npt.NDArray[Any]]:
    volume = load(path, modality=task.modality)
    if task.is_brain:
        first = round(_HEIGHT * volume.shape[0])
        volume = volume.crop(k=slice(first, min(first + _SLICES, volume.shape[0])))
        target = open_segmenter(_HEAD).find(volume)
    else:
        volume = _around_tumour(volume, path)
        target = _tissues(volume.voxels)
    scaling, versions = scaling_for(volume), []
    for seed in range(_VERSIONS):
        damage: Degradation = Rician(_RICIAN, seed)
        if not task.is_brain:
            damage = LowDose(_PHOTONS, _ELECTRONIC, seed)
        noisy = damage.apply(volume)
        better = enhance(noisy, EnhanceConfig(task="noise", device="cpu")).volume
        versions += [scaling.apply(noisy.voxels), scaling.apply(better.voxels)]
    return {
        "clean": scaling.apply(volume.voxels),
        "target": target,
        "versions": np.stack(versions),
    }


def _around_tumour(volume: Volume, path: Path) -> Volume:
    """The slices that show the tumour, and pixels averaged 2 × 2: a small network sees a limb."""
    outlined = load(path.with_name(FILES["CT"][2]), modality="SEG").voxels > 0
    near = around(outlined)
    part = volume.crop(k=slice(near.start, near.stop))
    voxels = reduced(part.voxels.astype(np.float32), 2)
    columns, rows, slices = part.geometry.spacing
    geometry = replace(part.geometry, spacing=(2 * columns, 2 * rows, slices))
    return replace(part, voxels=voxels, geometry=geometry)


def _tissues(voxels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    smooth = median_filter(voxels.astype(np.float32), (1, 3, 3))
    found = np.zeros(smooth.shape, np.uint8)
    for index, (low, high) in enumerate(_TISSUES, start=1):
        found[(smooth > low) & (smooth <= high)] = index
    return found


def _trained(cases: list[Case], seed: int) -> Segmenter:
    """A small U-Net on undamaged slices, mirrored at random."""
    torch.manual_seed(seed)
    network = make_head(HeadConfig(context=0, widths=(8, 16, 24, 32, 48)), len(_LABELS))
    average = averaged_weights(network, 0.98)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-4)
    clean = [
        replace(case.example, versions=((case.example.clean, case.example.clean),))
        for case in cases
    ]
    sampler = Sampler(clean, AdaptConfig(modality="CT", seed=seed + 100, slab=4, batch=2))
    rng, criterion = np.random.default_rng([seed, 1]), segmentation_loss()
    for number in range(_SEGMENTER_STEPS):
        set_learning_rate(optimizer, _RATE, number, _SEGMENTER_STEPS)
        slabs = sampler.batch(number)
        flips = [axis for axis in (-1, -2) if rng.random() < 0.5]
        low, high = _WINDOW
        images = ((slabs.clean.flatten(0, 1)[:, None] - low) / (high - low)).clamp(0, 1).flip(flips)
        labels = slabs.target.flatten(0, 1)[:, None].float().flip(flips)
        loss = criterion(network(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update_parameters(network)
    low_hu, high_hu = (1000 * end for end in _WINDOW)
    return open_segmenter(
        average.module.eval(),
        spec={
            "modality": "CT",
            "dimensions": 2,
            "labels": list(_LABELS),
            "multiple": 16,
            "intensity": {"kind": "window", "low": low_hu, "high": high_hu, "clip": True},
        },
    )
