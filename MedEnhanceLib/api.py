"""The Python API: the functions of the jobs, in this process, for volumes in memory.

The arguments of most functions are the fields of a declaration, such as `EnhanceCall`: the options
of the method, which its job and its command have as well, and those for volumes in memory.
A canceled call raises Cancelled; every other error a user can meet is a MedEnhanceError too, with
message and hint.
"""

from __future__ import annotations

import functools
import inspect as inspection
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import EllipsisType
from typing import Annotated, Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from MedEnhanceLib import denoise, gradprom, io, unicompress
from MedEnhanceLib.core.diffusion_gradients import gradients_of
from MedEnhanceLib.core.exchange import Axes
from MedEnhanceLib.core.labels import Segmentation
from MedEnhanceLib.core.modality import ModalityName
from MedEnhanceLib.core.options import (
    About,
    Options,
    PathLike,
    check_names,
    local_path,
    option,
    option_of,
    shared,
)
from MedEnhanceLib.core.volume import ImageLike, Volume, as_volume, is_array
from MedEnhanceLib.denoise import error_left
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.error_left import ErrorLeft
from MedEnhanceLib.denoise.noise_verdict import NoiseVerdict, measured_noise, refuse_two_regions
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.gradprom.config import SegmentConfig
from MedEnhanceLib.io.describe import refuse_not_finite, warn_of_content
from MedEnhanceLib.jobs.enhancing import SegmenterChoice, enhance_volume, manifest_of
from MedEnhanceLib.jobs.failures import device_errors
from MedEnhanceLib.jobs.kinds.measure_scanner import (
    LoadedInTurn,
    refuse_shared,
    volumes_in,
    without_noise,
)
from MedEnhanceLib.jobs.kinds.volumes import InspectParams, degraded, described, inspect_volume
from MedEnhanceLib.runtime.dependencies import imported
from MedEnhanceLib.runtime.progress import Cancel, Event, Listener, Monitor
from MedEnhanceLib.runtime.text import printable
from MedEnhanceLib.scanner import check
from MedEnhanceLib.scanner.scanner import Scanner
from MedEnhanceLib.unicompress.config import CompressConfig

C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")
Progress = Listener | bool | None
#: What general warnings that this process logged are about.
_logged_once: set[str] = set()
#: The type of a required argument, in front of what is said about it.
_ANNOTATED = re.compile(r"Annotated\[\s*(\w+),.*", re.DOTALL)


@contextmanager
def watched(progress: Listener | bool | None, cancel: Cancel | None) -> Iterator[Monitor]:
    """Yield a monitor that calls `progress`; raises as `device_errors` does.

    progress: a function that takes Events. True shows a bar on stderr; None passes warnings to
    Python's logging; False reports nothing.
    """
    _refuse_other_defaults()
    with device_errors():
        if progress is not True:
            yield Monitor(_logged if progress is None else progress or None, cancel)
            return
        from MedEnhanceLib.jobs.bar import progress_bar

        with progress_bar() as listener:
            yield Monitor(listener, cancel)


def _logged(event: Event) -> None:
    """Log warnings, for a caller who gave no `progress`; those about all files once a process."""
    if event.kind != "warning":
        return
    about = event.fields.get("about")
    if about in _logged_once:
        return
    ending = ""
    if about:
        _logged_once.add(about)
        ending = " (not repeated for further files)"
    with suppress(ValueError):  # logging itself fails where stderr is closed
        logging.getLogger("medenhance").warning("%s", printable(event.fields["message"] + ending))


def _refuse_other_defaults() -> None:
    """Raise ConfigError if PyTorch's default type or device was changed, as in a notebook."""
    torch = imported("torch")
    if torch is None:
        return
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    if (dtype, device.type) != (torch.float32, "cpu"):
        raise ConfigError(
            f"PyTorch's default is {dtype} on {device}, which changes what networks compute",
            "Call torch.set_default_dtype(torch.float32) and torch.set_default_device('cpu'); "
            "device= chooses where MedEnhance computes.",
        )


