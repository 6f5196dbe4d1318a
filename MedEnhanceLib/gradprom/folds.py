"""Which labelled images are learned from, and which are held out: whole patients, never slices."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.gradprom.config import TrainHeadConfig
from MedEnhanceLib.gradprom.labelled import find_labelled

#: An image and its labels, None where an atlas gives them.
Files = tuple[Path, Path | None]


def find_split(config: TrainHeadConfig, data: Path) -> tuple[list[Files], list[Files]]:
    """As `split_patients`, of all labelled images below `data`; raises as `find_labelled` too."""
    return split_patients(config, data, find_labelled(config, data))


def split_patients(
    config: TrainHeadConfig, data: Path, found: Sequence[Files]
) -> tuple[list[Files], list[Files]]:
    """The images that are learned from, and those of the patients held out.

    Raises InputError where a pattern of `held_out` matches nothing, or nothing is left.
    """
    patients = patients_of([path.relative_to(data) for path, _ in found])
    held = _named(config, data, found, patients) if config.held_out else _fold(config, patients)
    learned = [files for files, who in zip(found, patients, strict=True) if who not in held]
    if not learned:
        raise InputError("all labelled images are held out", "Hold out fewer patients.")
    return learned, [files for files, who in zip(found, patients, strict=True) if who in held]


def patients_of(paths: Sequence[Path]) -> list[str]:
    """Whose image each file is: that of its folder, or of the file where all lie in one folder."""
    folders = [path.parent.as_posix() for path in paths]
    return folders if len(set(folders)) > 1 else [path.as_posix() for path in paths]


def _named(
    config: TrainHeadConfig, data: Path, found: Sequence[Files], patients: Sequence[str]
) -> set[str]:
    held = set()
    for pattern in config.held_out:
        matching = {
            who
            for (path, _), who in zip(found, patients, strict=True)
            if fnmatchcase(path.relative_to(data).as_posix(), pattern)
        }
        if not matching:
            raise InputError(
                f"{data}: no labelled image matches {pattern!r} (held_out)",
                "Give patterns of images, relative to the data folder.",
            )
        held |= matching
    return held


def _fold(config: TrainHeadConfig, patients: Sequence[str]) -> set[str]:
    if not config.folds:
        return set()
    names = sorted(set(patients))
    if len(names) < config.folds:
        raise InputError(
            f"{len(names)} patients cannot make {config.folds} folds", "State fewer folds."
        )
    order = np.random.default_rng(config.seed).permutation(len(names))
    return {names[place] for place in order[config.fold :: config.folds]}
