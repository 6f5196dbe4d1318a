"""The volumes that a training learns from: clean ones at several resolutions, and noisy ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.averaging import averaged
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.guide import align
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.noise import NoiseEstimate, measure_noise
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
#: Voxels that are averaged along an axis where the volume is learned from at half its resolution.
_HALF = 2
#: Axes whose voxels are at most this much longer than the shortest are averaged.
_NEARLY_SHORTEST = 1.5
#: Least voxels along an axis: the rim of a crop does not count.
_THINNEST = 8
#: Least voxels along an axis that are left by averaging.
_LEAST_SIDE = 24
#: Noise of a target as a share of its range, above which it is learned from at half its resolution
#: alone.
_MOST_NOISE = 0.02
#: Confidence below which measured noise may be anatomy.
_CERTAIN = 0.5
Subject = tuple[Path, Volume, npt.NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Target:
    """A volume, and the other series of its examination on its grid.

    Attributes:
        series: [K, J, I] each, the volume first; MR with bright tissue at 1, CT in units of 1000 HU
            with water at 0; the others are NaN where they show nothing.
        spacing: mm along i, j, k.
        name: of the file or of the examination that it comes from.
        is_raw: whether it has the resolution of its file.
        noise: σ of its own noise, on its scale; 0 where that may be anatomy as well.
        measured: all that is known of its noise, where that is to be removed.
        labels: [K, J, I] indices of a task's labels, 0 for the background; None without.
        subject: number among the task's subjects.
    """

    series: tuple[Floats, ...]
    spacing: tuple[float, float, float]
    name: str
    is_raw: bool = True
    noise: float = 0.0
    measured: NoiseEstimate | None = None
    labels: npt.NDArray[np.uint8] | None = None
    subject: int = 0


@dataclass(frozen=True)
class Data:
    """What a training learns from and is validated on.

    Attributes:
        clean: volumes of the stage without guides.
        examinations: of the stages with guides.
        validation: clean volumes that are only validated on.
        noisy: real volumes without targets, of the unpaired steps.
        labeled: of the task.
    """

    clean: list[Target]
    examinations: list[Target]
    validation: list[Target]
    noisy: list[Target]
    labeled: list[Target]


def load_data(
    config: TrainConfig,
    data: Path,
    monitor: Monitor,
    *,
    volumes: Sequence[Volume] | None = None,
    subjects: Iterable[Subject] = (),
) -> Data:
    """Read all volumes.

    Args:
        config: whose patterns are relative to `data`.
        data: a folder.
        monitor: messages and cancelling.
        volumes: clean ones, instead of files.
        subjects: of the task: file, volume, and label indices [K, J, I].
    Raises:
        InputError: a pattern names nothing, or no training data.
    """
    modality, is_unpaired = config.modality, config.loss.unpaired > 0
    left_out = (*config.leave_out, *config.validation)

    def read(patterns: Sequence[str], leave_out: Sequence[str] = left_out) -> Iterator[Volume]:
        for path in files_of(data, patterns, leave_out):
            monitor.check()
            yield load(path, modality=modality)

    given = read(config.high_quality) if volumes is None else volumes
    clean = [
        target
        for volume in given
        for target in _resolutions(volume, volume.source, is_clean=volumes is not None)
    ]
    if not clean:
        raise InputError(
            f"{data}: no clean volume to learn from",
            "Give volumes with little noise (high_quality).",
        )
    validation = [
        target
        for volume in read(config.validation, ())
        for target in _resolutions(volume, volume.source)
    ]
    examinations = load_examinations(config.examinations, data, left_out, modality, monitor)
    noisy = load_noisy(read(config.low_quality)) if is_unpaired else []
    return Data(clean, examinations, validation, noisy, _labeled(subjects, data, left_out))


def files_of(data: Path, patterns: Sequence[str], leave_out: Sequence[str] = ()) -> list[Path]:
    """Files below `data` that a pattern names and none of `leave_out` does, in order of names.

    Raises InputError for a pattern that names nothing.
    """
    left_out = _named(data, leave_out)
    files: set[Path] = set()
    for pattern in patterns:
        matching = _named(data, [pattern])
        if not matching:
            raise InputError(
                f"{data}: no file matches {pattern}", "Correct the pattern or the folder."
            )
        files |= matching
    return sorted(path for path in files if left_out.isdisjoint((path, *path.parents)))


def _named(data: Path, patterns: Sequence[str]) -> set[Path]:
    return {path for pattern in patterns for path in data.glob(pattern) if path.exists()}


def load_examinations(
    patterns: Sequence[str],
    data: Path,
    leave_out: Sequence[str],
    modality: str,
    monitor: Monitor,
) -> list[Target]:
    """Examinations, one a pattern: each series with the others registered onto its grid."""
    targets: list[Target] = []
    for pattern in patterns:
        files = files_of(data, (pattern,), leave_out)
        volumes = [load(path, modality=modality) for path in files]
        for volume in volumes:
            others = [other for other in volumes if other is not volume]
            aligned = [align(other, volume, monitor) for other in others]
            guides = [guide.voxels for guide in aligned if guide.is_usable]
            if guides:
                targets += _resolutions(volume, pattern, guides)
    return targets


def load_noisy(volumes: Iterable[Volume]) -> list[Target]:
    """Volumes with measurable noise; raises InputError where none has any."""
    targets = []
    for volume in volumes:
        scaled, spacing = scaling_for(volume).apply(volume.voxels), volume.geometry.spacing
        noise = measure_noise(scaled, modality=volume.modality, spacing=spacing)
        if noise.level > 0:
            targets.append(Target((scaled,), spacing, volume.source, measured=noise))
    if not targets:
        raise InputError(
            "low_quality: no noise can be measured in any of the files",
            "Name volumes with noise, or set loss.unpaired to 0.",
        )
    return targets


def _labeled(subjects: Iterable[Subject], data: Path, leave_out: Sequence[str]) -> list[Target]:
    """A task's labeled volumes at their own resolution alone, as its segmenter meets them.

    Raises InputError where all of them are left out.
    """
    left_out, targets, count = _named(data, leave_out), [], 0
    for number, (path, volume, labels) in enumerate(subjects):
        count += 1
        if left_out.isdisjoint((path, *path.parents)):
            scaled, spacing = scaling_for(volume).apply(volume.voxels), volume.geometry.spacing
            # A noisy one is needed too: it must not demand more noise than other targets do.
            own = min(_MOST_NOISE, _own_noise(scaled, volume.modality, spacing))
            targets.append(
                Target((scaled,), spacing, path.name, noise=own, labels=labels, subject=number)
            )
    if count and not targets:
        raise InputError(
            f"{data}: all labeled images are left out", "Leave out fewer (leave_out, held_out)."
        )
    return targets


def _resolutions(
    volume: Volume, name: str, guides: Sequence[Floats] = (), *, is_clean: bool = False
) -> Iterator[Target]:
    """A volume as targets: as it is, and averaged over two voxels; nothing of a very thin one.

    guides: other series of its examination on its grid, bright tissue at 1, NaN where they show
    nothing. is_clean: whether it counts as clean without a measurement.
    """
    scaled = scaling_for(volume).apply(volume.voxels)
    spacing = volume.geometry.spacing
    if min(scaled.shape) < _THINNEST:
        return
    series = (scaled, *guides)
    own = _own_noise(scaled, volume.modality, spacing)
    if is_clean or own <= _MOST_NOISE:
        yield Target(series, spacing, name, noise=own)
    factors = [
        _HALF if mm <= _NEARLY_SHORTEST * min(spacing) and side // _HALF >= _LEAST_SIDE else 1
        for side, mm in zip(scaled.shape, reversed(spacing), strict=True)
    ]
    if max(factors) > 1:
        means = [averaged(volume.with_voxels(voxels), factors) for voxels in series]
        spacing = means[0].geometry.spacing
        # The mean of two neighbors has at least half of their noise.
        own = max(own / 2, _own_noise(means[0].voxels, volume.modality, spacing))
        voxels = tuple(mean.voxels for mean in means)
        yield Target(voxels, spacing, name, is_raw=False, noise=own)


def _own_noise(scaled: Floats, modality: str, spacing: Sequence[float]) -> float:
    """σ of the noise of a clean volume; 0 where it may be anatomy as well."""
    noise = measure_noise(scaled, modality=modality, spacing=spacing)
    return float(noise.level) if noise.confidence > _CERTAIN else 0.0
