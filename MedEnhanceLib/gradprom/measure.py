"""How well a head, as it is, segments labeled images: as they are, noisy, and enhanced."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.metrics import dice, psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import LowDose, Rician
from MedEnhanceLib.gradprom import segment
from MedEnhanceLib.gradprom.config import SegmentConfig, TrainHeadConfig
from MedEnhanceLib.gradprom.labeled import LabeledImage, find_split, read_labeled
from MedEnhanceLib.nets.intensity import TISSUE, scaling_for
from MedEnhanceLib.runtime.progress import Monitor

#: Enhances a volume; passed in, as a method does not import another.
Enhance = Callable[[Volume], Volume]
#: Noise of the images that are measured: σ as a share of the brightest tissue, photons per ray.
_SIGMA, _PHOTONS, _ELECTRONIC = 0.1, 5e3, 5.0
_CLEAN, _NOISY = "clean", "noisy"


@dataclass(frozen=True)
class Enhancer:
    """Enhancement of the images that a head learns from.

    Attributes:
        enhance: makes an enhanced volume.
        identity: name and hash of the bundle.
        taught: record of the steps in which a head taught it; None of one that none taught.
    """

    enhance: Enhance
    identity: Mapping[str, str]
    taught: Mapping[str, Any] | None = None


def measure_held_out(
    head: Path,
    config: TrainHeadConfig,
    data: Path,
    enhancers: Mapping[str, Enhance],
    monitor: Monitor,
    *,
    device: str,
    depth: int | None = None,
) -> list[dict[str, Any]]:
    """Segment images as they are, noisy, and as each enhancer leaves the noisy ones.

    Patients have numbers, as names of files may be names of people; the monitor's log maps numbers
    to files.

    Args:
        head: folder of its bundle.
        config: of the head's training; its structures are measured, in the images held out.
        data: folder that its patterns are relative to.
        enhancers: by the name that rows give to what they make.
        monitor: progress and cancelling.
        device: as torch names it.
        depth: slices that are measured, those with most labels; None: all.
    Returns:
        A row for each patient and image: "subject", "image" ("clean", "noisy" or an enhancer's
        name), "dice" (mean over the structures), "psnr_db" (of tissue, None of the clean image),
        and "LABEL (Dice)".
    """
    rows = []
    options = SegmentConfig(model=str(head), device=device, force_segmenter=True)
    quiet = Monitor(cancel=lambda: monitor.cancelled)  # warnings of each image would repeat
    names = [_CLEAN, _NOISY, *enhancers]
    _, held_out = find_split(config, data)
    for number, files in enumerate(held_out):
        part = monitor.part(number / len(held_out), (number + 1) / len(held_out))
        subject = f"held-out patient {number + 1}"
        labeled = read_labeled(config, data, files, part.part(0, 0.1))
        labeled = labeled.slab(depth) if depth else labeled
        is_ct = config.modality == "CT"
        noise = LowDose(_PHOTONS, _ELECTRONIC, number) if is_ct else Rician(_SIGMA, number)
        noisy = noise.apply(labeled.image)
        monitor.log(f"{subject}: {files[0].relative_to(data)}")
        for index, name in enumerate(names):
            part.progress(0.1 + 0.9 * index / len(names), f"measuring the {name} image")
            original = labeled.image if name == _CLEAN else noisy
            volume = enhancers[name](noisy) if name in enhancers else original
            labels = segment(volume, options, original=original, monitor=quiet).volume
            figures = _figures(labeled, volume, labels, config)
            rows.append({"subject": subject, "image": name, **figures})
    return rows


def _figures(
    labeled: LabeledImage, volume: Volume, labels: Volume, config: TrainHeadConfig
) -> dict[str, Any]:
    """Compute Dice of the labels of a volume, and its PSNR in the tissue of the labeled image."""
    scaling = scaling_for(labeled.image)
    clean, voxels = (scaling.apply(image.voxels) for image in (labeled.image, volume))
    fidelity = psnr(clean, voxels, 1.0, mask=clean > TISSUE[config.modality])
    scores = {
        label.name: dice(labeled.indices == index, labels.voxels == label.value, 1)
        for index, label in enumerate(config.label_set, 1)
    }
    return {
        "dice": round(float(np.mean([*scores.values()])), 4),
        "psnr_db": round(fidelity, 3) if math.isfinite(fidelity) else None,
        **{f"{label} (Dice)": round(score, 3) for label, score in scores.items()},
    }
