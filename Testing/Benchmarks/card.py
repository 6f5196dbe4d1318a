"""What a CUDA device has to show of the networks that run on one.

    python Testing/Benchmarks/card.py                    a quarter of an hour at most

Rows are kept as soon as they are measured: what was cut off goes on with those that are missing.
Without a device nothing is measured.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from _common import Part, Row, run

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.learning import precision
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.training.jobs.matched_networks import make_networks
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.matching import PatientLoop, Raw
from MedEnhanceLib.training.spg.prepare import Brick, Prior


def parts(options: Namespace) -> Iterator[Part]:
    """A part for each row; none without a device."""
    if not torch.cuda.is_available():
        print("There is no CUDA device here that PyTorch can use: nothing is measured.")
        return
    device = "cuda" if options.device == "cpu" else options.device
    for name, measured in ROWS.items():
        yield name, partial(_tried, name, measured, device)


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
    }


def networks_agreement(device: str) -> Row:
    """Thin slices and tissue of the template, on the card against the CPU."""
    template = me.load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    head = template.crop(slice(60, 108), slice(50, 178), slice(30, 158))
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
    torch.cuda.synchronize(device)
    began = time.monotonic()
    for number in range(steps):
        loop.step(steps + number)
    torch.cuda.synchronize(device)
    return {"patient_s": round(plan.outer * plan.inner * (time.monotonic() - began))}


#: What is measured, the most important first.
ROWS: dict[str, Callable[[str], Row]] = {
    "facts": facts,
    "networks": networks_agreement,
    "distill": distill,
}


if __name__ == "__main__":
    run("card", __doc__, parts)
