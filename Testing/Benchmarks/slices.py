"""Thin slices restored from thick ones, against nearest, linear and spline.

    python Testing/Benchmarks/slices.py [--work FOLDER] [--part NAME [--modality M]]

Thin slices of low noise are averaged to slices of 2 to 6 times their thickness, restored, and
compared with what they were. Finished runs are kept in FOLDER, and not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from _common import REPOSITORY, gate, write
from _slices_lesions import lesion_rows, volume_gates
from _slices_references import Floats, Reference, along, references, thickened

from MedEnhanceLib.bundles.export import record_fields
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core import metrics
from MedEnhanceLib.hqg.denoise import removal_of
from MedEnhanceLib.hqg.slices.planes import Planes
from MedEnhanceLib.hqg.slices.profile import SliceStack
from MedEnhanceLib.hqg.slices.slice_network import SliceNet
from MedEnhanceLib.hqg.slices.steps import tuned
from MedEnhanceLib.hqg.slices.thin_slices import open_network, restore_array
from MedEnhanceLib.learning.intensity import Scaling
from MedEnhanceLib.noise.estimate import measure_noise
from MedEnhanceLib.runtime.progress import Monitor

SEED = 0
MODELS = {"MR": "mr-slices", "CT": "ct-slices"}
#: Standard deviation of added noise: 4 % of the robust maximum, 25 HU.
NOISE = {"MR": 0.04, "CT": 0.025}
#: Thicknesses at which noise is added as well, and lesions planted; arms of which SSIM is measured.
NOISY_TIMES = (4,)
LESION_TIMES = (4,)
WITH_SSIM = ("spline", "ours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/tmp/medenhance-slices"))
    parser.add_argument("--models", type=Path, default=REPOSITORY / "Resources" / "models")
    parser.add_argument("--part", choices=("psnr", "lesions"))
    parser.add_argument("--modality", choices=("MR", "CT"), help="of a part; both by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    lesions: list[dict[str, Any]] = []
    for reference in references():
        if args.modality not in (None, reference.modality):
            continue
        if args.part in (None, "psnr"):
            rows += measured(reference, args)
        if args.part in (None, "lesions") and reference.name in ("template", "C07", "abdomen CT"):
            lesions += planted(reference, args)
    if args.part is None:
        report(rows, lesions, args)


def kept(path: Path, make: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows from a file, or made and written there."""
    if not path.exists():
        path.write_text(json.dumps(make()))
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return rows


def plain_arms(stack: SliceStack) -> dict[str, npt.NDArray[np.float64]]:
    """Interpolations as matrices [M, K]."""
    centers = (np.arange(stack.thin) + 0.5) / stack.ratio - 0.5
    at = np.clip(centers, 0, stack.thick - 1)
    nearest, linear = np.zeros((2, stack.thin, stack.thick))
    every = np.arange(stack.thin)
    nearest[every, np.rint(at).astype(int)] = 1
    first = np.minimum(at.astype(int), stack.thick - 2)
    linear[every, first] = 1 - (at - first)
    linear[every, first + 1] = at - first
    return {"nearest": nearest, "linear": linear, "spline": stack.interpolate()}


def network_of(modality: str, args: argparse.Namespace) -> tuple[SliceNet, str]:
    """The shipped network and the hash of its weights."""
    bundle = read_bundle(args.models / MODELS[modality])
    return open_network(bundle), bundle.sha256[:12]


def restored(
    network: SliceNet,
    reference: Reference,
    stack: SliceStack,
    slices: Floats,
    *,
    tune: bool,
) -> Floats:
    """With measured noise, as `enhance_slices` does it."""
    across = list(reference.across_mm)
    spacing = (*reversed(across), stack.spacing_mm)
    # In HU, or thousandths of the robust maximum.
    estimate = measure_noise(1000 * slices, modality=reference.modality, spacing=spacing)
    noise = removal_of(estimate, reference.modality).noise.level / 1000
    if tune:
        network = tuned(
            network,
            Planes(slices.astype(np.float16), (stack.spacing_mm, *across)),
            stack,
            noise,
            modality=reference.modality,  # type: ignore[arg-type]
            device="cpu",
            monitor=Monitor(),
        )
    return restore_array(slices, Scaling(0.0, 1.0), stack, across, noise, network, "cpu", Monitor())


def measured(reference: Reference, args: argparse.Namespace) -> list[dict[str, Any]]:
    """PSNR and SSIM of all arms."""
    network, sha = network_of(reference.modality, args)
    rows = []
    for times in reference.times:
        for noise in (0.0, NOISE[reference.modality]) if times in NOISY_TIMES else (0.0,):
            for arm in ("not tuned", "ours"):
                name = f"{arm}-{reference.name}-{times}-{noise}-{sha}.json".replace(" ", "_")

                def make(
                    times: int = times, noise: float = noise, arm: str = arm
                ) -> list[dict[str, Any]]:
                    stack, slices, thin = thickened(reference, times, noise, SEED)
                    began = time.process_time()
                    image = restored(network, reference, stack, slices, tune=arm == "ours")
                    seconds = (time.process_time() - began) / thin.size * 1e6
                    row = row_of(reference, times, noise, arm, image, thin)
                    found = [row | {"cpu_s_per_mvoxel": round(seconds, 2)}]
                    if arm == "ours":
                        plain = {n: along(m, slices) for n, m in plain_arms(stack).items()}
                        found += [row_of(reference, times, noise, n, plain[n], thin) for n in plain]
                    return found

                rows += kept(args.work / name, make)
    return rows


