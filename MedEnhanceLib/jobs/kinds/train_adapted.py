"""Training of an enhancer for a segmenter that stays as it is: files → examples → model → figures.

A method does not import another: what comes from both, the enhancer's network and the segmenter,
meets here.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib.bundles.suitability import training_length_limits
from MedEnhanceLib.core.metrics import dice, psnr
from MedEnhanceLib.core.options import config_from_json, config_to_json
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import LowDose, Rician, robust_max
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError
from MedEnhanceLib.gradprom.adapt import Adapted, Example, adapt, check_resumed
from MedEnhanceLib.gradprom.config import AdaptConfig
from MedEnhanceLib.gradprom.labeled import Files, check_labels, pair_files
from MedEnhanceLib.gradprom.segmenters import Segmenter, open_segmenter
from MedEnhanceLib.gradprom.train import means_of
from MedEnhanceLib.hqg import EnhanceConfig, NetworkConfig, enhance
from MedEnhanceLib.hqg.bundle import export_corrector
from MedEnhanceLib.hqg.network import Enhancer
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.intensity import TISSUE, scaling_for
from MedEnhanceLib.nets.noise import NoiseEstimate, measure_noise
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.report.training import TrainingStory, training_report
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.bundles.store import Bundle

Labels = npt.NDArray[np.uint8]
#: Of simulated low dose, as in all benchmarks.
_ELECTRONIC = 5.0
#: Photons of the trial that relates dose to noise.
_TRIAL = 1e4
#: Confidence of a measured noise that is simulated, at least.
_TRUSTED = 0.25
#: Least and most share of the measured noise that is simulated.
_AROUND = (0.8, 1.2)
#: What the names of `gradprom.adapt`'s losses mean.
_CURVES_NOTE = (
    "fidelity: the error against the undamaged image, of the training without the segmenter. Where "
    "the segmenter begins to teach: task, its loss; cost, the fidelity that it takes, in dB; "
    "weight of the task, how strongly it teaches beside the restoration; cosine, how far both "
    "agree, from −1 to 1."
)
#: Of the network after the filter: nothing but the correction.
_PLAIN = {
    "guide_widths": (4, 4, 4, 4),
    "cue_size": 4,
    "content_size": 4,
    "guidance": False,
    "variational": False,
    "restyling": False,
    "rician": False,
    "sharpening": False,
}


class AfterFilter(nn.Module):
    """An enhancer's network as `gradprom.adapt` calls it."""

    def __init__(self, enhancer: Enhancer) -> None:
        super().__init__()
        self.enhancer = enhancer

    def forward(self, slabs: Tensor, start: Tensor) -> Tensor:
        """[B, D, H, W] each, before and after the filter."""
        return self.enhancer.correct(slabs, start)


@dataclass(frozen=True)
class Noise:
    """The noise that is simulated: σ in the volume's units over its scale (MR), or photons (CT)."""

    modality: str
    low: float
    high: float

    def added(self, volume: Volume, strength: float, seed: int) -> Volume:
        """A noisy version; strength: 0 is the least noise, 1 the most."""
        if self.modality == "CT":
            photons = self.high * (self.low / self.high) ** strength
            return LowDose(photons, _ELECTRONIC, seed).apply(volume)
        return Rician(self.low + strength * (self.high - self.low), seed).apply(volume)

    def __str__(self) -> str:
        if self.modality == "CT":
            return f"low dose of {self.low:,.0f} to {self.high:,.0f} photons per ray"
        return f"Rician noise of {self.low:.1%} to {self.high:.1%} of the brightest tissue"


