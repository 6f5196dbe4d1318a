"""The page of a training: its curves, and what the network makes of slabs that stay the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.report.enhance import make_folder
from MedEnhanceLib.report.page import Fact, FileEntry, Page, Picture, Table, write_page
from MedEnhanceLib.report.style import INK, MUTED, PAPER
from MedEnhanceLib.runtime.dependencies import require

Floats = npt.NDArray[np.float32]
_CURVES, _SAMPLES, _GATE = "curves.png", "samples.png", "gate.png"
_COLUMNS, _CELL_IN, _DPI = 3, (3.9, 2.3), 110
_MOST_SAMPLES, _SAMPLE_IN = 6, 2.1
_GATE_IN, _LAYERS_NAMED = (11.7, 3.0), 5
_PSNR = "psnr_db"
_LINE, _BEFORE = "#6cb6ff", "#e8762c"


class Samples(Protocol):
    """Slabs before and after: means of PSNR in dB and images [N, P, P] of one scale."""

    @property
    def psnr_db(self) -> float:
        """After, dB."""

    @property
    def input_psnr_db(self) -> float:
        """Before, dB."""

    @property
    def degraded(self) -> Floats:
        """What went in."""

    @property
    def enhanced(self) -> Floats:
        """What came out."""

    @property
    def target(self) -> Floats:
        """What should have come out."""

    @property
    def error(self) -> Floats:
        """How far off the network expects to be."""


class GateStory(Protocol):
    """How the gate of a task decided, over all steps in which the task taught."""

    @property
    def steps(self) -> int:
        """How many."""

    @property
    def open_fraction(self) -> float:
        """In which share of them it admitted something."""

    @property
    def cosine(self) -> float:
        """Mean, of the gradients of each step."""

    @property
    def average_cosine(self) -> float:
        """Mean, of the averaged gradients."""

    @property
    def angles(self) -> Sequence[int]:
        """Number of steps in equal parts of 0 to 180°."""

    @property
    def layer_cosines(self) -> Mapping[str, float]:
        """Mean of each layer, first to last."""


@dataclass(frozen=True, kw_only=True)
class TrainingStory:
    """What the page tells.

    step of steps: how far it is; ending: "finished", "still running", "stopped: …".
    curves: values by name, (step, value) each. skipped: steps whose gradients were not finite.
    samples: of the last validation. is_held_out: whether its slabs are of volumes that are not
    learned from. gate: of a task that teaches. config: as JSON. data: what the bundle's card says
    of the data.
    """

    name: str
    modality: str
    step: int
    steps: int
    ending: str
    seconds: float
    device: str
    processes: int = 1
    skipped: int = 0
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    samples: Samples | None = None
    gate: GateStory | None = None
    is_held_out: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    data: Sequence[Mapping[str, str]] = ()


def training_report(folder: Path, story: TrainingStory) -> Path:
    """Write index.html and its pictures into `folder`, in place of earlier ones; the page."""
    target = make_folder(folder)
    pictures = []
    if story.curves:
        _draw_curves(target / _CURVES, story)
        names = ", ".join(story.curves)
        pictures.append(Picture(_CURVES, "Curves", f"By step: {names}.", _CURVES_CAPTION))
    if story.samples is not None:
        _draw_samples(target / _SAMPLES, story.samples)
        pictures.append(Picture(_SAMPLES, "Samples", _SAMPLES_ALT, _SAMPLES_CAPTION))
    if story.gate is not None and story.gate.steps:
        _draw_gate(target / _GATE, story.gate)
        pictures.append(Picture(_GATE, "Gate of the task", _GATE_ALT, _gate_caption(story.gate)))
    page = Page(
        title=f"Training: {story.name}",
        about=_about(story),
        summary=_summary(story),
        facts=_facts(story),
        tables=_tables(story),
        pictures=pictures,
        files=[FileEntry(picture.file, picture.title.lower()) for picture in pictures],
        provenance={"Configuration": story.config},
        warnings=[story.ending] if story.ending.startswith("stopped") else (),
        notes=_notes(story),
    )
    return write_page(target, page, overwrite=True)


def _about(story: TrainingStory) -> list[tuple[str, str]]:
    processes = f", {story.processes} processes" if story.processes > 1 else ""
    return [
        ("Modality", story.modality),
        ("Device", story.device + processes),
        ("Steps", f"{story.step:,} of {story.steps:,}"),
        ("Time", _duration(story.seconds)),
        ("State", story.ending.partition(":")[0]),
    ]


def _summary(story: TrainingStory) -> list[str]:
    found = story.samples
    if found is None:
        return [f"{story.step:,} of {story.steps:,} steps are done; nothing was validated yet."]
    where = (
        "volumes that it does not learn from"
        if story.is_held_out
        else "volumes that it also learns from (hold some out to see more: held_out)"
    )
    change = found.psnr_db - found.input_psnr_db
    return [
        f"PSNR {'rose' if change > 0 else 'fell'} by {abs(change):.1f} dB on fixed slabs of "
        f"{where}, damaged by simulation.{_learned(story, found)}",
        f"It is {story.ending.partition(':')[0]}: step {story.step:,} of {story.steps:,}.",
    ]


def _learned(story: TrainingStory, found: Samples) -> str:
    """What of the change came by learning: a network begins with a removal of noise."""
    curve = story.curves.get(_PSNR)
    if not curve:
        return ""
    step, before = curve[0]
    return f" Of that, {found.psnr_db - before:+.1f} dB came after step {step:,}."


def _facts(story: TrainingStory) -> list[Fact]:
    facts = [Fact(_duration(story.seconds), f"on {story.device}")]
    if story.seconds > 0 and story.step:
        facts.append(Fact(f"{story.step / story.seconds:.3g}", "steps per second"))
    if story.samples is not None:
        before, after = story.samples.input_psnr_db, story.samples.psnr_db
        facts.insert(0, Fact(f"{before:.1f} → {after:.1f}", "PSNR of the fixed slabs, dB"))
    return facts


def _tables(story: TrainingStory) -> list[Table]:
    tables = []
    if story.curves:
        rows = [
            (name, f"{curve[0][1]:.4g}", f"{min(v for _, v in curve):.4g}", f"{curve[-1][1]:.4g}")
            for name, curve in story.curves.items()
        ]
        heads = ("Measured", "First", "Least", "Last")
        tables.append(Table("Losses and scores", heads, rows, _LOSSES_NOTE))
    if story.gate is not None and story.gate.layer_cosines:
        against = sorted(story.gate.layer_cosines.items(), key=lambda layer: layer[1])
        cells = [(name, f"{cosine:+.3f}") for name, cosine in against[:_LAYERS_NAMED]]
        tables.append(Table("Where the task agrees least", ("Layer", "Mean cosine"), cells))
    if story.data:
        fields = ("name", "subjects", "licence", "source")
        rows_of_data = [[str(entry.get(name, "")) for name in fields] for entry in story.data]
        tables.append(Table("Data", ("Data", "Subjects", "Licence", "Source"), rows_of_data))
    return tables


def _notes(story: TrainingStory) -> list[str]:
    notes = ["The damage is simulated: how a real scan gains is not measured here."]
    if story.skipped:
        notes.append(f"{story.skipped} steps were left out: their gradients were not finite.")
    return notes


def _draw_curves(path: Path, story: TrainingStory) -> None:
    figures = require("matplotlib.figure", purpose="Drawing pictures")
    # What matters most comes first.
    names = sorted(story.curves, key=lambda name: name != _PSNR)
    rows = math.ceil(len(names) / _COLUMNS)
    size = (_COLUMNS * _CELL_IN[0], rows * _CELL_IN[1])
    figure = figures.Figure(figsize=size, dpi=_DPI, facecolor=PAPER, layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, _COLUMNS, index + 1)
        _dark(axes, name)
        steps, values = zip(*story.curves[name], strict=True)
        axes.plot(steps, values, color=_LINE, linewidth=1.3, marker="." if len(steps) < 9 else "")
        if name == _PSNR and story.samples is not None:
            axes.axhline(story.samples.input_psnr_db, color=_BEFORE, linewidth=1, linestyle="--")
    _save(path, figure)


def _draw_gate(path: Path, gate: GateStory) -> None:
    figures = require("matplotlib.figure", purpose="Drawing pictures")
    figure = figures.Figure(figsize=_GATE_IN, dpi=_DPI, facecolor=PAPER, layout="constrained")
    angles, layers = figure.subplots(1, 2)
    _dark(angles, "steps by angle between the gradients, degrees")
    width = 180 / len(gate.angles)
    middles = [(index + 0.5) * width for index in range(len(gate.angles))]
    colours = [_LINE if middle < 90 else _BEFORE for middle in middles]
    angles.bar(middles, gate.angles, width=0.9 * width, color=colours)
    angles.set_xticks(range(0, 181, 30))
    _dark(layers, "mean cosine of each layer, first to last")
    cosines = list(gate.layer_cosines.values())
    colours = [_LINE if cosine > 0 else _BEFORE for cosine in cosines]
    layers.bar(range(1, len(cosines) + 1), cosines, color=colours)
    _save(path, figure)


def _gate_caption(gate: GateStory) -> str:
    return (
        f"It was open in {gate.open_fraction:.0%} of {gate.steps:,} steps. Mean cosine of a step's "
        f"two gradients {gate.cosine:+.3f}, of their averages {gate.average_cosine:+.3f}. Both "
        "losses of a step share its noise: where the first is far above the second, the agreement "
        "of single steps is that of their noise."
    )


def _dark(axes: Any, title: str) -> None:
    axes.set_facecolor(PAPER)
    axes.set_title(title, color=INK, fontsize=9.5, loc="left", parse_math=False)
    axes.tick_params(colors=MUTED, labelsize=7.5, length=2)
    axes.grid(color="#222a33", linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color("#2a333f")


def _draw_samples(path: Path, samples: Samples) -> None:
    figures = require("matplotlib.figure", purpose="Drawing pictures")
    count = min(_MOST_SAMPLES, len(samples.target))
    rows = {
        "degraded": samples.degraded,
        "enhanced": samples.enhanced,
        "target": samples.target,
        "expected error": samples.error,
    }
    size = (count * _SAMPLE_IN + 0.3, len(rows) * _SAMPLE_IN)
    figure = figures.Figure(figsize=size, dpi=_DPI, facecolor=PAPER, layout="constrained")
    brightest = float(np.percentile(samples.error[:count], 99.5)) or 1.0
    for row, (name, images) in enumerate(rows.items()):
        for column in range(count):
            axes = figure.add_subplot(len(rows), count, row * count + column + 1)
            axes.set_xticks([])
            axes.set_yticks([])
            low, high = np.percentile(samples.target[column], (0.5, 99.5))
            is_error = name == "expected error"
            axes.imshow(
                images[column],
                cmap="inferno" if is_error else "gray",
                vmin=0 if is_error else low,
                vmax=brightest if is_error else max(high, low + 1e-3),
            )
            if column == 0:
                axes.set_ylabel(name, color=MUTED, fontsize=9)
    _save(path, figure)


def _save(path: Path, figure: Any) -> None:
    agg = require("matplotlib.backends.backend_agg", purpose="Drawing pictures")
    with atomic_write(path, overwrite=True) as temporary:
        agg.FigureCanvasAgg(figure).print_png(str(temporary), metadata={"Software": "MedEnhance"})


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


_CURVES_CAPTION = (
    "Losses are running means, weighted as they are minimised. psnr_db: mean PSNR of the fixed "
    "slabs, peak 1 on the network's scale; dashed: of the slabs before enhancement."
)
_SAMPLES_ALT = "Rows: degraded, enhanced, target and expected error; a column for each slab."
_SAMPLES_CAPTION = (
    "Middle slices of the fixed slabs with the window of their target. Structure that is in the "
    "target and not in the enhanced image was lost; the other way round, it was invented."
)
_GATE_ALT = "Histogram of angles, and a bar for each layer; orange where the task disagrees."
_LOSSES_NOTE = "Weighted losses fall; how fast says little across configurations. PSNR should rise."
