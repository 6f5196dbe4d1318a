"""Distills a cohort into a folder: patient after patient, resumable after any stop to equal bytes.

prepare → agree with what is in the folder → what can be gained → each patient →
order, 16 bits → audit → manifest

The audit writes what names or shows patients into a folder beside the result, never into it: the
result may be shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.locks import hold_gpu
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg import dataset
from MedEnhanceLib.spg.audit import (
    Audited,
    Redistill,
    audit,
    write_audit,
    write_report,
)
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.folder import MANIFEST, RunFolder, confidential_folder, read_run
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.matching import Raw
from MedEnhanceLib.spg.patient import distill_patient
from MedEnhanceLib.spg.prepare import Prepared, prepare
from MedEnhanceLib.spg.privacy import noise_multiplier, privacy_record
from MedEnhanceLib.spg.readme import NO_LICENCE
from MedEnhanceLib.spg.statistics import (
    CLIPPED_FROM,
    imposed,
    mean_over,
    measure,
    noised_mean,
)
from MedEnhanceLib.spg.worth import room_of

#: Patients, distilled and held out, besides the prior's: fewer cannot be compared.
_FEWEST_AUDITED = 2
_AUDIT_WITHHELD = (
    "Audited; the findings are not published here, because no noise covers them. Ask who made the "
    "set."
)


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
        DependencyError: differential privacy is asked for, and its accountant is not installed.
        InputError: the folder was begun with other data, or a patient (named) cannot be distilled.
        OutputError: another process distills there, or `out` holds something else.
    """
    monitor = monitor or Monitor()
    choice = choose_device(config.device)
    monitor.log(f"distilling on {choice.name}: {choice.reason}")
    if config.dp is not None:
        noise_multiplier(config.dp)  # what is missing is said before minutes of reading
    folder = RunFolder(out)
    with folder.owned(overwrite=overwrite):
        prepared = prepare(cohort, config, monitor.part(0.0, 0.03))
        run = _run_record(prepared, config)
        folder.agree(run)
        if folder.is_finished:
            if config.licence:
                dataset.relicense(out, config.licence)
            _warn_of_licence(out, monitor)
            monitor.progress(1.0, "was finished already")
            return out
        run |= _room(prepared, config, choice.name, monitor.part(0.03, 0.05))
        # A patient's prior belongs into the confidential folder.
        place = out if prepared.prior.patient is None else confidential_folder(out)
        dataset.write_prior(place, prepared.prior.images, config, run)
        if config.method == "statistics":
            _finish_statistics(folder, config, prepared, run, monitor.part(0.1, 1.0))
            _warn_of_licence(out, monitor)
            return out
        hashes = {name: str(run[name]) for name in ("data_sha256", "prior_sha256")}
        found = _distill_all(
            folder, config, prepared, hashes, choice.name, monitor.part(0.05, 0.85)
        )
        try:
            _finish(folder, config, prepared, run, found, choice.name, monitor.part(0.85, 1.0))
        except Cancelled as cause:
            raise Cancelled(
                "cancelled before the result was complete; all patients are distilled and kept",
                "Run the same command again to audit and write the result.",
            ) from cause
        _warn_of_licence(out, monitor)
    return out


def _warn_of_licence(out: Path, monitor: Monitor) -> None:
    """Warn where nobody may use the result yet."""
    if not dataset.licence_of(read_run(out / MANIFEST)):
        monitor.warn(
            f"{NO_LICENCE} To state one, run the same command again with --license NAME "
            '(licence="NAME"): the images stay as they are.'
        )


def _room(
    prepared: Prepared, config: DistillConfig, device: str, monitor: Monitor
) -> dict[str, Any]:
    """What there is to gain, for the manifest; nothing where it is not asked for."""
    if config.method != "matching" or len(prepared.training) < 2 or not config.room_steps:
        return {}
    with hold_gpu([device], monitor):
        room = room_of(prepared, config, device=device, monitor=monitor)
    if room.method != "matching":
        monitor.warn(f"{room.sentence} Matching goes on, as it was asked for.")
    else:
        monitor.log(room.sentence)
    return {"room": room.record()}


