"""What becomes of features, labels and enhanced volumes when the scan was compressed before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from _common import REPOSITORY, SHARED_DATA
from _compression_ours import codec_key, coded
from _downstream_features import all_features, bins_by_number, bins_of_width
from _downstream_scans import Scan, sliced
from _enhancement_cache import RowStore, code_hash, key_of
from _enhancement_data import CASES, fingerprint, subject
from _enhancement_peers import noise_between_slices, noise_in_tissue

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.nets.noise import measure_noise
from MedEnhanceLib.unicompress.encode import QUIET_PLACES

Row = dict[str, Any]
FOLDER = REPOSITORY / "runs" / "downstream-rows"
RATIO, ERROR = "ratio", "max_error"
_BIN_HU, _LOWEST_HU, _BINS = 25.0, -1000.0, 32
#: Enhanced after compression: subject, the kind of noise in it, the model.
ENHANCED = (
    ("mr/open_ms/C19/T1.nii.gz", "Rician 5 %", "mr"),
    ("ct/sts/STS_013/CT.nii.gz", "low dose 2e4", "ct"),
)
_ENHANCED_SLICES = 12
_CODE = ("_downstream_rows.py", "_downstream_features.py", "_downstream_scans.py")


@dataclass(frozen=True)
class Setting:
    """A mode of the codec; mode "" leaves the scan alone."""

    mode: str = ""
    value: float = 0

    def __str__(self) -> str:
        names = {RATIO: "ratio", ERROR: "error"}
        return f"{names[self.mode]} {self.value:g}" if self.mode else "original"


ORIGINAL = Setting()
SETTINGS = (
    *(Setting(ERROR, bound) for bound in (1, 2, 4, 8, 16)),
    *(Setting(RATIO, ratio) for ratio in (4, 8, 16, 32, 64, 128)),
)


def scan_rows(scan: Scan, settings: tuple[Setting, ...]) -> Iterator[Row]:
    """The scan as it is, then after each setting: features of the tumour, labels of the head."""
    store = RowStore(scan.name, FOLDER)
    made: dict[str, Any] = {}
    for setting in (ORIGINAL, *settings):
        key = _key(scan.volume, setting, scan.name, scan.head)
        row = store.find(key)
        if row is None:
            row = store.add(key, _measured(scan, setting, made))
            _tell(row)
        yield row


def _measured(scan: Scan, setting: Setting, made: dict[str, Any]) -> Row:
    row: Row = {"scan": scan.name, "modality": scan.modality, "setting": str(setting)}
    row |= {"mode": setting.mode, "value": setting.value}
    if "noise" not in made:
        made["noise"] = noise_where_quiet(scan.volume)
    row["noise"] = made["noise"]
    volume, stated = decoded(scan.volume, setting)
    row |= stated
    if scan.tumour is not None:
        row["features"] = features(volume, scan.tumour)
    if scan.head:
        if "labels" not in made:
            made["labels"] = _labels(scan, scan.volume)[0]
        labels, names = _labels(scan, volume)
        row["dice_original"] = _dice(made["labels"], labels, names)
        assert scan.labels is not None
        row["dice_reference"] = _dice(sliced(scan.labels, scan.slab).voxels, labels, names)
    return row


def decoded(volume: Volume, setting: Setting) -> tuple[Volume, Row]:
    """The volume that a reader gets, with the ratio and what was lost."""
    if not setting.mode:
        return volume, {"ratio": 1.0, "psnr_db": None}
    stated, voxels = coded(volume, {setting.mode: setting.value})
    return replace(volume, voxels=voxels), {key: stated[key] for key in ("ratio", "psnr_db")}


def noise_where_quiet(volume: Volume) -> float:
    """σ that `keep_noise_level` refers to, in the units of the volume."""
    noise = measure_noise(volume.voxels, modality=volume.modality, spacing=volume.geometry.spacing)
    return float(np.quantile(noise.sigma, QUIET_PLACES))


def features(volume: Volume, inside: Any) -> dict[str, float]:
    """In CT levels of 25 HU from −1000, in MR 32 from the least to the largest in the tumour."""
    if volume.modality == "CT":
        levels = bins_of_width(volume.voxels, inside, _BIN_HU, _LOWEST_HU)
    else:
        levels = bins_by_number(volume.voxels, inside, _BINS)
    return all_features(volume.voxels, inside, levels)


def _labels(scan: Scan, volume: Volume) -> tuple[Any, dict[str, int]]:
    from MedEnhanceLib.gradprom import SegmentConfig, segment

    found = segment(sliced(volume, scan.slab), SegmentConfig(model=scan.head, device="cpu"))
    return found.volume.voxels, {label.name: label.value for label in found.labels}


def _dice(a: Any, b: Any, names: dict[str, int]) -> dict[str, float]:
    return {name: metrics.dice(a, b, value) for name, value in names.items()}


def enhanced_rows(settings: tuple[Setting, ...]) -> Iterator[Row]:
    """A noisy slab, compressed, then enhanced; against the clean slab, and against no codec."""
    for file, case_name, model in ENHANCED:
        known = subject(file, SHARED_DATA, _ENHANCED_SLICES)
        case = next(c for c in CASES[known.modality] if c.name == case_name)
        given = known.damaged(case, 0)
        noisy = replace(given, voxels=np.rint(given.voxels).astype(np.int16))
        store = RowStore(f"enhanced {known.modality}", FOLDER)
        plain = None
        for setting in (ORIGINAL, *settings):
            key = _key(noisy, setting, file, model)
            row = store.find(key)
            if row is None:
                if plain is None:
                    plain = _enhance(noisy, model)
                row = _enhanced_row(known, noisy, plain, setting, model)
                row = store.add(key, {"scan": f"{file}, {case_name}"} | row)
                _tell(row)
            yield row


def _enhanced_row(known: Any, noisy: Volume, plain: Any, setting: Setting, model: str) -> Row:
    volume, stated = decoded(noisy, setting)
    result = plain if setting == ORIGINAL else _enhance(volume, model)
    clean, span, inside = known.volume.voxels, known.span, known.inside

    def psnr(one: Any, other: Any) -> float | None:
        value = metrics.psnr(one, other, span, mask=inside)
        return value if np.isfinite(value) else None

    return stated | {
        "modality": known.modality,
        "setting": str(setting),
        "mode": setting.mode,
        "value": setting.value,
        "model": model,
        "noise": _noise(known, volume.voxels),
        "input_to_clean_db": psnr(clean, volume.voxels),
        "input_to_input_db": psnr(noisy.voxels, volume.voxels),
        "enhanced_to_clean_db": psnr(clean, result),
        "enhanced_to_enhanced_db": psnr(plain, result),
    }


def _noise(known: Any, voxels: Any) -> float:
    if known.modality == "CT":
        return float(noise_between_slices(voxels.astype(np.float32), known.regions["flat"]))
    return float(noise_in_tissue(voxels.astype(np.float32)))


def _enhance(volume: Volume, model: str) -> Any:
    from MedEnhanceLib.hqg import EnhanceConfig, enhance

    return enhance(volume, EnhanceConfig(model=model, device="cpu")).volume.voxels


def _key(volume: Volume, setting: Setting, *rest: str) -> str:
    # The scan as it is needs no codec: it is not measured anew when the codec changes.
    codec = codec_key() if setting.mode else ""
    return key_of(codec, code_hash(*_CODE), fingerprint(volume), setting, *rest)


def _tell(row: Row) -> None:
    keys = ("ratio", "psnr_db", "dice_original", "dice_reference", "enhanced_to_clean_db")
    print(row["scan"], row["setting"], {k: row[k] for k in keys if k in row}, flush=True)
