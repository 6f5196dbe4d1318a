"""Distils a cohort into a folder: patient after patient, stoppable anywhere, to the same bytes.

prepare → agree with what is in the folder → each patient → the share that helps others → order,
16 bits → audit → manifest
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.gpu_lock import hold_gpu
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg import dataset
from MedEnhanceLib.spg.auditing import Redistil, audit_result
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.folder import RunFolder, confidential_folder
from MedEnhanceLib.spg.keeping import Kept, share_to_keep, with_share
from MedEnhanceLib.spg.loop import Raw
from MedEnhanceLib.spg.noising import privacy_told
from MedEnhanceLib.spg.patient import PatientImages, distil_patient
from MedEnhanceLib.spg.prepared import Prepared, prepare
from MedEnhanceLib.spg.prior import Prior
from MedEnhanceLib.spg.slices import Floats


@dataclass(frozen=True)
class PatientWork:
    """All that distilling one patient takes; can be sent to another process or machine.

    folder: for checkpoints, of the machine that distils. secret: of the noise of differential
    privacy, where there is any; never to be told.
    """

    raw: Raw
    config: DistillConfig
    folder: Path
    hashes: Mapping[str, str]
    secret: int | None = field(default=None, repr=False)

    def run(self, device: str, monitor: Monitor) -> PatientImages:
        """Distil, or go on with it."""
        return distil_patient(
            self.raw,
            self.config,
            device,
            folder=self.folder,
            hashes=self.hashes,
            secret=self.secret,
            monitor=monitor,
        )


#: Runs the works that are left and gives each result as it comes, by its place.
Runner = Callable[[Sequence[PatientWork], str, Monitor], Iterator[tuple[int, PatientImages]]]


def distil_cohort(
    cohort: Cohort,
    out: Path,
    config: DistillConfig,
    monitor: Monitor | None = None,
    *,
    overwrite: bool = False,
    runner: Runner | None = None,
) -> Path:
    """Distil a cohort, or go on with it; the folder of the result, which is `out`.

    A folder that was stopped, or killed, goes on where its last checkpoint is, to the same bytes
    on the same machine's CPU. One that is finished and agrees is left as it is. overwrite: what
    was distilled there before is removed first. runner: where patients are distilled; here, one
    after the other, where none is given.
    Raises Cancelled after a checkpoint was written; ConfigError for other options than those the
    folder was begun with; InputError for other data, and for what cannot be distilled, by name;
    OutputError where another process distils there, or `out` holds something else.
    """
    monitor = monitor or Monitor()
    choice = choose_device(config.device)
    monitor.log(f"distilling on {choice.name}: {choice.reason}")
    config = _covered(config, monitor)
    folder = RunFolder(out)
    with folder.owned(overwrite=overwrite):
        prepared = prepare(cohort, config, monitor.part(0.0, 0.05))
        run = _told(prepared, config)
        folder.agree(run)
        if folder.is_finished:
            monitor.progress(1.0, "was finished already")
            return out
        _show_prior(prepared.prior, out, config, run)
        hashes = {name: str(run[name]) for name in ("data_sha256", "prior_sha256")}
        secret = folder.secret() if config.dp is not None else None
        works = [
            PatientWork(
                Raw(images, prepared.prior.images, prepared.modality, number),
                config,
                folder.patient(number).absolute(),
                hashes,
                secret,
            )
            for number, images in enumerate(prepared.training.values())
        ]
        found = _distil_all(works, folder, choice.name, monitor.part(0.05, 0.85), runner or _here)
        ending = monitor.part(0.85, 1.0)
        try:
            kept = _kept(prepared, config, found, choice.name, ending.part(0.0, 0.4))
            redistil = redistiller(
                prepared, config, choice.name, Monitor(cancel=lambda: ending.cancelled), kept.share
            )
            _finish(folder, config, prepared, run, found, kept, redistil, ending.part(0.4, 1.0))
        except Cancelled as cause:
            raise Cancelled(
                "cancelled before the result was complete; all patients are distilled and kept",
                "Start again with the same line to audit and write it.",
            ) from cause
    return out


def _show_prior(prior: Prior, out: Path, config: DistillConfig, run: Mapping[str, Any]) -> None:
    """What all images start from; of a patient it is for the confidential folder."""
    place = out if prior.patient is None else confidential_folder(out)
    dataset.write_prior(place, prior.images, config, run)


def _covered(config: DistillConfig, monitor: Monitor) -> DistillConfig:
    """With differential privacy nothing is taken from the cohort but noised gradients."""
    if config.dp is None or config.intensities == "own":
        return config
    monitor.warn(
        "with differential privacy the prior keeps its own intensities: no noise covers the "
        "cohort's (intensities: own)"
    )
    return replace(config, intensities="own")


def _told(prepared: Prepared, config: DistillConfig) -> dict[str, Any]:
    """What the run is, for run.json and the manifest."""
    prior = prepared.prior
    return {
        "modality": prepared.modality,
        "patients": len(prepared.training),
        "held_out": len(prepared.held_out),
        "images_per_patient": config.images_per_patient,
        "prior": {"kind": prior.kind, "told": prior.told, "in_cohort": prior.patient is not None},
        "steps": config.loop.steps,
        "data_sha256": prepared.sha256,
        "prior_sha256": prior.sha256,
        "config": config.told(),
        **({"privacy": privacy_told(config, len(prepared.training))} if config.dp else {}),
    }


def _distil_all(
    works: Sequence[PatientWork], folder: RunFolder, device: str, monitor: Monitor, runner: Runner
) -> list[tuple[Floats, dict[str, Any]]]:
    """The images of all patients with their notes, in the patients' order."""
    stored = [folder.load_images(work.raw.number) for work in works]
    todo = [work for work, done in zip(works, stored, strict=True) if done is None]
    for place, result in runner(todo, device, monitor):
        number = todo[place].raw.number
        notes = {"batch": result.batch, "measured": result.measured}
        folder.save_images(number, result.images, notes)
        stored[number] = (result.images, dict(notes))
    return [found for found in stored if found is not None]


