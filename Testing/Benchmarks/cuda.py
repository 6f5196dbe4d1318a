"""What a CUDA device has to show: everything that the pretended one of the tests cannot.

    python Testing/Benchmarks/cuda.py                    about five minutes
    python Testing/Benchmarks/cuda.py --only facts agreement filter warm

The second line has what concerns enhancing: whether the card gives what the CPU gives, seconds and
peak memory for 512 × 512 × 300. Rows are kept as soon as they are measured: what was cut off goes
on with those that are missing. Without a device nothing is measured.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from _common import Part, Row, run

from MedEnhanceLib.runtime.machine import cpu_threads


@dataclass(frozen=True)
class Sizes:
    """How much is computed. side, slices: of volumes. preset: of distillations."""

    side: int = 512
    slices: int = 300
    preset: str = "full"


@dataclass(frozen=True)
class Bench:
    """Sizes and the device."""

    sizes: Sizes = Sizes()
    device: str = "cuda"

    # --- it works, and gives what the CPU gives ------------------------------------------------

    def facts(self) -> Row:
        """The card, its memory and the software."""
        properties = torch.cuda.get_device_properties(self.device)
        free, total = torch.cuda.mem_get_info(self.device)
        return {
            "name": properties.name,
            "cards": torch.cuda.device_count(),
            "capability": list(torch.cuda.get_device_capability(self.device)),
            "free_gib": round(free / 2**30, 2),
            "total_gib": round(total / 2**30, 2),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "threads": cpu_threads(),
        }

    def agreement(self) -> Row:
        """Enhancement in half and in single precision against the CPU in single precision."""
        from MedEnhanceLib.hqg import EnhanceConfig, enhance
        from MedEnhanceLib.learning import precision

        volume, row = self._ct(min(self.sizes.slices, 12), min(self.sizes.side, 256)), {}
        half = precision.computes_in_half
        try:
            for name, device, is_half in (
                ("cpu", "cpu", False), ("single", self.device, False), ("half", self.device, True)
            ):  # fmt: skip
                precision.computes_in_half = half if is_half else (lambda _: False)
                config = EnhanceConfig(model="ct", device=device)
                row[name] = enhance(volume, config).volume.voxels.astype(float)
        finally:
            precision.computes_in_half = half
        return {
            f"{name}_{kind}_hu": float(f"{measure(np.abs(row[name] - row['cpu'])):.3g}")
            for name in ("single", "half")
            for kind, measure in (("largest", np.max), ("mean", np.mean))
        }

    def networks_agreement(self) -> Row:
        """Thin slices and tissue of the template, on the card against the CPU."""
        import MedEnhanceLib as me  # noqa: N813 - as its users do
        from MedEnhanceLib.runtime.resources import resource_folder

        head = me.load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
        head = head.crop(slice(60, 108), slice(50, 178), slice(30, 158))
        i_mm, j_mm, k_mm = head.geometry.spacing
        thick = replace(
            head,
            voxels=head.voxels.reshape(-1, 4, *head.shape[1:]).mean(1),
            geometry=replace(head.geometry, spacing=(i_mm, j_mm, 4 * k_mm)),
        )
        thin, labels = [], []
        for device in ("cpu", self.device):
            thin.append(me.enhance(thick, task="slices", device=device).volume.voxels)
            labels.append(me.segment(head, model="brain", device=device).volume.voxels)
        far = np.abs(thin[1].astype(float) - thin[0]) / np.percentile(head.voxels, 99.5)
        return {
            "thin_largest_percent": float(f"{100 * far.max():.3g}"),
            "thin_mean_percent": float(f"{100 * far.mean():.3g}"),
            "labels_alike_percent": float(f"{100 * (labels[0] == labels[1]).mean():.6g}"),
        }

    def filter_agreement(self) -> Row:
        """The filter of the card against the CPU; time of each, and the card's peak of memory."""
        from MedEnhanceLib.filters.block_matching import CT_ROUNDS, BlockMatchingFilter, engine_for
        from MedEnhanceLib.runtime.progress import Monitor

        noisy = self._ct(min(self.sizes.slices, 64), min(self.sizes.side, 256)).voxels
        level = np.broadcast_to(np.float32(20), noisy.shape)
        row: Row = {}
        results = []
        for name, device in (("cpu", "cpu"), ("card", self.device)):
            engine = engine_for(device, Monitor())
            run = BlockMatchingFilter(noisy, level, rounds=CT_ROUNDS, engine=engine).denoised
            run()
            torch.cuda.reset_peak_memory_stats(self.device)
            result, wall, cpu = self._timed(run)
            results.append(result)
            row |= {f"{name}_s": round(wall, 3), f"{name}_host_s": round(cpu, 3)}
        peak = torch.cuda.max_memory_allocated(self.device)
        far = np.abs(results[1] - results[0])
        return row | {
            "card_peak_gib": round(peak / 2**30, 2),
            "largest_hu": float(far.max()),
            "mean_hu": float(far.mean()),
        }

    # --- time and memory of an enhancement -----------------------------------------------------

    def warm(self) -> Row:
        """The second of two enhancements: wall, host and device time, peak of memory."""
        run = self._enhancer(slices=self.sizes.slices)
        self._enhancer(slices=min(self.sizes.slices, 40))()
        torch.cuda.reset_peak_memory_stats(self.device)
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(self.device)
        begun.record(stream)
        _, wall, cpu = self._timed(run)
        ended.record(stream)
        ended.synchronize()
        return {
            "wall_s": round(wall, 3),
            "host_s": round(cpu, 3),
            "device_s": round(begun.elapsed_time(ended) / 1e3, 3),
            "peak_gib": round(torch.cuda.max_memory_allocated(self.device) / 2**30, 2),
        }

    # --- trainings and distillations -----------------------------------------------------------

    def distill(self) -> Row:
        """Steps per second of matching and teaching, and seconds of a patient."""
        from MedEnhanceLib.jobs.teaching.matched_networks import make_networks
        from MedEnhanceLib.spg.config import DistillConfig
        from MedEnhanceLib.spg.patient import seconds_of_a_patient

        config = DistillConfig.preset(self.sizes.preset)
        seconds = seconds_of_a_patient(config, "MR", make_networks, self.device)
        return {"steps_per_s": round(config.loop.steps / seconds, 2), "patient_s": round(seconds)}

    # --- how -------------------------------------------------------------------------------------

    def _enhancer(self, *, slices: int) -> Callable[[], Any]:
        from MedEnhanceLib.hqg import EnhanceConfig, enhance

        volume = self._ct(slices, self.sizes.side)
        return lambda: enhance(volume, EnhanceConfig(model="ct", device=self.device))

    def _timed(self, work: Callable[[], Any]) -> tuple[Any, float, float]:
        """What it returns, wall and host seconds, the device's work included."""
        torch.cuda.synchronize(self.device)
        wall, cpu = time.monotonic(), time.process_time()
        result = work()
        torch.cuda.synchronize(self.device)
        return result, time.monotonic() - wall, time.process_time() - cpu

    @staticmethod
    def _ct(slices: int, side: int) -> Any:
        from speed import _ct

        return _ct(slices).crop(slice(None), slice(0, side), slice(0, side))


#: What is measured, the most important first.
ROWS: dict[str, Callable[[Bench], Row]] = {
    "facts": Bench.facts,
    "agreement": Bench.agreement,
    "networks": Bench.networks_agreement,
    "filter": Bench.filter_agreement,
    "warm": Bench.warm,
    "distill": Bench.distill,
}


def parts(options: Namespace) -> Iterator[Part]:
    """A part for each row; none without a device."""
    if not torch.cuda.is_available():
        print("There is no CUDA device here that PyTorch can use: nothing is measured.")
        return
    bench = Bench(device="cuda" if options.device == "cpu" else options.device)
    for name, measured in ROWS.items():
        yield name, partial(_tried, bench, name, measured)


def _tried(bench: Bench, name: str, measured: Callable[[Bench], Row]) -> list[Row]:
    """A row; where it fails, its error: the other rows are worth as much."""
    try:
        return [{"row": name, **measured(bench)}]
    except Exception as error:  # noqa: BLE001
        return [{"row": name, "error": f"{type(error).__name__}: {error}"[:500]}]


if __name__ == "__main__":
    run("cuda", __doc__, parts)