def _run_record(prepared: Prepared, config: DistillConfig) -> dict[str, Any]:
    """What defines the run, for run.json and the manifest."""
    prior = prepared.prior
    return {
        "modality": prepared.modality,
        "patients": len(prepared.training),
        "held_out": len(prepared.held_out),
        "images_per_patient": config.images_per_patient,
        "prior": {
            "kind": prior.kind,
            "told": prior.description,
            "in_cohort": prior.patient is not None,
            **({"slice_distance_mm": prior.distance_mm} if prior.distance_mm else {}),
        },
        "steps": config.loop.steps if config.method == "matching" else 0,
        "data_sha256": prepared.sha256,
        "prior_sha256": prior.sha256,
        "config": config.record(),
        **({"privacy": privacy_record(config.dp, len(prepared.training))} if config.dp else {}),
    }


def _distill_all(
    folder: RunFolder,
    config: DistillConfig,
    prepared: Prepared,
    hashes: Mapping[str, str],
    device: str,
    monitor: Monitor,
) -> list[tuple[Floats, dict[str, Any]]]:
    """The images of all patients with their notes, in the patients' order.

    hashes: of data and prior.
    """
    results = [folder.load_images(number) for number in range(len(prepared.training))]
    remaining = [number for number, result in enumerate(results) if result is None]
    patients = list(prepared.training.values())
    for done, number in enumerate(remaining):
        distilled = distill_patient(
            Raw(patients[number], prepared.prior.images, prepared.modality, number),
            config,
            device,
            folder=folder.patient(number),
            hashes=hashes,
            monitor=monitor.part(done / len(remaining), (done + 1) / len(remaining)),
        )
        notes = {"batch": distilled.batch, "measured": distilled.measured}
        folder.save_images(number, distilled.images, notes)
        results[number] = (distilled.images, notes)
    return [result for result in results if result is not None]


def _finish(
    folder: RunFolder,
    config: DistillConfig,
    prepared: Prepared,
    run: Mapping[str, Any],
    found: Sequence[tuple[Floats, Mapping[str, Any]]],
    device: str,
    monitor: Monitor,
) -> None:
    """Order the images, audit them as stored, and write everything."""
    redistill = redistiller(prepared, config, device, Monitor(cancel=lambda: monitor.cancelled))
    images = np.concatenate([images for images, _ in found])
    order = dataset.order_of(images)
    notes = [note for _, note in found]
    results = {
        "batch": sorted({int(note["batch"]) for note in notes}),
        "measured": _means([note["measured"] for note in notes]),
    }
    _write_result(folder, config, prepared, run, images[order], redistill, results, monitor)


def _finish_statistics(
    folder: RunFolder,
    config: DistillConfig,
    prepared: Prepared,
    run: Mapping[str, Any],
    monitor: Monitor,
) -> None:
    """The prior with the cohort's statistics, audited and written; they stand in the manifest.

    With differential privacy they are rebuilt from one noised sum, and nothing else is taken.
    """
    modality, prior = prepared.modality, prepared.prior.images
    secret = folder.secret() if config.dp is not None else 0

    def made(patients: Mapping[str, Floats], *draw: int) -> tuple[Floats, dict[str, Any]]:
        found = []
        for images in patients.values():
            monitor.progress(0.0, "statistics")
            found.append(measure(images, modality))
        if config.dp is None:
            means = mean_over(found)
        else:
            means = noised_mean(
                found,
                measure(prior, modality),
                noise_multiplier=noise_multiplier(config.dp),
                rng=np.random.default_rng((secret, *draw)),
            )
        return imposed(prior, means, modality), means.record()

    count = len(prepared.training)
    if config.dp is None and count < CLIPPED_FROM:
        monitor.warn(
            f"statistics of {count} patients are plain means: from {CLIPPED_FROM} on nobody's "
            "extremes are in them; give more patients, or hold fewer out (held_out)"
        )
    images, statistics = made(prepared.training)
    _write_result(
        folder,
        config,
        prepared,
        run,
        images,
        # Each shadow has noise of its own, as everybody's result would.
        lambda patients, seed: made(patients, 1, seed)[0],
        {"statistics": statistics},
        monitor.part(0.3, 1.0),
    )


