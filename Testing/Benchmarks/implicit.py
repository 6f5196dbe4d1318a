"""The implicit network by itself: student and teacher, and what its codes bring.

    python Testing/Benchmarks/implicit.py            writes results/implicit.json
    python Testing/Benchmarks/implicit.py --quick    a few steps, into runs/benchmarks
    python Testing/Benchmarks/implicit.py --times    only the times anew, all other rows stay

Short trainings, all of the same length but where it is said, on volumes that the shipped models
learn from; measured on blocks of volumes that nothing is trained on. What whole files of it come
to is measured by `compression.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from _common import REPOSITORY, RESULTS, SHARED_DATA, gate, write
from _compression_volumes import load_subjects

from MedEnhanceLib.jobs.kinds.train_codec import CodecTraining
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.codecs.implicit.config import ImplicitConfig
from MedEnhanceLib.unicompress.codecs.implicit.decoder import Decoder, positions_of
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import Networks
from MedEnhanceLib.unicompress.codecs.implicit.trainer import (
    Blocks,
    Source,
    Trainer,
    make_source,
    read_sources,
)

_RECIPE = REPOSITORY / "docs" / "recipes" / "codec-all-implicit.json"
_TESTED = ("STS_013", "L20", "medulla_v_z0")
_TEACHER_STEPS, _STUDENT_STEPS = 40, 140
#: A test volume's slices are parted so often; of each part two blocks are decoded.
_PARTS = 8
_BLOCKS, _SEED = 2, 1_000_003
#: The network's scale goes from −1 to 1, nearly.
_PEAK = 2.0
#: The block that is decoded for the time, in voxels and cells, and how often the quickest is
#: looked for.
_BLOCK, _CELLS, _REPEATS = (32, 64, 64), (4, 8, 8), 3
_WITHIN_DB, _FASTER, _SMALLER = 0.5, 4.0, 8.0
Psnr = dict[str, float]


class Validation:
    """Fixed blocks of a source, each decoded at its middle slice."""

    def __init__(self, source: Source) -> None:
        rng = np.random.default_rng(_SEED)
        self._blocks, self._thick = Blocks([source]).draw(_BLOCKS, rng)

    @torch.no_grad()
    def psnr(self, networks: Networks, decoder: Decoder) -> float:
        """In dB, against a peak of 2 on the network's scale."""
        blocks, thick = self._blocks, self._thick
        used = torch.full((len(blocks),), networks.tokenizer.refinements)
        tokens = networks.tokenizer(blocks, used, thick=thick)
        middle = blocks.shape[2] // 2
        rows, columns = (torch.arange(extent) for extent in blocks.shape[3:])
        voxels = torch.cartesian_prod(torch.tensor([middle]), rows, columns)
        positions = positions_of(voxels, thick=thick)[None, :, None]
        positions = positions.expand(len(blocks), -1, -1, -1)
        values = decoder(tokens.low, tokens.high, positions).values[..., 0]
        error = torch.mean((values - blocks[:, 0, middle].flatten(1)) ** 2)
        return float(10 * np.log10(_PEAK**2 / max(float(error), 1e-12)))


@dataclass(frozen=True)
class Bench:
    """Volumes to learn from and to measure on, and the configuration of a training."""

    config: ImplicitConfig
    sources: list[Source]
    tests: dict[str, list[Validation]]

    def train(
        self, config: ImplicitConfig, change: Callable[[Trainer], None] = lambda _: None
    ) -> tuple[Trainer, Psnr]:
        """A training to its end, and what the teacher reached before the student began."""
        wanted = [s for s in self.sources if config.modality in ("all", s.modality)]
        trainer = Trainer(config, Blocks(wanted), "cpu")
        change(trainer)
        taught: Psnr = {}
        for number in range(config.steps):
            if number == config.teacher_steps:
                taught = self.psnr(trainer, trainer.networks.teacher)
            trainer.step(number)
        return trainer, taught

    def psnr(self, trainer: Trainer, decoder: Decoder) -> Psnr:
        """Mean PSNR in dB over blocks of each test volume, on the network's scale."""
        return {
            modality: float(np.mean([part.psnr(trainer.networks, decoder) for part in parts]))
            for modality, parts in self.tests.items()
        }


