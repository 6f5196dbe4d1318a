"""The data of a training without pairs: volumes of high quality, scans, and their scanner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io import load
from MedEnhanceLib.io.describe import refuse_unfit
from MedEnhanceLib.jobs.kinds.measure_scanner import volumes_in, without_noise
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.check import measure_scanner
from MedEnhanceLib.scanner.scanner import Scanner
from MedEnhanceLib.training.hqg.config import TrainConfig

#: Share of the volumes that is held out if none are named; least slices, rows and columns.
_HELD_OUT, _LEAST_SIDE = 1 / 6, 8


def high_quality_volumes(
    config: TrainConfig, data: Path, monitor: Monitor
) -> tuple[list[Volume], list[Volume]]:
    """Read the high-quality volumes: to learn from, and held out.

    Args:
        config: with their patterns.
        data: the folder that these are relative to.
        monitor: may cancel.
    Raises InputError for fewer than two.
    """
    left_out = (*config.leave_out, *config.held_out)
    volumes = [*_matching_volumes(config, data, config.high_quality, left_out, monitor)]
    volumes = [volume for volume in volumes if min(volume.shape) >= _LEAST_SIDE]
    held_out = [*_matching_volumes(config, data, config.held_out, (), monitor)]
    if not held_out and len(volumes) > 1:
        order = np.random.default_rng([config.seed, 9]).permutation(len(volumes))
        count = max(1, round(_HELD_OUT * len(volumes)))
        held_out = [volumes[n] for n in order[:count]]
        volumes = [volumes[n] for n in order[count:]]
    if not volumes or not held_out:
        raise InputError(
            f"{data}: fewer than two high-quality volumes of {_LEAST_SIDE} slices, rows and "
            "columns or more",
            "Give volumes of more patients: one at least is held out.",
        )
    return volumes, held_out


def scanner_of(config: TrainConfig, good: Sequence[Volume], monitor: Monitor) -> Scanner:
    """Read the scanner, or measure it.

    Args:
        config: of the training.
        good: all volumes of high quality.
        monitor: of the measurement.
    Raises InputError for one of another modality.
    """
    if config.scanner:
        scanner = Scanner.read(config.scanner)
    else:
        low = volumes_in(config.low_quality, config.modality, monitor)
        scanner = measure_scanner(low, good, without_noise, monitor)
    if scanner.modality != config.modality:
        raise InputError(
            f"the scanner was measured in {scanner.modality}, and the training is of "
            f"{config.modality}",
            "State the modality of both: --modality.",
        )
    # Names of files may be those of patients.
    low_pool, good_pool = (
        replace(pool, files=tuple(str(n + 1) for n in range(len(pool.files))))
        for pool in (scanner.low_quality, scanner.high_quality)
    )
    return replace(scanner, low_quality=low_pool, high_quality=good_pool)


def scans_of(config: TrainConfig, monitor: Monitor) -> list[Volume]:
    """Read the scans of low quality, where a part of the paper takes them."""
    if not config.unpaired.takes_scans:
        return []
    volumes = volumes_in(config.low_quality, config.modality, monitor)
    return [volume.single().canonical().compact() for volume in volumes]


def _matching_volumes(
    config: TrainConfig, data: Path, patterns: Sequence[str], left_out: Sequence[str], part: Monitor
) -> Iterator[Volume]:
    """Read the volumes that match patterns, in canonical order, as they are enhanced in use.

    Args:
        config: states the modality.
        data: the folder that patterns are relative to.
        patterns: of files; InputError for one that matches nothing, and for an unfit volume.
        left_out: patterns of files and folders that are not read.
        part: may cancel.
    """
    files: set[Path] = set()
    for pattern in patterns:
        matching = _matching(data, [pattern])
        if not matching:
            raise InputError(
                f"{data}: no file matches {pattern}",
                'Correct the folder, or the pattern: "high_quality": ["*.nii.gz"], for example.',
            )
        files |= matching
    without = _matching(data, left_out)
    for path in sorted(path for path in files if without.isdisjoint((path, *path.parents))):
        part.check()
        volume = load(path, modality=config.modality, monitor=part.part(0, 0)).single()
        refuse_unfit(volume, Monitor(), on_request=True)
        yield volume.canonical().compact()


def _matching(data: Path, patterns: Iterable[str]) -> set[Path]:
    return {path for pattern in patterns for path in data.glob(pattern) if path.exists()}
