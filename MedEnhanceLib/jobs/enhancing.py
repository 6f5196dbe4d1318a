"""A volume enhanced in memory, by whichever model is asked for, with all that comes with it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.core.manifest import make_manifest, manifest_at_strength
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.jobs.kinds.segment import found_of, segmentation_figures
from MedEnhanceLib.jobs.objects import Found, Objects
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom import Segmentation, SegmentConfig
    from MedEnhanceLib.gradprom.config import Label
    from MedEnhanceLib.hqg import VolumeCache
    from MedEnhanceLib.hqg.strength import Enhancement
    from MedEnhanceLib.report.drawing import Picture

#: Passes of the enhancer that take as long as the head does.
_HEAD_PASSES = 0.4


@dataclass(frozen=True, eq=False)
class Enhanced:
    """An enhancement with all that was asked for besides.

    volume: on the grid and in the type of what came in. uncertainty: standard deviation per
    voxel, same units, or None. segmentation: labels found in `volume`, or None.
    report: its manifest, a JSON object. enhancement: what `at_strength` blends.
    """

    volume: Volume
    uncertainty: Volume | None
    segmentation: Segmentation | None
    report: dict[str, Any]
    enhancement: Enhancement

    @property
    def noise(self) -> Volume | None:
        """The measured σ at each voxel, in the units of `volume`; None for models without it."""
        return self.enhancement.noise_map()

    @property
    def guide_use(self) -> Volume | None:
        """How far guides changed each voxel, in σ of the noise, at most 1; None without."""
        return self.enhancement.guide_use

    def compare(
        self,
        *,
        point: tuple[int, int, int] | None = None,
        window: tuple[float, float] | None = None,
    ) -> Picture:
        """Input, result, difference, and what there is besides, side by side in three planes.

        Args:
            point: (slice, row, column) that the planes go through; None: where much is to be seen.
            window: lowest and highest gray level; None: chosen by the input.
        """
        from MedEnhanceLib.report.figures import Pane, comparison

        before = self.enhancement.original
        panes = [
            Pane("Input", before),
            Pane("Enhanced", self.volume),
            Pane("Enhanced − input", self.volume, minus=before),
        ]
        labels: tuple[Label, ...] = ()
        if self.uncertainty is not None:
            panes.append(Pane("Uncertainty", self.uncertainty, heat=True))
        if self.segmentation is not None:
            labels = self.segmentation.labels
            panes.append(Pane("Segmentation", self.volume, labels=self.segmentation.volume))
        return comparison(panes, legend=labels, point=point, window=window)

    def __repr__(self) -> str:
        besides = {"uncertainty": self.uncertainty, "segmentation": self.segmentation}
        there = "".join(f", {name}" for name, one in besides.items() if one is not None)
        model, seconds = self.enhancement.model.get("name", "no model"), self.report["seconds"]
        return f"<Enhanced by {model} in {seconds:.1f} s: {self.volume!r}{there}>"

    def at_strength(self, strength: float) -> Enhanced:
        """The same result at another strength (0 to 1), without running the model again.

        The voxels are those of a run with that number as its strength, where this one had "auto".
        Without segmentation: that was found at strength 1. Raises ConfigError for another strength,
        or for a result that is not at strength 1 itself.
        """
        done = self.enhancement.at_strength(strength)
        report = manifest_at_strength(self.report, strength)
        return Enhanced(done.volume, done.uncertainty, None, report, done)


def enhance_volume(
    volume: Volume,
    config: EnhanceConfig,
    *,
    guide: Volume | Sequence[Volume] | None = None,
    look: Volume | Iterable[Volume] | None = None,
    head: SegmentConfig | None = None,
    frame: int | None = None,
    slices: tuple[int, int] | None = None,
    cache: VolumeCache | None = None,
    scratch: Path | None = None,
    monitor: Monitor,
) -> Enhanced:
    """Enhance, then segment the enhanced volume if a `head` is given; in memory.

    guide, look, frame, cache, scratch: as for `hqg.enhance`.
    """
    from MedEnhanceLib.gradprom import open_head_for, segment
    from MedEnhanceLib.hqg import enhance

    began = time.monotonic()
    if frame is not None and not _is_decided_once(config):
        # Nothing is decided for all frames there: one can come alone.
        volume, frame = volume.frame(frame), None
    if head is not None:  # better missed now than after the long work
        open_head_for(volume, head)
    share = 1 / (1 + _HEAD_PASSES) if head else 1.0
    part = monitor.part(0.0, share)
    besides = [name for name, given in (("guide", guide), ("look", look)) if given is not None]
    if config.task == "slices":
        done = _with_thin_slices(volume, config, besides, slices=slices, monitor=part)
    else:
        done = enhance(
            volume,
            config,
            guide=guide,
            look=look,
            frame=frame,
            slices=slices,
            cache=cache,
            scratch=scratch,
            monitor=part,
        )
    found = segment(done.volume, head, monitor=monitor.part(share, 1.0)) if head else None
    manifest = make_manifest(
        "enhanced",
        config=config.to_json() | ({"head": head.to_json()} if head else {}),
        inputs=_names(volume, guide, look),
        device=done.device,
        seconds=time.monotonic() - began,
        model=done.model,
        results=segmentation_figures(found) | _figures(done),
        dicom=volume.origin.facts() if volume.origin else None,
    )
    return Enhanced(done.volume, done.uncertainty, found, manifest, done)


def _with_thin_slices(
    volume: Volume,
    config: EnhanceConfig,
    besides: Sequence[str],
    *,
    slices: tuple[int, int] | None,
    monitor: Monitor,
) -> Enhancement:
    """As `hqg.enhance`, for the task slices: the result has another grid.

    besides: "guide" and "look", where they are given; here and below they are refused.
    """
    requested = {
        **dict.fromkeys(besides, True),
        "slices": slices is not None,
        "uncertainty": config.uncertainty,
        "bias_correction n4": config.bias_correction == "n4",
    }
    if asked := [name for name, is_requested in requested.items() if is_requested]:
        raise ConfigError(
            f"the task slices has no {' and no '.join(asked)}", f"Leave out {', '.join(asked)}."
        )
    attend(lambda: require("torch", purpose="Enhancing a volume"), monitor)
    from MedEnhanceLib.hqg.slices.restore import enhance_slices

    return enhance_slices(volume, config, monitor)


def _names(
    volume: Volume,
    guide: Volume | Sequence[Volume] | None,
    look: Volume | Iterable[Volume] | None,
) -> dict[str, str]:
    """What each role of an enhancement was; a look of several volumes is not named."""
    guides = [guide] if isinstance(guide, Volume) else guide or []
    roles = {"input": [volume], "guide": guides, "look": [look] if isinstance(look, Volume) else []}
    names = {
        role: ", ".join(Path(each.source).name or "volume" for each in volumes)
        for role, volumes in roles.items()
        if volumes
    }
    is_several = look is not None and not isinstance(look, Volume)
    return names | ({"look": "several volumes"} if is_several else {})


def _is_decided_once(config: EnhanceConfig) -> bool:
    """Whether an enhancer looks at all frames of a sequence before it enhances one."""
    return config.task != "slices"


def _figures(done: Enhancement) -> dict[str, Any]:
    """Strength as a number, what speaks against the result, and what was measured.

    The share of the noise removal in the voxels is strength · measured.noise.share_removed.
    """
    facts = {"uncertainty": done.uncertainty_facts, "measured": done.measured}
    return {
        "strength": done.strength,
        "doubts": [warning.to_json() for warning in done.warnings],
        **{name: known for name, known in facts.items() if known},
    }


def enhanced_objects(volume: Volume, done: Enhanced) -> Objects:
    """What becomes DICOM of an enhancement of `volume`."""
    return Objects(
        volume,
        "enhanced",
        options=_options_in_words(done.report),
        volume=done.volume,
        found=found_of(done.segmentation) if done.segmentation else None,
        uncertainty=done.uncertainty,
        model=done.report["model"],
    )


def objects_of(result: Volume | Enhanced | Segmentation) -> Objects:
    """What becomes DICOM of a volume or a result, whose source is not at hand any more."""
    if isinstance(result, Volume):
        is_labels = result.modality == "SEG"
        found = Found(result, ()) if is_labels else None
        return Objects(result, "exported", volume=None if is_labels else result, found=found)
    before = replace(result.volume, history=result.volume.history[:-1])
    if isinstance(result, Enhanced):
        return enhanced_objects(before, result)
    return Objects(before, "segmented", found=found_of(result))


def _options_in_words(report: Mapping[str, Any]) -> str:
    """What was chosen and what was done, for the derivation of an object."""
    results = report["results"]
    measured = results.get("measured", {})
    strength = results["strength"]
    options = [f"strength {strength:g}"] if strength != 1 else []
    if noise := measured.get("noise"):
        options.append(f"{strength * noise['share_removed']:.0%} of the noise removal")
    if measured.get("blur", {}).get("undone"):
        options.append("blur undone")
    if measured.get("bias_field", {}).get("corrected"):
        options.append("bias field corrected with N4")
    if measured.get("motion", {}).get("corrected"):
        options.append("motion corrected")
    if slices := measured.get("slices"):
        options.append(
            f"slices resampled from {slices['before']} of {slices['spacing_before_mm']:g} mm to "
            f"{slices['after']} of {slices['spacing_after_mm']:g} mm"
        )
    if used := measured.get("guide", {}).get("used"):
        options.append(f"guided by another series, which changed it by {used:.2f} σ of the noise")
    if look := measured.get("look"):
        options.append(f"look of another volume ({look['summary']})")
    options += [warning["message"] for warning in results.get("doubts", ())]
    return ", ".join(options)