def main() -> None:
    """Train, measure, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    if options.times:
        _measure_times()
        return
    options.seeds = 1 if options.quick else options.seeds
    bench = _bench(options.quick)
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for row in (*_students(bench, seed), *_arms(bench, seed)):
            print(json.dumps(row), flush=True)
            rows.append(row)
    _write(rows, bench.config, REPOSITORY / "runs" / "benchmarks" if options.quick else RESULTS)


def _measure_times() -> None:
    """Decode anew with networks that have learned nothing, which takes as long."""
    rows = json.loads((RESULTS / "implicit.json").read_text(encoding="utf-8"))["rows"]
    config = _config(quick=False)
    networks = Networks(config.token, config.teacher, config.student)
    for row in rows:
        if row["part"] == "student":
            row.update(_times(networks, config, row["arm"]))
    _write(rows, config, RESULTS)


def _write(rows: list[dict[str, Any]], config: ImplicitConfig, out: Path) -> None:
    gates = _gates(rows)
    seeds = sorted({row["seed"] for row in rows})
    write("implicit", gates=gates, rows=rows, seeds=seeds, folder=out)


def _recipe() -> CodecTraining:
    return CodecTraining.from_json(json.loads(_RECIPE.read_text(encoding="utf-8")))


def _config(*, quick: bool) -> ImplicitConfig:
    changes = {
        "teacher_steps": 2 if quick else _TEACHER_STEPS,
        "student_steps": 4 if quick else _STUDENT_STEPS,
        "device": "cpu",
    }
    config = replace(_recipe().config, **changes)
    assert isinstance(config, ImplicitConfig)
    return config


def _bench(quick: bool) -> Bench:
    config = _config(quick=quick)
    tests: dict[str, list[Validation]] = {}
    for subject, volume in load_subjects(False, list(_TESTED)):
        whole = make_source(volume)
        slabs = np.array_split(whole.voxels, min(_PARTS, len(whole.voxels) // 32) or 1)
        tests[subject.modality] = [Validation(replace(whole, voxels=slab)) for slab in slabs]
    files = _recipe().sources.found(SHARED_DATA)
    return Bench(config, read_sources(files, config.modality, Monitor()), tests)


def _row(
    part: str, arm: str, seed: int, psnr: Mapping[str, float], **more: object
) -> dict[str, Any]:
    return {"part": part, "arm": arm, "seed": seed, "psnr_db": _rounded(psnr), **more}


def _rounded(psnr: Mapping[str, float]) -> Psnr:
    return {modality: round(value, 3) for modality, value in psnr.items()}


def _students(bench: Bench, seed: int) -> Iterator[dict[str, Any]]:
    """Teacher before the student begins, student at the end; weights, and time to decode."""
    trainer, taught = bench.train(replace(bench.config, seed=seed))
    networks = trainer.networks
    for name, decoder, psnr in (
        ("teacher", networks.teacher, taught),
        ("student", networks.student, bench.psnr(trainer, networks.student)),
    ):
        weights = sum(weight.numel() for weight in decoder.parameters())
        times = _times(networks, bench.config, name)
        yield _row("student", name, seed, psnr, weights=weights, **times)
    yield _row("arm", "as it is", seed, bench.psnr(trainer, networks.student))


def _times(networks: Networks, config: ImplicitConfig, name: str) -> dict[str, float]:
    """Processor seconds for a block."""
    grids = torch.randn(2, 1, config.token.latent, *_CELLS)
    decoder = getattr(networks, name)
    return {"decode_s": _quickest(lambda: decoder.decode(*grids, _BLOCK, thick=False))}


def _quickest(work: Callable[[], None]) -> float:
    found = []
    for _ in range(_REPEATS):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return round(min(found), 4)


def _arms(bench: Bench, seed: int) -> Iterator[dict[str, Any]]:
    """Without one part each, trained as long."""
    details = replace(bench.config.token, order="0" * len(bench.config.token.order))
    trainer, _ = bench.train(replace(bench.config, seed=seed, token=details))
    psnr = bench.psnr(trainer, trainer.networks.student)
    yield _row("arm", "no details (high band off)", seed, psnr)
    for name, start in (("random codebooks", _random_codebooks), ("no codes at all", _without)):
        trainer, _ = bench.train(replace(bench.config, seed=seed), start)
        yield _row("arm", name, seed, bench.psnr(trainer, trainer.networks.student))


def _random_codebooks(trainer: Trainer) -> None:
    """Of the right spread, and nothing else; they never learn."""
    for quantizer in trainer.networks.tokenizer.quantisers:
        start = quantizer.start

        def random(latents: torch.Tensor, quantizer: Any = quantizer, start: Any = start) -> None:
            start(latents)
            books = quantizer.codebooks
            spread = books.std(dim=1, keepdim=True)
            books.copy_(books.mean(dim=1, keepdim=True) + spread * torch.randn_like(books))

        quantizer.start, quantizer._learn = random, lambda *_: None


def _without(trainer: Trainer) -> None:
    """Both networks are cut off from the codes."""
    for network in (trainer.networks.teacher, trainer.networks.student):
        network.fusion.register_forward_hook(lambda _, __, found: tuple(0 * f for f in found))


def _mean(rows: Sequence[Mapping[str, Any]], part: str, arm: str, modality: str) -> float:
    return float(np.mean(_all(rows, part, arm, modality)))


def _all(rows: Sequence[Mapping[str, Any]], part: str, arm: str, modality: str) -> list[float]:
    return [
        row["psnr_db"][modality]
        for row in rows
        if (row["part"], row["arm"]) == (part, arm) and modality in row["psnr_db"]
    ]


def _gates(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    teacher, student = (
        next(row for row in rows if row["arm"] == name) for name in ("teacher", "student")
    )
    below = max(
        _mean(rows, "student", "teacher", m) - _mean(rows, "student", "student", m)
        for m in teacher["psnr_db"]
    )
    smaller = teacher["weights"] / student["weights"]
    faster = teacher["decode_s"] / student["decode_s"]
    found = [
        gate("student below the teacher, most (dB)", below, "≤ 0.5", below <= _WITHIN_DB),
        gate("student smaller by (weights)", smaller, "≥ 8", smaller >= _SMALLER),
        gate("student decodes faster by", faster, "≥ 4", faster >= _FASTER),
    ]
    for arm in _arm_names(rows)[1:]:
        losses = [
            _mean(rows, "arm", "as it is", m) - _mean(rows, "arm", arm, m)
            for m in teacher["psnr_db"]
        ]
        loss = float(np.mean(losses))
        found.append(gate(f"{arm}: loses, mean (dB)", loss, "> 0", loss > 0))
    return found


def _arm_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["arm"] for row in rows if row["part"] == "arm"))


if __name__ == "__main__":
    main()