@without_tf32()
def train_adapted(
    config: AdaptConfig,
    data: Path,
    out: Path,
    monitor: Monitor,
    *,
    segmenter: Segmenter | None = None,
) -> Path:
    """Train, or go on with a training.

    Args:
        config: of the training; its patterns are relative to `data`.
        data: folder of volumes.
        out: folder for checkpoint, metrics, report and bundle.
        monitor: gets progress and metrics, and may cancel.
        segmenter: an opened one; None opens the one that the configuration names.
    Returns:
        The folder of the bundle, `out/<name>`.
    Raises:
        Cancelled: after a checkpoint was written.
        ConfigError: no segmenter is named, or the checkpoint is of another training.
        InputError: images, labels and segmenter do not fit together.
        ModelError: the segmenter cannot be used, or the training diverged.
    """
    network = AfterFilter(make_network(config))
    choice = choose_device(config.device)
    monitor.log(f"training on {choice.name}: {choice.reason}")
    if segmenter is None:
        if not config.segmenter:
            raise ConfigError("no segmenter is named", "Name one: --segmenter PATH.")
        segmenter = open_segmenter(config.segmenter, trust=config.trust_segmenter)
    if segmenter.spec.modality != config.modality:
        raise ConfigError(
            f"the training is for {config.modality}, segmenter {segmenter.name!r} is for "
            f"{segmenter.spec.modality}",
            "Give the modality of both (--modality), or another segmenter.",
        )
    check_resumed(config, out, learned_for=segmenter.sha256)
    for note in segmenter.notes:
        monitor.warn(f"{segmenter.name}: {note}")
    files = pair_files(config.high_quality, config.labels, data)
    learned, held_out = _split(files, config)
    _check_all(files, segmenter, config, monitor.part(0, 0.03))
    noise = _noise_of(config, data, monitor.part(0.03, 0.06))
    monitor.log(f"simulated: {noise}")
    prepare = _Preparation(config, segmenter, noise)
    preparing, count = monitor.part(0.06, 0.4), len(learned)
    examples = [
        prepare.example(one, number, preparing.part(number / count, (number + 1) / count))
        for number, one in enumerate(learned)
    ]
    segmenter.network.to(choice.name)
    made = adapt(
        config,
        network,
        segmenter,
        examples,
        out,
        monitor.part(0.4, 0.9),
        device=choice.name,
        learned_for=segmenter.sha256,
    )
    bundle = _export(out / config.name, made.network, config, segmenter, made, noise)
    if held_out:
        _measure_held_out(bundle, made, prepare, held_out, data, monitor.part(0.9, 1.0))
    _report(out, config, made, choice.name, segmenter)
    with suppress(Cancelled):  # the model is written: too late to cancel
        monitor.progress(1.0, "model written")
    return bundle.folder


def make_network(config: AdaptConfig) -> Enhancer:
    """The network after the filter, as the seed begins it."""
    torch.manual_seed(config.seed)
    return Enhancer(config_from_json(NetworkConfig, {**_PLAIN, **config.network}))


def _split(files: Sequence[Files], config: AdaptConfig) -> tuple[list[Files], list[Files]]:
    """What is learned from, and the last ones, which are held out."""
    learned = list(files[: len(files) - config.held_out])
    if not learned:
        raise InputError("all volumes are held out", "Hold out fewer (held_out).")
    return learned, list(files[len(learned) :])


def _check_all(
    files: Sequence[Files], segmenter: Segmenter, config: AdaptConfig, monitor: Monitor
) -> None:
    """Read all volumes once: what does not fit is found before minutes of preparation."""
    for number, (path, labels) in enumerate(files):
        monitor.progress(number / len(files), f"checking {path.name}")
        image, drawn = _read(path, labels, config)
        segmenter.check(image, drawn)


def _read(path: Path, labels: Path | None, config: AdaptConfig) -> tuple[Volume, Volume | None]:
    image = load(path, modality=config.modality)
    if image.is_sequence:
        raise InputError(f"{path}: a sequence", "Learn from single volumes.")
    if labels is None:
        return image, None
    drawn = load(labels)
    check_labels(image, drawn, path, labels)
    return image, drawn


def _noise_of(config: AdaptConfig, data: Path, monitor: Monitor) -> Noise:
    """As configured, or as measured in real noisy images."""
    paths = sorted({path for pattern in config.low_quality for path in data.glob(pattern)})
    if config.low_quality and not paths:
        raise InputError(
            f"{data}: no file matches {', '.join(config.low_quality)}",
            "Check the patterns of low_quality (--lq).",
        )
    if not paths:
        low, high = config.photons if config.modality == "CT" else config.rician
        return Noise(config.modality, low, high)
    strengths = []
    for number, path in enumerate(paths):
        monitor.progress(number / len(paths), f"measuring the noise of {path.name}")
        volume = load(path, modality=config.modality).frame(0)
        noise = _measured(volume)
        if noise.confidence < _TRUSTED:
            monitor.warn(f"{path.name}: its noise is not simulated ({noise.reason})")
            continue
        measured = noise.level
        if config.modality == "CT":
            trial = LowDose(_TRIAL, _ELECTRONIC, config.seed).apply(volume)
            added = math.sqrt(max(_measured(trial).level ** 2 - measured**2, 1e-6))
            strengths.append(_TRIAL * (added / max(measured, 1e-3)) ** 2)
        else:
            strengths.append(measured / robust_max(volume.voxels))
    if not strengths:
        raise InputError(
            f"{data}: in no image of {', '.join(config.low_quality)} the noise can be measured",
            "Leave them out (--lq): usual noise is simulated then.",
        )
    return Noise(config.modality, _AROUND[0] * min(strengths), _AROUND[1] * max(strengths))


