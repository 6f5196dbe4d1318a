"""What a wanted look does, a kernel or a resolution that other patients show, against wrong ones.

python Testing/Benchmarks/look.py                    writes results/look.json
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from _common import SHARED_DATA, gate, write

from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.degradation.image import gaussian_blur, rician_noise, robust_max
from MedEnhanceLib.degradation.lowdose import low_dose_noise
from MedEnhanceLib.hqg.appearance import Appearance, combine, measure_appearance
from MedEnhanceLib.hqg.matching import match_appearance
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.progress import Monitor

mpl.use("Agg")

Floats = npt.NDArray[np.float32]
Row = dict[str, Any]

#: STS CTs whose own noise spectra fall alike (b within 2.5 mm² of each other): a truth is only
#: known where patients begin with the same kernel. The others of the collection are softer.
CT_PATIENTS = (2, 3, 12, 14, 15, 18, 22, 23, 24, 28, 29, 31, 33, 34, 37, 38)
MR_PATIENTS = {
    "MR T1": ("L01/study2_T1W", "L03/study2_T1W", "L04/study1_T1W", "L20/study2_T1W"),
    "MR FLAIR": (
        "L01/study2_FLAIR",
        "L03/study2_FLAIR",
        "L04/study1_FLAIR",
        "L09/study2_FLAIR",
        "L20/study2_FLAIR",
    ),
    "MR T1, 1 mm": ("C07/T1", "C19/T1"),
}
#: Patients in a guide folder.
GUIDES = 5
CT_SLICES, MR_SLICES, MR_SLICES_1_MM = 16, 16, 56
PHOTONS = 5e3
#: Share of the noise of a scan with `PHOTONS`, added in the projections before the kernel.
DOSES = {"as scanned": 0.0, "a much lower dose": 0.7}


@dataclass(frozen=True)
class Look:
    """An appearance that is simulated: exp(-b f^p), in plane, after noise (CT) or before (MR)."""

    name: str
    slope: float
    power: float = 2.0


CT_LOOKS = (
    Look("sharp", 0.0),
    Look("medium", 3.0),
    Look("soft", 8.0),
    Look("soft, long tails (f^1.3)", 4.0, 1.3),
    Look("soft, flat top (f³)", 8.0, 3.0),
)
MR_BLURS = {"0": 0.0, "0.5 mm": 0.5, "0.8 mm": 0.8, "1.2 mm": 1.2}
MR_NOISE = 0.02


def main() -> None:
    torch.set_num_threads(1)
    rows = ct_rows() + mr_rows()
    write("look", gates=gates_of(rows), rows=rows, seeds=[7])


def kernel(voxels: Floats, spacing: Sequence[float], look: Look) -> Floats:
    """A reconstruction kernel relative to the scan's own, in plane, by FFT with mirrored edges."""
    if look.slope == 0:
        return voxels
    margin = 16
    padded = np.pad(voxels, ((0, 0), (margin, margin), (margin, margin)), mode="symmetric")
    rows = np.fft.fftfreq(padded.shape[1], spacing[1])[:, None]
    columns = np.fft.rfftfreq(padded.shape[2], spacing[0])[None]
    response = np.exp(-look.slope * np.hypot(rows, columns) ** look.power)
    filtered = np.fft.irfft2(np.fft.rfft2(padded) * response, s=padded.shape[1:])
    return filtered[:, margin:-margin, margin:-margin].astype(np.float32)


