"""Distills one patient to the end: in steps, within memory, with a checkpoint, cancelable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.errors import DeviceMemoryError
from MedEnhanceLib.learning.checkpoint import Checkpoint
from MedEnhanceLib.learning.precision import without_tf32
from MedEnhanceLib.learning.training import training_steps
from MedEnhanceLib.runtime.device import is_out_of_memory, release_memory
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.folder import CHECKPOINT
from MedEnhanceLib.training.spg.matching import MakeNetworks, PatientLoop, Raw

# Chosen by hand; no table isolates it.
_MUCH_SATURATED = 0.1


@without_tf32
def distill_patient(
    raw: Raw,
    config: DistillConfig,
    make_networks: MakeNetworks,
    device: str = "cpu",
    *,
    folder: Path | None = None,
    hashes: Mapping[str, str] | None = None,
    monitor: Monitor | None = None,
) -> tuple[Floats, dict[str, float]]:
    """Distill one patient, or resume; meanwhile no other long job has the GPU.

    Args:
        raw: the volumes and the prior.
        config: of the distillation.
        make_networks: as of `distill_cohort`.
        device: as PyTorch names it.
        folder: for the checkpoint; None: no checkpoint.
        hashes: of data and prior, which must match those in the checkpoint.
        monitor: progress, metrics and cancellation.
    Returns:
        Volumes, float32 [M, K, J, I] in [0, 1], and means of the last outer step: `alignment`, the
        distance from the gradients of the raw volumes; `structure`, from the prior; `saturation`,
        a share of the voxels; `change`, the mean difference from the prior, a share of the range.
    Raises:
        Cancelled: after a checkpoint was written.
        ConfigError: the checkpoint is of another configuration or data.
        ModelError: the distillation diverged, or the checkpoint is damaged.
        DeviceMemoryError: memory ran out with half the batch, too.
    """
    monitor = monitor or Monitor()
    patient = f"patient {raw.number + 1}"
    loop = PatientLoop(raw, config, make_networks, device)
    start, checkpoint = 0, None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = Checkpoint(folder / CHECKPOINT, **loop.parts(hashes or {}))
    if checkpoint is not None and checkpoint.path.exists():
        start, notes = checkpoint.load()
        loop.batch = int(notes["batch"])
        loop.forget_crops()
        monitor.log(f"{patient}: resumed at step {start}")

    def save(number: int) -> None:
        if checkpoint is not None:
            checkpoint.save(number, {"batch": loop.batch})

    total = config.loop.steps
    for number in training_steps(start, total, save, config.checkpoint_s, monitor, of=patient):
        _step_within_memory(loop, number, monitor)
        if loop.ends_outer(number):
            outer = loop.outer_of(number)
            for name, value in loop.measures(outer).items():
                monitor.metric(f"{name} of {patient}", value, outer)
    measured = {name: float(f"{value:.6g}") for name, value in loop.measures(-1).items()}
    if measured["saturation"] > _MUCH_SATURATED:
        monitor.warn(
            f"{patient}: {measured['saturation']:.0%} of the voxels have reached the largest "
            "allowed change: choose a prior that is more like the patients"
        )
    return loop.volumes(), measured


def _step_within_memory(loop: PatientLoop, number: int, monitor: Monitor) -> None:
    """Run a step; if memory runs out, repeat it with half the batch (`loop.batch`) from then on.

    Raises DeviceMemoryError where memory runs out with half the batch, too.
    """
    whole = loop.config.loop.batch
    try:
        loop.step(number)
    except (MemoryError, RuntimeError) as cause:
        if not is_out_of_memory(cause):
            raise
        if loop.batch < whole or whole < 2:
            raise DeviceMemoryError(
                f"memory ran out on {loop.device} with {loop.batch} crops at once",
                "Use fewer crops (loop.batch), or another device; "
                "run the same command again to resume.",
            ) from cause
    else:
        return
    loop.batch = whole // 2
    monitor.warn(
        f"memory ran out on {loop.device}; continuing with {loop.batch} crops, not {whole}"
    )
    loop.forget_crops()
    release_memory(loop.device)
    _step_within_memory(loop, number, monitor)
