"""The tumour head beside its twin that never saw the enhancer, on patients neither learned from.

    python Testing/Benchmarks/heads.py            writes results/heads.json
    python Testing/Benchmarks/heads.py --jobs 2   two trainings side by side, one thread each

Trainings are kept in runs/heads: what was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Before PyTorch comes in: several processes run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from _common import REPOSITORY, SHARED_DATA, write
from _enhancement_statistics import Difference, difference, difference_gate

from MedEnhanceLib import train
from MedEnhanceLib.gradprom import TrainHeadConfig
from MedEnhanceLib.gradprom.labeled import find_split
from MedEnhanceLib.gradprom.train import measure_held_out
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.runtime.progress import Monitor

RECIPE = REPOSITORY / "docs" / "recipes" / "sts-tumour-ct.json"
SHIPPED = REPOSITORY / "Resources" / "models" / "sts-tumour-ct"
FOLDER = REPOSITORY / "runs" / "heads"
WITH, WITHOUT, THAT_SHIPS = "with the enhancer", "without", "that ships"
CLEAN, DEGRADED, ENHANCED = "clean", "degraded", "enhanced"
_STATES = {
    ("undamaged", "as it is"): CLEAN,
    ("5,000 photons", "as it is"): DEGRADED,
    ("5,000 photons", "enhanced"): ENHANCED,
}
_NEAR, _MAY_LOSE = 0.03, 0.01

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--steps", type=int, help="of a training; the recipe's unless given")
    options = parser.parse_args()
    runs = [(kind, seed, options.steps) for seed in options.seeds for kind in (WITH, WITHOUT)]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        rows = [row for found in pool.map(trained, *zip(*runs, strict=True)) for row in found]
    if not ships_the_first():
        rows += rows_of(measured_in(SHIPPED), THAT_SHIPS, seed=0)
    gates = list(gates_of(rows))
    write("heads", gates=gates, rows=rows, seeds=options.seeds)


def ships_the_first() -> bool:
    """Whether the head that ships is the one of the recipe's own seed, to the byte."""
    name = json.loads(RECIPE.read_text(encoding="utf-8"))
    made = FOLDER / f"{name['name']}-{name['steps']}-{name['seed']}" / name["name"]
    model = Path("models", "model.safetensors")
    return (made / model).is_file() and (made / model).read_bytes() == (
        SHIPPED / model
    ).read_bytes()


def trained(kind: str, seed: int, steps: int | None) -> list[Row]:
    """Train a head, and what it finds in each patient that was held out."""
    recipe = json.loads(RECIPE.read_text(encoding="utf-8")) | {"seed": seed, "device": "cpu"}
    enhancer = recipe["enhancer"]
    if kind == WITHOUT:
        recipe |= {"enhancer": "", "name": f"{recipe['name']}-alone"}
    if steps:
        recipe["steps"] = steps
    out = FOLDER / f"{recipe['name']}-{recipe['steps']}-{seed}"
    folder = out / recipe["name"]
    if not folder.is_dir():
        train("head", recipe, SHARED_DATA, out)
    if f"{kind}, {ENHANCED}" not in {
        row["arm"] for row in rows_of(measured_in(folder), kind, seed)
    }:
        measure_enhanced(folder, recipe, enhancer)
    rows = rows_of(measured_in(folder), kind, seed)
    print(kind, seed, {(row["subject"], row["arm"]): row["dice"] for row in rows}, flush=True)
    return rows


def measure_enhanced(folder: Path, recipe: dict[str, Any], enhancer: str) -> None:
    """Measure a head that never saw the enhancer on enhanced images too."""
    config = TrainHeadConfig.from_json(recipe)
    _, held_out = find_split(config, SHARED_DATA)
    chosen = EnhanceConfig(model=enhancer, device="cpu")
    measure_held_out(
        folder,
        config,
        SHARED_DATA,
        held_out,
        Monitor(),
        lambda volume: enhance(volume, chosen).volume,
    )


def measured_in(folder: Path) -> list[dict[str, Any]]:
    """The figures of a head's card."""
    text = (folder / "configs" / "metadata.json").read_text(encoding="utf-8")
    measured: list[dict[str, Any]] = json.loads(text)["measured"]
    return measured


def rows_of(measured: list[dict[str, Any]], kind: str, seed: int) -> list[Row]:
    """Figures of single patients, as rows."""
    (label,) = (name for name in measured[0] if name.endswith("(Dice)"))
    return [
        {
            "subject": entry["subject"],
            "case": "all",
            "seed": seed,
            "arm": f"{kind}, {_STATES[entry['case'], entry['input']]}",
            "dice": entry[label],
        }
        for entry in measured
        if entry["subject"] != "mean"
    ]


def gates_of(rows: list[Row]) -> Iterator[dict[str, Any]]:
    near = compared(rows, f"{WITH}, {ENHANCED}", f"{WITH}, {CLEAN}")
    yield difference_gate(
        "Dice on enhanced less the same head on clean",
        near,
        f"≥ −{_NEAR}",
        near is not None and near.mean >= -_NEAR,
    )
    above = compared(rows, f"{WITH}, {ENHANCED}", f"{WITHOUT}, {DEGRADED}")
    yield difference_gate(
        "Dice on enhanced less the head trained without the enhancer, on degraded",
        above,
        "> 0",
        above is not None and above.mean > 0,
    )
    lost = compared(rows, f"{WITH}, {CLEAN}", f"{WITHOUT}, {CLEAN}")
    yield difference_gate(
        "Dice on clean less the head trained without the enhancer, on clean",
        lost,
        f"≥ −{_MAY_LOSE}",
        lost is not None and lost.mean >= -_MAY_LOSE,
    )


def compared(rows: list[Row], arm: str, other: str) -> Difference | None:
    return difference(rows, "dice", [("all", arm, other)])


if __name__ == "__main__":
    main()
