"""What a CUDA device has to show: everything that the pretended one of the tests cannot.

    python Testing/Benchmarks/cuda.py --part 1     facts, tests, agreement with the CPU
    python Testing/Benchmarks/cuda.py --part 2     a warm enhancement of 512×512×300, and its parts
    python Testing/Benchmarks/cuda.py --part 3     trainings, several processes, resuming
    python Testing/Benchmarks/cuda.py --part 4     a piece of the shipped models' full trainings

Each part ends within nine minutes. Every row is a line of JSON, printed and added to cuda.jsonl (in
runs/benchmarks, or in --out) as soon as it is there; a part that was cut off goes on with the rows
that are missing. Part 4 goes on with the first model that is not finished, from its checkpoint in
runs/cuda: repeat it until it says that all are. Without a device it says so and ends with status 4.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import KEPT, QUICK, REPOSITORY, SHARED_DATA, Row, commit, parser_of

NO_DEVICE = 4
RECIPES = REPOSITORY / "docs" / "recipes"
_MODELS = REPOSITORY / "runs" / "cuda"
#: A piece of part 4; what a training does after its last step takes about a minute.
_PIECE_SECONDS = 400
#: After this no further row begins; the longest takes about two minutes.
_SECONDS = 400
#: Shares of the card's memory that an enhancement is held to: the ladder has to go down.
_FRACTIONS = (0.2, 0.05)


@dataclass(frozen=True)
class Sizes:
    """How much is computed. side, slices: of volumes. steps: of trainings."""

    side: int = 512
    slices: int = 300
    preset: str = "full"
    steps: int = 40
    head: tuple[int, int, int] = (160, 256, 256)


@dataclass(frozen=True)
class Bench:
    """Sizes and the device, for the tests a pretended one."""

    sizes: Sizes = Sizes()
    device: str = "cuda"

    # --- part 1 ----------------------------------------------------------------------------------

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
        }

    def tests(self) -> Row:
        """The tests that need a device."""
        marked = [
            str(path)
            for path in sorted((REPOSITORY / "Testing/Library").rglob("test_*.py"))
            if "mark.cuda" in path.read_text(encoding="utf-8")
        ]
        options = ("-m", "cuda", "-n", "0", "-q", "-p", "no:cacheprovider")
        command = [sys.executable, "-m", "pytest", *marked, *options]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        return {"status": process.returncode, "summary": process.stdout.splitlines()[-1:]}

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
        middle = (slice(60, 108), slice(50, 178), slice(30, 158))
        head = replace(head, voxels=np.ascontiguousarray(head.voxels[middle]))
        i_mm, j_mm, k_mm = head.geometry.spacing
        thick = replace(
            head,
            voxels=head.voxels.reshape(-1, 4, *head.shape[1:]).mean(1),
            geometry=replace(head.geometry, spacing=(i_mm, j_mm, 4 * k_mm)),
        )
        thin, labels = [], []
        for device in ("cpu", self.device):
            thin.append(me.enhance(thick, task="slices", device=device).volume.voxels)
            labels.append(me.segment(head, model="brain-tissue", device=device).volume.voxels)
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

    # --- part 2 ----------------------------------------------------------------------------------

    def warm(self) -> Row:
        """The second of two enhancements: wall, host and device time, peak of memory."""
        return self._warm()

    def profile(self) -> Row:
        """The kernels that take most of the device's time, and how long it was busy."""
        from torch.profiler import ProfilerActivity, profile

        run = self._enhancer(slices=min(self.sizes.slices, 64))
        run()
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
            _, wall, _ = self._timed(run)
        kernels = profiler.key_averages()
        busy = sum(kernel.self_device_time_total for kernel in kernels) / 1e6
        first = sorted(kernels, key=lambda kernel: -kernel.self_device_time_total)[:10]
        return {
            "wall_s": round(wall, 3),
            "busy_s": round(busy, 3),
            "kernels": {k.key[:80]: round(k.self_device_time_total / 1e6, 4) for k in first},
        }

    def ladder(self) -> Row:
        """What an enhancement does with a share of the card's memory."""
        row: Row = {}
        slices = min(self.sizes.slices, 48)
        for fraction in _FRACTIONS:
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(fraction)
            warnings: list[str] = []
            try:
                _, wall, _ = self._timed(self._enhancer(slices=slices, warnings=warnings))
                row[str(fraction)] = {"wall_s": round(wall, 2), "warnings": warnings}
            finally:
                torch.cuda.set_per_process_memory_fraction(1.0)
        return row

    # --- part 3 ----------------------------------------------------------------------------------

    def implicit(self) -> Row:
        """Steps per second of the implicit network's teacher."""
        from MedEnhanceLib.learning.precision import without_tf32
        from MedEnhanceLib.unicompress.codecs.implicit.settings import ImplicitConfig
        from MedEnhanceLib.unicompress.codecs.implicit.two_stages import (
            ImplicitTrainer,
            TrainingBlocks,
            make_source,
        )

        blocks = TrainingBlocks([make_source(self._head(0))])
        with without_tf32():
            trainer = ImplicitTrainer(ImplicitConfig.preset(self.sizes.preset), blocks, self.device)
            return self._steps_per_s(trainer.step)

    def distill(self) -> Row:
        """Steps per second of matching and teaching, and seconds of a patient."""
        from MedEnhanceLib.jobs.teaching.matched_networks import make_networks
        from MedEnhanceLib.spg.config import DistillConfig
        from MedEnhanceLib.spg.patient import seconds_of_a_patient

        config = DistillConfig.preset(self.sizes.preset)
        seconds = seconds_of_a_patient(config, "MR", make_networks, self.device)
        return {"steps_per_s": round(config.loop.steps / seconds, 2), "patient_s": round(seconds)}

    def resume(self) -> Row:
        """How far volumes of a resumed distillation are from those of one that was not stopped."""
        from MedEnhanceLib.errors import Cancelled
        from MedEnhanceLib.jobs.teaching.matched_networks import make_networks
        from MedEnhanceLib.runtime.progress import Monitor
        from MedEnhanceLib.spg.config import DistillConfig
        from MedEnhanceLib.spg.matching import Raw
        from MedEnhanceLib.spg.patient import distill_patient
        from MedEnhanceLib.spg.prepare import Brick, Prior

        config = DistillConfig.preset("smoke")
        rng, size = np.random.default_rng(0), config.size
        shape = (size.slices, size.side, size.side)
        voxels = rng.uniform(0.4, 0.9, (3, *shape)).astype(np.float32)
        raw = Raw(
            [Brick(voxels[0], (1.0,) * 3)], Prior(voxels[1:], ((1.0, 1.0),) * 2, "file"), "MR"
        )
        whole, again = (
            distill_patient(raw, config, make_networks, self.device).volumes for _ in range(2)
        )
        with tempfile.TemporaryDirectory() as folder:
            checks = iter(range(10_000))
            stop = Monitor(cancel=lambda: next(checks) >= config.loop.steps // 2)
            with contextlib.suppress(Cancelled):
                distill_patient(
                    raw, config, make_networks, self.device, folder=Path(folder), monitor=stop
                )
            is_stopped = any(Path(folder).iterdir())
            resumed = distill_patient(raw, config, make_networks, self.device, folder=Path(folder))
        return {
            "stopped": is_stopped,
            "changed": float(np.abs(whole - voxels[1:]).max()),
            "resumed_differs": float(np.abs(resumed.volumes - whole).max()),
            "repeated_differs": float(np.abs(again - whole).max()),
        }

    def two_processes(self) -> Row:
        """Two processes on one card at once, each its row `distill`."""
        command = [sys.executable, __file__, "--row", "distill", "--device", self.device]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        rows = [json.loads(process.communicate()[0].splitlines()[-1]) for process in both]
        return {"steps_per_s": [row["steps_per_s"] for row in rows]}

    # --- part 4 ----------------------------------------------------------------------------------

    def trained(self, recipe: Path, data: Path, out: Path, seconds: float) -> Row:
        """A piece of a training by a shipped recipe with the full preset's network and steps.

        It begins with new weights: those of the CPU's recipe are of a smaller network.
        """
        from MedEnhanceLib.errors import Cancelled
        from MedEnhanceLib.jobs.kinds.train import train_method, training_config
        from MedEnhanceLib.runtime.progress import Event, Monitor

        fields = json.loads(recipe.read_text())
        fields |= {"preset": self.sizes.preset, "device": self.device}
        fields.pop("steps", None)
        method = "slices" if recipe.stem.endswith("slices") else "hqg"
        end, stages = time.monotonic() + seconds, [""]

        def listen(event: Event) -> None:
            if event.kind == "progress":
                stages.append(event.fields["stage"])

        monitor = Monitor(listen, lambda: time.monotonic() > end)
        try:
            model = train_method(method, training_config(method, fields), data, out, monitor)
        except Cancelled as error:
            return {"finished": False, "stopped": error.message, "stage": stages[-1]}
        return {"finished": True, "model": str(model)}

    # --- how -------------------------------------------------------------------------------------

    def _warm(self, **options: Any) -> Row:
        run = self._enhancer(slices=self.sizes.slices, **options)
        self._enhancer(slices=min(self.sizes.slices, 40), **options)()
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

    def _enhancer(
        self, *, slices: int, warnings: list[str] | None = None, **options: Any
    ) -> Callable[[], Any]:
        from MedEnhanceLib.hqg import EnhanceConfig, enhance
        from MedEnhanceLib.runtime.progress import Event, Monitor

        def listen(event: Event) -> None:
            if event.kind == "warning" and warnings is not None:
                warnings.append(event.fields["message"])

        volume = self._ct(slices, self.sizes.side)
        config = EnhanceConfig(model="ct", device=self.device, **options)
        return lambda: enhance(volume, config, monitor=Monitor(listen))

    def _timed(self, work: Callable[[], Any]) -> tuple[Any, float, float]:
        """What it returns, wall and host seconds, the device's work included."""
        torch.cuda.synchronize(self.device)
        wall, cpu = time.monotonic(), time.process_time()
        result = work()
        torch.cuda.synchronize(self.device)
        return result, time.monotonic() - wall, time.process_time() - cpu

    def _steps_per_s(self, step: Callable[[int], Any]) -> Row:
        for number in range(3):
            step(number)
        count = self.sizes.steps
        _, wall, cpu = self._timed(lambda: [step(number) for number in range(3, 3 + count)])
        return {
            "steps_per_s": round(count / wall, 2),
            "host_s_per_step": round(cpu / count, 4),
        }

    def _head(self, seed: int) -> Any:
        """A ball with texture and noise, MR."""
        from MedEnhanceLib.core.geometry import Geometry
        from MedEnhanceLib.core.volume import Volume

        k, j, i = np.mgrid[tuple(slice(-1, 1, n * 1j) for n in self.sizes.head)]
        smooth = (k**2 + j**2 + i**2 < 0.9) * (500 + 150 * np.sin(5 * i + seed) * np.cos(4 * j))
        voxels = np.abs(smooth + np.random.default_rng(seed).normal(0, 3, k.shape))
        return Volume(voxels.astype(np.int16), Geometry((0.8, 0.8, 1.0)), modality="MR")

    @staticmethod
    def _ct(slices: int, side: int) -> Any:
        from speed import _ct

        volume = _ct(slices)
        return replace(volume, voxels=np.ascontiguousarray(volume.voxels[:, :side, :side]))


PARTS: dict[int, dict[str, Callable[[Bench], Row]]] = {
    1: {
        "facts": Bench.facts,
        "tests": Bench.tests,
        "agreement": Bench.agreement,
        "networks": Bench.networks_agreement,
        "filter": Bench.filter_agreement,
    },
    2: {
        "warm": Bench.warm,
        "profile": Bench.profile,
        "ladder": Bench.ladder,
    },
    3: {
        "implicit": Bench.implicit,
        "distill": Bench.distill,
        "resume": Bench.resume,
        "two processes": Bench.two_processes,
    },
}


def _piece_of(name: str) -> Callable[[Bench], Row]:
    return lambda bench: bench.trained(
        RECIPES / f"{name}.json", SHARED_DATA, _MODELS / name, _PIECE_SECONDS
    )


PARTS[4] = {name: _piece_of(name) for name in ("ct", "mr", "ct-slices", "mr-slices")}
#: Where a person puts what a part found.
_PAGES = {
    1: "docs/devices.md: agreement and filter, as bounds",
    2: "Testing/Benchmarks/results/speed.json: run speed.py there; ladder, batches and warm "
    "say whether _GPU_PIXELS in MedEnhanceLib/gradprom/slice_runner.py is right",
    3: "docs/devices.md: resume, as the bound of resuming; docs/training.md: steps per second",
    4: "enhancement.json and slices.json there: measure the finished models there",
}


def main() -> int:
    """Run a part, or for another process one row; the exit status."""
    parser = parser_of(__doc__)
    selection = parser.add_mutually_exclusive_group()
    selection.add_argument("--part", type=int, choices=PARTS, default=1)
    selection.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no CUDA device here that PyTorch can use: nothing is measured.")
        return 0 if QUICK else NO_DEVICE
    bench = Bench(device=options.device)
    if options.row:
        rows = {name: row for part in PARTS.values() for name, row in part.items()}
        print(json.dumps(rows[options.row](bench)))
        return 0
    missing = run_part(bench, options.part, (options.out or KEPT) / "cuda.jsonl")
    print(f"For {_PAGES[options.part]}.")
    if missing:
        print(f"Not finished for lack of time: {', '.join(missing)}. Run the same command again.")
    return 0


def run_part(bench: Bench, part: int, results: Path) -> list[str]:
    """Measure the rows of a part that this commit has not measured; returns those left out.

    A row that fails is recorded with its error, and does not keep the others from being measured.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    lines = results.read_text().splitlines() if results.is_file() else []
    at = commit()
    rows = [row for row in map(json.loads, lines) if row["commit"] == at or part == 4]
    finished = {row["row"] for row in rows if row.get("finished", True)}
    begun, missing = time.monotonic(), []
    for name, measure in PARTS[part].items():
        if name in finished:
            continue
        if time.monotonic() - begun > _SECONDS:
            missing.append(name)
            continue
        row_begun = time.monotonic()
        try:
            row = measure(bench)
        except Exception as error:  # noqa: BLE001 - the other rows are worth as much
            row = {"error": f"{type(error).__name__}: {error}"[:500]}
        if not row.get("finished", True):
            missing.append(name)
        seconds = round(time.monotonic() - row_begun, 1)
        line = json.dumps({"commit": at, "part": part, "row": name, "seconds": seconds, **row})
        print(line, flush=True)
        with results.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    return missing


if __name__ == "__main__":
    sys.exit(main())
