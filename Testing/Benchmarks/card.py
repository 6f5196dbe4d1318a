"""What a CUDA device has to show: everything that the pretended one of the tests cannot.

    python Testing/Benchmarks/card.py                    a quarter of an hour at most
    python Testing/Benchmarks/card.py --only facts warm preview agreement labels

The second line has what concerns enhancing: seconds and peak memory for 512 × 512 × 300, a preview,
whether the card gives what the CPU gives, labels. Rows are kept as soon as they are measured: what
was cut off goes on with those that are missing. Without a device nothing is measured.
Testing/PretendedCuda tries the script with small volumes (`--quick`) where there is no card.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from _common import QUICK, SHARED_DATA, Gate, Part, Row, at_most, run
from _speed_volumes import thick_head, tiled_ct

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.denoise import EnhanceConfig, VolumeCache, enhance
from MedEnhanceLib.filters.block_matching import CT_ROUNDS, BlockMatchingFilter, engine_for
from MedEnhanceLib.learning import precision
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.training.jobs.matched_networks import make_networks
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.matching import PatientLoop, Raw
from MedEnhanceLib.training.spg.prepare import Brick, Prior

#: Rows and columns where the CPU computes the same, and slices of the CT.
_SIDE, _SLICES = 256, 8 if QUICK else 300
#: Most seconds for that CT of 512 × 512.
_MOST_S = 5.0


def parts(options: Namespace) -> Iterator[Part]:
    """A part for each row; none without a device."""
    if not torch.cuda.is_available():
        print("There is no CUDA device here that PyTorch can use: nothing is measured.")
        return
    device = "cuda" if options.device == "cpu" else options.device
    for name, measured in ROWS.items():
        if not (QUICK and name in LEARNS):
            yield name, partial(_tried, name, measured, device)


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Judge the time of a CT."""
    seconds = next((row.get("wall_s") for row in rows if row["row"] == "warm"), None)
    yield at_most("CT of 512 × 512 × 300 on a card, s", seconds, _MOST_S)


def _tried(name: str, measured: Callable[[str], Row], device: str) -> list[Row]:
    """A row; where it fails, its error: the other rows are worth as much."""
    try:
        return [{"row": name, **measured(device)}]
    except Exception as error:  # noqa: BLE001
        return [{"row": name, "error": f"{type(error).__name__}: {error}"[:500]}]


def facts(device: str) -> Row:
    """The card, its memory and the software."""
    total = torch.cuda.mem_get_info(device)[1]
    return {
        "name": torch.cuda.get_device_properties(device).name,
        "total_gib": round(total / 2**30, 2),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "volumes": "real" if (SHARED_DATA / "ct/abdomen/CT.nii.gz").is_file() else "phantoms",
    }


def agreement(device: str) -> Row:
    """Enhancement in half and in single precision against the CPU in single precision."""
    volume, results = _ct(12), {}
    half = precision.computes_in_half
    try:
        for name, place, is_half in (
            ("cpu", "cpu", False), ("single", device, False), ("half", device, True)
        ):  # fmt: skip
            precision.computes_in_half = half if is_half else (lambda _: False)
            result = enhance(volume, EnhanceConfig(model="ct", device=place))
            results[name] = result.volume.voxels.astype(float)
    finally:
        precision.computes_in_half = half
    return {
        f"{name}_{kind}_hu": float(f"{reduced(np.abs(results[name] - results['cpu'])):.3g}")
        for name in ("single", "half")
        for kind, reduced in (("largest", np.max), ("mean", np.mean))
    }


def networks_agreement(device: str) -> Row:
    """Thin slices and tissue of the template, on the card against the CPU."""
    head = _template().crop(slice(60, 108), slice(50, 178), slice(30, 158))
    i_mm, j_mm, k_mm = head.geometry.spacing
    thick = replace(
        head,
        voxels=head.voxels.reshape(-1, 4, *head.shape[1:]).mean(1),
        geometry=replace(head.geometry, spacing=(i_mm, j_mm, 4 * k_mm)),
    )
    thin, labels = [], []
    for place in ("cpu", device):
        thin.append(me.enhance(thick, task="slices", device=place).volume.voxels)
        labels.append(me.segment(head, model="brain", device=place).volume.voxels)
    far = np.abs(thin[1].astype(float) - thin[0]) / np.percentile(head.voxels, 99.5)
    return {
        "thin_largest_percent": float(f"{100 * far.max():.3g}"),
        "thin_mean_percent": float(f"{100 * far.mean():.3g}"),
        "labels_alike_percent": float(f"{100 * (labels[0] == labels[1]).mean():.6g}"),
    }