def ct_rows() -> list[Row]:
    """Each patient with each kernel and dose, matched to each kernel of other patients."""
    volumes: dict[tuple[Any, str, str], Volume] = {}
    looks: dict[tuple[Any, str, str], Appearance] = {}
    for patient in CT_PATIENTS:
        scan = load(SHARED_DATA / f"ct/sts/STS_{patient:03d}/CT.nii.gz", modality="CT")
        middle = max(0, scan.shape[0] // 2 - CT_SLICES // 2)
        voxels = scan.voxels[middle : middle + CT_SLICES].astype(np.float32)
        spacing = scan.geometry.spacing
        noise = low_dose_noise(voxels, spacing, PHOTONS, 5.0, np.random.default_rng(7))
        for dose, share in DOSES.items():
            for look in CT_LOOKS:
                image = kernel(voxels + share * noise, spacing, look)
                image = np.maximum(image, -1024)
                key = patient, look.name, dose
                volumes[key] = Volume(
                    restore_dtype(image, np.dtype(np.int16)),
                    scan.geometry,
                    modality="CT",
                    units="HU",
                    source=f"STS_{patient:03d}, {look.name}, {dose}",
                )
                looks[key] = measure_appearance(volumes[key])
    names = [look.name for look in CT_LOOKS[:3]]
    rows = []
    for dose in DOSES:
        for look in CT_LOOKS:
            for wanted in names:
                rows.append(  # noqa: PERF401 - readable as it is
                    row_of(
                        f"CT, {dose}",
                        look.name,
                        wanted,
                        CT_PATIENTS[::2],
                        given=lambda p, look=look.name, dose=dose: volumes[p, look, dose],
                        truth=lambda p, wanted=wanted, dose=dose: volumes[p, wanted, dose],
                        # Guides have the dose of the clinic, whatever the input's.
                        guide=lambda p, name: looks[p, name, "as scanned"],
                        members=CT_PATIENTS,
                        names=names,
                    )
                )
    return rows


def mr_rows() -> list[Row]:
    """Brains at several resolutions, with and without noise that was added afterwards."""
    rows = []
    for group, files in MR_PATIENTS.items():
        volumes: dict[tuple[str, str, bool], Volume] = {}
        looks: dict[tuple[str, str, bool], Appearance] = {}
        for file in files:
            scan = load(SHARED_DATA / f"mr/open_ms/{file}.nii.gz", modality="MR")
            di, _, dk = scan.geometry.spacing
            is_cubic = dk < 1.6 * di
            count = min(scan.shape[0], MR_SLICES_1_MM if is_cubic else MR_SLICES)
            first = (scan.shape[0] - count) // 2
            scan = replace(scan, voxels=scan.voxels[first : first + count])
            voxels = scan.voxels.astype(np.float32)
            for name, sigma in MR_BLURS.items():
                image = gaussian_blur(
                    voxels, sigma / di, sigma_slices=sigma / dk if is_cubic else 0
                )
                for noisy in (False, True):
                    if noisy:
                        sigma_noise = MR_NOISE * robust_max(voxels)
                        image = rician_noise(image, sigma_noise, np.random.default_rng(7))
                    made = restore_dtype(image, scan.dtype)
                    volumes[file, name, noisy] = scan.with_voxels(made)
                    looks[file, name, noisy] = measure_appearance(volumes[file, name, noisy])
        names = ["0", "0.8 mm"]
        for noisy in (False, True):
            for name in MR_BLURS:
                for wanted in names:
                    rows.append(  # noqa: PERF401 - readable as it is
                        row_of(
                            group + (", noise 2 %" if noisy else ""),
                            name,
                            wanted,
                            files,
                            given=lambda p, name=name, noisy=noisy, volumes=volumes: volumes[
                                p, name, noisy
                            ],
                            truth=lambda p, wanted=wanted, volumes=volumes: volumes[
                                p, wanted, False
                            ],
                            guide=lambda p, name, looks=looks: looks[p, name, False],
                            names=names,
                        )
                    )
    return rows


def row_of(
    group: str,
    name: str,
    wanted: str,
    patients: Sequence[Any],
    *,
    given: Callable[[Any], Volume],
    truth: Callable[[Any], Volume],
    members: Sequence[Any] = (),
    guide: Callable[[Any, str], Appearance],
    names: Sequence[str],
) -> Row:
    """Means over patients of all arms; guides are always other patients, of `members`."""
    rng = np.random.default_rng(7)
    arms: dict[str, list[float]] = {}
    slopes, applied, worst = [], 0, math.inf
    seconds = time.process_time()
    for patient in patients:
        volume = given(patient)
        true = truth(patient)
        mask = tissue(true)
        alone = psnr(true, volume, mask)
        others = [other for other in members or patients if other != patient]
        chosen = list(rng.permutation(others)[:GUIDES])
        arms.setdefault("input alone", []).append(alone)
        for look in names:
            folder = combine([guide(other, look) for other in chosen])
            matched, match = match_appearance(volume, folder, monitor=Monitor())
            score = psnr(true, volume.with_voxels(matched), mask)
            is_right = look == wanted
            arms.setdefault("right guide" if is_right else f"guide {look}", []).append(score)
            if is_right:
                change = match.changes["in_plane"]
                slopes.append(change.slope_mm2)
                applied += not match.changes_nothing
                worst = min(worst, score - alone)
    print(group, name, "->", wanted, {k: round(float(np.mean(v)), 1) for k, v in arms.items()},
          f"{time.process_time() - seconds:.0f} s", flush=True)  # fmt: skip
    means = {arm: float(np.mean(values)) for arm, values in arms.items()}
    wrong = [value for arm, value in means.items() if arm.startswith("guide ")]
    return {
        "group": group,
        "input": name,
        "wanted": wanted,
        "agrees": name == wanted,
        "patients": len(patients),
        "alone_db": means["input alone"],
        "right_db": means["right guide"],
        "best_wrong_db": max(wrong),
        "worst_patient_db": worst,
        "applied": applied,
        "slope_mm2": float(np.mean(slopes)),
        "slope_sd": float(np.std(slopes)),
    }


def tissue(volume: Volume) -> npt.NDArray[np.bool_]:
    if volume.modality == "CT":
        return (volume.voxels > -200) & (volume.voxels < 300)
    mask: npt.NDArray[np.bool_] = volume.voxels > 0.1 * robust_max(volume.voxels)
    return mask


def psnr(true: Volume, image: Volume, mask: npt.NDArray[np.bool_]) -> float:
    """With 1000 HU, or the robust maximum, as range; 100 at most."""
    span = 1000.0 if true.modality == "CT" else robust_max(true.voxels)
    error = (image.voxels.astype(np.float64) - true.voxels)[mask]
    return min(100.0, 20 * math.log10(span / max(1e-9, math.sqrt(float((error**2).mean())))))


def gates_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    gates = []
    for kind in sorted({row["group"].partition(",")[0] for row in rows}):
        ours = [row for row in rows if row["group"].startswith(kind)]
        other = [row for row in ours if not row["agrees"]]
        agree = [row for row in ours if row["agrees"]]
        gains = [row["right_db"] - row["alone_db"] for row in other]
        over_wrong = [row["right_db"] - row["best_wrong_db"] for row in other]
        loss = min(row["worst_patient_db"] for row in agree) if agree else None
        gates += [
            gate(f"{kind}: right guide over the input alone, mean dB",
                 float(np.mean(gains)), "≥ 0.5", np.mean(gains) >= 0.5),
            gate(f"{kind}: the same, worst case", min(gains), "≥ 0", min(gains) >= 0),
            gate(f"{kind}: right guide over the best wrong one, mean dB",
                 float(np.mean(over_wrong)), "≥ 0.5", np.mean(over_wrong) >= 0.5),
            gate(f"{kind}: worst patient where guide and input agree, dB",
                 loss, "≥ 0", loss is not None and loss >= 0),
        ]  # fmt: skip
    return gates


if __name__ == "__main__":
    main()
