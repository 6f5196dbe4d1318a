"""Is the uncertainty map true? Reliability, coverage and ranking on subjects it was not fitted on.

    python Testing/Benchmarks/uncertainty.py               writes docs/benchmarks/uncertainty.*
    python Testing/Benchmarks/uncertainty.py --calibrate   fits the shipped models and stores it

Models are calibrated on one subject and measured on another: MR both ways between two, CT on
patients that serve training as a simulated low-dose pool at most, measured on three others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import DOCS, SHARED_DATA, gate, gate_table, table, write
from _uncertainty_pictures import draw_maps, draw_reliability

from MedEnhanceLib.bundles import open_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import Blur, Degradation, LowDose, Rician, standard_composite
from MedEnhanceLib.hqg.bundle import EnhancerModel, open_enhancer
from MedEnhanceLib.hqg.calibration import BINS, LEVELS, Calibration, fit_calibration
from MedEnhanceLib.hqg.strength import blend_deviation
from MedEnhanceLib.hqg.uncertainty import (
    RawEstimate,
    calibrate,
    central_slices,
    damaged_pairs,
    kept_reference,
    raw_deviation,
    raw_estimate,
)
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder

Floats = npt.NDArray[np.float32]
Row = dict[str, Any]

SAMPLE = "sample template"
SUBJECTS = {
    "MR": (SAMPLE, "mr/open_ms/C19/T1.nii.gz"),
    "CT": tuple(f"ct/sts/STS_{n}/CT.nii.gz" for n in ("008", "019", "024", "013", "025", "037")),
}
#: Which subjects are calibrated on, and which are measured then.
FOLDS = {
    "MR": (((0,), (1,)), ((1,), (0,))),
    "CT": (((0, 1, 2), (3, 4, 5)),),
}
#: What the shipped models' calibration is fitted on.
SHIPPED = {
    "MR": (
        (0, 1),
        "the central slices of the ICBM 152 2009a template (sample) and of open_ms C19, damaged",
    ),
    "CT": ((0, 1, 2), "the central slices of STS_008, STS_019 and STS_024, at simulated low dose"),
}
CASES: dict[str, dict[str, Callable[[], Degradation]]] = {
    "MR": {
        "Rician 5 %": partial(Rician, 0.05, 100),
        "Rician 10 %": partial(Rician, 0.10, 101),
        "Rician 15 %": partial(Rician, 0.15, 102),
        "blur σ 1 px": partial(Blur, 1.0),
        "composite": partial(standard_composite, 103),
    },
    "CT": {
        "low dose 5e3": partial(LowDose, 5e3, 5.0, 100),
        "low dose 2e4": partial(LowDose, 2e4, 5.0, 101),
    },
}
CLEAN = "undamaged"
TISSUE = {"MR": 0.1, "CT": -0.3}
#: Forms of the map that are compared: name → (expected error, spread with or without flips).
FORMS = {
    "expected error": (True, ""),
    "spread over cues": (False, "cues"),
    "spread over cues and flips": (False, "flips"),
    "expected error and cues": (True, "cues"),
    "expected error, cues and flips": (True, "flips"),
}
SHIPPED_FORM = "spread over cues and flips"
#: Points of the curve that one ratio is compared with.
_CURVE = 16
LEAST, MOST = 0.85, 0.95


@dataclass(frozen=True)
class Measured:
    """A damaged subject after the model: flat arrays over its tissue, on the network's scale."""

    modality: str
    subject: int
    case: str
    miss: Floats
    correction: Floats
    miss_half: Floats
    raw: dict[str, Floats]
    pictures: tuple[Floats, Floats, Floats] | None = None


def main() -> None:
    options = parse()
    if options.calibrate:
        for modality in options.modalities:
            calibrate_shipped(modality, options)
        return
    measured = [one for modality in options.modalities for one in measure(modality, options)]
    rows = [row for modality in options.modalities for row in rows_of(modality, measured)]
    forms = [row for modality in options.modalities for row in form_rows(modality, measured)]
    halves = [row for modality in options.modalities for row in half_rows(modality, measured)]
    gates = gates_of(rows)
    draw_reliability(options.out / "uncertainty.png", rows)
    shown = draw_maps(options.out, [one for one in measured if one.pictures is not None])
    text = report(rows, forms, halves, gates, shown, options)
    everything = [*rows, *forms, *halves]
    write("uncertainty", text, gates=gates, rows=everything, seeds=[100], folder=options.out)
    print(gate_table(gates))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calibrate", action="store_true", help="fit and store, measure nothing")
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of open volumes")
    parser.add_argument("--modality", choices=("MR", "CT"), help="only this one")
    parser.add_argument("--slices", type=int, default=24, help="central slices of each subject")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--mr-model", default="mr-brain", help="bundle name or folder")
    parser.add_argument("--ct-model", default="ct-lowdose", help="bundle name or folder")
    parser.add_argument("--out", type=Path, default=DOCS)
    options = parser.parse_args()
    options.modalities = [options.modality] if options.modality else ["MR", "CT"]
    return options


