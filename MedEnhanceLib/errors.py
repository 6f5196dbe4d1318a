"""Every error a user can meet, with its stable code and exit status.

MedEnhanceError
├── ConfigError          an invalid option or configuration             config   2
├── InputError           a file or volume that cannot be used           input    3
│   ├── GeometryError    its geometry cannot be used                    geometry 3
│   └── MissingFileError a file that does not exist                     input    3
├── OutputError          a result that cannot be written                output   1
│   └── EndingError      its name has an unsupported ending             ending   2
├── DependencyError      a package that is missing or cannot be loaded  dependency 4
├── ModelError           a bundle that is missing or damaged            model    4
│   └── UnfitModelError  a bundle of another kind or modality           model    3
├── DeviceMemoryError    memory ran out                                 memory   5
├── DeviceLostError      a GPU that stopped answering                   device   1
├── CodecError           a compressed file that is damaged              codec    6
│   └── NoContainerError a file that is not a compressed file           container 3
└── Cancelled            the user stopped the job                       cancelled 130
"""

from __future__ import annotations

from typing import ClassVar, Self


class MedEnhanceError(Exception):
    """An error: what went wrong (`message`) and what to do next (`hint`)."""

    code: ClassVar[str] = "failed"
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class ConfigError(MedEnhanceError):
    """An option or a configuration that is invalid, in general or for this volume."""

    code, exit_status = "config", 2


class InputError(MedEnhanceError, ValueError):
    """A file or a volume that cannot be read, or that does not suit the request."""

    code, exit_status = "input", 3


class GeometryError(InputError):
    """A volume whose geometry cannot be used."""

    code = "geometry"


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder that does not exist, for `except FileNotFoundError`, too."""

    def __new__(cls, *arguments: str, **_: str) -> Self:
        """Make the error as an OSError, which has the most fields of the bases."""
        return FileNotFoundError.__new__(cls, *arguments)


class OutputError(MedEnhanceError):
    """A result that cannot be written; earlier files are unchanged, or the message says where."""

    code, exit_status = "output", 1


class EndingError(OutputError):
    """A name for a result with an unsupported ending: a wrong command line."""

    code, exit_status = "ending", 2


class DependencyError(MedEnhanceError):
    """A package that a feature needs and that is not installed, or cannot be loaded."""

    code, exit_status = "dependency", 4


class ModelError(MedEnhanceError):
    """A bundle that is missing, damaged or unsuitable."""

    code, exit_status = "model", 4


class UnfitModelError(ModelError):
    """A volume, or a task, that a bundle or every bundle is unsuitable for."""

    exit_status = 3


class DeviceMemoryError(MedEnhanceError):
    """A lack of memory, on the device or on the host."""

    code, exit_status = "memory", 5


class DeviceLostError(MedEnhanceError):
    """A GPU that stopped answering; this process cannot use it again."""

    code, exit_status = "device", 1


class CodecError(MedEnhanceError):
    """A compressed file that is damaged, cut short or hostile."""

    code, exit_status = "codec", 6


class NoContainerError(InputError, CodecError):
    """A file that is not a compressed file of MedEnhance."""

    code, exit_status = "container", 3


class Cancelled(MedEnhanceError):  # noqa: N818 - the name is part of the contract
    """A job that the user stopped."""

    code, exit_status = "cancelled", 130
