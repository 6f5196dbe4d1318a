"""How exactly guides are registered: planted motions of real pairs, and guides that must not pass.

    python Testing/Benchmarks/registration.py

A motion is planted by changing the guide's header, so no interpolation is part of it. The error is
the distance to the place that the same pair has without the motion and without noise, in voxels of
the volume, over points of its tissue. Where that place differs from the headers', a row says so:
there is no other truth for real pairs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name of its documentation
from _common import QUICK, SHARED_DATA, Gate, Part, Row, at_most, measure, most, parser_of

from MedEnhanceLib.core.arrays import Doubles, robust_max
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.guide import align
from MedEnhanceLib.hqg.registration import Registration
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.progress import Monitor

MS = "mr/open_ms/"
#: Volume ← guide of one examination.
PAIRS = (
    (MS + "L04/study1_FLAIR", MS + "L04/study1_T1W"),
    (MS + "C07/T1", MS + "C07/T2"),
    (MS + "L01/study2_T1W", MS + "L01/study2_T2W"),
    (MS + "C19/T1", MS + "C19/FLAIR"),
    (MS + "L03/study1_FLAIR", MS + "L03/study1_T2W"),
    (MS + "L04/study1_T2W", MS + "L04/study1_FLAIR"),
    (MS + "L03/study2_T2W", MS + "L03/study2_T1W"),
)
#: Shift in mm, rotation in degrees, noise in percent of the robust maximum.
MOTIONS = ((2.0, 2.0, 10), (8.0, 6.0, 10), (0.5, 1.0, 5))
#: Volume ← guide of another patient; every pair is tried mirrored, too.
OTHERS = (
    (MS + "L01/study2_T1W", MS + "L03/study2_T1W"),
    (MS + "C07/T1", MS + "C19/T2"),
    (MS + "L04/study1_FLAIR", MS + "L01/study1_T1W"),
    (MS + "L03/study2_T2W", MS + "L20/study2_T1W"),
)


def main() -> None:
    measure("registration", parser_of(__doc__).parse_args(), parts, gates_of, seeds=[0])


def parts() -> Iterator[Part]:
    for pair in PAIRS[1:2] if QUICK else PAIRS:
        yield " ".join(pair), partial(of_pair, *pair, MOTIONS[:1] if QUICK else MOTIONS)
    for pair in () if QUICK else OTHERS:
        yield " ".join(pair), partial(of_other, *pair)


def of_pair(name: str, guide_name: str, motions: tuple[tuple[float, float, int], ...]) -> list[Row]:
    """The pair as it is, with planted motions, and mirrored."""
    volume, guide = read(name), read(guide_name)
    registration = Registration(volume)
    clean = align(guide, volume, Monitor())
    true = clean.place
    about = {"volume": name, "guide": guide_name}
    from_headers = float(registration.displacement(true, np.eye(4)).mean())
    rows = [{**about, "kind": "as is", "from_headers_voxels": from_headers, **shown(clean.facts)}]
    for shift, degrees, percent in motions:
        motion = drawn(shift, degrees, registration.center)
        noise = noisy(volume, percent)
        began = time.process_time()
        aligned = align(moved(guide, motion), noise, Monitor())
        cpu = time.process_time() - began
        errors = registration.displacement(aligned.place, motion @ true)
        rows.append(
            {
                **about,
                "kind": "planted",
                "shift_mm": shift,
                "rotation_deg": degrees,
                "noise_percent": percent,
                "mean_error_voxels": float(errors.mean()),
                "worst_error_voxels": float(errors.max()),
                "cpu_s": round(cpu, 2),
                **shown(aligned.facts),
            }
        )
    mirrored = align(guide.with_voxels(guide.voxels[..., ::-1]), noise, Monitor())
    return [*rows, {**about, "kind": "mirrored", **shown(mirrored.facts)}]


def of_other(name: str, guide_name: str) -> list[Row]:
    """A guide of another patient."""
    aligned = align(read(guide_name), noisy(read(name), 10), Monitor())
    return [{"volume": name, "guide": guide_name, "kind": "other patient", **shown(aligned.facts)}]


def shown(facts: dict[str, Any]) -> Row:
    """The facts that tell about the check."""
    return {key: facts[key] for key in ("used", "moved", "fit_before", "fit_after", "overlap")}


def read(name: str) -> Volume:
    return load(SHARED_DATA / f"{name}.nii.gz")


def noisy(volume: Volume, percent: float) -> Volume:
    """With Rician noise (CT has none here); σ in percent of the robust maximum."""
    rng = np.random.default_rng(0)
    values = volume.voxels.astype(np.float32)
    sigma = percent / 100 * robust_max(values)
    noise = rng.normal(0, sigma, (2, *values.shape)).astype(np.float32)
    return volume.with_voxels(np.hypot(values + noise[0], noise[1]))


def drawn(shift: float, degrees: float, center: Doubles) -> Doubles:
    """A motion of that size in a direction that chance gives, about a center; 4×4."""
    ways = np.random.default_rng(round(10 * shift)).normal(size=(2, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    angles, shifts = (ways * [[np.radians(degrees)], [shift]]).tolist()
    turn = sitk.Euler3DTransform(center.tolist(), *angles, shifts)
    motion = np.eye(4)
    motion[:3, :3] = np.array(turn.GetMatrix()).reshape(3, 3)
    motion[:3, 3] = turn.TransformPoint((0.0, 0.0, 0.0))
    return motion


def moved(guide: Volume, motion: Doubles) -> Volume:
    """The guide with its header changed."""
    affine = motion @ guide.geometry.affine_lps
    spacing = guide.geometry.spacing
    direction = tuple(map(tuple, (affine[:3, :3] / np.array(spacing)).tolist()))
    return replace(
        guide,
        geometry=Geometry(spacing, tuple(affine[:3, 3].tolist()), direction),
        dicom_origin=None,
    )


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Errors, and guides that are judged wrongly."""
    planted = [row for row in rows if row["kind"] == "planted" and row["volume"].startswith(MS)]
    wrong = [row for row in rows if row["kind"] in ("mirrored", "other patient")]
    errors = [row["mean_error_voxels"] for row in planted if row["used"]]
    why = "of a pair that lies 4.7 voxels apart by its headers, the place changes with the noise"
    yield at_most("MR pairs: mean error of the worst case, voxels", most(errors), 0.5, why)
    misjudged = sum(not row["used"] for row in planted) + sum(row["used"] for row in wrong)
    name = f"right guides refused and wrong ones used, of {len(planted)} and {len(wrong)}"
    yield at_most(name, misjudged, 0)


if __name__ == "__main__":
    main()
