"""Distills a cohort into a folder: patient after patient, resumable after any stop to equal bytes.

prepare → agree with what is in the folder → statistics, or each patient → order, 16 bits →
audit → manifest

The audit writes what names or shows patients into a folder beside the result, never into it: the
result may be shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg import dataset
from MedEnhanceLib.spg.audit import (
    FEWEST_AUDITED,
    Audited,
    audit,
    write_confidential,
    write_report,
)
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.folder import MANIFEST, RunFolder, confidential_folder, read_run
from MedEnhanceLib.spg.images import Floats, data_sha256
from MedEnhanceLib.spg.matching import Raw
from MedEnhanceLib.spg.patient import distill_patient
from MedEnhanceLib.spg.prepare import DESCRIPTIONS, Prepared, prepare
from MedEnhanceLib.spg.readme import NO_LICENSE
from MedEnhanceLib.spg.statistics import (
    CLIPPED_FROM,
    imposed,
    mean_over,
    measure,
)

#: Images in the order in which they are written, and what the manifest says of them.
Made = tuple[Floats, dict[str, Any]]


def distill_cohort(
    cohort: Cohort,
    out: Path,
    config: DistillConfig,
    monitor: Monitor | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Distill a cohort, or resume; a finished folder that agrees is left as it is.

    A folder whose run was stopped or killed is resumed from its last checkpoints, on the same
    machine's CPU to the same bytes.

    Args:
        cohort: the patients.
        out: folder of the result.
        config: of the distillation.
        monitor: gets progress, warnings and metrics, and may cancel.
        overwrite: first remove what was distilled there before.
    Returns:
        `out`.
    Raises:
        Cancelled: after a checkpoint was written.
        ConfigError: the folder was begun with other options.
        InputError: the folder was begun with other data, or a patient (named) cannot be distilled.
        OutputError: another process distills there, or `out` holds something else.
    """
    monitor = monitor or Monitor()
    choice = choose_device(config.device)
    monitor.log(f"distilling on {choice.name}: {choice.reason}")
    folder = RunFolder(out)
    with folder.owned(overwrite=overwrite):
        prepared = prepare(cohort, config, monitor.part(0.0, 0.03))
        run = _run_record(prepared, config)
        folder.agree(run)
        if folder.is_finished:
            if config.license:
                dataset.relicense(out, config.license)
            monitor.progress(1.0, "already finished")
        else:
            part = monitor.part(0.05, 0.85)
            if config.method == "statistics":
                made = _by_statistics(prepared, part)
            else:
                made = _by_matching(folder, prepared, config, run, choice.name, part)
            _write_result(folder.out, prepared, config, run, made, monitor.part(0.85, 1.0))
        if not dataset.license_of(read_run(out / MANIFEST)):
            monitor.warn(
                f"{NO_LICENSE} To state one, run the same command again with --license NAME "
                '(license="NAME"): the images stay as they are.'
            )
    return out


def _run_record(prepared: Prepared, config: DistillConfig) -> dict[str, Any]:
    prior = prepared.prior
    return {
        "modality": prepared.modality,
        "patients": len(prepared.training),
        "held_out": len(prepared.held_out),
        "images_per_patient": config.images_per_patient,
        "prior": {
            "kind": prior.kind,
            "description": DESCRIPTIONS[prior.kind],
            "in_cohort": prior.patient is not None,
        },
        "data_sha256": data_sha256([*prepared.training.values(), *prepared.held_out.values()]),
        "prior_sha256": data_sha256([prior.images]),
        "config": config.record(),
    }


def _by_matching(
    folder: RunFolder,
    prepared: Prepared,
    config: DistillConfig,
    run: Mapping[str, Any],
    device: str,
    monitor: Monitor,
) -> Made:
    """Distill each patient who is not done yet; the order of the images reveals nobody."""
    prior, modality = prepared.prior.images, prepared.modality
    hashes = {name: str(run[name]) for name in ("data_sha256", "prior_sha256")}
    count, images, measured = len(prepared.training), [], []
    for number, patient in enumerate(prepared.training.values()):
        result = folder.load_images(number)
        if result is None:
            distilled = distill_patient(
                Raw(patient, prior, modality, number),
                config,
                device,
                folder=folder.patient(number),
                hashes=hashes,
                monitor=monitor.part(number / count, (number + 1) / count),
            )
            result = distilled.images, distilled.measured
            folder.save_images(number, *result)
        images.append(result[0])
        measured.append(result[1])

    joined = np.concatenate(images)
    # Means over patients: no single patient's values are published.
    means = {
        name: float(f"{np.mean([values[name] for values in measured]):.6g}")
        for name in sorted(measured[0])
    }
    return joined[dataset.order_of(joined)], {"measured": means}


def _by_statistics(prepared: Prepared, monitor: Monitor) -> Made:
    modality, prior = prepared.modality, prepared.prior.images
    count = len(prepared.training)
    if count < CLIPPED_FROM:
        monitor.warn(
            f"too few patients ({count}) to trim extremes, which are in the means; use "
            f"{CLIPPED_FROM} or more, or hold fewer out (held_out)"
        )

    numbers = []
    for images in prepared.training.values():
        monitor.progress(0.0, "statistics")
        numbers.append(measure(images, modality))
    means = mean_over(numbers)
    return imposed(prior, means, modality), {"statistics": means.record()}


def _write_result(
    out: Path,
    prepared: Prepared,
    config: DistillConfig,
    run: Mapping[str, Any],
    made: Made,
    monitor: Monitor,
) -> None:
    """Write the images, audit them as stored, and complete the folder with its manifest."""
    images, results = made
    monitor.progress(0.0, "writing images")
    stored = dataset.quantized(images)
    dataset.write_images(out, stored)
    monitor.progress(0.1, "audit")
    scaled = stored.astype(np.float32) / np.float32(dataset.TOP)
    audited = _audit(scaled, prepared, out, monitor.part(0.1, 0.95))
    size = {"images": len(stored), "size": list(stored.shape[1:])}
    manifest = dataset.make_manifest(config, run, {**size, **results, "audit": audited})
    dataset.complete(out, manifest)
    monitor.progress(1.0, "images written")


def _audit(
    distilled: Floats,
    prepared: Prepared,
    out: Path,
    monitor: Monitor,
) -> dict[str, Any]:
    """Audit images as they are stored; `alarm` (None: not audited) and `summary`."""
    chosen, held_out = prepared.prior.patient, prepared.held_out
    training = {name: images for name, images in prepared.training.items() if name != chosen}
    if min(len(training), len(held_out)) < FEWEST_AUDITED:
        why = (
            f"patients used: {len(training)}, held out: {len(held_out)}; it takes "
            f"{FEWEST_AUDITED} of each"
        )
        monitor.warn(f"the result is not audited: {why}")
        summary = f"Not audited: {why}. Treat the images as the patients' own."
        return {"alarm": None, "summary": summary}
    report = audit(
        Audited(
            distilled=distilled,
            training=training,
            held_out=held_out,
            prior=prepared.prior.images,
            prior_owner=chosen,
        ),
        monitor=monitor,
    )
    confidential = write_confidential(report, confidential_folder(out), overwrite=True)
    monitor.log(f"pictures of the nearest patients, not to be shared: {confidential}")
    write_report(report, out / "audit", overwrite=True)
    if report.alarm:
        monitor.warn(report.headline)
    return {"alarm": report.alarm, "summary": report.summary}