def filter_agreement(device: str) -> Row:
    """The filter of the card against the CPU, and the time of each."""
    noisy = _ct(min(64, _SLICES)).voxels
    level = np.broadcast_to(np.float32(20), noisy.shape)
    row: Row = {}
    results = []
    for name, place in (("cpu", "cpu"), ("card", device)):
        engine = engine_for(place, Monitor())
        work = BlockMatchingFilter(noisy, level, rounds=CT_ROUNDS, engine=engine).denoised
        work()
        result, wall, _ = _timed(work, device)
        results.append(result)
        row[f"{name}_s"] = round(wall, 3)
    far = np.abs(results[1] - results[0])
    return row | {"largest_hu": float(far.max()), "mean_hu": float(far.mean())}


def warm(device: str) -> Row:
    """The second of two enhancements: wall and host time, peak of memory."""
    config = EnhanceConfig(model="ct", device=device)
    enhance(tiled_ct(min(40, _SLICES)), config)
    volume = tiled_ct(_SLICES)
    torch.cuda.reset_peak_memory_stats(device)
    _, wall, cpu = _timed(lambda: enhance(volume, config), device)
    peak = torch.cuda.max_memory_allocated(device) / 2**30
    return {"wall_s": round(wall, 3), "host_s": round(cpu, 3), "peak_gib": round(peak, 2)}


def preview(device: str) -> Row:
    """A slice of that CT, the first one and another: the noise is measured before the first."""
    volume, config = tiled_ct(_SLICES), EnhanceConfig(model="ct", device=device)
    kept, row = VolumeCache(), dict[str, Any]()
    for name, z in (("first_s", _SLICES // 2), ("next_s", _SLICES // 3)):
        work = partial(enhance, volume, config, slices=(z, z + 1), cache=kept)
        row[name] = round(_timed(work, device)[1], 3)
    return row


def labels(device: str) -> Row:
    """The template with noise, enhanced and labeled in one call; the second of two."""
    head = _template()
    noise = np.random.default_rng(0).normal(0, 0.05 * head.voxels.max(), head.shape)
    head = replace(head, voxels=np.abs(head.voxels + noise).astype(np.float32))
    if QUICK:
        head = head.crop(slice(70, 86), slice(90, 122), slice(70, 102))
    # A quick run's part of a head is too small to be recognized.
    forced = {"segment": True, "force_segmenter": QUICK}
    work = partial(me.enhance, head, model="mr", device=device, **forced)
    work()
    result, wall, cpu = _timed(work, device)
    structures = len(np.unique(result.segmentation.volume.voxels)) - 1
    return {"wall_s": round(wall, 3), "host_s": round(cpu, 3), "structures": structures}


def thin(device: str) -> Row:
    """Thin slices of a head, 256 × 256 × 40 to 160, with what its network learns from it first."""
    thick = thick_head(4)
    _, wall, cpu = _timed(lambda: me.enhance(thick, task="slices", device=device), device)
    return {"wall_s": round(wall, 3), "host_s": round(cpu, 3)}


@precision.without_tf32
def distill(device: str) -> Row:
    """Seconds of matching a patient, by a block of steps of each network, after one to warm up."""
    config = DistillConfig.preset("full")
    size, plan, rng = config.size, config.loop, np.random.default_rng(0)
    voxels = rng.uniform(0.4, 0.9, (1, size.slices, size.side, size.side)).astype(np.float32)
    raw = Raw([Brick(voxels[0], (1.0,) * 3)], Prior(voxels, ((1.0, 1.0),), "synthetic"), "MR")
    loop = PatientLoop(raw, config, make_networks, device)
    steps = plan.steps // (plan.outer * plan.inner)
    for number in range(steps):
        loop.step(number)
    _, seconds, _ = _timed(lambda: [loop.step(steps + number) for number in range(steps)], device)
    return {"patient_s": round(plan.outer * plan.inner * seconds)}


def _timed(work: Callable[[], Any], device: str) -> tuple[Any, float, float]:
    """What it returns, wall and host seconds, the device's work included."""
    torch.cuda.synchronize(device)
    wall, cpu = time.monotonic(), time.process_time()
    result = work()
    torch.cuda.synchronize(device)
    return result, time.monotonic() - wall, time.process_time() - cpu


def _template() -> Any:
    return me.load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")


def _ct(slices: int) -> Any:
    return tiled_ct(slices).crop(slice(None), slice(0, _SIDE), slice(0, _SIDE))


#: What is measured, the most important first.
ROWS: dict[str, Callable[[str], Row]] = {
    "facts": facts,
    "warm": warm,
    "preview": preview,
    "agreement": agreement,
    "labels": labels,
    "filter": filter_agreement,
    "thin": thin,
    "networks": networks_agreement,
    "distill": distill,
}
#: Those in which something is learned first, which a quick run leaves out.
LEARNS = ("thin", "networks", "distill")


if __name__ == "__main__":
    run("card", __doc__, parts, gates_of)
