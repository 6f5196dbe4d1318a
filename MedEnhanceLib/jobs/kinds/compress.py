"""Jobs of the compressed container: compress, estimate, decompress, recover."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from MedEnhanceLib import unicompress
from MedEnhanceLib.core.manifest import as_json
from MedEnhanceLib.core.options import About, option
from MedEnhanceLib.core.origin import DicomOrigin
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.formats import CONTAINER
from MedEnhanceLib.jobs import files
from MedEnhanceLib.jobs.dicom import DicomParams, place_volume
from MedEnhanceLib.jobs.files import KeptVolumes, OutputParams, Result
from MedEnhanceLib.jobs.work import Work
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.config import CompressConfig

#: Fields of a CompressResult that every job's result states anyway.
_ELSEWHERE = ("path", "seconds")


@dataclass(frozen=True, kw_only=True)
class EstimateParams(files.VolumeParams):
    """Estimate size and quality from some slices; nothing is written."""

    config: Annotated[CompressConfig, About(help="what the file guarantees, and how fast")]


@dataclass(frozen=True, kw_only=True)
class CompressParams(OutputParams, EstimateParams):
    """Compress a volume into a verified file."""

    output: Annotated[str, About(help="output file, .ucv")]
    dicom: dict[str, str] | None = option(
        None,
        help='{"study", "series"}: UIDs of the DICOM series that an image file was made from',
        flag=None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dicom is not None and {*self.dicom} != {"study", "series"}:
            raise ConfigError(f"dicom is {self.dicom}", "Give the UIDs of study and series.")


@dataclass(frozen=True, kw_only=True)
class DecompressParams(DicomParams):
    """Decode a container, or a part of it."""

    input: Annotated[str, About(help="a .ucv", flag="FILE", place="input")]
    region: list[list[int | None] | None] | None = option(
        None,
        help="[start, stop] or null (all) for each axis [T,] K, J, I; last ones may be missing",
        low=-1_000_000,
        high=1_000_000,
        flag=None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        files.region_from_json(self.region)


@dataclass(frozen=True, kw_only=True)
class RecoverParams(OutputParams):
    """Save what is intact in a damaged container."""

    input: Annotated[str, About(help="a damaged .ucv", flag="FILE", place="input")]
    output: Annotated[str, About(help=files.OUTPUT_FILE)]
    mask_output: str | None = option(
        None,
        help="file of the mask of lost voxels, if there are any (default: beside OUTPUT)",
        flag=None,
        place="output",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        files.check_ending(Path(self.output))
        mask = self.mask_output or files.beside(self.output, "lost")
        object.__setattr__(self, "mask_output", mask)


def run_compress(params: CompressParams, monitor: Monitor, kept: KeptVolumes) -> Result:
    """Load → compress → verify and replace (in `compress`) → manifest.

    Args:
        params: of the job.
        monitor: receives progress; may cancel.
        kept: holds the volume after an estimate.
    """
    work = Work("compressed", params, monitor, ending=CONTAINER)
    output = work.outputs["output"]
    # After an estimate the volume is in memory already.
    volume, _ = kept.load(params, keep=False, scratch=output.parent, monitor=monitor.part(0.0, 0.1))
    if params.dicom and volume.dicom_origin is None:
        origin = DicomOrigin(params.dicom["study"], params.dicom["series"], (), on_grid=False)
        volume = replace(volume, dicom_origin=origin)
    part = monitor.part(0.1, 1.0)
    compressed = unicompress.compress(
        volume, output, params.config, monitor=part, overwrite=params.overwrite
    )
    return work.finish(
        config=params.config.to_json(),
        figures={
            name: value for name, value in as_json(compressed).items() if name not in _ELSEWHERE
        },
        source=volume,
    )


def run_estimate(params: EstimateParams, monitor: Monitor, kept: KeptVolumes) -> Result:
    """Load → code some slices; nothing is written. Implicit blocks are not estimated.

    Args:
        params: of the job.
        monitor: warned if implicit blocks are requested.
        kept: keeps the volume for the compression.
    """
    volume, _ = kept.load(params, keep=True, monitor=monitor.part(0.0, 0.1))
    if params.config.block_type == "implicit":
        monitor.warn("the estimate is for the other block types: implicit blocks lose more")
    return Result(
        as_json(unicompress.estimate(volume, params.config, monitor=monitor.part(0.1, 1.0)))
    )


def run_decompress(params: DecompressParams, monitor: Monitor) -> Result:
    """Decode the region → save, as a file or as DICOM → manifest."""
    work = Work("decompressed", params, monitor)
    source, region = Path(params.input), files.region_from_json(params.region)
    if params.dicom:  # a series of another patient is refused before decoding
        place_volume(unicompress.outline(source, region), params, work.series, Monitor())
    volume = unicompress.decompress(source, region=region, monitor=monitor.part(0.01, 0.8))
    work.save_volume(volume, monitor.part(0.8, 1.0))
    return work.finish(
        config={"region": params.region},
        figures={"shape": volume.shape, "dtype": str(volume.dtype)},
        source=volume,
    )


def run_recover(params: RecoverParams, monitor: Monitor) -> Result:
    """Decode every intact block → save, with a mask of the others → manifest that lists them."""
    work = Work("recovered from a damaged container", params, monitor)
    volume, report = unicompress.recover(Path(params.input), monitor=monitor.part(0.0, 0.9))
    mask = report.mask(volume) if report.lost else None
    work.save({"output": volume, "mask": mask}, monitor.part(0.9, 1.0))
    return work.finish(figures={"report": report})
