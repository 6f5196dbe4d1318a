"""How well a head, as it is, segments labeled images: as they are, noisy, and enhanced."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.metrics import dice
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import Degradation, LowDose, Rician
from MedEnhanceLib.gradprom import segment
from MedEnhanceLib.gradprom.config import SegmentConfig, TrainHeadConfig
from MedEnhanceLib.gradprom.labeled import Files, LabeledImage, read_labeled
from MedEnhanceLib.learning.intensity import TISSUE, scaling_for
from MedEnhanceLib.runtime.progress import Monitor

#: Enhances a volume; passed in, as a method does not import another.
Enhance = Callable[[Volume], Volume]
#: Noise of the images that are measured: σ as a share of the brightest tissue, photons per ray.
SIGMA, PHOTONS, _ELECTRONIC = 0.1, 5e3, 5.0
CLEAN, NOISY = "clean", "noisy"


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


def noise_of(modality: str, seed: int) -> Degradation:
    """Return the noise that images are measured with."""
    return LowDose(PHOTONS, _ELECTRONIC, seed) if modality == "CT" else Rician(SIGMA, seed)


def measure_held_out(
    head: str,
    config: TrainHeadConfig,
    data: Path,
    files: Sequence[Files],
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
        head: name or folder.
        config: of the head's training; its structures are measured.
        data: folder that files are named relative to.
        files: of `labeled.find_split`.
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
    options = SegmentConfig(model=head, device=device, force_segmenter=True)
    for number, pair in enumerate(files):
        part = monitor.part(number / len(files), (number + 1) / len(files))
        subject = f"held-out patient {number + 1}"
        labeled = read_labeled(config, data, pair, part.part(0, 0.1))
        measured = list(
            _measure(
                labeled.slab(depth) if depth else labeled,
                noise_of(config.modality, number),
                options,
                config,
                enhancers,
                part.part(0.1, 1),
            )
        )
        monitor.log(f"{subject}: {pair[0].relative_to(data)}: {measured}")
        rows += [{"subject": subject, **row} for row in measured]
    return rows


def _measure(
    labeled: LabeledImage,
    noise: Degradation,
    options: SegmentConfig,
    config: TrainHeadConfig,
    enhancers: Mapping[str, Enhance],
    monitor: Monitor,
) -> Iterator[dict[str, Any]]:
    """Yield the row of each image of one patient."""
    noisy = noise.apply(labeled.image)
    scaling, values = scaling_for(labeled.image), labeled.values(config)
    clean = scaling.apply(labeled.image.voxels)
    tissue = clean > TISSUE[config.modality]
    quiet = Monitor(cancel=lambda: monitor.cancelled)  # warnings of each would repeat
    for number, name in enumerate([CLEAN, NOISY, *enhancers]):
        monitor.progress(number / (2 + len(enhancers)), f"measuring the {name} image")
        original = labeled.image if name == CLEAN else noisy
        volume = enhancers[name](noisy) if name in enhancers else original
        labels = segment(volume, options, original=original, monitor=quiet).volume.voxels
        scores = {label.name: dice(values, labels, label.value) for label in config.label_set}
        error = (scaling.apply(volume.voxels) - clean)[tissue].astype(np.float64)
        square = float(np.square(error).mean()) if tissue.any() else 0.0
        yield {
            "image": name,
            "dice": round(float(np.mean([*scores.values()])), 4),
            "psnr_db": round(-10 * math.log10(square), 3) if square else None,
            **{f"{label} (Dice)": round(score, 3) for label, score in scores.items()},
        }
