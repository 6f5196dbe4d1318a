"""HQG-Net: unpaired enhancement guided by high-quality images.

Importing this needs numpy alone; `enhance` loads torch when it is first called. Training is
`MedEnhanceLib.hqg.train.train`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.lazy import imported_when_used

if TYPE_CHECKING:
    from pathlib import Path

    from MedEnhanceLib.hqg.cache import VolumeCache
    from MedEnhanceLib.hqg.config import EnhanceConfig, TrainConfig
    from MedEnhanceLib.hqg.strength import Enhancement as Enhancement
    from MedEnhanceLib.runtime.progress import Monitor

__all__ = [
    "EnhanceConfig",
    "TrainConfig",
    "VolumeCache",
    "check_given",
    "enhance",
]

_CONFIGS = [name for name in __all__ if name.endswith("Config")]
_HOMES = {"cache": ["VolumeCache"], "config": _CONFIGS, "strength": ["Enhancement"]}
__getattr__, __dir__ = imported_when_used(__name__, __all__, _HOMES)


def enhance(
    volume: Volume,
    config: EnhanceConfig | None = None,
    *,
    guide: Volume | Sequence[Volume] | None = None,
    look: Volume | Iterable[Volume] | None = None,
    frame: int | None = None,
    slices: tuple[int, int] | None = None,
    cache: VolumeCache | None = None,
    scratch: Path | None = None,
    monitor: Monitor | None = None,
) -> Enhancement:
    """Enhance every slice of a volume, and every frame of a sequence.

    What is done to a sequence is decided once, for all of its frames.

    Source: arXiv 2307.07829; details reconstructed.

    Args:
        volume: geometry, type and units of the result are the same.
        config: model, strength and further options; None takes the defaults.
        guide: another series of the same examination, or several, of any contrast and grid; what
            they show at the same place helps to separate noise from anatomy.
        look: a volume of the same modality and contrast whose sharpness and noise are wanted.
            Several volumes, of other patients, are measured one after another as one look.
        frame: of a sequence, only this one is enhanced, as in a run over the whole sequence.
        slices: (first, one after the last) along K. Only these are returned, with the geometry of
            the crop. They equal those of a whole run bit for bit: measurements are of the whole
            volume.
        cache: measurements of an earlier run over this volume, filled by this one.
        scratch: a folder with free space; if given, a large result stays in an unnamed file there
            and takes no memory.
        monitor: receives progress, messages and warnings, and can cancel.

    Returns:
        The result at `config.strength`: a number scales the correction that "auto" chose, by
        blending with the input.

    Raises:
        ConfigError: slices are out of range, or combined with N4.
        ModelError: no model fits.
        InputError: the volume, a guide or the look cannot be used, or there is no such frame.
        DeviceMemoryError: memory ran out on the CPU.
        Cancelled: the monitor asked to stop.
    """
    from MedEnhanceLib.bundles import open_bundle_for
    from MedEnhanceLib.hqg.config import EnhanceConfig
    from MedEnhanceLib.runtime.dependencies import require
    from MedEnhanceLib.runtime.progress import Monitor, attend

    config, monitor = config or EnhanceConfig(), monitor or Monitor()
    guides = [] if guide is None else [guide] if isinstance(guide, Volume) else list(guide)
    looks = [look] if isinstance(look, Volume) else look
    # Before seconds go into importing torch: unusable input is refused at once.
    for each in guides:
        check_given("guide", each, volume)
    if isinstance(looks, Sequence):
        for each in looks:
            check_given("look", each, volume)
    if frame is not None:
        volume.frame(frame)  # refuses what is not there
    bundle, volume = open_bundle_for(volume, config.model, kind="enhancer", monitor=monitor)
    attend(lambda: require("torch", purpose="Enhancing a volume"), monitor)
    from MedEnhanceLib.hqg import infer

    return infer.enhance(
        volume,
        bundle,
        config,
        guides=guides,
        looks=looks if looks is None or isinstance(looks, Sequence) else _checked(looks, volume),
        frame=frame,
        slices=slices,
        cache=cache,
        scratch=scratch,
        monitor=monitor,
    )


def _checked(looks: Iterable[Volume], volume: Volume) -> Iterator[Volume]:
    """The looks, each checked when it is its turn: they need not be in memory at once."""
    for look in looks:
        check_given("look", look, volume)
        yield look


def check_given(role: Literal["guide", "look"], given: Volume, volume: Volume) -> None:
    """Refuse what cannot be the guide or the look of a volume.

    Args:
        role: of what is given.
        given: another series of the same examination, or a volume whose sharpness is wanted.
        volume: what is enhanced.

    Raises:
        InputError: what is given is constant, of another modality or a sequence, or holds NaN or
            infinity; a guide is the volume itself; or a look of a head has another contrast.
    """
    from MedEnhanceLib.hqg.contrast import show_the_same
    from MedEnhanceLib.io.describe import refuse_not_finite

    name = given.source or role
    # Voxels first: the modality of a file that states none is guessed from its content.
    refuse_not_finite(given)
    if given.voxels.min() == given.voxels.max():
        raise InputError(
            f"{name}: the {role} is constant, every voxel is {given.voxels.flat[0]:g}",
            "Choose a volume that shows something.",
        )
    if given.modality != volume.modality:
        raise InputError(
            f"{name}: the {role} is {given.modality}, the volume {volume.modality}",
            f"Choose a {role} of the same modality.",
        )
    if given.is_sequence:
        raise InputError(f"{name}: the {role} is a sequence", "Choose a single volume, or a frame.")
    is_same_grid = given.shape == volume.shape and given.geometry == volume.geometry
    if role == "guide" and is_same_grid and np.array_equal(given.voxels, volume.voxels):
        raise InputError(
            f"{name}: the guide is the volume itself",
            "Choose another series of the same examination.",
        )
    if role == "look" and given.modality == "MR" and not show_the_same(given, volume):
        raise InputError(
            f"{name}: shows another contrast or anatomy than the volume, and cannot be its look",
            "Choose a look of the same contrast. A series of the same examination with another "
            "contrast is a guide: give it as --guide (guide=).",
        )