@dataclass(frozen=True, kw_only=True)
class VolumeCall(Options):
    """The arguments of every function of a volume."""

    volume: Annotated[
        ImageLike,
        About(
            help="a Volume, a path, a SimpleITK or nibabel image, a MONAI MetaTensor, or an array "
            '[slice, row, column] (axes="IJK": [column, row, slice]) with spacing or affine'
        ),
    ] = field(kw_only=False)
    affine: npt.ArrayLike | None = option(
        None, help="affine of an array, 4×4: (column, row, slice) → mm in RAS; or give spacing"
    )
    spacing: npt.ArrayLike | None = option(
        None,
        help="spacing of an array: mm between columns, rows and slices, whatever its axes",
    )
    axes: Axes | None = option(
        None,
        help='axes of an array: "IJK" as nibabel and TorchIO, [column, row, slice], "KJI" as '
        "SimpleITK, [slice, row, column]; None: KJI, with a warning if it is more likely IJK",
    )
    bvals: npt.ArrayLike | None = option(
        None, help="b-value of each frame of diffusion, s/mm², for what has no .bval beside it"
    )
    modality: ModalityName | None = option(
        None, help='"CT", "MR" …; None: that of the volume, else guessed from its values'
    )
    progress: Progress = option(
        None, help="a function that is called with each `progress.Event`, or True for a bar"
    )
    cancel: Cancel | None = option(
        None, help="a function that returns whether to stop, or a threading.Event"
    )

    def opened(self, monitor: Monitor, scratch: Path | None = None) -> Volume:
        """Load the volume from its path, or convert an image in memory.

        Args:
            monitor: receives progress, and warnings of data whose meaning is uncertain.
            scratch: as in `io.load`; None: all voxels are read into memory.
        Raises as `io.load` and `as_volume` do, and ConfigError for what a file has itself.
        """
        given = self.volume
        if isinstance(given, str | os.PathLike):
            own = (self.affine, self.spacing, self.axes, self.bvals)
            if any(each is not None for each in own):
                raise ConfigError(
                    "affine, spacing, axes or bvals is given for a file", "It has its own."
                )
            monitor.progress(0.0, "loading the volume")
            return io.load(
                local_path(given), modality=self.modality, scratch=scratch, monitor=monitor
            )
        volume = as_volume(
            given,
            affine=self.affine,
            spacing=self.spacing,
            axes=self.axes,
            modality=self.modality,
            warn=monitor.warn,
        )
        if volume is not given:
            warn_of_content(volume, type(given).__name__, monitor)
        return volume if self.bvals is None else _weighted(volume, self.bvals)