def calibrate_shipped(modality: str, options: argparse.Namespace) -> None:
    which, words = SHIPPED[modality]
    volumes = [subject(modality, index, options) for index in which]
    bundle = open_bundle(model_name(modality, options), kind="enhancer", modality=modality)
    pairs = damaged_pairs(volumes, slices=options.slices, with_blur=bundle.deblurs)
    done = calibrate(
        bundle.folder, pairs, fitted_on=words, samples=options.samples, device="cpu",
        monitor=Monitor(lambda event: print(event.kind, event.fields, flush=True)),
    )  # fmt: skip
    print(done.folder, done.metadata["calibration"]["curves"])


def model_name(modality: str, options: argparse.Namespace) -> str:
    return str(options.mr_model if modality == "MR" else options.ct_model)


def subject(modality: str, index: int, options: argparse.Namespace) -> Volume:
    name = SUBJECTS[modality][index]
    if name == SAMPLE:
        return load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    return load(options.data / name, modality=modality)


def measure(modality: str, options: argparse.Namespace) -> Iterator[Measured]:
    bundle = open_bundle(model_name(modality, options), kind="enhancer", modality=modality)
    model = open_enhancer(bundle)
    for index in range(len(SUBJECTS[modality])):
        volume = central_slices(subject(modality, index, options), options.slices)
        for case, make in CASES[modality].items():
            damage = make()
            truth = kept_reference(volume, damage, with_blur=bundle.deblurs)
            degraded = damage.apply(volume)
            yield measure_one(model, index, case, degraded, truth, options)
        clean = volume.with_voxels(volume.voxels.astype(np.float32))
        yield measure_one(model, index, CLEAN, clean, volume, options)


def measure_one(
    model: EnhancerModel,
    index: int,
    case: str,
    degraded: Volume,
    truth: Volume,
    options: argparse.Namespace,
) -> Measured:
    modality = degraded.modality
    estimate = partial(raw_estimate, model, degraded, Monitor(), samples=options.samples)
    flipped, cues = estimate(), estimate(flips=False)
    true = flipped.scaling.apply(truth.voxels)
    given = flipped.scaling.apply(degraded.voxels)
    inside = true > TISSUE[modality]
    raw = {name: form(flipped, cues, name)[inside] for name in FORMS}
    miss = np.abs(flipped.image - true)
    half = np.abs(0.5 * (flipped.image + given) - true)
    parts = {"error": miss, "expected": flipped.error, "spread": flipped.spread}
    parts["of cues alone"] = cues.spread
    told = ", ".join(f"{name} {part[inside].mean():.4f}" for name, part in parts.items())
    print(f"{modality} {SUBJECTS[modality][index]} · {case}: {told}", flush=True)
    shown = case in ("composite", "low dose 5e3")
    middle = len(miss) // 2
    whole = (flipped.image, miss, form(flipped, cues, SHIPPED_FORM))
    picture = tuple(part[middle] for part in whole) if shown else None
    return Measured(
        modality, index, case, miss[inside], (flipped.image - given)[inside], half[inside], raw,
        picture,  # type: ignore[arg-type]
    )  # fmt: skip


def form(flipped: RawEstimate, cues: RawEstimate, name: str) -> Floats:
    has_error, samples = FORMS[name]
    spread = {"flips": flipped.spread, "cues": cues.spread}.get(samples)
    if not has_error or spread is None:
        return raw_deviation(flipped.error, spread)
    return np.hypot(raw_deviation(flipped.error, None), spread)


