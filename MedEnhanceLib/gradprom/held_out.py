"""How well a head finds what is labelled in patients that it did not learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.bundles.export import record_measurements
from MedEnhanceLib.core.metrics import dice
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import LowDose, standard_composite
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.gradprom.config import SegmentConfig, TrainHeadConfig
from MedEnhanceLib.gradprom.folds import Files
from MedEnhanceLib.gradprom.infer import segment
from MedEnhanceLib.gradprom.labelled import read_labelled
from MedEnhanceLib.gradprom.shapes import flicker
from MedEnhanceLib.runtime.progress import Monitor

#: Of the damaged versions in CT, as the benchmarks have it.
_PHOTONS, _ELECTRONIC = 5e3, 5.0
#: The column of shapes.flicker, the mean over the labels that the patient has.
FLICKER = "flicker (1 is the reference's)"


def measure_held_out(
    folder: Path,
    config: TrainHeadConfig,
    data: Path,
    files: Sequence[Files],
    monitor: Monitor,
    enhance: Callable[[Volume], Volume] | None,
) -> list[dict[str, Any]]:
    """Dice and flicker in each patient, clean, damaged and enhanced, and their means.

    The rows go into the bundle's metadata and card. Patients have numbers there: names of files
    may be names of people. The monitor is told which is which.
    """
    rows = []
    for number, one in enumerate(files):
        part = monitor.part(number / len(files), (number + 1) / len(files))
        subject = f"held-out patient {number + 1}"
        monitor.log(f"{subject}: {one[0].relative_to(data)}")
        labelled = read_labelled(config, data, one, part.part(0, 0.1))
        for case, state, volume in _cases(labelled.image, config, number, enhance):
            chosen = SegmentConfig(model=str(folder), device=config.device)
            found = segment(volume, chosen, monitor=Monitor(cancel=lambda: monitor.cancelled))
            figures = _figures(labelled.values(config), found.volume.voxels, config)
            monitor.log(f"{subject}, {case}, {state}: {figures}")
            rows.append({"subject": subject, "case": case, "input": state, **figures})
    rows += _means(rows)
    record_measurements(folder, rows)
    return rows


def _cases(
    image: Volume, config: TrainHeadConfig, seed: int, enhance: Callable[[Volume], Volume] | None
) -> list[tuple[str, str, Volume]]:
    """The image as it is, damaged, and enhanced from that."""
    is_ct = config.modality == "CT"
    case = "5,000 photons" if is_ct else "composite"
    damage = LowDose(_PHOTONS, _ELECTRONIC, seed) if is_ct else standard_composite(seed)
    damaged = damage.apply(image)
    cases = [("undamaged", "as it is", image), (case, "as it is", damaged)]
    return [*cases, (case, "enhanced", enhance(damaged))] if enhance else cases


def _figures(
    reference: npt.NDArray[np.uint8], found: npt.NDArray[Any], config: TrainHeadConfig
) -> dict[str, float | None]:
    """Dice of each label, and how often labels change between slices against the reference."""
    figures: dict[str, float | None] = {}
    restless = []
    for label in config.label_set:
        figures[f"{label.name} (Dice)"] = round(dice(reference, found, label.value), 3)
        # A label that is the same in all slices has no figure to compare with.
        with suppress(InputError):
            restless.append(flicker(reference, found, label.value))
    return {**figures, FLICKER: _mean(restless, 2)}


def _means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    means = []
    for case, state in dict.fromkeys((row["case"], row["input"]) for row in rows):
        chosen = [row for row in rows if (row["case"], row["input"]) == (case, state)]
        names = [name for name in chosen[0] if name not in ("subject", "case", "input")]
        figures = {name: _mean([row[name] for row in chosen], 3) for name in names}
        means.append({"subject": "mean", "case": case, "input": state, **figures})
    return means


def _mean(values: Sequence[float | None], digits: int) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), digits) if known else None
