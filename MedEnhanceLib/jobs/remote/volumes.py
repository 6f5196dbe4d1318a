"""Enhances and segments volumes on another machine; the results are those of this one.

What travels: voxels, grid, modality, unit and the options. Names, history, and what ties the volume
to DICOM stay here, and are put back onto the result.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.core.manifest import make_manifest, map_in_words
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, MedEnhanceError
from MedEnhanceLib.gradprom.config import Label, SegmentConfig
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.strength import Enhancement
from MedEnhanceLib.jobs.enhancing import Enhanced
from MedEnhanceLib.jobs.failures import WorkerError
from MedEnhanceLib.jobs.remote.client import run_elsewhere
from MedEnhanceLib.jobs.remote.wire import GUIDES, EnhanceOrder, SegmentOrder
from MedEnhanceLib.jobs.worker.workspace import Workspace
from MedEnhanceLib.runtime.device import remote_of
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom import Segmentation

#: Bytes of the results of a volume, beside some for tables: labels, maps, thin slices.
_MOST_GROWTH, _LEAST_ROOM = 64, 1 << 26
#: What a result says that goes into the manifest here.
_FIGURES = (
    "labels", "table", "head", "doubt_of_labels", "doubts", "strength", "uncertainty",
    "measured",
)  # fmt: skip


@dataclass(frozen=True)
class _EnhancedElsewhere(Enhancement):
    """As Enhancement; what it takes to make maps and other strengths stayed on the other machine.

    noise: the map of the noise, where it was asked for.
    """

    noise: Volume | None = None

    def noise_map(self) -> Volume | None:
        """As there; None where the map was not asked for."""
        return self.noise

    def at_strength(self, strength: float) -> Enhancement:
        """As there; raises ConfigError for an uncertainty whose shading is not known here."""
        corrected = self.measured.get("shading", {}).get("corrected")
        if self.uncertainty is not None and corrected and strength != 1:
            raise ConfigError(
                "the uncertainty of a result from another machine has the strength that it was "
                "made at",
                f"Enhance again with strength={strength:g}.",
            )
        return super().at_strength(strength)


def enhance_elsewhere(
    volume: Volume,
    config: EnhanceConfig,
    *,
    guide: Volume | Iterable[Volume] | None,
    head: SegmentConfig | None,
    slices: tuple[int, int] | None,
    noise: bool,
    inputs: Mapping[str, str],
    monitor: Monitor,
) -> Enhanced:
    """As `enhance_volume`, on the machine that `config.device` names.

    noise: whether its map is sent back. inputs: for the manifest.
    Raises ConfigError for what does not run there, and as `run_elsewhere`.
    """
    began, name = time.monotonic(), _machine(config.device)
    if slices is not None:
        raise ConfigError(
            "a preview runs on this machine: it would send the whole image for some slices",
            "Choose a device of this machine for it, or enhance the whole volume.",
        )
    _check_thickness(volume, config)
    if head is not None:
        _check_body_part(volume, head)
    order = EnhanceOrder(
        config=replace(config, device="auto"),
        segment=head is not None,
        head=head.model if head else "auto",
        noise=noise,
    )
    with Workspace() as workspace:
        files = {"input": volume}
        if isinstance(guide, Volume):
            files["guide"] = guide
        elif guide is not None:
            files |= dict(zip(GUIDES, _few(guide), strict=False))
        fields = _run(name, "enhance", order, files, workspace.folder, monitor)
        there = {file: _read(workspace.folder, file) for file in fields["files"]}
    figures = _figures(fields)
    enhanced, original = _placed(volume, there["output"], config)
    others = {file: _onto(original, there[file]) for file in there if file != "output"}
    labels = others.get("segmentation")
    done = _EnhancedElsewhere(
        volume=enhanced,
        uncertainty=others.get("uncertainty"),
        model=fields["model"],
        device=f"{config.device} ({fields.get('device')})",
        seconds=time.monotonic() - began,
        original=original,
        strength=config.share,
        share=_share(figures),
        uncertainty_facts=figures.get("uncertainty", {}),
        measured=figures.get("measured", {}),
        noise=others.get("noise"),
    )
    found = _segmentation(labels, fields, done.device, "head") if labels is not None else None
    report = make_manifest(
        "enhanced",
        config=config.to_json() | ({"head": head.to_json()} if head else {}),
        inputs=inputs,
        device=done.device,
        seconds=done.seconds,
        model=done.model,
        results=figures,
        dicom=volume.origin.facts() if volume.origin else None,
    )
    return Enhanced(done.volume, done.uncertainty, found, report, done)


def segment_elsewhere(volume: Volume, config: SegmentConfig, monitor: Monitor) -> Segmentation:
    """As `gradprom.segment`, on the machine that `config.device` names.

    Raises ConfigError for what does not run there, and as `run_elsewhere`.
    """
    name = _machine(config.device)
    _check_body_part(volume, config)
    order = SegmentOrder(config=replace(config, device="auto"))
    with Workspace() as workspace:
        fields = _run(name, "segment", order, {"input": volume}, workspace.folder, monitor)
        labels = _onto(volume, _read(workspace.folder, "output"))
    where = f"{config.device} ({fields.get('device')})"
    return _segmentation(labels, fields, where, "model")


def bare(volume: Volume) -> Volume:
    """A volume without what names anybody, as it leaves this machine."""
    return replace(volume, source="volume", history=_travelling(volume), origin=None)


def pack(volume: Volume, path: Path, monitor: Monitor) -> None:
    """Write a volume as it travels: lossless and verified."""
    from MedEnhanceLib.unicompress import CompressConfig, compress

    config = CompressConfig(lossless=True, speed="fast", repair="off")
    compress(volume, path, config, monitor=monitor)


def check_voxels(path: Path, most_bytes: int) -> None:
    """Refuse a small file of a huge volume before anything is decoded.

    Raises ConfigError for too many voxels, CodecError for what is no container.
    """
    from MedEnhanceLib.unicompress import StoredVolume

    size = StoredVolume(path).header.raw_bytes
    if size > most_bytes:
        raise ConfigError(
            f"a volume of {size} bytes, and at most {most_bytes} are taken",
            "Crop it, or start the worker with a larger --most-mb.",
        )


def _run(
    name: str,
    kind: str,
    order: EnhanceOrder | SegmentOrder,
    volumes: Mapping[str, Volume],
    folder: Path,
    monitor: Monitor,
) -> dict[str, Any]:
    """Pack and send the volumes, and follow the job; its results lie in `folder` / "back"."""
    monitor.progress(0.0, "pack the volume")
    files = {}
    for file, volume in volumes.items():
        files[file] = folder / f"{file}.ucv"
        pack(bare(volume), files[file], Monitor(cancel=lambda: monitor.cancelled))
    back = folder / "back"
    back.mkdir()
    most = _most_bytes(volumes["input"])
    rest = monitor.part(0.05, 1.0)
    try:
        fields = run_elsewhere(name, kind, order.to_json(), files, back, rest, most_bytes=most)
    except MedEnhanceError as error:  # which calls the volume as it travelled
        own = volumes["input"].source or "the volume"
        error.message = error.message.replace(files["input"].name, own)
        raise
    if "output" not in fields["files"] or not isinstance(fields.get("model"), dict):
        raise WorkerError(f"{name} sent no result", "Check which version runs there.")
    for file in fields["files"]:
        check_voxels(back / f"{file}.ucv", most)
    return fields


def _read(folder: Path, file: str) -> Volume:
    from MedEnhanceLib.unicompress import decompress

    return decompress(folder / "back" / f"{file}.ucv")


def _most_bytes(volume: Volume) -> int:
    return _MOST_GROWTH * volume.nbytes + _LEAST_ROOM


def _onto(volume: Volume, received: Volume) -> Volume:
    """What was received, as if made here of `volume`: its source, DICOM and history, and beyond."""
    placed = volume.with_voxels(received.voxels)
    history = volume.history + received.history[len(_travelling(volume)) :]
    return replace(placed, modality=received.modality, units=received.units, history=history)


def _travelling(volume: Volume) -> tuple[str, ...]:
    """Of a history only that a volume is a map, which a method may ask for."""
    return volume.history[-1:] if map_in_words(volume.history) else ()


def _placed(volume: Volume, received: Volume, config: EnhanceConfig) -> tuple[Volume, Volume]:
    """The enhanced volume, and the input on its grid."""
    # Files of volumes have no bool and no float16: they come back wider.
    voxels = received.voxels.astype(volume.dtype, copy=False)
    received = replace(received, voxels=voxels, modality=volume.modality, units=volume.units)
    if config.task != "slices":
        return _onto(volume, received), volume
    from MedEnhanceLib.hqg.slices.config import RestoreSlicesConfig
    from MedEnhanceLib.hqg.slices.enhance import interpolated
    from MedEnhanceLib.hqg.slices.restore import plan_slices

    original = interpolated(
        volume, plan_slices(volume, RestoreSlicesConfig(target=config.slice_spacing))
    )
    return _onto(original, received), original


def _segmentation(
    labels: Volume, fields: Mapping[str, Any], device: str, model: str
) -> Segmentation:
    from MedEnhanceLib.gradprom.infer import Segmentation

    return Segmentation(
        volume=labels,
        labels=tuple(config_from_json(Label, row) for row in fields.get("labels") or ()),
        table=list(fields.get("table") or ()),
        model=dict(fields.get(model) or {}),
        device=device,
        seconds=float(fields.get("seconds") or 0.0),
        warning=str(fields.get("doubt_of_labels") or ""),
    )


def _figures(fields: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: fields[name] for name in _FIGURES if name in fields}
    return known | {"elsewhere": fields["elsewhere"]}


def _share(figures: Mapping[str, Any]) -> float:
    """The share of the noise removal in the result, as the other machine says; 1 without."""
    noise = (figures.get("measured") or {}).get("noise") or {}
    share = noise.get("share_removed", 1.0)
    return min(max(float(share), 0.0), 1.0) if isinstance(share, int | float) else 1.0


def _machine(device: str) -> str:
    name = remote_of(device)
    assert name is not None
    return name


def _few(guides: Iterable[Volume]) -> list[Volume]:
    found = list(guides)
    if len(found) > len(GUIDES):
        raise ConfigError(
            f"{len(found)} guides, and at most {len(GUIDES)} travel", "Give fewer of them."
        )
    return found


def _check_thickness(volume: Volume, config: EnhanceConfig) -> None:
    """DICOM states how thick slices are; nothing else that travels does."""
    if config.task != "slices" or volume.origin is None:
        return
    from MedEnhanceLib.hqg.slices.restore import stated_thickness

    apart = max(volume.geometry.spacing)
    thick = stated_thickness(volume) or apart
    if abs(thick - apart) > 1e-3 * apart:
        raise ConfigError(
            f"slices of {thick:g} mm that are {apart:g} mm apart do not travel to another machine: "
            "the thickness would be lost",
            "Choose a device of this machine.",
        )


def _check_body_part(volume: Volume, head: SegmentConfig) -> None:
    """The part of the body that DICOM names does not travel: a head for another one is refused
    here, as it would be there.
    """
    if volume.origin is not None and volume.origin.body_part:
        from MedEnhanceLib.gradprom import open_head_for

        open_head_for(volume, head)
