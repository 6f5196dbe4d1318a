"""The page of a training: its curves, and the network's output on slabs that stay the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.report.drawing import (
    CONTRAST,
    LINE,
    darken,
    draw_curves,
    draw_image_grid,
    new_figure,
    save_figure,
)
from MedEnhanceLib.report.page import (
    Fact,
    FileEntry,
    Page,
    Picture,
    Table,
    duration_text,
    make_folder,
    write_page,
)

Floats = npt.NDArray[np.float32]
_CURVES, _SAMPLES, _GATE = "curves.png", "samples.png", "gate.png"
_MOST_SAMPLES = 6
_GATE_IN, _LAYERS_NAMED = (11.7, 3.0), 5
#: The metric of validations, and what the page calls it.
_PSNR, _PSNR_SHOWN = "psnr_db", "PSNR (dB)"


class Samples(Protocol):
    """The same slabs before and after: mean PSNR in dB, and images [N, P, P] on one scale."""

    @property
    def psnr_db(self) -> float:
        """After enhancement, dB."""

    @property
    def input_psnr_db(self) -> float:
        """Before enhancement, dB."""

    @property
    def degraded(self) -> Floats:
        """The input."""

    @property
    def enhanced(self) -> Floats:
        """The output."""

    @property
    def target(self) -> Floats:
        """The undamaged slabs."""

    @property
    def error(self) -> Floats:
        """The error that the network expects."""


class GateStory(Protocol):
    """Decisions of a task's gradient gate, over all steps that the task took part in."""

    @property
    def steps(self) -> int:
        """Number of steps."""

    @property
    def open_fraction(self) -> float:
        """Share of the steps in which a gradient was admitted."""

    @property
    def cosine(self) -> float:
        """Mean cosine between the gradients of each step."""

    @property
    def average_cosine(self) -> float:
        """Mean cosine between averaged gradients."""

    @property
    def angles(self) -> Sequence[int]:
        """Histogram: steps in equal parts of 0 to 180°."""

    @property
    def layer_cosines(self) -> Mapping[str, float]:
        """Mean cosine of each layer, first to last."""


