"""Does the enhancer harm what needs nothing, and what is faint? Defaults on many volumes.

    python Testing/Benchmarks/harm.py

Undamaged volumes go through `enhance` with its defaults; the result is compared with the input.
Faint lesions are planted in low-dose CT and looked for by an observer with a matched template.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import (
    QUICK,
    SHARED_DATA,
    Gate,
    Part,
    Row,
    at_least,
    at_most,
    least,
    measure,
    parser_of,
)
from _enhancement_data import CASES, CT_RANGE_HU, CT_SUBJECTS, TEMPLATE, robust_max, subject
from _enhancement_lesions import Lesion, damaged_with_lesions, plant
from _enhancement_visibility import detectability

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.resources import resource_folder

Floats = npt.NDArray[np.float32]
#: Central slices of each undamaged volume, and of those with lesions.
_SLICES, _LESION_SLICES = (6, 6) if QUICK else (16, 24)
#: Share of the volume around a lesion that is its background, in voxels.
_RING = 3


def main() -> None:
    measure("harm", parser_of(__doc__).parse_args(), parts, gates_of, seeds=[0])


def parts() -> Iterator[Part]:
    names = [TEMPLATE, *volumes()]
    for name in [names[0], names[1]] if QUICK else names:
        yield name, partial(undamaged, name)
    for name in CT_SUBJECTS[:1] if QUICK else CT_SUBJECTS:
        for arm in ("input", "ours", *(["BM4D"] if find_spec("bm4d") else [])):
            yield f"{name} {arm}", partial(faint, name, arm)


def volumes() -> list[str]:
    """All CT and MR volumes, by path relative to the folder."""
    files = [*SHARED_DATA.glob("ct/**/*.nii.gz"), *SHARED_DATA.glob("mr/**/*.nii.gz")]
    others = ("organs", "PET", "brain", "lesion", "mask", "label", "seg", "tissue", "gt", "ROI")
    kept = (f for f in sorted(files) if not any(word in f.name for word in others))
    return [str(file.relative_to(SHARED_DATA)) for file in kept]


def opened(name: str) -> Volume:
    """The central slices of a volume."""
    if name == TEMPLATE:
        volume = load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    else:
        volume = load(SHARED_DATA / name, modality="CT" if name.startswith("ct/") else "MR")
    volume = volume.frame(0)
    first = max(0, (volume.shape[0] - _SLICES) // 2)
    return volume.crop(k=slice(first, min(volume.shape[0], first + _SLICES)))


def undamaged(name: str) -> list[Row]:
    """What the defaults change in a volume as it is."""
    volume = opened(name)
    result = enhance(volume, EnhanceConfig(device="cpu"))
    before, after = (v.voxels.astype(np.float32) for v in (volume, result.volume))
    top = robust_max(volume.voxels)
    inside = before > (-950 if volume.modality == "CT" else 0.1 * top)
    span = CT_RANGE_HU if volume.modality == "CT" else top
    error = float(np.mean(np.square((after - before)[inside], dtype=np.float64)))
    return [
        {
            "table": "undamaged",
            "volume": name,
            "modality": volume.modality,
            "psnr": 10 * float(np.log10(span**2 / max(error, 1e-9 * span**2))),
        }
    ]


def faint(name: str, arm: str) -> list[Row]:
    """Planted lesions in low-dose CT: contrast kept, observer."""
    case = CASES["CT"][0]
    scan = subject(name, SHARED_DATA, _LESION_SLICES)
    degraded = case.damage(scan.whole, 0) if scan.whole is not None else case.damage(scan.volume, 0)
    if scan.whole is not None:
        degraded = scan.volume.with_voxels(degraded.voxels[scan.window])
    added, lesions = plant(scan, 0)
    planted = damaged_with_lesions(scan, case, 0, degraded, added)
    without, present = (of_arm(arm, v) for v in (degraded, planted))
    visible = detectability(scan, degraded, lesions)
    rows = []
    for lesion, d_prime in zip(lesions, visible, strict=True):
        through = (present[lesion.where] - without[lesion.where]) * lesion.share
        rows.append(
            {
                "table": "lesions",
                "volume": name,
                "arm": arm,
                "d_prime": d_prime,
                "kept": float(through.sum() / (lesion.share**2).sum()) / lesion.contrast,
                "present": score(present, lesion),
                "absent": score(without, lesion),
            }
        )
    return rows


def of_arm(arm: str, volume: Volume) -> Floats:
    if arm == "input":
        return volume.voxels.astype(np.float32)
    if arm == "ours":
        result = enhance(volume, EnhanceConfig(device="cpu"))
        return result.volume.voxels.astype(np.float32)
    from _enhancement_peers import bm4d_ct

    return bm4d_ct(volume).voxels.astype(np.float32)


def score(voxels: Floats, lesion: Lesion) -> float:
    """A matched template against the ring around it, in units of the lesion's contrast."""
    wide = tuple(slice(max(0, part.start - _RING), part.stop + _RING) for part in lesion.where)
    around = voxels[wide]
    inner = np.zeros(voxels.shape, bool)
    inner[lesion.where] = lesion.share > 0
    ring = ~inner[wide]
    inside = (voxels[lesion.where] * lesion.share).sum() / lesion.share.sum()
    return float((inside - np.median(around[ring])) / lesion.contrast)


def auc(present: npt.NDArray[np.float64], absent: npt.NDArray[np.float64]) -> float:
    """Share of pairs in which the lesion scores higher than its absence."""
    return float((present[:, None] > absent[None]).mean())


def observer(lesions: list[Row], arm: str) -> dict[str, Any]:
    ours = [row for row in lesions if row["arm"] == arm]
    if not ours:
        return {}
    present, absent = (np.array([row[key] for row in ours]) for key in ("present", "absent"))
    kept, d_prime = (np.array([row[key] for row in ours]) for key in ("kept", "d_prime"))
    clear = d_prime >= 8
    return {
        "auc": auc(present, absent),
        "kept_clear": float(kept[clear].mean()) if clear.any() else None,
    }


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    psnr = least(row["psnr"] for row in rows if row["table"] == "undamaged")
    yield at_least(
        "undamaged: PSNR to the input, least, dB",
        psnr,
        42,
        "volumes that are noisy by themselves are denoised: no noise was added, but some is there",
    )
    lesions = [row for row in rows if row["table"] == "lesions"]
    before, ours, peer = (observer(lesions, arm) for arm in ("input", "ours", "BM4D"))
    lost = before["auc"] - ours["auc"] if ours else None
    faint_lost = "at 5,000 photons a ray the filter takes faint lesions of a few voxels for noise"
    yield at_most("faint lesions: AUC below the input's", lost, 0.03, faint_lost)
    over = ours["auc"] - peer["auc"] if ours and peer else None
    why = "BM4D is not installed" if over is None else faint_lost
    yield at_least("faint lesions: AUC above BM4D's", over, 0, why)
    kept = ours.get("kept_clear")
    why = faint_lost if kept is not None else "no planted lesion has a d′ of 8 at this dose"
    yield at_least("contrast kept at d′ ≥ 8", kept, 0.8, why)


if __name__ == "__main__":
    main()
