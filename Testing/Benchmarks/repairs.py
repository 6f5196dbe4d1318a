"""Blur and motion: what is measured blindly, and what undoing it gains.

    python Testing/Benchmarks/repairs.py            writes results/repairs.json

References have little noise of their own, and no training of the enhancer saw them. Arms see the
damaged volume alone; “ours” is what the extension does with it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from _common import RESULTS, SHARED_DATA, gate, write
from _enhancement_data import TEMPLATE, Subject, motion, subject

from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation import gaussian_blur, rician_noise, robust_max
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.hqg.motion import measure_motion
from MedEnhanceLib.hqg.sharpness import measure_blur
from MedEnhanceLib.io import load

Floats = npt.NDArray[np.float32]
Row = dict[str, Any]
Task = Literal["noise", "sharpness", "motion"]
SUBJECTS = (TEMPLATE, "mr/open_ms/C07/T1.nii.gz", "mr/open_ms/C07/FLAIR.nii.gz")
FOREST = "studyforrest, 2 × 2 × 2 averaged"
SLICES = 8
#: σ in px and noise as a share of the robust maximum.
BLURS = ((0.0, 0.01), (0.6, 0.0), (0.8, 0.01), (1.0, 0.0), (1.0, 0.03), (1.5, 0.01))


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows = [*blurs(), *motions(), *undamaged()]
    write("repairs", gates=gates_of(rows), rows=rows, seeds=[0, 3, 4], folder=RESULTS)


def subjects() -> Iterator[tuple[str, Floats, npt.NDArray[np.bool_]]]:
    """Name, voxels with a robust maximum of 1, foreground."""
    for name in SUBJECTS:
        found: Subject = subject(name, SHARED_DATA, SLICES)
        yield name, np.maximum(found.volume.voxels / found.span, 0).astype(np.float32), found.inside
    voxels = load(SHARED_DATA / "mr/studyforrest/T1.nii.gz", modality="MR").voxels
    half = [side // 2 for side in voxels.shape]
    voxels = voxels[: 2 * half[0], : 2 * half[1], : 2 * half[2]].astype(np.float32)
    voxels = voxels.reshape(half[0], 2, half[1], 2, half[2], 2).mean(axis=(1, 3, 5))
    voxels = np.maximum(voxels / robust_max(voxels), 0)
    middle = half[0] // 2
    voxels = voxels[middle - SLICES // 2 : middle + SLICES // 2]
    yield FOREST, voxels, voxels > 0.1


def ours(voxels: Floats, task: Task) -> Floats:
    """What the extension makes of a volume; by the task “noise” blur and motion stay."""
    config = EnhanceConfig(model="mr", task=task, device="cpu")
    return np.asarray(enhance(Volume(voxels, modality="MR"), config).volume.voxels)


def blurs() -> Iterator[Row]:
    for name, truth, inside in subjects():
        for sigma, noise in BLURS:
            blurred = gaussian_blur(truth, sigma)
            if noise:
                blurred = rician_noise(blurred, noise, np.random.default_rng(3))
            estimate = measure_blur(blurred, noise=noise or np.inf)
            case = (
                f"σ {sigma:g} px, noise {noise:.0%}" if sigma else f"undamaged, noise {noise:.0%}"
            )
            row: Row = {"part": "blur", "subject": name, "case": case, "sigma": sigma}
            row |= {"found": list(estimate.sigma_px), "is_blurred": estimate.is_blurred}
            arms: dict[str, Callable[[], Floats]] = {
                "input": lambda x=blurred: x,
                "noise alone": lambda x=blurred: ours(x, "noise"),
                "ours": lambda x=blurred: ours(x, "sharpness"),
            }
            row |= measured(arms, truth, inside)
            yield shown(row)


def motions() -> Iterator[Row]:
    for name, truth, inside in subjects():
        volume = Volume(truth, modality="MR")
        damaged = {
            "motion": motion(volume, 0).voxels,
            "undamaged": rician_noise(truth, 0.03, np.random.default_rng(4)),
        }
        for case, voxels in damaged.items():
            estimate = measure_motion(Volume(voxels, modality="MR"))
            row: Row = {"part": "motion", "subject": name, "case": case}
            row |= {"found": "motion" if estimate.angle else "none", "severity": estimate.angle}
            arms: dict[str, Callable[[], Floats]] = {
                "input": lambda x=voxels: x,
                "noise alone": lambda x=voxels: ours(x, "noise"),
                "ours": lambda x=voxels, e=estimate: ours(
                    x, "motion" if e.is_correctable or not e.angle else "noise"
                ),
            }
            yield shown(row | measured(arms, truth, inside))


def measured(
    arms: dict[str, Callable[[], Floats]], truth: Floats, inside: npt.NDArray[np.bool_]
) -> Row:
    figures: Row = {"psnr": {}, "cpu_s_per_mvoxel": {}}
    for arm, run in arms.items():
        began = time.process_time()
        result = run()
        seconds = time.process_time() - began
        figures["psnr"][arm] = round(psnr(truth, result, 1.0, mask=inside), 2)
        figures["cpu_s_per_mvoxel"][arm] = round(seconds / truth.size * 1e6, 2)
    return figures


def undamaged() -> Iterator[Row]:
    """What is found in volumes that nobody damaged."""
    mr = sorted(SHARED_DATA.glob("mr/sts/*/MR_T1.nii.gz"))
    ct = [*sorted(SHARED_DATA.glob("ct/sts/*/CT.nii.gz")), SHARED_DATA / "ct/abdomen/CT.nii.gz"]
    raw = sorted(SHARED_DATA.glob("mr/open_ms/L*/study*[RW].nii.gz"))
    for path in [*mr, *ct, *raw]:
        group = "CT" if path in ct else "MR" if path in mr else "MR, brain"
        volume = load(path, modality=group[:2])
        estimate = measure_blur(volume.voxels)
        row: Row = {"part": "undamaged", "case": "", "subject": str(path.relative_to(SHARED_DATA))}
        row |= {"group": group, "sigma_px": list(estimate.sigma_px)}
        row["found"] = ["blur"] if estimate.is_blurred else []
        if group != "CT":
            row["found"] += ["motion"] if measure_motion(volume).angle else []
        yield shown(row)


def shown(row: Row) -> Row:
    print(json.dumps(row), flush=True)
    return row


def gates_of(rows: list[Row]) -> list[dict[str, Any]]:
    def gain(chosen: list[Row], over: str) -> float:
        return float(np.mean([row["psnr"]["ours"] - row["psnr"][over] for row in chosen]))

    above = gain([row for row in rows if row["part"] == "blur" and row["sigma"]], "input")
    moved = gain([row for row in rows if row["case"] == "motion"], "noise alone")
    healthy = [row for row in rows if row["part"] == "undamaged"]
    false = [row for row in healthy if "blur" in row["found"]]
    wrong = [row for row in healthy if "motion" in row["found"]]
    return [
        gate("blur: ours above the input, dB", above, "≥ 2", above >= 2),
        gate("undamaged volumes called blurred", len(false), "0", not false),
        gate("undamaged MR called moved", len(wrong), "0", not wrong),
        gate("motion: ours above noise removed alone, dB", moved, "≥ 1", moved >= 1),
    ]


if __name__ == "__main__":
    main()
