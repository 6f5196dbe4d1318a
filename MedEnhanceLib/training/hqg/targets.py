"""Training volumes: clean ones at one or two resolutions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from MedEnhanceLib.core.arrays import Bytes, Floats, Ints
from MedEnhanceLib.core.imaging import averaged
from MedEnhanceLib.core.labels import LabeledFile
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.guide import align
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io import load
from MedEnhanceLib.io.describe import refuse_unfit
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.noise.estimate import measure_noise
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.synthetic import synthetic_volume
from MedEnhanceLib.training.hqg.config import TrainConfig

#: Voxels that are averaged along an axis for half the resolution.
_HALF = 2
#: Averaged axes: those with voxels at most this much longer than the shortest.
_NEARLY_SHORTEST = 1.5
#: Least voxels along an axis, as the rim of a crop does not count; least voxels after averaging.
_THINNEST, _LEAST_SIDE = 8, 24
# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/denoising.py.
#: Noise of a target as a share of its range, above which it is used only at half its resolution.
_MOST_NOISE = 0.02
#: Confidence below which measured noise may be anatomy.
_CERTAIN = 0.5


@dataclass(frozen=True, eq=False)
class Target:
    """A volume, and the other series of its examination on its grid.

    Attributes:
        series: [K, J, I] each, the volume first; MR with bright tissue at 1, CT in units of 1000 HU
            with water at 0; the others are NaN where they show nothing.
        spacing: mm along i, j, k.
        name: of the file or of the examination that it comes from.
        least_sigma: σ of its own noise, 0 where that may be anatomy; added noise must be above it.
        is_raw: whether it has the resolution of its file.
        labels: [K, J, I], as the task gave them, 0 for the background; None without.
    """

    series: tuple[Floats, ...]
    spacing: tuple[float, float, float]
    name: str
    least_sigma: float
    is_raw: bool = True
    labels: Bytes | Ints | None = None


def load_data(
    config: TrainConfig,
    data: Path,
    monitor: Monitor,
    *,
    subjects: Iterable[LabeledFile] = (),
) -> dict[str, list[Target]]:
    """Read all volumes.

    Args:
        config: whose patterns are relative to `data`.
        data: a folder.
        monitor: messages and cancelling.
        subjects: of the task: file, volume, and label indices [K, J, I].
    Returns:
        Targets for each kind of crops, and clean volumes only for validation ("validated").
    Raises:
        InputError: a pattern matches nothing, or there are no training data.
    """
    modality = config.modality
    left_out = _left_out(config, data)
    read = partial(matching_volumes, config, data, monitor=monitor)
    clean = [each for volume in read(config.high_quality) for each in _resolutions(volume)]
    for volume in read(config.noiseless):
        clean += _resolutions(volume, are_clean=True)
    labeled = [
        _labeled(volume, labels) for path, volume, labels in subjects if _is_used(path, left_out)
    ]
    clean = clean or [replace(target, labels=None) for target in labeled]
    if not clean:
        raise InputError(
            f"{data}: no clean volume to learn from",
            "Give volumes with little noise (high_quality).",
        )
    if config.task is not None and not labeled:
        raise InputError(
            f"{data}: all images are left out", "Leave out fewer (leave_out, held_out)."
        )
    held_out = read(config.held_out, is_held_out=True)
    validated = [each for volume in held_out for each in _resolutions(volume)]
    if config.held_out and not validated:
        raise InputError(
            f"{data}: no clean volume to validate on",
            "Name volumes with little noise (held_out).",
        )
    examinations = load_examinations(config.examinations, data, left_out, modality, monitor)
    return {
        "plain": clean,
        "guided": examinations,
        "lesions": examinations,
        "labeled": labeled,
        "validated": validated,
    }


def matching_volumes(
    config: TrainConfig,
    data: Path,
    patterns: Sequence[str],
    monitor: Monitor,
    *,
    is_held_out: bool = False,
) -> Iterator[Volume]:
    """Read the volumes that match patterns, in canonical order, as they are enhanced in use.

    Args:
        config: whose volumes that are left out or held out are not read.
        data: the folder that patterns are relative to.
        patterns: of files.
        monitor: may cancel.
        is_held_out: whether these are the held-out ones themselves.
    Raises InputError: a pattern matches nothing, or a volume is unfit.
    """
    for path in _files(data, patterns, () if is_held_out else _left_out(config, data)):
        monitor.check()
        volume = load(path, modality=config.modality, monitor=monitor.part(0, 0)).single()
        refuse_unfit(volume, Monitor(), on_request=True)
        yield volume.canonical().compact()


def _left_out(config: TrainConfig, data: Path) -> set[Path]:
    """Return files and folders that no training reads."""
    return _matching(data, (*config.leave_out, *config.held_out))


def _files(data: Path, patterns: Sequence[str], left_out: Iterable[Path]) -> list[Path]:
    """List the files below `data` that match patterns, by name, without those left out.

    Raises InputError for a pattern that matches nothing.
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
    return sorted(path for path in files if _is_used(path, left_out))


