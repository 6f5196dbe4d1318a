"""Enhancing with a small restorer in place of an enhancer: what it has not is refused by name."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from MedEnhanceLib.bundles import open_bundle
from MedEnhanceLib.bundles.store import RESTORER, list_bundles, read_bundle
from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.hqg import EnhanceConfig
    from MedEnhanceLib.hqg.strength import Enhancement


def is_restorer(name_or_path: str) -> bool:
    """Whether a model that was named is a small restorer; False where there is no such model."""
    if Path(name_or_path).is_dir():
        try:
            return read_bundle(Path(name_or_path)).kind == RESTORER
        except ModelError:
            return False
    return any(bundle.name == name_or_path and bundle.kind == RESTORER for bundle in list_bundles())


def restore(
    volume: Volume,
    config: EnhanceConfig,
    *,
    guide: Volume | None = None,
    slices: tuple[int, int] | None = None,
    monitor: Monitor,
) -> Enhancement:
    """As `hqg.enhance`, with a restorer; raises ConfigError for options that it does not have."""
    bundle = open_bundle(config.model, kind=RESTORER, modality=volume.modality)
    _refuse(bundle.name, config, guide)
    attend(lambda: require("torch", purpose="Enhancing a volume"), monitor)
    from MedEnhanceLib.bundles.suitability import messages_of
    from MedEnhanceLib.hqg.strength import Enhancement, lowest_value
    from MedEnhanceLib.nets.slices import Plan
    from MedEnhanceLib.runtime.device import choose_device
    from MedEnhanceLib.spg.restore import open_restorer, restore_volume, warnings_about

    began = time.monotonic()
    model = open_restorer(bundle)
    choice = choose_device(config.device)
    monitor.log(f"running {bundle.name} on {choice.name}: {choice.reason}")
    warnings = warnings_about(model, volume)
    for warning in warnings:
        monitor.warn(warning.text)
    plan = Plan.make(choice.name, batch=config.batch, tile=config.tile, overlap=config.overlap)
    voxels = restore_volume(volume, model, plan, monitor, slices=slices)
    grid = volume if slices is None else _cropped(volume, *slices)
    note = derived_note(
        f"enhanced with {bundle.name} {bundle.sha256[:12]}"
        + (f" ({messages_of(warnings)})" if warnings else "")
    )
    full = Enhancement(
        volume=grid.with_voxels(voxels, did=note),
        uncertainty=None,
        model=bundle.identity(),
        device=choice.name,
        seconds=time.monotonic() - began,
        original=grid,
        floors=tuple(lowest_value(frame) for frame in volume.frames()),
        warnings=warnings,
    )
    return replace(full.at_strength(config.strength), seconds=time.monotonic() - began)


def _refuse(name: str, config: EnhanceConfig, guide: Volume | None) -> None:
    requested = {
        "guide": guide is not None,
        "uncertainty": config.uncertainty > 0,
        "deblur": config.deblur,
        "bias_correction": config.bias_correction != "none",
        "orientations": config.orientations != 1,
    }
    asked = [name for name, is_requested in requested.items() if is_requested]
    if asked:
        raise ConfigError(
            f"model {name!r} is a small restorer, which has no {' and no '.join(asked)}",
            f"Leave out {', '.join(asked)}, or choose an enhancer.",
        )


def _cropped(volume: Volume, first: int, stop: int) -> Volume:
    return replace(
        volume,
        voxels=volume.voxels[..., first:stop, :, :],
        geometry=volume.geometry.cropped((first, 0, 0)),
        origin=volume.origin and volume.origin.cropped(first, stop),
    )