def _write_result(
    folder: RunFolder,
    config: DistillConfig,
    prepared: Prepared,
    run: Mapping[str, Any],
    images: Floats,
    redistill: Redistill,
    results: Mapping[str, Any],
    monitor: Monitor,
) -> None:
    """Write images in this order, audit them as stored, and complete the folder.

    results: for the manifest.
    """
    monitor.progress(0.0, "writing images")
    stored = dataset.quantized(images)
    dataset.write_images(folder.out, stored)
    monitor.progress(0.1, "audit")
    scaled = stored.astype(np.float32) / np.float32(dataset.TOP)
    part = monitor.part(0.1, 0.95)
    audited = audit_result(scaled, prepared, config, folder.out, redistill, part)
    if config.dp is not None:  # with the hash of the data a guess of them could be verified
        run = {name: value for name, value in run.items() if name != "data_sha256"}
    size = {"images": len(stored), "size": list(stored.shape[1:])}
    manifest = dataset.make_manifest(config, run, {**size, **results, "audit": audited})
    dataset.write_readme(folder.out, manifest)
    dataset.write_manifest(folder.out, manifest)
    monitor.progress(1.0, "images written")


def _means(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over patients: no single patient's values are published."""
    return {
        name: float(f"{np.mean([one[name] for one in measured]):.6g}")
        for name in sorted(measured[0])
    }


def redistiller(
    prepared: Prepared,
    config: DistillConfig,
    device: str = "cpu",
    monitor: Monitor | None = None,
) -> Redistill:
    """Distills other patients from the same prior, for the shadows of an audit.

    Args:
        prepared: modality and prior are used.
        config: of the distillation.
        device: a torch device.
        monitor: may cancel.
    Returns:
        A function of images [N, H, W] by patient and a seed that gives [P · M, H, W] in the
        patients' order, and takes as long as a distillation.
    """

    def redistill(patients: Mapping[str, Floats], seed: int) -> Floats:
        chosen = replace(config, seed=seed)
        parts = [
            distill_patient(
                Raw(images, prepared.prior.images, prepared.modality, number),
                chosen,
                device,
                monitor=monitor,
            ).images
            for number, images in enumerate(patients.values())
        ]
        return np.concatenate(parts)

    return redistill


def audit_result(
    distilled: Floats,
    prepared: Prepared,
    config: DistillConfig,
    out: Path,
    redistill: Redistill,
    monitor: Monitor,
) -> dict[str, Any]:
    """Audit the images as they are stored, and write `out`/audit.

    With differential privacy nothing of the audit, which no noise covers, goes into `out`.

    Args:
        distilled: [N, H, W] in [0, 1].
        prepared: the patients and the prior.
        config: its shadows and dp are used.
        out: folder of the result.
        redistill: from `redistiller`; used if there are shadows.
        monitor: gets progress and may cancel.
    Returns:
        `alarm` and `summary` for the manifest; alarm None: see the summary.
    """
    chosen = prepared.prior.patient
    counts = [
        sum(name != chosen for name in group) for group in (prepared.training, prepared.held_out)
    ]
    if min(counts) < _FEWEST_AUDITED:
        why = (
            f"{counts[0]} patients were used and {counts[1]} held out; it takes {_FEWEST_AUDITED} "
            "of each"
        )
        monitor.warn(f"the result is not audited: {why}")
        summary = f"Not audited: {why}. Treat the images as the patients' own."
        return {"alarm": None, "summary": summary}
    report = audit(
        Audited(
            distilled=distilled,
            training=prepared.training,
            held_out=prepared.held_out,
            prior=prepared.prior.images,
            prior_owner=chosen,
        ),
        redistill=redistill if config.shadows else None,
        shadows=config.shadows,
        monitor=monitor,
    )
    confidential = write_audit(report, confidential_folder(out), overwrite=True)
    monitor.log(f"pictures of the nearest patients, not to be shared: {confidential}")
    if report.alarm:
        monitor.warn(report.headline)
    if config.dp is not None:
        return {"alarm": None, "summary": _AUDIT_WITHHELD}
    write_report(report, out / "audit", overwrite=True)
    return {"alarm": report.alarm, "summary": report.summary}
