"""The job that enhances a volume with a trained model, and finds labels in it on request."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.bundles.store import is_restorer
from MedEnhanceLib.core.manifest import make_manifest, manifest_at_strength
from MedEnhanceLib.core.options import option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.gradprom.segmenter_spec import is_foreign_bundle
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.jobs.dicom import DicomParams, check_output, placed
from MedEnhanceLib.jobs.files import (
    CONTAINER,
    KeptVolumes,
    Result,
    VolumeParams,
    beside,
    check_volume_outputs,
    finish,
    known_as,
)
from MedEnhanceLib.jobs.kinds.segment import check_head, found_of, head_config, segmentation_figures
from MedEnhanceLib.jobs.objects import Found, Objects, anonymous_history, write
from MedEnhanceLib.runtime.dependencies import has, require
from MedEnhanceLib.runtime.device import remote_of
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom import Segmentation, SegmentConfig
    from MedEnhanceLib.gradprom.config import Label
    from MedEnhanceLib.hqg import VolumeCache
    from MedEnhanceLib.hqg.strength import Enhancement
    from MedEnhanceLib.report.notebook import Picture

#: Passes of the enhancer that take as long as the head does.
_HEAD_PASSES = 0.4


@dataclass(frozen=True, kw_only=True)
class EnhanceParams(DicomParams, VolumeParams):
    """Enhance a volume, and find labels in the result on request.

    What is made besides lies beside the output as `<output>-segmentation` and
    `<output>-uncertainty` where no other file is named; with `dicom` it goes into the folder.
    """

    config: EnhanceConfig = option(factory=EnhanceConfig, help="how it is enhanced")
    guide: str | None = option(
        None,
        help="a volume of the wanted appearance, a folder of some, or an earlier scan of the "
        "patient (see guide_use)",
        metavar="FILE",
    )
    noise_output: str | None = option(
        None, help="where a map of the measured noise goes (default: none)", metavar="FILE"
    )
    uncertainty_output: str | None = option(
        None, help="where the uncertainty volume goes (default: beside OUTPUT)", metavar="FILE"
    )
    segment: bool = option(False, help="find labels in the enhanced volume too", flag=None)
    segmentation_output: str | None = option(
        None, help="where the labels go (default: beside OUTPUT)", flag=None
    )
    head: str = option(
        "auto",
        help="the model that segments with --segment, by name or folder; auto: the one for the "
        "modality",
        metavar="NAME",
    )
    report: str | None = option(
        None, help="write a page with pictures into this folder", metavar="FOLDER"
    )
    slices: list[int] | None = option(
        None,
        help="[first, before which]: a preview of these slices alone. It equals those of a whole "
        "run in one orientation; with a model that starts from the grouped filter it leaves out "
        "blur, shading and guide. Of a sequence it takes frame 0 or `frame`",
        flag=None,
    )
    frame: int | None = option(None, help="only this one of a sequence", flag=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_head(self.head, wanted=self.wants_segmentation)
        if self.dicom and (
            self.segmentation_output or self.uncertainty_output or self.noise_output
        ):
            raise ConfigError(
                "with dicom, what is made besides goes into the folder of the series",
                "Name no file for --segment, --uncertainty and --noise-output (in a job: leave out "
                "segmentation_output, uncertainty_output and noise_output).",
            )
        if self.dicom and self.config.task == "slices":
            raise ConfigError(
                "thin slices are no images of the series that they were made of",
                "Write a volume (NIfTI, NRRD, MetaImage) without dicom.",
            )
        if self.slices is None:
            return
        if len(self.slices) != 2:
            raise ConfigError(f"slices is {self.slices!r}", "Give [first, before which].")
        requested = {"segment": self.wants_segmentation, "report": self.report is not None}
        whole = [name for name, is_requested in requested.items() if is_requested]
        if whole:
            raise ConfigError(
                f"slices cannot be combined with {' and '.join(whole)}",
                "That needs the whole volume: leave one of them out.",
            )

    @property
    def wants_segmentation(self) -> bool:
        """Whether labels are asked for."""
        return self.segment or self.segmentation_output is not None

    @property
    def chosen(self) -> tuple[int, int] | None:
        """The slices as `hqg.enhance` takes them."""
        return None if self.slices is None else (self.slices[0], self.slices[1])


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
        from MedEnhanceLib.report.figures import Pane
        from MedEnhanceLib.report.notebook import planes_of

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
        return planes_of(panes, legend=labels, point=point, window=window)

    def __repr__(self) -> str:
        besides = {"uncertainty": self.uncertainty, "segmentation": self.segmentation}
        there = "".join(f", {name}" for name, one in besides.items() if one is not None)
        model, seconds = self.enhancement.model.get("name", "no model"), self.report["seconds"]
        return f"<Enhanced by {model} in {seconds:.1f} s: {self.volume!r}{there}>"

    def _repr_html_(self) -> str:
        from MedEnhanceLib.report.notebook import page_of

        measured = self.report["results"].get("measured", {})
        facts = {
            "Model": self.enhancement.model.get("name", ""),
            "Result": repr(self.volume)[1:-1],
            **{
                name.capitalize(): str(one["reason"])
                for name, one in measured.items()
                if isinstance(one, dict) and one.get("reason")
            },
            "Warnings": "; ".join(one.text for one in self.enhancement.warnings),
        }
        return page_of("Enhanced", facts, [self.compare()] if has("matplotlib") else [])

    def at_strength(self, strength: float) -> Enhanced:
        """The same result at another strength (0 to 1.5), without running the model again.

        Without segmentation: that was found at full strength. Raises ConfigError for another
        strength, or for a result that is not at full strength itself.
        """
        done = self.enhancement.at_strength(strength)
        report = manifest_at_strength(self.report, strength)
        return Enhanced(done.volume, done.uncertainty, None, report, done)


def enhance_volume(
    volume: Volume,
    config: EnhanceConfig,
    *,
    guide: Volume | Iterable[Volume] | None = None,
    head: SegmentConfig | None = None,
    slices: tuple[int, int] | None = None,
    cache: VolumeCache | None = None,
    guide_cache: VolumeCache | None = None,
    noise: bool = False,
    monitor: Monitor,
) -> Enhanced:
    """Enhance, then segment the enhanced volume if a `head` is given; in memory.

    cache, guide_cache: as for `hqg.enhance`. noise: whether the map of the noise will be asked
    for, which another machine sends only then.
    """
    if remote_of(config.device) is not None:
        from MedEnhanceLib.jobs.remote.volumes import enhance_elsewhere

        return enhance_elsewhere(
            volume,
            config,
            guide=guide,
            head=head,
            slices=slices,
            noise=noise,
            inputs=_names(volume, guide),
            monitor=monitor,
        )
    from MedEnhanceLib.gradprom import open_head_for, segment
    from MedEnhanceLib.hqg import enhance

    began = time.monotonic()
    if head is not None:  # better missed now than after the long work
        open_head_for(volume, head)
    passes = 1 + config.samples
    share = passes / (passes + _HEAD_PASSES) if head else 1.0
    part = monitor.part(0.0, share)
    if config.task == "slices":
        done = _with_thin_slices(volume, config, guide=guide, slices=slices, monitor=part)
    elif is_foreign_bundle(config.model):
        done = _restored_elsewhere(volume, config, guide=guide, slices=slices, monitor=part)
    elif is_restorer(config.model):
        done = _restored(volume, config, guide=guide, slices=slices, monitor=part)
    else:
        done = enhance(
            volume,
            config,
            guide=guide,
            slices=slices,
            cache=cache,
            guide_cache=guide_cache,
            monitor=part,
        )
    found = segment(done.volume, head, monitor=monitor.part(share, 1.0)) if head else None
    manifest = make_manifest(
        "enhanced",
        config=config.to_json() | ({"head": head.to_json()} if head else {}),
        inputs=_names(volume, guide),
        device=done.device,
        seconds=time.monotonic() - began,
        model=done.model,
        results=segmentation_figures(found) | _recorded_warnings(done) | _measured_facts(done),
        dicom=volume.origin.facts() if volume.origin else None,
    )
    return Enhanced(done.volume, done.uncertainty, found, manifest, done)


def _with_thin_slices(
    volume: Volume,
    config: EnhanceConfig,
    *,
    guide: Volume | Iterable[Volume] | None,
    slices: tuple[int, int] | None,
    monitor: Monitor,
) -> Enhancement:
    """As `hqg.enhance`, for the task slices: the result has another grid."""
    requested = {
        "guide": guide is not None,
        "slices": slices is not None,
        "uncertainty": config.uncertainty > 0,
        "deblur": config.deblur,
        "bias_correction n4": config.bias_correction == "n4",
        "orientations": config.orientations > 1,
    }
    if asked := [name for name, is_requested in requested.items() if is_requested]:
        raise ConfigError(
            f"the task slices has no {' and no '.join(asked)}", f"Leave out {', '.join(asked)}."
        )
    attend(lambda: require("torch", purpose="Enhancing a volume"), monitor)
    from MedEnhanceLib.hqg.slices.enhance import enhance_slices

    return enhance_slices(volume, config, monitor)


def _restored(
    volume: Volume,
    config: EnhanceConfig,
    *,
    guide: Volume | Iterable[Volume] | None,
    slices: tuple[int, int] | None,
    monitor: Monitor,
) -> Enhancement:
    """As `hqg.enhance`, with a small restorer."""
    began = time.monotonic()
    attend(lambda: require("torch", purpose="Enhancing a volume"), monitor)
    from MedEnhanceLib.hqg.strength import Enhancement, lowest_value
    from MedEnhanceLib.spg.restore import restore

    done = restore(volume, config.to_json(), guide=guide, slices=slices, monitor=monitor)
    full = Enhancement(
        volume=done.volume,
        uncertainty=None,
        model=done.bundle.identity(),
        device=done.device,
        seconds=time.monotonic() - began,
        original=done.original,
        floors=tuple(lowest_value(frame) for frame in volume.frames()),
        warnings=done.warnings,
    )
    return replace(full.at_strength(config.share), seconds=time.monotonic() - began)


def _restored_elsewhere(
    volume: Volume,
    config: EnhanceConfig,
    *,
    guide: Volume | Iterable[Volume] | None,
    slices: tuple[int, int] | None,
    monitor: Monitor,
) -> Enhancement:
    """As `hqg.enhance`, with a MONAI bundle that gives an image."""
    began = time.monotonic()
    fixed = EnhanceConfig(
        model=config.model,
        device=config.device,
        strength=config.strength,
        task="noise" if config.task == "noise" else "auto",
    )
    if config != fixed or guide is not None or slices is not None:
        raise ConfigError(
            f"{Path(config.model).name} is a MONAI bundle, which takes model, device and strength "
            "alone",
            "Leave out the other options, or choose an enhancer.",
        )
    attend(lambda: require("torch", purpose="Enhancing a volume"), monitor)
    from MedEnhanceLib.core.manifest import derived_note
    from MedEnhanceLib.gradprom.segmenters import open_restoration
    from MedEnhanceLib.hqg.strength import Enhancement, lowest_value
    from MedEnhanceLib.runtime.device import choose_device

    model, choice = open_restoration(config.model), choose_device(config.device)
    monitor.log(f"running {model.name} on {choice.name}: {choice.reason}")
    monitor.warn(f"{model.name} is not ours: nothing is known here of how well it does")
    for note in model.notes:
        monitor.warn(f"{model.name}: {note}")
    model.network.to(choice.name)
    if volume.modality_is_guess:
        volume = replace(volume, modality=model.spec.modality, units=volume.units)
    note = derived_note(f"enhanced with {model.name} {model.sha256[:12]}")
    full = Enhancement(
        volume=volume.with_voxels(model.restored(volume, monitor), did=note),
        uncertainty=None,
        model=model.identity(),
        device=choice.name,
        seconds=time.monotonic() - began,
        original=volume,
        floors=(lowest_value(volume),),
    )
    return replace(full.at_strength(config.share), seconds=time.monotonic() - began)


def run_enhance(params: EnhanceParams, monitor: Monitor, kept: KeptVolumes) -> Result:
    """Load → enhance → segment → save each output, or all as DICOM → page → manifest."""
    began = time.monotonic()
    config = params.config
    outputs = _enhance_outputs(params, config)
    inputs = {"input": Path(params.input)}
    if params.guide:
        inputs["guide"] = Path(params.guide)
    if params.dicom:
        check_output(params, inputs["input"], monitor)
    else:
        check_volume_outputs(outputs, inputs=list(inputs.values()), overwrite=params.overwrite)
    _check_report_folder(params)
    volume = kept.input.load(
        params,
        frame=_frame_of(params),
        keep=params.slices is not None,
        monitor=monitor.part(0.0, 0.05),
    )
    inputs["input"] = known_as(inputs["input"], volume)
    if params.dicom:
        volume = placed(volume, params, monitor)
        _refuse_sequence(volume, params, config)
    guide: Volume | Iterator[Volume] | None = None
    if several := _volumes_in(inputs.get("guide")):
        guide = (
            VolumeParams(input=str(file), modality=volume.modality).load(monitor)
            for file in several
        )
    elif params.guide:
        of_guide = VolumeParams(input=params.guide, modality=params.modality)
        loaded = kept.guide.load(of_guide, keep=params.slices is not None, monitor=monitor)
        inputs["guide"] = known_as(inputs["guide"], loaded)
        guide = loaded
    head = head_config(params.head, config.device, wanted=params.wants_segmentation)
    done = enhance_volume(
        volume,
        config,
        guide=guide,
        head=head,
        slices=params.chosen,
        cache=kept.input.cache,
        guide_cache=kept.guide.cache,
        noise=params.noise_output is not None,
        monitor=monitor.part(0.05, 0.9),
    )
    written = None
    if params.dicom:
        objects = enhanced_objects(volume, done)
        written = write(objects, Path(params.output), params, monitor.part(0.9, 0.98))
    else:
        _save_enhanced(done, outputs, monitor, overwrite=params.overwrite)
    if params.report:
        _write_report(params, volume, done, monitor)
        outputs["report"] = Path(params.report) / "index.html"
    return finish(
        "enhanced",
        outputs,
        began=began,
        config=done.report["config"] | params.stated() | _part_of(params),
        inputs=inputs,
        figures=done.report["results"],
        written=written,
        anonymous=params.deidentify,
        source=volume,
        device=done.report["device"],
        model=done.report["model"],
        keep_names=params.keep_names,
        overwrite=params.overwrite,
    )


def _refuse_sequence(volume: Volume, params: EnhanceParams, config: EnhanceConfig) -> None:
    """DICOM's objects beside a series are of one volume; better said before the long work."""
    if volume.is_sequence and (params.wants_segmentation or config.uncertainty):
        raise InputError(
            f"{volume.source}: a sequence of {volume.shape[0]} frames, whose segmentation or "
            "uncertainty is no DICOM object",
            "Leave them out, or take one frame after another (frame).",
        )