def _weighted(volume: Volume, b_values: npt.ArrayLike) -> Volume:
    """Return a sequence with the b-values of its frames; ConfigError if they are not such."""
    frames = volume.shape[0] if volume.is_sequence else 1
    try:
        values = np.asarray(b_values, np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (frames,) or not (np.isfinite(values) & (values >= 0)).all():
        raise ConfigError(
            f"bvals are not {frames} b-values of at least 0", "Give one of each frame, in s/mm²."
        )
    return replace(volume, gradients=gradients_of(values, np.zeros((frames, 3))))


def takes(declaration: Callable[P, C]) -> Callable[[Callable[[C], R]], Callable[P, R]]:
    """Convert a function of a declaration to one that takes the declaration's fields.

    Type checkers and editors see the arguments of the dataclass. `help` shows the same: the
    signature, and in place of the docstring's line for `call` one for each option.
    """

    def decorate(function: Callable[[C], R]) -> Callable[P, R]:
        signature = _signature_of(declaration, function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            check_names(function.__name__, kwargs, signature.parameters)
            return function(declaration(*args, **kwargs))

        before, mark, after = (function.__doc__ or "").partition("        call: ")
        arguments = "".join(
            f"        {name}: {option.description}.\n"
            for name in signature.parameters
            if (option := option_of(declaration, name)).about.help
        )
        call.__doc__ = before + arguments + after.partition("\n")[2] if mark else before
        call.__signature__ = signature  # type: ignore[attr-defined]
        return call

    return decorate


def _signature_of(
    declaration: Callable[..., Any], function: Callable[..., Any]
) -> inspection.Signature:
    """Return the signature of a declaration, with the return type of the function."""
    signature = inspection.signature(declaration)
    parameters = [
        each.replace(annotation=_ANNOTATED.sub(r"\1", str(each.annotation)))
        for each in signature.parameters.values()
    ]
    returns = inspection.signature(function).return_annotation
    return signature.replace(parameters=parameters, return_annotation=returns)


@dataclass(frozen=True, kw_only=True)
class EnhanceCall(VolumeCall, SegmenterChoice, EnhanceConfig):
    """The arguments of `enhance`."""


@takes(EnhanceCall)
def enhance(call: EnhanceCall) -> Enhanced:
    """Enhance a volume; an array is [slice, row, column], of nibabel with axes="IJK".

    Type and units stay, and the grid except for the task slices. `result.volume.numpy()` has the
    axes of the array.

    Args:
        call: the volume and the options.

    Returns:
        An object with .volume, .uncertainty, .segmentation, .noise (the measured σ at each voxel),
        .findings (what was measured and done, in sentences), .report (its manifest), .compare(),
        which draws input and result, and .at_strength(s), which returns the result at another
        strength without computing it again.

    Raises:
        ConfigError: an option is invalid, alone or together with another one.
        ModelError, InputError, DependencyError, DeviceMemoryError, Cancelled: see their names.

        result = me.enhance(volume, uncertainty=True, segment=True)
        result.segmentation.table
    """
    with watched(call.progress, call.cancel) as monitor:
        volume = call.opened(monitor.part(0.0, 0.1))
        if not volume.profile.is_known:  # NaN leaves the modality unknown
            refuse_not_finite(volume)
        monitor, cache = monitor.part(0.1, 1.0), denoise.VolumeCache()
        result = enhance_volume(
            volume,
            EnhanceConfig(**shared(EnhanceConfig, call)),
            segmenter=call.segmentation(call.device),
            cache=cache,
            monitor=monitor,
        )
        return replace(result, report=manifest_of(result, volume, monitor.warnings))


def _as_volumes(images: Any, volume: Volume, call: VolumeCall) -> list[Volume]:
    """Convert images to volumes; an array lies on the grid of the volume."""
    volumes = []
    for each in images:
        if is_array(each):
            kind, axes = volume.modality, volume.axes
            taken = Volume.from_array(each, affine=volume.affine, axes=axes, modality=kind)
            if taken.shape[-3:] != volume.shape[-3:]:
                raise InputError(
                    f"an array has the shape {np.shape(each)}, and the volume {volume.shape}, in "
                    f"the order {'frame, ' * volume.is_sequence}slice, row, column",
                    'Give an image, or Volume.from_array(array, affine=image.affine, axes="IJK") '
                    "where the axes of the array are those of nibabel.",
                )
            on_grid = volume.with_voxels(taken.voxels)
            volumes.append(replace(on_grid, source="", history=(), dicom_origin=None))
        elif each is not None:
            volumes.append(VolumeCall(each, modality=call.modality).opened(Monitor()))
    return volumes


@dataclass(frozen=True, kw_only=True)
class CompareCall(VolumeCall):
    """The arguments of `compare`."""

    result: Annotated[
        ImageLike | Enhanced,
        About(help="what enhance returned, or the result as any type that volume may have"),
    ] = field(kw_only=False)
    second: Annotated[
        ImageLike,
        About(
            help="the same measured again, on the same grid, which the enhancement did not see; of "
            "a single frame also several measurements, as frames"
        ),
    ] = field(kw_only=False)


@takes(CompareCall)
def compare(call: CompareCall) -> ErrorLeft:
    """Measure the error that a result leaves; arrays are [slice, row, column], or axes="IJK".

    Args:
        call: the volume, its result and the second measurement.

    Returns:
        An object with .left (share of the error of tissue that is left), .table (errors by tissue,
        in the volume's units; of a result with segmentation by its labels), .findings (the same in
        sentences, and how the second measurement differs by more than noise) and .picture().

    Raises:
        InputError: another grid, other frames, or a second measurement that is the volume itself.

        print(me.compare(volume, result, "second.nii.gz").findings[0])
    """
    with watched(call.progress, call.cancel) as monitor:
        volume = call.opened(monitor.part(0.0, 0.5))
        call = replace(call, modality=volume.modality)  # type: ignore[arg-type]
        result, labels, sigma = call.result, None, None
        if isinstance(result, Enhanced):
            labels, sigma = result.segmentation, result.sigma
        image = result.volume if isinstance(result, Enhanced) else result
        after, second = _as_volumes([image, call.second], volume, call)
        return error_left.compare(volume, after, second, labels, sigma)


@dataclass(frozen=True, kw_only=True)
class SegmentCall(VolumeCall, SegmentConfig):
    """The arguments of `segment`."""


@takes(SegmentCall)
def segment(call: SegmentCall) -> Segmentation:
    """Label the voxels of a volume; an array is [slice, row, column], of nibabel with axes="IJK".

    Args:
        call: the volume and the options.

    Returns:
        An object with .volume (labels, uint8, same grid), .labels (value, name, color), .table
        (voxels, milliliters, and the expected Dice of each as "quality") and .uncertainty (0 to 1,
        same grid); a model that does not estimate the last two has neither, and .uncertainty is
        None.

    Raises:
        MedEnhanceError: as `enhance`.

        for row in me.segment(volume).table:
            print(row["label"], row["volume_ml"])
    """
    with watched(call.progress, call.cancel) as monitor:
        volume = call.opened(monitor.part(0.0, 0.1))
        config = SegmentConfig(**shared(SegmentConfig, call))
        return gradprom.segment(volume, config, monitor=monitor.part(0.1, 1.0))


@dataclass(frozen=True, kw_only=True)
class CompressCall(VolumeCall, CompressConfig):
    """The arguments of `compress`."""

    path: Annotated[PathLike, About(help="the file to write, ending in .ucv")] = field(
        kw_only=False
    )
    overwrite: bool = option(False, help="replace an existing file")


@takes(CompressCall)
def compress(call: CompressCall) -> unicompress.CompressResult:
    """Compress a volume; an array is [slice, row, column], of nibabel with axes="IJK".

    The container (.ucv) is verified before it takes its place.
    Exactly one of lossless, max_error, ratio and psnr is given.

    Args:
        call: the volume and the options.

    Returns:
        An object with path, ratio, max_error, psnr, seconds and more.

    Raises:
        ConfigError, InputError, OutputError, CodecError, Cancelled: the source is untouched.

        me.compress(volume, "scan.ucv", max_error=2)
    """
    config = CompressConfig(**shared(CompressConfig, call))
    path = local_path(call.path)
    with watched(call.progress, call.cancel) as monitor:
        volume = call.opened(monitor.part(0.0, 0.1), scratch=path.parent)
        part = monitor.part(0.1, 1.0)
        return unicompress.compress(volume, path, config, monitor=part, overwrite=call.overwrite)


def decompress(
    path: PathLike,
    region: tuple[slice | EllipsisType, ...] | None = None,
    *,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> Volume:
    """Read a container, or a part of it without decoding the rest.

    Only the blocks that the region touches are read; in files of a ratio or a quality a block is up
    to 256 slices (docs/compression.md).

    Args:
        path: the .ucv file.
        region: slices over [T,] K, J, I; the geometry follows the crop.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.

    Returns:
        The volume, or the part of it.

    Raises:
        CodecError: naming the damaged chunk; see `recover`.

        part = me.decompress("scan.ucv", region=(slice(40, 60), ...))
    """
    with watched(progress, cancel) as monitor:
        return unicompress.decompress(local_path(path), region=region, monitor=monitor)


def open(path: PathLike) -> unicompress.StoredVolume:  # noqa: A001 - as gzip.open, used with its module
    """Open a container as an array that stays on the disk: only voxels that are used are decoded.

    Args:
        path: the .ucv file.

    Returns:
        An object with shape, dtype, geometry; `[…]` gives voxels as an array, .read(region) a
        Volume. Dask takes it as an array.

    Raises:
        InputError, CodecError: it cannot be opened, is not a container, or is damaged.

        me.open("scan.ucv")[40:60]
    """
    return unicompress.StoredVolume(local_path(path))


def recover(
    path: PathLike, *, progress: Progress = None, cancel: Cancel | None = None
) -> tuple[Volume, unicompress.RecoverReport]:
    """Read every intact block of a damaged container.

    Args:
        path: the .ucv file.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.

    Returns:
        The volume, and a report of lost blocks; `report.mask(volume)` marks their voxels.

    Raises:
        CodecError: nothing can be read.

        volume, report = me.recover("damaged.ucv")
        me.save(report.mask(volume), "lost.nii.gz")
    """
    with watched(progress, cancel) as monitor:
        return unicompress.recover(local_path(path), monitor=monitor)


def degrade(
    volume: ImageLike,
    *,
    seed: int = 0,
    modality: ModalityName | None = None,
    affine: npt.ArrayLike | None = None,
    spacing: npt.ArrayLike | None = None,
    axes: Axes | None = None,
    progress: Progress = None,
    cancel: Cancel | None = None,
    **strengths: float | str,
) -> Volume:
    """Degrade a volume, or an array [slice, row, column] (nibabel: axes="IJK"), by simulation.

    Noise, blur, bias field, low dose, a scan of MR.

    Args:
        volume: a Volume, a path, an image of SimpleITK or nibabel, a MetaTensor, or an array
            [slice, row, column] with spacing or affine.
        seed: of the noise and the bias field; the same seed gives the same voxels.
        modality: "CT", "MR" …; None: that of the volume, else guessed from its values.
        affine: of an array, 4×4: (column, row, slice) → mm in RAS; or give spacing.
        spacing: of an array: mm between columns, rows and slices.
        axes: of an array, as in `enhance`.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.
        **strengths: one or more, applied in the order given: rician (σ of the noise as a share of
            the maximum, MR), low_dose (photons per ray, CT), blur (σ in pixels, within slices),
            bias (bias field of ± this share, MR), scanner ("epi", "2d" or "3d": a simulated scan by
            a random scanner, MR), composite=True (the benchmarks' bias, blur and noise, MR).

    Returns:
        A new volume of the same geometry, units and type: rounded and clipped once, at the end.

    Raises:
        ConfigError: no degradation, an unknown one, or a strength out of range.
        InputError: the modality has no such degradation, or the volume cannot be read.

        worse = me.degrade(volume, bias=0.3, rician=0.1, seed=7)
    """
    from MedEnhanceLib.degradation.pipeline import named_steps

    kinds = [(name.replace("_", "-"), strength) for name, strength in strengths.items()]
    steps = named_steps([step for step in kinds if step != ("composite", False)], seed)
    if not steps:
        raise ConfigError("no degradation was named", "For example: rician=0.1")
    with watched(progress, cancel) as monitor:
        call = VolumeCall(volume, modality=modality, affine=affine, spacing=spacing, axes=axes)
        clean = call.opened(monitor.part(0.0, 0.1))
        return degraded(clean, steps, monitor.part(0.1, 1.0))


def inspect(
    path_or_volume: PathLike | Volume,
    *,
    verify: bool = False,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """Describe a volume, a file, a DICOM folder or a container, which is not decoded.

    Args:
        path_or_volume: a path, or a volume in memory.
        verify: read all of a container, every chunk with its checksum and the file with its
            SHA-256.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.

    Returns:
        A JSON object. For a container "check" is None or, with `verify`, an object: whether the
        container is "intact", and the "damaged" chunks with block and offset.

    Raises:
        InputError, CodecError: it is neither a volume nor a container.
        ConfigError: `verify` of anything but a container.

        me.inspect("scan.nii.gz")["spacing"]
        me.inspect("scan.ucv", verify=True)["check"]["intact"]
    """
    with watched(progress, cancel) as monitor:
        if isinstance(path_or_volume, str | os.PathLike):
            params = InspectParams(input=os.fspath(path_or_volume), verify=verify)
            return inspect_volume(params, monitor)
        if verify:
            raise ConfigError("a volume in memory carries no checksums", "Leave out verify.")
        return described(as_volume(path_or_volume))


@dataclass(frozen=True, kw_only=True)
class NoiseCall(VolumeCall):
    """The arguments of `measure_noise`."""

    region: tuple[slice | EllipsisType, ...] | None = option(
        None, help="slices over K, J, I in even tissue, 64 voxels or more"
    )
    at: tuple[int, int, int] | None = option(
        None,
        help="slice, row and column of a voxel instead: the region is 12 mm around it",
        low=0,
        high=1_000_000,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_two_regions(self.region, self.at)


@takes(NoiseCall)
def measure_noise(call: NoiseCall) -> NoiseVerdict:
    """Measure the noise of a volume; an array is [slice, row, column], nibabel's with axes="IJK".

    Where that of the volume is uncertain, measure a region, and give its `sigma` to `enhance` as
    `noise`.

    Args:
        call: the volume and the region.

    Returns:
        An object with sigma and interval in the volume's units, snr, verdict (clean, noisy or
        uncertain), and removable: the share of the error that an enhancement can be expected to
        remove; print its sentence. Where the noise is uncertain, `places` are voxels for `at`,
        and `even_sigma` is what even tissue agrees on.
        What is neither CT nor MR, or no image, is uncertain, with sigma 0 and the reason.

    Raises:
        ConfigError: both region and at, or a region outside the volume.
        InputError: the volume cannot be read, or the region is too small or shows no tissue.

        print(me.measure_noise("scan.nii.gz").sentence)
        me.measure_noise("scan.nii.gz", at=(32, 28, 24)).sigma
    """
    with watched(call.progress, call.cancel) as monitor:
        volume = call.opened(monitor)
        return measured_noise(volume, region=call.region, at=call.at, monitor=monitor)


def measure_scanner(
    low_quality: PathLike | Sequence[ImageLike],
    high_quality: PathLike | Sequence[ImageLike],
    *,
    modality: ModalityName | None = None,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> Scanner:
    """Measure how one source of volumes differs from another, without pairs.

    Args:
        low_quality: volumes of the scanner: a folder, or a list of what `enhance` takes.
        high_quality: volumes that it is compared with, of the same body part and other patients.
        modality: "CT" or "MR"; None: as files state, else guessed from values.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.

    Returns:
        An object for `enhance(volume, scanner=…)`, with .low_quality and .high_quality (noise and
        bias field), .slices, .rows and .columns (resolution), .contrast (a curve), .gain (of
        its inversion), .without (steps that are not inverted), and .warnings.

    Raises:
        InputError: fewer than three volumes, a sequence, or two modalities.

        scanner = me.measure_scanner("old/", "good/")
        me.enhance("old/scan.nii.gz", scanner=scanner)
    """
    with watched(progress, cancel) as monitor:
        given, quiet = (low_quality, high_quality), monitor.without_progress()
        places = [os.fspath(local_path(p)) for p in given if isinstance(p, str | os.PathLike)]
        if len(places) == len(given):
            refuse_shared(*places)
        low, good = (
            volumes_in(os.fspath(local_path(pool)), modality, monitor)
            if isinstance(pool, str | os.PathLike)
            else LoadedInTurn(
                [functools.partial(VolumeCall(v, modality=modality).opened, quiet) for v in pool]
            )
            for pool in given
        )
        return check.measure_scanner(low, good, without_noise, monitor)