def _here(
    works: Sequence[PatientWork], device: str, monitor: Monitor
) -> Iterator[tuple[int, PatientImages]]:
    for place, work in enumerate(works):
        part = monitor.part(place / len(works), (place + 1) / len(works))
        yield place, work.run(device, part)


def _kept(
    prepared: Prepared,
    config: DistillConfig,
    found: Sequence[tuple[Floats, Mapping[str, Any]]],
    device: str,
    monitor: Monitor,
) -> Kept:
    """How much of the change is kept; under differential privacy raw images may not be asked."""
    if config.dp is not None:
        return Kept(1.0, {})
    images = [images for images, _ in found]
    prior, modality = prepared.prior.images, prepared.modality
    with hold_gpu([device], "distill", monitor):
        kept = share_to_keep(
            images, prior, prepared.training, modality, config, device=device, monitor=monitor
        )
    if kept.psnr_db:
        told = ", ".join(f"{share:.0%}: {psnr:.2f} dB" for share, psnr in kept.psnr_db.items())
        monitor.log(f"{kept.share:.0%} of the change is kept; on other patients: {told}")
    return kept


def _finish(
    folder: RunFolder,
    config: DistillConfig,
    prepared: Prepared,
    run: Mapping[str, Any],
    found: Sequence[tuple[Floats, Mapping[str, Any]]],
    kept: Kept,
    redistil: Redistil,
    monitor: Monitor,
) -> None:
    """Put the images in order, audit them as they are stored, and write everything."""
    monitor.progress(0.0, "writing images")
    images = np.concatenate([images for images, _ in found])
    images = with_share(images, prepared.prior.images, kept.share)
    order = dataset.order_of(images)
    stored = dataset.quantised(images[order])
    names = list(prepared.training)
    owners = tuple(names[place // config.images_per_patient] for place in order)
    dataset.write_images(folder.out, stored)
    monitor.progress(0.1, "audit")
    audit = audit_result(
        stored.astype(np.float32) / np.float32(dataset.TOP),
        owners,
        prepared,
        folder.out,
        monitor.part(0.1, 0.95),
        shadows=config.shadows,
        redistil=redistil,
        is_covered=config.dp is not None,
    )
    notes = [note for _, note in found]
    results = {
        "images": len(stored),
        "size": list(stored.shape[1:]),
        "batch": sorted({int(note["batch"]) for note in notes}),
        "measured": _means([note["measured"] for note in notes]),
        "kept": {
            "share": kept.share,
            "psnr_db": {f"{share:g}": psnr for share, psnr in kept.psnr_db.items()},
        },
        "audit": audit,
    }
    if config.dp is not None:  # the hash of the data tells whether a guess of them is right
        run = {name: value for name, value in run.items() if name != "data_sha256"}
    manifest = dataset.make_manifest(config, run, results)
    dataset.write_card(folder.out, manifest)
    dataset.write_manifest(folder.out, manifest)
    monitor.progress(1.0, "images written")


def _means(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Over patients: none is told by itself."""
    return {
        name: float(f"{np.mean([one[name] for one in measured]):.6g}")
        for name in sorted(measured[0])
    }


def redistiller(
    prepared: Prepared,
    config: DistillConfig,
    device: str = "cpu",
    monitor: Monitor | None = None,
    share: float = 1.0,
) -> Redistil:
    """Distils other patients' images from the same prior, for the shadows of an audit.

    The function takes images [N, H, W] by patient and a seed, and gives [P · M, H, W] in the
    patients' order. It takes as long as a distillation. monitor: may cancel. share: of the change
    that is kept, as in the images that are audited.
    """

    def redistil(patients: Mapping[str, Floats], seed: int) -> Floats:
        chosen = replace(config, seed=seed)
        parts = [
            distil_patient(
                Raw(images, prepared.prior.images, prepared.modality, number),
                chosen,
                device,
                monitor=monitor,
            ).images
            for number, images in enumerate(patients.values())
        ]
        return with_share(np.concatenate(parts), prepared.prior.images, share)

    return redistil