def row_of(
    reference: Reference, times: int, noise: float, arm: str, image: Floats, thin: Floats
) -> dict[str, Any]:
    """One measurement; PSNR in tissue with peak 1, on the network's scale."""
    tissue = reference.tissue[: len(thin)]
    return {
        "reference": reference.name,
        "site": reference.site,
        "modality": reference.modality,
        "times": times,
        "thickness_mm": round(times * reference.thin_mm, 2),
        "noise": noise,
        "arm": arm,
        "psnr": round(metrics.psnr(thin, image, data_range=1.0, mask=tissue), 3),
        "ssim": round(metrics.ssim(thin, image, data_range=1.0, mask=tissue), 4)
        if arm in WITH_SSIM
        else None,
    }


def planted(reference: Reference, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Planted lesions in slices of four times the thickness."""
    rows = []
    for times in LESION_TIMES:
        arms, sha = lesion_arms(reference, times, args)
        name = f"planted-{reference.name}-{times}-{sha}.json".replace(" ", "_")
        rows += kept(
            args.work / name,
            lambda times=times, arms=arms: lesion_rows(reference, times, arms, SEED),  # type: ignore[misc]
        )
    return rows


def lesion_arms(
    reference: Reference, times: int, args: argparse.Namespace
) -> tuple[dict[str, Callable[[Floats], Floats]], str]:
    """Thick slices as they are, the spline and ours; and the hash of the weights."""
    network, sha = network_of(reference.modality, args)
    stack = thickened(reference, times, 0.0, SEED)[0]
    spline = stack.interpolate()
    return {
        "thick": lambda slices: np.repeat(slices, times, axis=0),
        "spline": lambda slices: along(spline, slices),
        "ours": lambda slices: restored(network, reference, stack, slices, tune=True),
    }, sha


def gains(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each reference, thickness and noise: PSNR of every arm, and the gain over the spline."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = (row["reference"], row["times"], row["noise"])
        entry = found.setdefault(
            key, {k: v for k, v in row.items() if k not in ("arm", "psnr", "ssim")}
        )
        entry[row["arm"]] = row["psnr"]
        entry[f"{row['arm']} ssim"] = row["ssim"]
        if row["arm"] == "ours":
            entry["cpu"] = row["cpu_s_per_mvoxel"]
    for entry in found.values():
        if "ours" in entry:
            entry["gain"] = round(entry["ours"] - entry["spline"], 2)
    return [entry for entry in found.values() if "gain" in entry]


def report(
    rows: list[dict[str, Any]],
    lesions: list[dict[str, Any]],
    args: argparse.Namespace,
) -> None:
    """Page, JSON and picture."""
    entries = gains(rows)
    ours = [e["gain"] for e in entries]
    mean = {m: float(np.mean([e["gain"] for e in entries if e["modality"] == m])) for m in MODELS}
    worst = min(entries, key=lambda e: e["gain"])
    slowest = max(entries, key=lambda e: e["cpu"])
    bad = [r for r in lesions if r["arm"] == "ours"]
    spline = [r for r in lesions if r["arm"] == "spline"]
    invented = float(np.mean([r["invented"] for r in bad]))
    invented_spline = float(np.mean([r["invented"] for r in spline]))
    kept_mean = float(np.mean([r["kept"] for r in bad if r["kept"] is not None]))
    kept_spline = float(np.mean([r["kept"] for r in spline if r["kept"] is not None]))
    gates = [
        gate("mean gain over the spline, dB", float(np.mean(ours)), "≥ 3", np.mean(ours) >= 3),
        *(gate(f"the same in {m}", mean[m], "≥ 3", mean[m] >= 3) for m in MODELS),
        gate(f"smallest gain, dB ({worst['reference']}, {worst['thickness_mm']:g} mm)",
             worst["gain"], "≥ 1.5", worst["gain"] >= 1.5),
        gate("contrast of surviving lesions kept", kept_mean, f"≥ spline's {kept_spline:.2f}",
             kept_mean >= kept_spline),
        *volume_gates("planted", lesions),
        gate("places where a lesion is invented", invented, f"≤ spline's {invented_spline:.3f}",
             invented <= invented_spline),
        gate(f"CPU s per Mvoxel, most ({slowest['reference']})", slowest["cpu"], "≤ 10",
             slowest["cpu"] <= 10),
    ]  # fmt: skip
    for modality, model in MODELS.items():
        measured = [
            {
                "volume": e["reference"],
                "slices (mm)": e["thickness_mm"],
                "noise": e["noise"],
                "spline (dB)": e["spline"],
                "restored (dB)": e["ours"],
            }
            for e in entries
            if e["modality"] == modality
        ]
        record_fields(args.models / model, {"measured": measured})
    write("slices", gates=gates, rows=[*rows, *lesions], seeds=[SEED])


if __name__ == "__main__":
    main()
