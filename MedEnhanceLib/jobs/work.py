"""A job that writes, from its checks before long work to its manifest after it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from MedEnhanceLib import io
from MedEnhanceLib.core.manifest import as_json, described, make_manifest
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.atomic import write_json
from MedEnhanceLib.io.formats import CONTAINER
from MedEnhanceLib.jobs import files
from MedEnhanceLib.jobs.dicom import (
    DicomParams,
    Objects,
    check_folder,
    place_objects,
    source_series,
    write,
)
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.jobs.sidecar import copy_sidecar
from MedEnhanceLib.runtime.progress import Monitor


class Work:
    """The input and output files of a job, as its parameters declare them.

    The constructor refuses outputs that could not be written after the long work.

    Attributes:
        inputs: by role; the manifest states their hashes.
        outputs: by content; the manifest is written beside the first one.
        series: the volume of `dicom_source`, or None.
    """

    def __init__(
        self, action: str, params: files.OutputParams, monitor: Monitor, *, ending: str = ""
    ) -> None:
        """Check inputs and outputs; raises as the checks of `jobs.files` and `jobs.dicom` do.

        action: as in manifests, "converted". monitor: the manifest records its warnings.
        ending: of the output if it is not a volume, ".ucv".
        """
        self._action, self._params, self._began = action, params, time.monotonic()
        self._files, self._monitor = list[Path](), monitor
        self._objects: dict[str, Any] = {}
        self.series: Volume | None = None
        self._result: Volume | None = None
        self.inputs, self.outputs = files.inputs_of(params), files.results_of(params)
        inputs = [*self.inputs.values()]
        if isinstance(params, DicomParams) and params.dicom:
            check_folder(params, inputs)
            self.series = source_series(params, monitor.part(0.0, 0.01))
        else:
            files.check_outputs(
                self.outputs, inputs=inputs, ending=ending, overwrite=params.overwrite
            )

    def save(self, volumes: Mapping[str, Volume | None], monitor: Monitor) -> None:
        """Save each output to its file; an output whose volume is None is removed from them."""
        from MedEnhanceLib.io.volume_files import texts_beside

        monitor.progress(0.0, "saving the result")
        self._result = volumes["output"]
        for name in [*self.outputs]:
            volume = volumes.get(name)
            if volume is None:
                if self.outputs.pop(name).exists():
                    monitor.warn(f"the file of the {name} is of an earlier run: none was made now")
            else:
                path, is_main = self.outputs[name], name == "output"
                # Of the NIfTI header a map shares the space alone: other fields are of the image.
                fields = volume.header_fields
                space = {key: fields[key] for key in fields if key == "sform_code"}
                stored = volume if is_main else replace(volume, gradients=(), header_fields=space)
                texts = texts_beside(stored, path)
                io.save(stored, path, overwrite=self._params.overwrite, monitor=monitor)
                of = "" if is_main else f"{name}_"
                self.outputs.update((of + place.suffix[1:], place) for place in texts)

    def write(self, objects: Objects, monitor: Monitor) -> None:
        """Write DICOM objects, with their images assigned, into the folder."""
        assert isinstance(self._params, DicomParams)
        self._files, self._objects = write(objects, self._params, monitor)

    def save_volume(self, volume: Volume, monitor: Monitor) -> None:
        """Save the only volume of a job, as a file or as a DICOM series."""
        if isinstance(self._params, DicomParams) and self._params.dicom:
            monitor.progress(0.0, "saving the result")
            objects = Objects(volume, self._action, volume=volume)
            objects = place_objects(objects, self._params, self.series, monitor.part(0.0, 0.2))
            self.write(objects, monitor.part(0.2, 1.0))
        else:
            self.save({"output": volume}, monitor)

    def finish(
        self,
        *,
        config: Mapping[str, Any] | None = None,
        figures: Mapping[str, Any] | None = None,
        device: str = "cpu",
        model: Mapping[str, str] | None = None,
        source: Volume | None = None,
    ) -> Result:
        """Write the manifest beside the first output; returns the Result of the job.

        Args:
            config: options of the job, without those of the input.
            figures: measurements of the job, for manifest and Result.
            device: that models ran on.
            model: name and SHA-256.
            source: the volume that was read; the manifest names its DICOM series.
        """
        self._keep_sidecar(source)
        name = f"{self.inputs['input'].name}: "
        stated = self._params.stated() if isinstance(self._params, files.VolumeParams) else {}
        # A volume that another program sent has the name of the user's file in its header.
        if source is not None and not source.source.startswith(str(self.inputs["input"])):
            self.inputs["input"] = Path(source.source or self.inputs["input"])
        seconds = round(time.monotonic() - self._began, 3)
        origin = source.dicom_origin if source is not None else None
        diffusion: dict[str, Any] = {}
        if source is not None and source.gradients:
            tables = {name: self.outputs[name] for name in ("bval", "bvec") if name in self.outputs}
            diffusion = {
                "gradients": [vars(gradient) for gradient in source.gradients],
                "gradient_tables": {name: described(path) for name, path in tables.items()},
            }
        figures = as_json({**(figures or {}), **self._objects, **diffusion})
        manifest = make_manifest(
            self._action,
            config=as_json({**(config or {}), **stated}),
            inputs=self.inputs,
            device=device,
            seconds=seconds,
            model=model,
            results=_without_descriptions(figures),
            dicom=origin.facts() if origin else None,
            warnings=[text.removeprefix(name) for text in self._monitor.warnings],
        )
        path = files.manifest_path(next(iter(self.outputs.values())))
        write_json(path, manifest, overwrite=self._params.overwrite)
        written = {
            "outputs": self.outputs,
            "manifest": path,
            "device": device,
            "seconds": seconds,
            **({"model": model} if model else {}),
            **figures,
            **({"files": self._files} if self._files else {}),
        }
        return Result(as_json(written))

    def _keep_sidecar(self, source: Volume | None) -> None:
        """Copy the sidecar of BIDS, if the source has one and the result is no label map."""
        path, result = self.inputs["input"], self._result or source
        known = io.format_of(path)
        is_kept = known.is_of_bids if known else io.ending_of(path) == CONTAINER
        if source is None or result is None or not is_kept:
            return
        if result.profile.is_labels and not source.profile.is_labels:
            return
        output, overwrite = next(iter(self.outputs.values())), self._params.overwrite
        sidecar = copy_sidecar(
            path,
            output,
            result.shape,
            same_spacing=source.geometry.spacing == result.geometry.spacing,
            overwrite=overwrite,
            monitor=self._monitor,
        )
        self.outputs |= {"sidecar": sidecar} if sidecar else {}


def _without_descriptions(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the descriptions of series: free text, which may name the patient."""
    rows = [
        {name: value for name, value in row.items() if name != "description"}
        for row in figures.get("objects", ())
    ]
    return {**figures, **({"objects": rows} if rows else {})}
