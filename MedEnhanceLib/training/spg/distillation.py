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

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.texts import text
from MedEnhanceLib.training.spg import dataset
from MedEnhanceLib.training.spg.audit import (
    Audited,
    audit,
    write_confidential,
    write_report,
)
from MedEnhanceLib.training.spg.cohort import Cohort
from MedEnhanceLib.training.spg.config import FEWEST_AUDITED, DistillConfig
from MedEnhanceLib.training.spg.folder import MANIFEST, RunFolder, confidential_folder, read_run
from MedEnhanceLib.training.spg.images import data_sha256
from MedEnhanceLib.training.spg.matching import MakeNetworks, Raw
from MedEnhanceLib.training.spg.patient import distill_patient
from MedEnhanceLib.training.spg.prepare import DESCRIPTIONS, Prepared, prepare
from MedEnhanceLib.training.spg.readme import NO_LICENSE, few_patients, not_audited

#: Volumes in the order in which they are written, the number of the prior's volume that each starts
#: from, and their fields of the manifest.
DistilledVolumes = tuple[Floats, list[int], dict[str, Any]]


def distill_cohort(
    cohort: Cohort,
    out: Path,
    config: DistillConfig,
    monitor: Monitor | None = None,
    *,
    make_networks: MakeNetworks | None = None,
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
        make_networks: makes the networks whose gradients are matched; passed in, as a method does
            not import another.
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
    if config.method == "matching":
        if make_networks is None:
            raise ConfigError("matching: no networks", "Distill through api.distill or a job.")
        monitor.log(f"distilling on {choice.name}: {choice.reason}")
    folder = RunFolder(out)
    with folder.owned(overwrite=overwrite):
        share = 0.1 if config.method == "matching" else 0.85
        prepared = prepare(cohort, config, monitor.part(0.0, share))
        run = _run_record(prepared, config)
        folder.agree(run)
        if folder.is_finished:
            if config.license:
                dataset.relicense(out, config.license)
            monitor.progress(1.0, "already finished")
        else:
            if make_networks is None or config.method == "statistics":
                result = _by_statistics(prepared, monitor)
            else:
                part = monitor.part(0.1, 0.85)
                device = choice.name
                result = _by_matching(folder, prepared, config, run, device, make_networks, part)
            _write_result(folder.out, prepared, config, run, result, monitor.part(0.85, 1.0))
        if not dataset.license_of(read_run(out / MANIFEST)):
            monitor.warn(
                f"{NO_LICENSE} To state one, run the same command again with --license NAME "
                '(license="NAME"): the volumes stay as they are.'
            )
    return out


def _run_record(prepared: Prepared, config: DistillConfig) -> dict[str, Any]:
    prior = prepared.prior
    return {
        "modality": prepared.modality,
        "patients": len(prepared.training),
        "held_out": len(prepared.held_out),
        "prior": {"kind": prior.kind, "description": DESCRIPTIONS[prior.kind]},
        "statistics": prepared.means.record(),
        "spacing_mm": [list(pair) for pair in dict.fromkeys(prior.spacing_mm)],
        "data_sha256": prepared.data_sha256,
        "prior_sha256": data_sha256([prior.volumes]),
        "config": config.record(),
    }


def _by_matching(
    folder: RunFolder,
    prepared: Prepared,
    config: DistillConfig,
    run: Mapping[str, Any],
    device: str,
    make_networks: MakeNetworks,
    monitor: Monitor,
) -> DistilledVolumes:
    """Distill each patient who is not finished yet; the order of the volumes reveals nobody."""
    hashes = {name: str(run[name]) for name in ("data_sha256", "prior_sha256")}
    count, volumes, measured = len(prepared.training), [], []
    for number, name in enumerate(prepared.training):
        result = folder.load_volumes(number)
        if result is None:
            raw = Raw(prepared.read(name), prepared.prior, prepared.modality, number)
            result = distill_patient(
                raw,
                config,
                make_networks,
                device,
                folder=folder.patient(number),
                hashes=hashes,
                monitor=monitor.part(number / count, (number + 1) / count),
            )
            folder.save_volumes(number, *result)
        volumes.append(result[0])
        measured.append(result[1])

    joined = np.concatenate(volumes)
    # Means over patients: no single patient's values are published.
    means = {
        name: float(f"{np.mean([values[name] for values in measured]):.6g}")
        for name in sorted(measured[0])
    }
    order = dataset.order_of(joined)
    prior_numbers = (order % len(prepared.prior.volumes)).tolist()
    return joined[order], prior_numbers, {"measured": means}


def _by_statistics(prepared: Prepared, monitor: Monitor) -> DistilledVolumes:
    volumes = prepared.prior.volumes
    if few := few_patients(len(prepared.training)):
        monitor.warn(few)
    return volumes, list(range(len(volumes))), {}


def _write_result(
    out: Path,
    prepared: Prepared,
    config: DistillConfig,
    run: Mapping[str, Any],
    result: DistilledVolumes,
    monitor: Monitor,
) -> None:
    """Write the volumes, audit them as stored, and complete the folder with its manifest."""
    modality, (volumes, prior_numbers, results) = prepared.modality, result
    monitor.progress(0.0, "writing volumes")
    stored = dataset.quantized(volumes, modality)
    spacing = [prepared.prior.spacing_mm[number] for number in prior_numbers]
    dataset.write_volumes(out, stored, spacing, modality)
    monitor.progress(0.1, "auditing the volumes")
    low, high = dataset.STORED[modality]
    scaled = (stored.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    audited = _audit(scaled, prepared, config, out, monitor.part(0.1, 0.95))
    size = {"volumes": len(stored), "size": list(stored.shape[1:])}
    manifest = dataset.make_manifest(config, run, {**size, **results, "audit": audited})
    dataset.complete(out, manifest)
    monitor.progress(1.0, "volumes written")


def _audit(
    distilled: Floats,
    prepared: Prepared,
    config: DistillConfig,
    out: Path,
    monitor: Monitor,
) -> dict[str, Any]:
    """Audit volumes as stored.

    Returns `alarm` (None: not audited), the `verdict`, its `weight` ("severe", "warning" or
    "info") and, in Markdown, what was `tried`.
    """
    if config.method == "statistics":
        return not_audited(len(prepared.training))
    training, held_out = (
        {name: data.slices for name, data in group.items()}
        for group in (prepared.training, prepared.held_out)
    )
    if min(len(training), len(held_out)) < FEWEST_AUDITED:
        verdict = text("nobody_held_out", least=2 * FEWEST_AUDITED)
        monitor.warn(verdict)
        return {"alarm": None, "weight": "warning", "verdict": verdict.to_json()}
    slices = distilled.reshape(-1, *distilled.shape[2:])
    prior = prepared.prior.volumes.reshape(-1, *distilled.shape[2:])
    report = audit(Audited(slices, training, held_out, prior=prior), monitor=monitor)
    confidential = write_confidential(report, confidential_folder(out), overwrite=True)
    monitor.log(f"pictures of the nearest patients, not to be shared: {confidential}")
    write_report(report, out / "audit", overwrite=True)
    if report.alarm:
        monitor.warn(report.verdict)
    return {
        "alarm": report.alarm,
        "weight": report.weight,
        "verdict": report.verdict.to_json(),
        "tried": list(map(str, report.tried)),
    }
