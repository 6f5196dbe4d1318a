"""The implicit network by itself: student and teacher, what its codes bring, other domains.

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
import math
import os
import tempfile
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

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.codecs.implicit.config import ImplicitConfig, TokenConfig
from MedEnhanceLib.unicompress.codecs.implicit.decoder import Decoder
from MedEnhanceLib.unicompress.codecs.implicit.export import decoder_arrays, token_arrays
from MedEnhanceLib.unicompress.codecs.implicit.integer import IntegerDecoder, tables
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import Networks
from MedEnhanceLib.unicompress.codecs.implicit.train import Validation
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
#: The block that is decoded for the time, in voxels and cells, and how often the quickest is
#: looked for. The same number of positions goes through the network at once as it trains.
_BLOCK, _CELLS, _REPEATS, _AT_ONCE = (32, 64, 64), (4, 8, 8), 3, 1024
_PAIRS = (("CT", "EM"), ("EM", "CT"), ("CT", "MR"), ("MR", "CT"))
_WITHIN_DB, _FASTER, _SMALLER = 0.5, 4.0, 8.0
Psnr = dict[str, float]


@dataclass(frozen=True)
class Bench:
    """Volumes to learn from and to measure on, and the configuration of a training."""

    config: ImplicitConfig
    sources: list[Source]
    tests: dict[str, list[Validation]]

    def train(self, config: ImplicitConfig) -> tuple[Trainer, Psnr]:
        """A training to its end, and what the teacher reached before the student began."""
        wanted = [s for s in self.sources if config.modality in ("all", s.modality)]
        trainer = Trainer(config, Blocks(wanted), "cpu")
        taught: Psnr = {}
        for number in range(trainer.steps):
            if number == config.teacher_steps:
                taught = self.psnr(trainer, trainer.networks.teacher)
            trainer.step(number)
        return trainer, taught

    def psnr(self, trainer: Trainer, decoder: Decoder) -> Psnr:
        """Mean PSNR in dB over blocks of each test volume, on the network's scale."""
        networks = trainer.networks
        layers = networks.tokeniser.refinements
        return {
            modality: float(
                np.mean([part.psnr(networks, decoder, layers)[modality] for part in parts])
            )
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
        for row in (*_students(bench, seed), *_arms(bench, seed), *_domains(bench, seed)):
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


def _config(*, quick: bool) -> ImplicitConfig:
    fields = json.loads(_RECIPE.read_text(encoding="utf-8"))
    fields.pop("part")
    return replace(
        ImplicitConfig.from_json(fields),
        teacher_steps=2 if quick else _TEACHER_STEPS,
        student_steps=4 if quick else _STUDENT_STEPS,
        device="cpu",
    )


def _bench(quick: bool) -> Bench:
    config = _config(quick=quick)
    tests: dict[str, list[Validation]] = {}
    for subject, volume in load_subjects(False, list(_TESTED)):
        whole = make_source(volume, subject.name)
        slabs = np.array_split(whole.voxels, min(_PARTS, len(whole.voxels) // 32) or 1)
        tests[subject.modality] = [Validation([replace(whole, voxels=slab)]) for slab in slabs]
    return Bench(config, read_sources(config, SHARED_DATA, Monitor()), tests)


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


@torch.no_grad()
def _times(networks: Networks, config: ImplicitConfig, name: str) -> dict[str, float]:
    """Processor seconds for a block: by the decoder of files, and by the network as it trains."""
    network, sizes = getattr(networks, name), getattr(config, name)
    for quantizer in networks.tokeniser.quantisers:
        quantizer.to_bytes()  # type: ignore[operator]
    facts = {field: str(getattr(sizes, field)) for field in ("heads", "depth", "scaled")}
    arrays = decoder_arrays(network) | token_arrays(networks.tokeniser) | tables()
    reader = IntegerDecoder(arrays, facts | {"order": config.token.order})
    layers = networks.tokeniser.refinements
    rng = np.random.default_rng(0)
    codes = rng.integers(0, config.token.codes, (layers, *_CELLS))
    grids = [torch.randn(1, config.token.latent, *_CELLS) for _ in range(2)]
    positions = torch.rand(1, math.prod(_BLOCK), 3) * torch.tensor(_BLOCK)

    def decode() -> None:
        reader.decode(reader.latents(codes, layers), _BLOCK, thick=False)

    def evaluate() -> None:
        for some in torch.split(positions, _AT_ONCE, dim=1):
            network(*grids, some)

    return {"decode_s": _quickest(decode), "network_s": _quickest(evaluate)}


def _quickest(work: Callable[[], None]) -> float:
    found = []
    for _ in range(_REPEATS):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return round(min(found), 4)


def _arms(bench: Bench, seed: int) -> Iterator[dict[str, Any]]:
    """Without one part each, trained as long."""
    token, student = bench.config.token, bench.config.student
    arms: dict[str, dict[str, Any]] = {
        "random codebooks": {"token": replace(token, codebook="random")},
        "no details (high band off)": {"token": _without_details(token)},
        "no codes at all": {
            "teacher": replace(bench.config.teacher, conditioned=False),
            "student": replace(student, conditioned=False),
        },
    }
    for name, changes in arms.items():
        trainer, _ = bench.train(replace(bench.config, seed=seed, **changes))
        yield _row("arm", name, seed, bench.psnr(trainer, trainer.networks.student))


def _without_details(token: TokenConfig) -> TokenConfig:
    """As many layers, all of the low band."""
    return replace(token, high_band=False, order="0" * len(token.order))


def _domains(bench: Bench, seed: int) -> Iterator[dict[str, Any]]:
    """One modality alone: by itself, by itself for twice as long, and after another one."""
    with tempfile.TemporaryDirectory() as folder:
        for modality in ("CT", "MR", "EM"):
            config = replace(bench.config, modality=modality, seed=seed)
            place = Path(folder) / modality
            place.mkdir()
            trainer, _ = bench.train(config)
            trainer.save(place / "checkpoint.safetensors", trainer.steps, 0.0)
            yield _domain_row(bench, trainer, modality, "itself", seed)
            twice = replace(
                config,
                teacher_steps=2 * config.teacher_steps,
                student_steps=2 * config.student_steps,
            )
            trainer, _ = bench.train(twice)
            yield _domain_row(bench, trainer, modality, "itself, twice as long", seed)
        for first, then in _PAIRS:
            start = str(Path(folder) / first)
            config = replace(bench.config, modality=then, seed=seed, start_from=start)
            trainer, _ = bench.train(config)
            yield _domain_row(bench, trainer, then, f"after {first}", seed)


def _domain_row(
    bench: Bench, trainer: Trainer, modality: str, arm: str, seed: int
) -> dict[str, Any]:
    psnr = bench.psnr(trainer, trainer.networks.student)[modality]
    return _row("domain", arm, seed, {modality: psnr})


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
    # The teacher is never read from files: against the quicker of both ways to evaluate it.
    faster = min(teacher["decode_s"], teacher["network_s"]) / student["decode_s"]
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
