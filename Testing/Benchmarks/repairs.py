"""Blur and motion: what is measured blindly, and what undoing it gains.

    python Testing/Benchmarks/repairs.py            writes results/repairs.json
    python Testing/Benchmarks/repairs.py --part blur     rows alone, into runs/repairs-blur.json

References have little noise of their own. Arms see the damaged volume alone, steps by themselves
its true noise as well; “ours” is what the extension does with it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from _common import REPOSITORY, RESULTS, SHARED_DATA, gate, write
from _enhancement_data import TEMPLATE, Subject, motion, subject

from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import gaussian_blur, rician_noise, robust_max
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.hqg.denoise import denoise
from MedEnhanceLib.hqg.motion import measure_motion
from MedEnhanceLib.hqg.sharpness import BlurEstimate, measure_blur, undo_blur
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.noise import measure_noise

Floats = npt.NDArray[np.float32]
Row = dict[str, Any]
Task = Literal["noise", "sharpness", "motion"]
SUBJECTS = (TEMPLATE, "mr/open_ms/C19/T1.nii.gz", "mr/sts/STS_023/MR_T1.nii.gz")
FOREST = "studyforrest, 2 × 2 × 2 averaged"
SLICES = 8
#: σ in px and noise as a share of the robust maximum.
BLURS = ((0.0, 0.01), (0.6, 0.0), (0.8, 0.01), (1.0, 0.0), (1.0, 0.03), (1.5, 0.01))
PARTS = ("blur", "motion", "undamaged")


def main() -> None:
    options = parse()
    rows: list[Row] = []
    for part in [options.part] if options.part else PARTS:
        kept = REPOSITORY / "runs" / f"repairs-{part}.json"
        if options.part or not kept.is_file():
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(list(_MEASURES[part]())))
        rows += json.loads(kept.read_text())
    if not options.part:
        publish(rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, help="measure this part alone")
    return parser.parse_args()


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


def ours(voxels: Floats, task: Task = "noise", **chosen: Any) -> Floats:
    """What the extension makes of a volume; of the task “noise” the filter alone."""
    config = EnhanceConfig(model="mr", task=task, device="cpu", **chosen)
    return np.asarray(enhance(Volume(voxels, modality="MR"), config).volume.voxels)


def sharpened(voxels: Floats, blur: BlurEstimate, noise: float, **chosen: Any) -> Floats:
    """Noise removed, and the blur undone that was measured with the true noise."""
    if not blur.is_blurred:
        return ours(voxels, **chosen)
    return undo_blur(voxels, blur, noise=noise, denoised=ours(voxels, **chosen))


def twice(voxels: Floats) -> Floats:
    """The filter at twice the measured noise."""
    volume = Volume(voxels, modality="MR")
    noise = measure_noise(voxels, modality="MR")
    return denoise(volume, replace(noise, sigma=2 * noise.sigma, level=2 * noise.level))


def blurs() -> Iterator[Row]:
    for name, truth, inside in subjects():
        for sigma, noise in BLURS:
            blurred = gaussian_blur(truth, sigma)
            if noise:
                blurred = rician_noise(blurred, noise, np.random.default_rng(3))
            estimate = measure_blur(blurred, noise=noise or None)
            case = (
                f"σ {sigma:g} px, noise {noise:.0%}" if sigma else f"undamaged, noise {noise:.0%}"
            )
            row: Row = {"part": "blur", "subject": name, "case": case, "sigma": sigma}
            row |= {"found": list(estimate.sigma_px), "is_blurred": estimate.is_blurred}
            arms: dict[str, Callable[[], Floats]] = {
                "input": lambda x=blurred: x,
                "filter": lambda x=blurred: ours(x),
                "Wiener alone": lambda x=blurred, e=estimate, n=noise: undo_blur(x, e, noise=n),
                "filter + Wiener": partial(sharpened, blurred, estimate, noise),
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
                "filter": lambda x=voxels: ours(x),
                "filter, noise × 2": lambda x=voxels: twice(x),
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
        row: Row = {"part": "undamaged", "subject": str(path.relative_to(SHARED_DATA))}
        row |= {"group": group, "sigma_px": list(estimate.sigma_px)}
        row["found"] = ["blur"] if estimate.is_blurred else []
        if group != "CT":
            row["found"] += ["motion"] if measure_motion(volume).angle else []
        yield shown(row)


_MEASURES = {"blur": blurs, "motion": motions, "undamaged": undamaged}


def shown(row: Row) -> Row:
    print(json.dumps(row), flush=True)
    return row


def publish(rows: list[Row]) -> None:
    parts = {part: [row for row in rows if row["part"] == part] for part in PARTS}
    found = gates_of(parts)
    write("repairs", gates=found, rows=rows, seeds=[0, 3, 4], folder=Path(RESULTS))


def gates_of(parts: dict[str, list[Row]]) -> list[dict[str, Any]]:
    def gain(rows: list[Row], over: str) -> float:
        return float(np.mean([row["psnr"]["ours"] - row["psnr"][over] for row in rows]))

    blurred = [row for row in parts["blur"] if row["sigma"]]
    above = gain(blurred, "input")
    false = [row for row in parts["undamaged"] if "blur" in row["found"]]
    wrong = [row for row in parts["undamaged"] if "motion" in row["found"]]
    gates = [
        gate("blur: ours above the input, dB", above, "≥ 2", above >= 2),
        gate("undamaged volumes called blurred", len(false), "0", not false),
        gate("undamaged MR called moved", len(wrong), "0", not wrong),
    ]
    above = gain([row for row in parts["motion"] if row["case"] == "motion"], "filter")
    return [*gates, gate("motion: ours above the filter, dB", above, "≥ 1", above >= 1)]


if __name__ == "__main__":
    main()
