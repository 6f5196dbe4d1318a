"""Does the enhancer harm what needs nothing, and what is faint? Defaults on many volumes.

    python Testing/Benchmarks/harm.py [--jobs 2]
    python Testing/Benchmarks/harm.py --quick      four volumes of each modality, no lesions, in
                                                   runs/benchmarks

Undamaged volumes go through `enhance` with its defaults; the result is compared with the input.
Faint lesions are planted in low-dose CT and looked for by an observer with a matched template.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from _common import REPOSITORY, RESULTS, SHARED_DATA, gate, write
from _enhancement_data import CASES, CT_RANGE_HU, CT_SUBJECTS, TEMPLATE, robust_max, subject
from _enhancement_lesions import Lesion, damaged_with_lesions, new_blobs, plant
from _enhancement_visibility import detectability

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.resources import resource_folder

mpl.use("Agg")

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Row = dict[str, Any]

#: Tissues of CT by HU, and of MR by shares of the robust maximum.
TISSUES = {
    "CT": {"lung": (-950, -500), "fat": (-150, -30), "soft": (0, 100), "bone": (200, 1500)},
    "MR": {"dark": (0.1, 0.3), "middle": (0.3, 0.6), "bright": (0.6, 1.1)},
}
#: Strongest edges that are looked at, as a share of the voxels of tissue.
_EDGES = 0.01
#: Side of the window of a local standard deviation, in voxels of a slice.
_WINDOW = 5
_FEWEST_VOXELS = 500
#: Central slices of each undamaged volume.
_SLICES = 16
#: Volumes of each modality in a quick run, spread over all of them.
_QUICK = 4
#: Share of the volume around a lesion that is its background, in voxels.
_RING = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--quick", action="store_true", help="four volumes of each modality")
    options = parser.parse_args()
    names = [TEMPLATE, *volumes()]
    arms = [(name, arm) for name in CT_SUBJECTS for arm in ("input", "ours", "BM4D")]
    if options.quick:
        groups = ([n for n in names if n.startswith("ct/") == is_ct] for is_ct in (True, False))
        names = [name for group in groups for name in group[:: len(group) // _QUICK][:_QUICK]]
        arms = []
    with ProcessPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(undamaged, names))
        todo = [pool.submit(faint, *arm) for arm in arms]
        lesions = [row for part in todo for row in part.result()]
    folder = REPOSITORY / "runs" / "benchmarks" if options.quick else RESULTS
    gates = gates_of(rows, lesions)
    write("harm", gates=gates, rows=[*rows, *lesions], seeds=[0], folder=folder)


def volumes() -> list[str]:
    """All CT and MR volumes, by path relative to the folder."""
    found = [*SHARED_DATA.glob("ct/**/*.nii.gz"), *SHARED_DATA.glob("mr/**/*.nii.gz")]
    others = ("organs", "PET", "brain", "lesion", "mask", "label", "seg", "tissue", "gt", "ROI")
    kept = (f for f in sorted(found) if not any(word in f.name for word in others))
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


def undamaged(name: str) -> Row:
    """What the defaults change in a volume as it is."""
    volume = opened(name)
    done = enhance(volume, EnhanceConfig(device="cpu"))
    before, after = (v.voxels.astype(np.float32) for v in (volume, done.volume))
    top = robust_max(volume.voxels)
    inside = before > (-950 if volume.modality == "CT" else 0.1 * top)
    span = CT_RANGE_HU if volume.modality == "CT" else top
    change = after - before
    error = float(np.mean(np.square(change[inside], dtype=np.float64)))
    sigma = done.noises[0][:] if done.noises else np.ones_like(before)
    ratios = {}
    for tissue, (low, high) in TISSUES[volume.modality].items():
        scale = 1.0 if volume.modality == "CT" else top
        where = (before > low * scale) & (before < high * scale) & inside
        if where.sum() >= _FEWEST_VOXELS:
            spread = local_spread(change)[where]
            ratios[tissue] = float(np.median(spread / np.maximum(sigma[where], 1e-6)))
    measured = done.measured
    print(name, f"{10 * np.log10(span**2 / max(error, 1e-9 * span**2)):.1f} dB", flush=True)
    return {
        "table": "undamaged",
        "volume": name,
        "modality": volume.modality,
        "psnr": 10 * float(np.log10(span**2 / max(error, 1e-9 * span**2))),
        "sigma": measured["noise"]["sigma"],
        "confidence": measured["noise"]["confidence"],
        "removed": measured["noise"]["share_removed"],
        "touched": sorted({"blur", "bias_field"} & measured.keys()),
        "edge": edge_slope(before, after, inside),
        "spread": ratios,
    }


def local_spread(change: Floats) -> Floats:
    """Standard deviation of a difference in windows of a slice."""
    from scipy.ndimage import uniform_filter

    size = (1, _WINDOW, _WINDOW)
    mean = uniform_filter(change, size)
    square = uniform_filter(np.square(change), size)
    spread: Floats = np.sqrt(np.maximum(square - mean**2, 0))
    return spread


def edge_slope(before: Floats, after: Floats, inside: Mask) -> float:
    """Slope of the strongest edges after, as a share of that before."""
    from scipy.ndimage import gaussian_filter

    smooth = [gaussian_filter(v, (0, 1, 1)) for v in (before, after)]
    (down, across), (down_after, across_after) = (np.gradient(v, axis=(1, 2)) for v in smooth)
    strength = np.hypot(down, across)
    strong = inside & (strength >= np.quantile(strength[inside], 1 - _EDGES))
    along = down * down_after + across * across_after
    return float(along[strong].sum() / np.square(strength[strong]).sum())


def faint(name: str, arm: str) -> list[Row]:
    """Planted lesions in low-dose CT: contrast kept, observer, new blobs."""
    case = CASES["CT"][0]
    one = subject(name, SHARED_DATA, 24)
    degraded = case.damage(one.whole, 0) if one.whole is not None else case.damage(one.volume, 0)
    if one.whole is not None:
        degraded = one.volume.with_voxels(degraded.voxels[one.window])
    added, lesions = plant(one, 0)
    planted = damaged_with_lesions(one, case, 0, degraded, added)
    try:
        without, present = (of_arm(arm, v) for v in (degraded, planted))
    except ImportError:
        print(f"{arm} is not installed")
        return []
    visible = detectability(one, degraded, lesions)
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
                "blobs": new_blobs(one, without),
            }
        )
    return rows


def of_arm(arm: str, volume: Volume) -> Floats:
    if arm == "input":
        return volume.voxels.astype(np.float32)
    if arm == "ours":
        done = enhance(volume, EnhanceConfig(device="cpu"))
        return done.volume.voxels.astype(np.float32)
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
    faint, clear = d_prime < 8, d_prime >= 8
    return {
        "count": len(ours),
        "clear": int(clear.sum()),
        "auc": auc(present, absent),
        "auc_faint": auc(present[faint], absent[faint]),
        "kept": float(kept.mean()),
        "kept_clear": float(kept[clear].mean()) if clear.any() else None,
        "blobs": float(np.mean(list({row["volume"]: row["blobs"] for row in ours}.values()))),
    }


def gates_of(rows: list[Row], lesions: list[Row]) -> list[dict[str, Any]]:
    gates = []
    for modality in ("CT", "MR"):
        ours = [row for row in rows if row["modality"] == modality]
        least = min(ours, key=lambda row: row["psnr"])
        touched = sum(bool(row["touched"]) for row in ours)
        edge = float(np.mean([row["edge"] for row in ours]))
        spread = max(value for row in ours for value in row["spread"].values())
        gates += [
            gate(f"{modality}: PSNR to the input, least, dB", least["psnr"], "≥ 42",
                 least["psnr"] >= 42) | {"volume": least["volume"]},
            gate(f"{modality}: volumes whose blur or bias field is touched", touched, "0",
                 not touched),
            gate(f"{modality}: slope of edges kept, mean", edge, "≥ 0.97", edge >= 0.97),
            gate(f"{modality}: local SD of the difference / σ, most", spread, "≤ 1.2",
                 spread <= 1.2),
        ]  # fmt: skip
    before, ours, peer = (observer(lesions, arm) for arm in ("input", "ours", "BM4D"))
    if ours:
        gates.append(gate("faint lesions: AUC below the input's", before["auc"] - ours["auc"],
                          "≤ 0.03", before["auc"] - ours["auc"] <= 0.03))  # fmt: skip
        kept = ours["kept_clear"]
        is_kept = kept is not None and kept >= 0.8
        gates.append(gate("contrast kept at d′ ≥ 8", kept, "≥ 0.8", is_kept))
    if ours and peer:
        gates.append(gate("faint lesions: AUC above BM4D's", ours["auc"] - peer["auc"], "≥ 0",
                          ours["auc"] >= peer["auc"]))  # fmt: skip
        gates.append(gate("new blobs over BM4D's, per 100 mL", ours["blobs"] - peer["blobs"],
                          "≤ 0", ours["blobs"] <= peer["blobs"]))  # fmt: skip
    return gates


if __name__ == "__main__":
    main()