def folds(
    modality: str, measured: list[Measured], name: str, bins: int = BINS
) -> Iterator[tuple[Calibration, Any]]:
    """For each fold the calibration of a form, and what it is tested on."""
    ours = [one for one in measured if one.modality == modality]
    for fitted, tested in FOLDS[modality]:
        parts = [one for one in ours if one.subject in fitted]
        raw = np.concatenate([thinned(one.raw[name]) for one in parts])
        miss = np.concatenate([thinned(one.miss) for one in parts])
        calibration = fit_calibration({"samples": raw}, miss, fitted_on="", samples=0, bins=bins)
        yield calibration, [one for one in ours if one.subject in tested]


def thinned(values: Floats) -> Floats:
    """Every n-th voxel, so that each case weighs the same: at most 100,000."""
    return values[:: max(1, values.size // 100_000)]


def rows_of(modality: str, measured: list[Measured]) -> Iterator[Row]:
    for calibration, tested in folds(modality, measured, SHIPPED_FORM):
        for one in tested:
            raw = one.raw[SHIPPED_FORM]
            deviation = calibration(raw, sampled=True)
            widths = {level: calibration.interval(level, sampled=True) for level in LEVELS}
            yield {
                "table": "coverage",
                "modality": modality,
                "subject": SUBJECTS[modality][one.subject],
                "case": one.case,
                "voxels": int(one.miss.size),
                "mean_error": float(one.miss.mean()),
                "rms_error": rms(one.miss),
                "rms_sigma": rms(deviation),
                "coverage_90_sigma": float((one.miss <= 1.6449 * deviation).mean()),
                "coverage_90_uncalibrated": float((one.miss <= 1.6449 * raw).mean()),
                "coverage": {
                    f"{level:g}": float((one.miss <= widths[level] * deviation).mean())
                    for level in LEVELS
                },
                **sparsification(one.miss, deviation),
            }


def form_rows(modality: str, measured: list[Measured]) -> Iterator[Row]:
    """How each form does after its own calibration, over all tests but the undamaged."""
    for name in FORMS:
        results, factors = [], []
        for calibration, tested in folds(modality, measured, name, bins=_CURVE):
            for one in tested:
                if one.case == CLEAN:
                    continue
                deviation = calibration(one.raw[name], sampled=True)
                covered = float((one.miss <= 1.6449 * deviation).mean())
                results.append((covered, sparsification(one.miss, deviation)["ranking"]))
                factor = single_factor(modality, measured, one.subject, name)
                factors.append(float((one.miss <= 1.6449 * factor * one.raw[name]).mean()))
        covered, ranking = (np.array(values) for values in zip(*results, strict=True))
        yield {
            "table": "forms",
            "modality": modality,
            "form": name,
            "coverage_least": float(covered.min()),
            "coverage_most": float(covered.max()),
            "off_90": float(np.abs(covered - 0.9).mean()),
            "off_90_one_factor": float(np.abs(np.array(factors) - 0.9).mean()),
            "ranking": float(ranking.mean()),
        }


def single_factor(modality: str, measured: list[Measured], subject: int, name: str) -> float:
    """The one number that would take the place of a curve, from the fold that tests `subject`."""
    fitted = next(fit for fit, tested in FOLDS[modality] if subject in tested)
    parts = [one for one in measured if one.modality == modality and one.subject in fitted]
    ratios = [thinned(one.miss) / thinned(one.raw[name]) for one in parts]
    return float(np.quantile(np.concatenate(ratios), 0.9)) / 1.6449


def half_rows(modality: str, measured: list[Measured]) -> Iterator[Row]:
    """At half the strength: coverage of the blended map, and of one that shrinks alike."""
    for calibration, tested in folds(modality, measured, SHIPPED_FORM):
        for one in tested:
            deviation = calibration(one.raw[SHIPPED_FORM], sampled=True)
            zero = np.zeros_like(one.correction)
            blended = blend_deviation(deviation, zero, one.correction, 0.5)
            yield {
                "table": "strength 0.5",
                "modality": modality,
                "subject": SUBJECTS[modality][one.subject],
                "case": one.case,
                "coverage_90_blended": float((one.miss_half <= 1.6449 * blended).mean()),
                "coverage_90_shrunk": float((one.miss_half <= 1.6449 * 0.5 * deviation).mean()),
            }


def sparsification(miss: Floats, deviation: Floats) -> dict[str, float]:
    """Sparsification: the mean error of what is left as the least certain voxels go.

    ause: area between that curve and the one of the true errors, in shares of the mean error.
    ranking: 1 where σ ranks as the true errors do, 0 where it ranks as chance.
    """
    shares = np.linspace(0, 0.99, 100)
    total = miss.mean()

    def left(order: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        sums = np.cumsum(miss[order], dtype=np.float64)  # the most certain first
        kept = np.maximum(1, ((1 - shares) * miss.size).astype(int))
        return sums[kept - 1] / kept / total

    ours, best = left(np.argsort(deviation, kind="stable")), left(np.argsort(miss))
    area = float(np.trapezoid(ours - best, shares))
    return {"ause": area, "ranking": 1 - area / float(np.trapezoid(1 - best, shares))}


def rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def gates_of(rows: list[Row]) -> list[dict[str, Any]]:
    gates = []
    for modality in dict.fromkeys(row["modality"] for row in rows):
        damaged = [r for r in rows if r["modality"] == modality and r["case"] != CLEAN]
        values = [row["coverage_90_sigma"] for row in damaged]
        for word, value in (
            ("mean", float(np.mean(values))),
            ("least", min(values)),
            ("most", max(values)),
        ):
            name = f"{modality}: coverage of ± 1.645 σ, {word} over subjects and damages"
            gates.append(gate(name, value, f"{LEAST} to {MOST}", LEAST <= value <= MOST))
    return gates


def report(
    rows: list[Row],
    forms: list[Row],
    halves: list[Row],
    gates: list[dict[str, Any]],
    shown: list[str],
    options: argparse.Namespace,
) -> str:
    coverage = table(
        ("subject", "damage", "mean error", "RMS error", "RMS σ", "in ± 1.645 σ", "uncalibrated",
         "50 % interval", "99 % interval", "AUSE", "ranking"),
        ((r["subject"], r["case"], f"{r['mean_error']:.4f}", f"{r['rms_error']:.4f}",
          f"{r['rms_sigma']:.4f}", f"{r['coverage_90_sigma']:.1%}",
          f"{r['coverage_90_uncalibrated']:.1%}", f"{r['coverage']['0.5']:.1%}",
          f"{r['coverage']['0.99']:.1%}", f"{r['ause']:.3f}", f"{r['ranking']:.2f}") for r in rows),
    )  # fmt: skip
    compared = table(
        ("modality", "form", "coverage, least to most", "off 90 %, curve", "off 90 %, one factor",
         "ranking"),
        ((r["modality"], r["form"], f"{r['coverage_least']:.1%} to {r['coverage_most']:.1%}",
          f"{r['off_90']:.1%}", f"{r['off_90_one_factor']:.1%}", f"{r['ranking']:.3f}")
         for r in forms),
    )  # fmt: skip
    half = table(
        ("subject", "damage", "in ± 1.645 σ", "if σ shrank with the strength"),
        (
            (r["subject"], r["case"], f"{r['coverage_90_blended']:.1%}",
             f"{r['coverage_90_shrunk']:.1%}")
            for r in halves
        ),
    )  # fmt: skip
    pictures = "\n\n".join(
        f"![Image, absolute error and σ of a central slice, {name}]({name}.png)" for name in shown
    )
    return f"""# How true the uncertainty map is

Central {options.slices} slices of each subject, damaged here, enhanced, and compared with what
they were; {options.samples} samples. Calibrated on one subject and measured on another: MR both
ways between the two, CT on STS_008, 019 and 024 and measured on the others. Errors and σ are on
the network's scale (MR: shares of the robust maximum; CT: 1000 HU), over tissue (above 0.1 in MR,
above −300 HU in CT). The truth of a shaded volume is the shaded one, and of a blurred one the
blurred one where the model undoes blur on request alone (which is not made here): the map is of
what is undone.
The reference's own noise counts as error, most of all in CT.

{gate_table(gates)}
![Share of errors inside the interval against its nominal level.](uncertainty.png)

## Coverage and ranking

Ranking: the share of what sorting by the true error would gain (1), sorting at random being 0;
AUSE is the area that it loses, in shares of the mean error. Intervals other than that of 90 % have
the widths that calibration measured.

{coverage}
## Forms of the map

Each form with its own calibration, over all tests but the undamaged ones. "Off 90 %" is the mean
distance of the coverage of ± 1.645 σ from 90 %, with a curve and with one factor.

{compared}
## At half the strength

What is off at strength 0.5, where half of the input's noise stays: σ² + (1 − s)² (y − x̂)² against
a map that shrinks with the strength.

{half}
{pictures}
"""


if __name__ == "__main__":
    main()
