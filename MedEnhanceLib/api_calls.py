"""Arguments of the Python API's functions, declared as the options of methods are."""

from __future__ import annotations

import functools
import inspect
import os
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from MedEnhanceLib.core.options import Options, check_names, local_path, option, option_of
from MedEnhanceLib.core.volume import Volume, as_volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.describe import warn_of_doubts
from MedEnhanceLib.jobs.files import load_volume
from MedEnhanceLib.runtime.progress import Cancel, Listener, Monitor

C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")

PathLike = str | os.PathLike[str]
Progress = Listener | bool | None
HELD = (
    "a Volume, a path, a SimpleITK or nibabel image, a MONAI MetaTensor, or an array [slice, row, "
    "column] with spacing or affine"
)


@dataclass(frozen=True, kw_only=True)
class Watched(Options):
    """Options shared by all functions."""

    progress: Progress = option(
        None, help="a function that is called with each `progress.Event`, or True for a bar"
    )
    cancel: Cancel | None = option(
        None, help="a function that returns whether to stop, or a threading.Event"
    )


@dataclass(frozen=True, kw_only=True)
class Placed(Options):
    """Options shared by functions of a volume."""

    affine: Any = option(
        None, help="affine of an array, 4×4: (column, row, slice) → mm in RAS; or give spacing"
    )
    spacing: Any = option(None, help="spacing of an array: mm between columns, rows and slices")
    modality: str | None = option(
        None, help='"CT", "MR" …; None: that of the volume, else guessed from its values'
    )

    def opened(self, data: Any, monitor: Monitor, scratch: Path | None = None) -> Volume:
        """Return the volume that `data` is, holds or leads to.

        Args:
            data: a path, a `Volume`, or what `core.volume.as_volume` takes.
            monitor: receives progress, and warnings of data whose meaning is uncertain.
            scratch: as of `io.load`; None: all voxels are read into memory.
        Raises as `io.load` and `as_volume`, and ConfigError for affine or spacing of a file.
        """
        if isinstance(data, str | os.PathLike):
            if self.affine is not None or self.spacing is not None:
                raise ConfigError("affine or spacing is given of a file", "A file has its own.")
            return load_volume(
                local_path(data), modality=self.modality, scratch=scratch, monitor=monitor
            )
        volume = as_volume(data, affine=self.affine, spacing=self.spacing, modality=self.modality)
        if volume is not data:
            warn_of_doubts(volume, type(data).__name__, monitor)
        return volume


def takes(declaration: Callable[P, C]) -> Callable[[Callable[[C], R]], Callable[P, R]]:
    """Give a function of a declaration the declaration's fields as its arguments.

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
) -> inspect.Signature:
    """Return the signature of a declaration, and what the function returns."""
    signature, hints = inspect.signature(declaration), typing.get_type_hints(declaration)
    parameters = [
        each.replace(annotation=hints[name]) if "Annotated[" in str(each.annotation) else each
        for name, each in signature.parameters.items()
    ]
    returns = inspect.signature(function).return_annotation
    return signature.replace(parameters=parameters, return_annotation=returns)