def _is_used(path: Path, left_out: Iterable[Path]) -> bool:
    """Test whether neither a file nor any folder above it is left out."""
    return {path, *path.parents}.isdisjoint(left_out)


def _matching(data: Path, patterns: Sequence[str]) -> set[Path]:
    return {path for pattern in patterns for path in data.glob(pattern) if path.exists()}


def load_examinations(
    patterns: Sequence[str],
    data: Path,
    left_out: Iterable[Path],
    modality: str,
    monitor: Monitor,
) -> list[Target]:
    """Load examinations: each series as a target, with the others registered onto its grid.

    Args:
        patterns: relative to `data`, one for each examination.
        data: a folder.
        left_out: files and folders to exclude.
        modality: of the images.
        monitor: progress and cancelling.
    """
    targets: list[Target] = []
    for number, pattern in enumerate(patterns):
        of_examination = monitor.part(number / len(patterns), (number + 1) / len(patterns))
        files = _files(data, (pattern,), left_out)
        begin = of_examination.part(0, 0)
        loaded = [load(path, modality=modality, monitor=begin).single() for path in files]
        volumes = [volume.canonical().compact() for volume in loaded]
        for index, volume in enumerate(volumes):
            part = of_examination.part(index / len(volumes), (index + 1) / len(volumes))
            others = [other for other in volumes if other is not volume]
            aligned = [
                align(other, volume, part.part(n / len(others), (n + 1) / len(others)))
                for n, other in enumerate(others)
            ]
            guides = [guide.voxels for guide in aligned if guide.is_usable]
            if guides:
                targets += _resolutions(volume, guides, name=pattern)
    return targets


def synthetic_target(modality: str, seed: int) -> Target:
    """Draw a synthetic volume; it has no noise of its own."""
    volume = synthetic_volume(profile_of(modality).like, seed)
    return replace(_target(volume), least_sigma=0.0)


def scaled_target(
    voxels: Floats, spacing: tuple[float, float, float], modality: str, *, is_clean: bool
) -> Target:
    """Make a target of a volume.

    Args:
        voxels: [K, J, I], on the network's scale.
        spacing: mm along i, j, k.
        modality: "CT" or "MR".
        is_clean: whether it has no noise; otherwise this is measured.
    """
    target = _measured((voxels,), spacing, "", modality)
    return replace(target, least_sigma=0.0) if is_clean else target


def _labeled(volume: Volume, labels: Bytes | Ints) -> Target:
    """Make a target of a task's volume at its own resolution, whatever its noise."""
    target = _target(volume)
    # Its noise may be larger, but must not demand more added noise than that of other targets.
    most = min(_MOST_NOISE, target.least_sigma)
    return replace(target, least_sigma=most, labels=labels)


def _resolutions(
    volume: Volume, guides: Sequence[Floats] = (), *, name: str = "", are_clean: bool = False
) -> Iterator[Target]:
    """Yield a volume as it is, and averaged over two voxels; nothing of a very thin one.

    guides: other series of its examination on its grid, bright tissue at 1, NaN where they show
    nothing. name: of the examination. are_clean: whether it counts as clean whatever is measured.
    """
    spacing, shape = volume.geometry.spacing, volume.shape
    if min(shape) < _THINNEST:
        return
    raw = _target(volume, guides, name)
    if are_clean or raw.least_sigma <= _MOST_NOISE:
        yield raw
    factors = [
        _HALF if mm <= _NEARLY_SHORTEST * min(spacing) and side // _HALF >= _LEAST_SIDE else 1
        for side, mm in zip(shape, reversed(spacing), strict=True)
    ]
    if max(factors) > 1:
        means = [averaged(volume.with_voxels(voxels), factors) for voxels in raw.series]
        series, spacing = tuple(mean.voxels for mean in means), means[0].geometry.spacing
        coarse = _measured(series, spacing, raw.name, volume.modality)
        # The mean of two neighbors has at least half of their noise.
        least = max(raw.least_sigma / 2, coarse.least_sigma)
        yield replace(coarse, least_sigma=least, is_raw=False)


def _target(volume: Volume, guides: Sequence[Floats] = (), name: str = "") -> Target:
    """Make a target of a volume at its own resolution."""
    series = (scaling_for(volume).apply(volume.voxels), *guides)
    return _measured(series, volume.geometry.spacing, name or volume.source, volume.modality)


def _measured(
    series: tuple[Floats, ...], spacing: tuple[float, float, float], name: str, modality: str
) -> Target:
    """Make a target of scaled series."""
    noise = measure_noise(series[0], modality=modality, spacing=spacing)
    return Target(series, spacing, name, noise.level * (noise.confidence > _CERTAIN))