def _measured(volume: Volume) -> NoiseEstimate:
    spacing = volume.geometry.spacing
    return measure_noise(volume.voxels, modality=volume.modality, spacing=spacing)


class _Preparation:
    """Makes what is learned from of each volume."""

    def __init__(self, config: AdaptConfig, segmenter: Segmenter, noise: Noise) -> None:
        self.config, self.segmenter, self.noise = config, segmenter, noise
        self.start = EnhanceConfig(model="auto", task="noise", device=config.device)

    def example(self, files: Files, number: int, monitor: Monitor) -> Example:
        """Some slices of a volume around its labels, damaged and filtered."""
        block, target = self.block(files, monitor.part(0, 0.2))
        rng = np.random.default_rng([self.config.seed, number])
        scaling = scaling_for(block)
        versions, count = [], self.config.damaged
        for version in range(count):
            monitor.progress(0.2 + 0.8 * version / count, "making a noisy version")
            noisy = self.noise.added(block, float(rng.random()), int(rng.integers(2**31)))
            filtered = _enhanced(noisy, self.start, monitor)
            versions.append((scaling.apply(noisy.voxels), scaling.apply(filtered.voxels)))
        clean = scaling.apply(block.voxels)
        # An undamaged image should stay as it is.
        versions.append((clean, clean))
        inside = clean > TISSUE[self.config.modality]
        view = self.segmenter.view_of(block, scaling)
        return Example(clean, tuple(versions), target, inside, view)

    def block(self, files: Files, monitor: Monitor) -> tuple[Volume, Labels]:
        """Slices around the labels, and their indices; without labels what the segmenter finds."""
        path, labels = files
        monitor.progress(0, f"reading {path.name}")
        image, drawn = _read(path, labels, self.config)
        shown = np.arange(image.shape[0])
        if drawn is not None and drawn.voxels.any():
            shown = np.flatnonzero(drawn.voxels.any(axis=(1, 2)))
        count = min(self.config.slices, image.shape[0])
        first = int(np.clip((shown[0] + shown[-1] + 1 - count) // 2, 0, image.shape[0] - count))
        block = image.crop(k=slice(first, first + count))
        if drawn is not None:
            return block, drawn.voxels[first : first + count].astype(np.uint8)
        return block, self.segmenter.find(block, monitor)


def _quiet(monitor: Monitor) -> Monitor:
    """Without the messages of an enhancement, which are not about the training."""
    return Monitor(cancel=lambda: monitor.cancelled)


def _export(
    folder: Path,
    network: nn.Module,
    config: AdaptConfig,
    segmenter: Segmenter,
    made: Adapted,
    noise: Noise,
) -> Bundle:
    assert isinstance(network, AfterFilter)
    target = "labels" if config.labels else "its own output on the undamaged images"
    summary = (
        f"{config.steps} steps of {config.batch} slabs of {config.slab} × {config.patch} × "
        f"{config.patch} voxels, {noise}, seed {config.seed}, {made.seconds / 60:.0f} minutes; "
        f"target: {target}; the segmenter teaches within {config.budget:g} dB "
        f"(cost on training slabs {made.cost:+.3f} dB at {made.share:.0%} of the way)"
    )
    return export_corrector(
        folder,
        network.enhancer,
        {
            "name": config.name,
            "modality": config.modality,
            "anatomy": config.anatomy,
            "description": f"Made for the segmenter {segmenter.name}: after the filter that "
            "removes noise, a network restores what that segmenter needs.",
            "licence": config.licence,
            "data": list(config.data),
            "on_request": True,
            "limits": [
                *training_length_limits(config.steps),
                *([] if config.held_out else ["Nothing is measured: no volume was held out."]),
            ],
            "segmenter": segmenter.identity(),
            "training": {
                # A bundle is handed on: where the segmenter lies concerns nobody.
                "config": config_to_json(config) | {"segmenter": segmenter.name},
                "seconds": round(made.seconds),
                "summary": summary,
                "compared": made.compared,
            },
        },
    )


def _measure_held_out(
    bundle: Bundle,
    made: Adapted,
    prepare: _Preparation,
    files: Sequence[Files],
    data: Path,
    monitor: Monitor,
) -> None:
    """PSNR and Dice of volumes that were not learned from: as they are, filtered, with both."""
    from MedEnhanceLib.bundles.export import record_measurements

    config, segmenter = prepare.config, prepare.segmenter
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        metadata = {**bundle.metadata, "name": "twin"}
        assert isinstance(made.twin, AfterFilter)
        twin = export_corrector(Path(temporary) / "twin", made.twin.enhancer, metadata)
        for number, one in enumerate(files):
            part = monitor.part(number / len(files), (number + 1) / len(files))
            subject = f"held-out volume {number + 1}"
            monitor.log(f"{subject}: {one[0].relative_to(data)}")
            block, target = prepare.block(one, part.part(0, 0.1))
            noisy = prepare.noise.added(block, 0.5, config.seed + number)
            images = {
                "undamaged": block,
                "noisy": noisy,
                "filtered": _enhanced(noisy, prepare.start, part),
                "without the segmenter": _by(twin, noisy, prepare, part),
                "for the segmenter": _by(bundle, noisy, prepare, part),
            }
            for state, image in images.items():
                figures = _figures(block, image, target, segmenter, part)
                rows.append({"subject": subject, "images": state, **figures})
    record_measurements(bundle.folder, rows + means_of(rows, ("images",), digits=4))


def _by(bundle: Bundle, noisy: Volume, prepare: _Preparation, monitor: Monitor) -> Volume:
    config = replace(prepare.start, model=str(bundle.folder))
    return _enhanced(noisy, config, monitor)


def _enhanced(noisy: Volume, config: EnhanceConfig, monitor: Monitor) -> Volume:
    return enhance(noisy, config, monitor=_quiet(monitor)).volume


def _figures(
    clean: Volume, image: Volume, target: Labels, segmenter: Segmenter, monitor: Monitor
) -> dict[str, float | None]:
    scaling = scaling_for(clean)
    inside = scaling.apply(clean.voxels) > TISSUE[clean.modality]
    reached = psnr(clean.voxels, image.voxels, scaling.scale, mask=inside)
    found = segmenter.find(image, _quiet(monitor))
    figures: dict[str, float | None] = {
        "PSNR (dB)": round(reached, 2) if math.isfinite(reached) else None
    }
    for index, label in enumerate(segmenter.labels, start=1):
        there = bool((target == index).any())
        figures[f"{label} (Dice)"] = round(dice(target, found, index), 4) if there else None
    return figures


def _report(
    out: Path, config: AdaptConfig, made: Adapted, device: str, segmenter: Segmenter
) -> None:
    target = "labels" if config.labels else "what it finds itself in the undamaged images"
    story = TrainingStory(
        name=config.name,
        modality=config.modality,
        step=config.steps,
        steps=config.steps,
        ending="finished",
        seconds=made.seconds,
        device=device,
        curves=made.curves,
        gate=made.pair.tuned.gate.diagnostics(),
        is_held_out=bool(config.held_out),
        config=config_to_json(config),
        data=config.data,
        summary=(
            f"An enhancer for the segmenter {segmenter.name}; its target: {target}.",
            f"On slabs of the training it costs {made.cost:+.3f} dB of fidelity against the same "
            f"training without the segmenter; {config.budget:g} dB were allowed. The weights lie "
            f"at {made.share:.0%} of the way from that training.",
            "Figures of held-out volumes stand in the model's card."
            if config.held_out
            else "No volume was held out, so nothing is measured (held_out).",
        ),
        curves_note=_CURVES_NOTE,
    )
    training_report(out / "report", story)