@dataclass(frozen=True, kw_only=True)
class TrainingStory:
    """The state of a training, for its page.

    step, steps: done and planned. ending: "finished", "still running", "stopped: …".
    curves: by name, (step, value) each. skipped: steps whose gradients were not finite.
    samples: of the last validation. is_held_out: whether their volumes are left out of the
    training data. gate: of a task whose gradients are gated. config: as JSON. data: the training
    data as in the bundle's model card. summary: sentences in place of those about the samples.
    curves_note: sentences that say what the curves are.
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
    summary: Sequence[str] = ()
    curves_note: str = ""


def training_report(folder: Path, story: TrainingStory) -> Path:
    """Write index.html and its pictures into `folder`, replacing earlier ones.

    Returns the path of the page.
    """
    target = make_folder(folder)
    pictures = []
    if story.curves:
        # What matters most comes first.
        names = sorted(story.curves, key=lambda name: name != _PSNR)
        curves = {_shown(name): story.curves[name] for name in names}
        levels = {_PSNR_SHOWN: story.samples.input_psnr_db} if story.samples else {}
        draw_curves(target / _CURVES, curves, levels)
        alt = f"By step: {', '.join(curves)}."
        pictures.append(Picture(_CURVES, "Curves", alt, _curves_caption(story)))
    if story.samples is not None:
        found = story.samples
        images = {
            "degraded": found.degraded,
            "enhanced": found.enhanced,
            "target": found.target,
            "expected error": found.error,
        }
        draw_image_grid(
            target / _SAMPLES,
            {name: slabs[:_MOST_SAMPLES] for name, slabs in images.items()},
            reference="target",
            heat="expected error",
        )
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
        ("Time", duration_text(story.seconds)),
        ("State", story.ending.partition(":")[0]),
    ]


def _summary(story: TrainingStory) -> list[str]:
    found = story.samples
    if story.summary:
        return [*story.summary]
    if found is None:
        return [f"{story.step:,} of {story.steps:,} steps are done; nothing was validated yet."]
    where = (
        "held-out volumes"
        if story.is_held_out
        else "volumes of the training data (to hold some out instead: held_out)"
    )
    change = found.psnr_db - found.input_psnr_db
    return [
        f"PSNR {'rose' if change > 0 else 'fell'} by {abs(change):.1f} dB on fixed slabs of "
        f"{where}, with simulated degradation.{_learned(story, found)}",
        f"It is {story.ending.partition(':')[0]}: step {story.step:,} of {story.steps:,}.",
    ]


def _learned(story: TrainingStory, found: Samples) -> str:
    """The part of the change that was learned: an untrained network removes noise already."""
    curve = story.curves.get(_PSNR)
    if not curve:
        return ""
    step, before = curve[0]
    return f" Of that, {found.psnr_db - before:+.1f} dB were learned after step {step:,}."


def _facts(story: TrainingStory) -> list[Fact]:
    facts = [Fact(duration_text(story.seconds), f"on {story.device}")]
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
            (
                _shown(name),
                f"{curve[0][1]:.4g}",
                f"{min(v for _, v in curve):.4g}",
                f"{curve[-1][1]:.4g}",
            )
            for name, curve in story.curves.items()
        ]
        heads = ("Measured", "First", "Least", "Last")
        note = f"{_LOSSES_NOTE} PSNR should rise." if _PSNR in story.curves else _LOSSES_NOTE
        tables.append(Table("Losses and scores", heads, rows, note))
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
    notes = ["The degradation is simulated: the effect on real scans is not measured here."]
    if story.skipped:
        notes.append(f"{story.skipped} steps were left out: their gradients were not finite.")
    return notes


def _draw_gate(path: Path, gate: GateStory) -> None:
    figure = new_figure(_GATE_IN, layout="constrained")
    angles, layers = figure.subplots(1, 2)
    darken(angles, "steps by angle between the gradients, degrees")
    width = 180 / len(gate.angles)
    middles = [(index + 0.5) * width for index in range(len(gate.angles))]
    colors = [LINE if middle < 90 else CONTRAST for middle in middles]
    angles.bar(middles, gate.angles, width=0.9 * width, color=colors)
    angles.set_xticks(range(0, 181, 30))
    darken(layers, "mean cosine of each layer, first to last")
    cosines = list(gate.layer_cosines.values())
    colors = [LINE if cosine > 0 else CONTRAST for cosine in cosines]
    layers.bar(range(1, len(cosines) + 1), cosines, color=colors)
    save_figure(path, figure)


def _gate_caption(gate: GateStory) -> str:
    return (
        f"It was open in {gate.open_fraction:.0%} of {gate.steps:,} steps. Mean cosine of a step's "
        f"two gradients {gate.cosine:+.3f}, of their averages {gate.average_cosine:+.3f}. Both "
        "losses of a step share its noise: where the first is far above the second, the agreement "
        "of single steps is that of their noise."
    )


def _shown(curve: str) -> str:
    """The name of a curve for people; its key stays in metrics and events."""
    return _PSNR_SHOWN if curve == _PSNR else curve


def _curves_caption(story: TrainingStory) -> str:
    sentences = ["Running means over steps; losses are weighted as they are minimized."]
    if _PSNR in story.curves:
        sentences.append(_PSNR_CAPTION)
    return " ".join([*sentences, story.curves_note]).strip()


_PSNR_CAPTION = (
    "PSNR: mean of the fixed slabs, peak 1 on the network's scale; dashed: of the slabs before "
    "enhancement."
)
_SAMPLES_ALT = "Rows: degraded, enhanced, target and expected error; a column for each slab."
_SAMPLES_CAPTION = (
    "Middle slices of the fixed slabs with the window of their target. Structure that is in the "
    "target and not in the enhanced image was lost; the other way round, it was invented."
)
_GATE_ALT = "Histogram of angles, and a bar for each layer; orange where the task disagrees."
_LOSSES_NOTE = "Weighted losses fall; how fast says little across configurations."
