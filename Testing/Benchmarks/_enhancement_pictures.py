"""Comparison sheets of enhancement, on volumes whose licence lets them be shown here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib import metrics
from MedEnhanceLib.degrade import Degradation, LowDose, Rician, robust_max, standard_composite
from MedEnhanceLib.io import load
from MedEnhanceLib.volume import Volume

Arms = Mapping[str, Callable[[Volume], Volume]]


def draw_pictures(folder: Path, arms: Mapping[str, Arms], sample: Volume) -> list[tuple[str, str]]:
    """One sheet for each of three degradations; returns file names with captions.

    sample: the MR that ships, or a slab of it. CT: the test file CT_small.dcm of pydicom.
    """
    folder.mkdir(parents=True, exist_ok=True)
    middle = sample.shape[0] // 2
    sheets = [
        ("enhancement-rician.png", "Rician 10 %", Rician(0.1, 0), sample, middle),
        ("enhancement-composite.png", "composite", standard_composite(0), sample, middle),
        ("enhancement-lowdose.png", "low dose, 2e3 photons", LowDose(2e3, 5, 0), small_ct(), 0),
    ]
    found = []
    for name, title, degradation, volume, index in sheets:
        chosen = {
            arm: run
            for arm, run in arms[volume.modality].items()
            if title == "composite" or "N4" not in arm
        }
        _sheet(folder / name, volume, degradation, chosen, index)
        source = (
            "central slices of the sample template"
            if volume.modality == "MR"
            else "pydicom's CT_small.dcm"
        )
        found.append((name, f"{title} on {source}: result above, its error below."))
    return found


def small_ct() -> Volume:
    """A CT slice of 128 × 128 that comes with pydicom (MIT licence)."""
    from pydicom.data import get_testdata_file

    return load(Path(str(get_testdata_file("CT_small.dcm", download=False))), modality="CT")


def _sheet(path: Path, volume: Volume, degradation: Degradation, arms: Arms, index: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    is_ct = volume.modality == "CT"
    low, high = (-200.0, 300.0) if is_ct else (0.0, robust_max(volume.voxels))
    span = 2000.0 if is_ct else high
    clean = volume.voxels.astype(np.float32)
    degraded = degradation.apply(volume)
    panels: dict[str, Any] = {"reference": clean}
    panels |= {arm: run(degraded).voxels for arm, run in arms.items()}
    figure = Figure(figsize=(2.4 * len(panels), 5.4), layout="constrained")
    axes = figure.subplots(2, len(panels))
    for column, (name, voxels) in enumerate(panels.items()):
        title = name
        if name != "reference":
            figures = metrics.psnr(clean, voxels, span), metrics.ssim(clean, voxels, span)
            title += f"\n{figures[0]:.1f} dB, {figures[1]:.3f}"
        axes[0, column].imshow(voxels[index][::-1], cmap="gray", vmin=low, vmax=high)
        axes[0, column].set_title(title, fontsize=9)
        error = (voxels[index] - clean[index])[::-1]
        quarter = (high - low) / 4
        axes[1, column].imshow(error, cmap="RdBu_r", vmin=-quarter, vmax=quarter)
    for axis in axes.flat:
        axis.set_axis_off()
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": ""})
