"""The job that compares ways to a small training set on a user's own cohort."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.manifest import make_manifest
from MedEnhanceLib.errors import Cancelled, ConfigError, OutputError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.jobs.kinds.distill import refuse_among_patients
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.spg.config import DistillConfig

BUDGETS = ("small", "ordinary")
_JSON, _TEXT, _CURVE, _PAGE = "comparison.json", "comparison.md", "comparison.png", "index.html"
_ROWS = "rows.jsonl"
_RESULTS = (_JSON, _TEXT, _CURVE, _PAGE, _ROWS)
#: What tells two comparisons of one folder apart, besides the distillation's configuration.
_ASKED = ("budget", "seeds", "draws", "steps")


@dataclass(frozen=True, kw_only=True)
class CompareParams:
    """cohort, pattern, modality: as DistillParams has them. out: a folder; what was measured there
    before is not measured again.

    config: fields of spg.DistillConfig: the task, the prior, the images, the loop at the small
    budgets. budget: "small": one and four crops, and one image, in all; "ordinary": images of each
    patient besides, which takes as long as a distillation. seeds: of each arm; draws: of the
    random coreset. steps: of a training, the same for all. overwrite: measure everything again.
    """

    cohort: str
    out: str
    config: dict[str, Any] = field(default_factory=dict)
    budget: str = "small"
    seeds: int = 3
    draws: int = 10
    steps: int = 600
    pattern: str = "*"
    modality: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.budget not in BUDGETS:
            raise ConfigError(f"budget is {self.budget!r}", f"Use {' or '.join(BUDGETS)}.")


def run_compare(params: CompareParams, monitor: Monitor, cohort: Cohort | None = None) -> Result:
    """Measure all arms, or go on; the tables, the curve and the page.

    One that is finished, of the same data with the same options, is left as it is. cohort: in
    place of the one that the parameters name.
    """
    began = time.monotonic()
    out = Path(params.out)
    distill = DistillConfig.from_json(params.config)
    if cohort is None:
        refuse_among_patients(out, Path(params.cohort))
    _own(out, params.overwrite)
    for package in ("torch", "monai.losses"):
        attend(lambda package=package: require(package, purpose="Comparing"), monitor)  # type: ignore[misc]
    from MedEnhanceLib.spg.arms.comparison import (
        CompareConfig,
        measure,
        ordinary_budget,
        small_budgets,
    )
    from MedEnhanceLib.spg.arms.material import gather
    from MedEnhanceLib.spg.arms.rows import RowStore
    from MedEnhanceLib.spg.restorer import RestorerConfig
    from MedEnhanceLib.spg.slices import data_sha256

    if cohort is None:
        cohort = Cohort.open(params.cohort, pattern=params.pattern, modality=params.modality)
    material = gather(cohort, distill, monitor.part(0.0, 0.05))
    everything = [*material.training.values(), *material.held_out.values(), material.public]
    asked = {name: value for name, value in asdict(params).items() if name in _ASKED}
    asked["data_sha256"] = data_sha256(everything)
    asked |= {"patients": len(material.training), "held_out": len(material.held_out)}
    if (out / _JSON).exists():
        return _finished(out, distill.told(), asked, monitor)
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
            "cancelled; what was measured is kept", "Start again with the same line to go on."
        ) from cause
    results = _write(out, rows, material.modality, distill, asked, time.monotonic() - began)
    return _told(out, results, time.monotonic() - began)


def rows_of(result: Result) -> list[dict[str, Any]]:
    """All that was measured: arm, budget, seed, network, psnr_db and more of each training."""
    told = json.loads((Path(result.fields["outputs"]["output"]) / _JSON).read_text("utf-8"))
    rows: list[dict[str, Any]] = told["results"]["rows"]
    return rows


def _told(out: Path, results: dict[str, Any], seconds: float) -> Result:
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
    """What a finished comparison said; raises OutputError where it was another one."""
    try:
        before = json.loads((out / _JSON).read_text(encoding="utf-8"))
        same = before["config"] == config and before["results"]["asked"] == asked
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise OutputError(
            f"{out} holds a finished comparison of other data or with other options",
            "Name another folder, or allow that it is made anew (--force, overwrite=True).",
        )
    monitor.progress(1.0, "was finished already")
    return _told(out, before["results"], 0.0)


def _own(out: Path, overwrite: bool) -> None:
    """Make the folder; raise OutputError where something else lies in it."""
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


def _write(
    out: Path,
    rows: list[dict[str, Any]],
    modality: str,
    distill: DistillConfig,
    asked: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    from MedEnhanceLib.io.atomic import atomic_write, write_json
    from MedEnhanceLib.report.page import Page, Picture, Table, write_page
    from MedEnhanceLib.spg.arms import report

    title = f"Distillation compared: {modality} {distill.task}"
    tables = {
        "Quality": report.quality_table(rows),
        "Gaps closed": report.closure_table(rows),
        "Other networks": report.network_table(rows),
    }
    said = report.words(rows)
    report.draw_curve(out / _CURVE, rows, title)
    loop = distill.loop
    how = (
        f"{asked['patients']} patients were learned from, {asked['held_out']} held out. Trainings "
        f"of {asked['steps']} steps, {asked['seeds']} seeds of each arm, {asked['draws']} draws of "
        f"raw images; {loop.outer} × {loop.inner} matches. Fewer steps, seeds or matches than the "
        "defaults say little."
    )
    parts = [f"# {title}", "\n".join(said), how, report.NOTE, f"![Quality over budgets]({_CURVE})"]
    parts += [f"## {name}\n\n{report.markdown_table(*table)}" for name, table in tables.items()]
    with atomic_write(out / _TEXT, overwrite=True) as temporary:
        temporary.write_text("\n\n".join(parts), encoding="utf-8")
    page = Page(
        title,
        about=[("task", distill.task), ("modality", modality)],
        summary=said,
        tables=[Table(name, tuple(head), lines) for name, (head, lines) in tables.items()],
        pictures=[Picture(_CURVE, "Quality over budgets", "PSNR of each arm over budgets")],
        notes=[how, report.NOTE],
    )
    write_page(out, page, overwrite=True)
    results = {"summary": said, "rows": rows, "asked": asked}
    manifest = make_manifest(
        "compared",
        config=distill.told(),
        inputs={},
        device="cpu",
        seconds=seconds,
        results=results,
    )
    write_json(out / _JSON, manifest, overwrite=True)
    return results