def _frame_of(params: EnhanceParams) -> int | None:
    """Which frame of a sequence; None for all of them."""
    return 0 if params.frame is None and params.slices is not None else params.frame


def _part_of(params: EnhanceParams) -> dict[str, Any]:
    part = {"slices": params.slices, "frame": _frame_of(params)}
    return {name: value for name, value in part.items() if value is not None}


def _enhance_outputs(params: EnhanceParams, config: EnhanceConfig) -> dict[str, Path]:
    output = Path(params.output)
    outputs = {"output": output}
    if params.dicom:
        return outputs
    if params.wants_segmentation:
        named = params.segmentation_output
        outputs["segmentation"] = Path(named) if named else beside(output, "segmentation")
    if params.noise_output:
        outputs["noise"] = Path(params.noise_output)
    if params.uncertainty_output and not config.uncertainty:
        raise ConfigError(
            "uncertainty_output is given, but no uncertainty is asked for",
            "Set the number of samples: uncertainty 8.",
        )
    if config.uncertainty:
        named = params.uncertainty_output
        outputs["uncertainty"] = Path(named) if named else beside(output, "uncertainty")
    return outputs


def _save_enhanced(
    done: Enhanced, outputs: dict[str, Path], monitor: Monitor, *, overwrite: bool
) -> None:
    """Save each; `outputs` loses what was not made."""
    from MedEnhanceLib.io import save

    monitor.progress(0.9, "save")
    save(done.volume, outputs["output"], overwrite=overwrite, monitor=monitor)
    if done.segmentation is not None:
        save(
            done.segmentation.volume, outputs["segmentation"], overwrite=overwrite, monitor=monitor
        )
    if done.uncertainty is not None:
        save(done.uncertainty, outputs["uncertainty"], overwrite=overwrite, monitor=monitor)
    if "noise" in outputs:
        noise = done.noise
        if noise is None:
            monitor.warn("this model does not measure noise: there is no map of it")
            del outputs["noise"]
        else:
            save(noise, outputs["noise"], overwrite=overwrite, monitor=monitor)


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
    config, measured = report["config"], report["results"].get("measured", {})
    options = [f"strength {config['strength']}"] if config["strength"] not in (1, "auto") else []
    if config["deblur"] or measured.get("blur", {}).get("undone"):
        options.append("blur undone")
    if config["bias_correction"] == "n4" or measured.get("shading", {}).get("corrected"):
        options.append("shading corrected with N4")
    if measured.get("artifacts", {}).get("repaired"):
        options.append(f"{measured['artifacts']['kind']} repaired")
    options += [warning["message"] for warning in report["results"].get("doubts", ())]
    return ", ".join(options)


