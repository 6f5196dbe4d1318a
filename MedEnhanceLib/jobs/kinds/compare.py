"""The job that compares ways to a small training set on a user's own cohort."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.errors import Cancelled, OutputError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.jobs.kinds.distill import CohortParams, refuse_among_patients
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend

_JSON, _PAGE, _ROWS = "comparison.json", "index.html", "rows.jsonl"
_RESULTS = (_JSON, "comparison.md", "comparison.png", _PAGE, _ROWS)
#: What must agree to resume a comparison, besides the distillation's configuration.
_ASKED = ("budget", "seeds", "draws", "steps")


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Params):
    """What is compared, and how often."""

    budget: Literal["small", "ordinary"] = option(
        "small",
        help="small: one and four crops, and one image, in all; ordinary: images of each patient "
        "besides, which takes as long as a distillation for each seed",
    )
    seeds: int = option(3, help="of each way", metavar="N")
    draws: int = option(10, help="of randomly chosen raw images", metavar="N")
    steps: int = option(600, help="of each training", metavar="N")
    overwrite: bool = option(
        False, help="replace existing outputs: measure everything again", flag="--force"
    )


@dataclass(frozen=True, kw_only=True)
class CompareParams(CompareOptions, CohortParams):
    """Compare a distillation with simpler ways; a comparison that was stopped goes on.

    The loop of `config` is that of the small budgets.
    """

    out: Annotated[str, About(help="a folder for tables, curve and page", flag="OUT")]


def run_compare(params: CompareParams, monitor: Monitor, cohort: Cohort | None = None) -> Result:
    """Measure all arms, or resume; writes the tables, the curve and the page.

    A finished comparison of the same data with the same options is left as it is. cohort: in place
    of the one that the parameters name.
    """
    began = time.monotonic()
    out = Path(params.out)
    distill = params.config
    if cohort is None:
        refuse_among_patients(out, Path(params.cohort))
    _own(out, params.overwrite)
    for package in ("torch", "monai.losses", "matplotlib"):
        attend(lambda package=package: require(package, purpose="Comparing"), monitor)  # type: ignore[misc]
    from MedEnhanceLib.spg.comparison import (
        CompareConfig,
        RowStore,
        measure,
        ordinary_budget,
        small_budgets,
    )
    from MedEnhanceLib.spg.comparison_arms import gather
    from MedEnhanceLib.spg.comparison_report import write_comparison
    from MedEnhanceLib.spg.images import data_sha256
    from MedEnhanceLib.spg.restorer import RestorerConfig

    if cohort is None:
        cohort = Cohort.open(params.cohort, pattern=params.pattern, modality=params.modality)
    material = gather(cohort, distill, monitor.part(0.0, 0.05))
    everything = [*material.training.values(), *material.held_out.values(), material.public]
    asked = {name: value for name, value in asdict(params).items() if name in _ASKED}
    asked["data_sha256"] = data_sha256(everything)
    asked |= {"patients": len(material.training), "held_out": len(material.held_out)}
    if (out / _JSON).exists():
        return _finished(out, distill.record(), asked, monitor)
    budgets = small_budgets(distill.images.size)
    if params.budget == "ordinary":
        budgets = (*budgets, ordinary_budget(distill.images_per_patient))
    config = CompareConfig(
        distill=replace(distill, seed=0),
        restorer=RestorerConfig(
            steps=params.steps, batch=4, patch=distill.loop.patch, learning_rate=3e-3
        ),
        budgets=budgets,
        seeds=params.seeds,
        draws=params.draws,
        ordinary=distill.loop.outer,
    )
    try:
        rows = list(measure(material, config, RowStore(out / _ROWS), monitor.part(0.05, 0.99)))
    except Cancelled as cause:
        raise Cancelled(
            "cancelled; what was measured is kept", "Run the same command again to resume."
        ) from cause
    seconds = time.monotonic() - began
    results = write_comparison(out, rows, material.modality, distill, asked, seconds)
    return _result(out, results, time.monotonic() - began)


def rows_of(result: Result) -> list[dict[str, Any]]:
    """The measured rows: arm, budget, seed, network, psnr_db and more of each training."""
    manifest = json.loads((Path(result.fields["outputs"]["output"]) / _JSON).read_text("utf-8"))
    rows: list[dict[str, Any]] = manifest["results"]["rows"]
    return rows


def _result(out: Path, results: dict[str, Any], seconds: float) -> Result:
    return Result(
        {
            "outputs": {"output": str(out)},
            "page": str(out / _PAGE),
            "seconds": round(seconds, 3),
            "summary": results["summary"],
            "measured": len(results["rows"]),
        }
    )


def _finished(out: Path, config: dict[str, Any], asked: dict[str, Any], monitor: Monitor) -> Result:
    """The result of a finished comparison; raises OutputError if it is another one."""
    try:
        before = json.loads((out / _JSON).read_text(encoding="utf-8"))
        same = before["config"] == config and before["results"]["asked"] == asked
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise OutputError(
            f"{out} holds a finished comparison of other data or with other options",
            "Name another folder, or replace it (--force, overwrite=True).",
        )
    monitor.progress(1.0, "was finished already")
    return _result(out, before["results"], 0.0)


def _own(out: Path, overwrite: bool) -> None:
    """Make the folder; raise OutputError if something else lies in it."""
    strange = sorted(
        entry.name
        for entry in (out.iterdir() if out.is_dir() else ())
        if entry.name not in _RESULTS and not entry.name.startswith(".")
    )
    if strange or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out} holds something else", "Name a new or empty folder.")
    out.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for name in _RESULTS:
            (out / name).unlink(missing_ok=True)
