"""The best, the median and the worst case, on volumes whose license lets them be shown here."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import write_picture
from _enhancement_cache import run_kept
from _enhancement_catalog import Arm, find_arms
from _enhancement_data import (
    CASES,
    CT_RANGE_HU,
    ELECTRONIC_PHOTONS,
    TEMPLATE,
    Case,
    Floats,
    Subject,
    subject,
    without_body,
)
from _enhancement_peers import without_shading

from MedEnhanceLib.core import metrics
from MedEnhanceLib.degrade import LowDose
from MedEnhanceLib.io import load

_SHOWN = ("input", "NLM", "block filter", "BM4D", "ours")
#: BM4D cannot take fewer slices.
_BM4D_CUBE = 8
_CT_PHOTONS = (2e3, 5e3, 2e4)


@dataclass(frozen=True, eq=False)
class _View:
    """One slice: its damage, what each arm made of it, and our gain over NLM in dB."""

    title: str
    reference: Floats
    panels: Mapping[str, Floats]
    span: float
    gain: float


def draw_pictures(options: argparse.Namespace) -> list[tuple[str, str]]:
    """File names with captions: three slices of the template, three of pydicom's CT_small.dcm."""
    found = []
    for modality in ("MR", "CT"):
        arms = {arm.name: arm for arm in find_arms(modality, options)[0]}
        if options.modality not in (None, modality) or not {"NLM", "ours"} <= arms.keys():
            continue
        views = _template_views(arms, options) if modality == "MR" else _small_ct_views(arms)
        views.sort(key=lambda view: view.gain)
        places = {"best": -1, "median": len(views) // 2, "worst": 0}
        for word, place in places.items():
            name = f"enhancement-{modality.lower()}-{word}.jpg"
            _sheet(options.out / name, views[place], modality)
            found.append((name, _caption(word, views[place], len(views), modality)))
    return found


def _caption(word: str, view: _View, count: int, modality: str) -> str:
    source = "slices of the sample template" if modality == "MR" else "pydicom's CT_small.dcm"
    return (
        f"{modality}, the {word} of {count} cases on {source} by gain over NLM "
        f"({view.gain:+.1f} dB): {view.title}; result above, its error below."
    )


def _template_views(arms: dict[str, Arm], options: argparse.Namespace) -> list[_View]:
    known = subject(TEMPLATE, options.data, options.slices)
    views = []
    for case in CASES["MR"]:
        if not case.once:
            results = _results(known, case, arms)
            for index in range(0, known.volume.shape[0], 2):
                title = f"{case.name}, slice {index}"
                views.append(_view(title, known, {n: r[index] for n, r in results.items()}, index))
    return views


def _small_ct_views(arms: dict[str, Arm]) -> list[_View]:
    """CT_small.dcm comes with pydicom (MIT license) and is a single slice."""
    from pydicom.data import get_testdata_file

    path = Path(str(get_testdata_file("CT_small.dcm", download=False)))
    known = without_body(path.name, load(path, modality="CT"), CT_RANGE_HU)
    views = []
    for photons in _CT_PHOTONS:
        for seed in range(3):
            low = LowDose(photons, ELECTRONIC_PHOTONS, seed)
            case = Case("low dose", lambda volume, _, low=low: low.apply(volume))
            results = {name: r[0] for name, r in _results(known, case, arms).items()}
            views.append(_view(f"{photons:.0e} photons, seed {seed}", known, results, 0))
    return views


def _results(known: Subject, case: Case, arms: dict[str, Arm]) -> dict[str, Floats]:
    degraded = known.damaged(case, 0)
    results = {}
    for name in _SHOWN:
        if name in arms and not (name == "BM4D" and len(degraded.voxels) < _BM4D_CUBE):
            arm, shown = arms[name], name
            result, _ = run_kept(arm.run, arm.settings, degraded, keep=arm.keep)
            if case.shaded and arm.corrected and name != "input":
                result = without_shading(known.volume.with_voxels(result)).voxels
                shown += " + N4"
            results[shown] = result
    return results


def _view(title: str, known: Subject, panels: dict[str, Floats], index: int) -> _View:
    reference = known.volume.voxels[index].astype(np.float32)
    psnr = {name: metrics.psnr(reference, image, known.span) for name, image in panels.items()}
    ours, nlm = (next(psnr[n] for n in psnr if n.startswith(word)) for word in ("ours", "NLM"))
    return _View(title, reference, panels, known.span, ours - nlm)


def _sheet(path: Path, view: _View, modality: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    low, high = (-200.0, 300.0) if modality == "CT" else (0.0, view.span)
    panels: dict[str, Any] = {"reference": view.reference, **view.panels}
    figure = Figure(figsize=(2.4 * len(panels), 5.4), layout="constrained")
    axes = figure.subplots(2, len(panels))
    for column, (name, plane) in enumerate(panels.items()):
        title = name
        if name != "reference":
            psnr = metrics.psnr(view.reference, plane, view.span)
            title += f"\n{psnr:.1f} dB, {metrics.ssim(view.reference, plane, view.span):.3f}"
        axes[0, column].imshow(plane[::-1], cmap="gray", vmin=low, vmax=high)
        axes[0, column].set_title(title, fontsize=9)
        quarter = (high - low) / 4
        error = (plane - view.reference)[::-1]
        axes[1, column].imshow(error, cmap="RdBu_r", vmin=-quarter, vmax=quarter)
    for axis in axes.flat:
        axis.set_axis_off()
    sheet = path.with_suffix(".png")
    FigureCanvasAgg(figure).print_png(sheet, metadata={"Software": ""})
    write_picture(path, sheet)
    sheet.unlink()