def _check_report_folder(params: EnhanceParams) -> None:
    from MedEnhanceLib.io.atomic import refuse_existing, refuse_unwritable

    if params.report:
        require("matplotlib", purpose="Drawing the report's pictures")
        refuse_unwritable(Path(params.report))
        refuse_existing(Path(params.report) / "index.html", params.overwrite)


def _write_report(params: EnhanceParams, volume: Volume, done: Enhanced, monitor: Monitor) -> None:
    from MedEnhanceLib.bundles.suitability import recorded_warnings
    from MedEnhanceLib.report.enhance import enhancement_report

    monitor.progress(0.95, "report")
    found = done.segmentation
    enhanced, manifest = done.volume, done.report
    if enhanced.geometry != volume.geometry:  # thin slices are compared with interpolated ones
        volume = done.enhancement.original
    if not params.keep_names:
        volume, enhanced = (replace(one, source="") for one in (volume, enhanced))
        manifest = dict(manifest) | {"inputs": dict.fromkeys(manifest["inputs"], "a volume")}
    if params.deidentify:
        volume = replace(volume, source="", history=())
        enhanced = replace(enhanced, source="", history=anonymous_history(enhanced.history))
        manifest = {name: entry for name, entry in manifest.items() if name != "dicom"} | {
            "inputs": {}
        }
    enhancement_report(
        str(params.report),
        volume=volume,
        enhanced=enhanced,
        manifest=manifest,
        uncertainty=done.uncertainty,
        segmentation=found.volume if found else None,
        labels=found.labels if found else (),
        table=found.table if found else (),
        warnings=[f"{warning}." for warning in recorded_warnings(manifest["results"])],
        overwrite=params.overwrite,
    )


def _volumes_in(folder: Path | None) -> list[Path]:
    """The volume files of a folder of guides; none for a file, and for a folder of DICOM images."""
    from MedEnhanceLib.io import READABLE, ending_of

    if folder is None or not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if ending_of(file) in (*READABLE, CONTAINER))


def _names(volume: Volume, guide: Volume | Iterable[Volume] | None) -> dict[str, str]:
    names = {"input": Path(volume.source).name or "volume"}
    if guide is None:
        return names
    source = guide.source if isinstance(guide, Volume) else "several volumes"
    return names | {"guide": Path(source).name or "volume"}


def _recorded_warnings(done: Enhancement) -> dict[str, Any]:
    """What speaks against the model, and how far the input is from what it learned from."""
    verdict = done.verdict
    return {
        "doubts": [warning.to_json() for warning in done.warnings],
        "range": "not checked"
        if verdict is None
        else {"distance": round(verdict.distance, 3), "noise": round(verdict.noise, 4)},
    }


def _measured_facts(done: Enhancement) -> dict[str, Any]:
    facts = {"uncertainty": done.uncertainty_facts, "measured": done.measured}
    return {name: known for name, known in facts.items() if known}
