"""Options of the commands that write DICOM."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.errors import ConfigError

OUTPUT = ".nii.gz, .nii, .nrrd or .mha; with --dicom a folder"
_OF_OUTPUT = (
    "like",
    "like_series",
    "enhanced_multiframe",
    "deidentify",
    "patient_id",
    "patient_name",
    "series_description",
)


def add_dicom_options(parser: argparse.ArgumentParser) -> None:
    """Whether OUTPUT is a folder of DICOM objects, and whose they are."""
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="write a derived DICOM series into the folder OUTPUT, in the study that it came from",
    )
    parser.add_argument(
        "--like",
        metavar="SERIES",
        help="the DICOM series that INPUT was made from, where INPUT itself is none",
    )
    parser.add_argument(
        "--like-series", metavar="S", help="which series of --like, by number or UID"
    )
    add_series_options(parser)
    parser.add_argument(
        "--deidentify",
        action="store_true",
        help="take out what names the patient, by DICOM's basic profile (PS3.15); for a"
        " cohort whose patients stay apart see deidentify",
    )
    parser.add_argument(
        "--series-description", metavar="TEXT", help="instead of one made from the source's"
    )
    parser.add_argument(
        "--patient-id", metavar="ID", help="whose it is, for what never was DICOM: a new study"
    )
    parser.add_argument(
        "--patient-name", metavar="NAME", help="as DICOM writes it, for example Doe^Jane"
    )


def add_series_options(parser: argparse.ArgumentParser) -> None:
    """How the series is written; `batch` takes them too."""
    parser.add_argument(
        "--enhanced-multiframe",
        action="store_true",
        help="one multi-frame file in place of one file a slice (CT, MR, PET)",
    )


def dicom_params(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters of a job that these options say; nothing where no DICOM is asked for.

    Raises ConfigError for options that mean nothing without the others.
    """
    given = {name: getattr(args, name, None) for name in _OF_OUTPUT}
    if not args.dicom:
        for name, value in given.items():
            if value:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option} without --dicom", "Add --dicom, or leave it out.")
        return {}
    if given["like_series"] and not given["like"]:
        raise ConfigError(
            "--like-series without --like", "Name the folder of the series: --like SERIES/"
        )
    like = {"like": _like(given)} if given["like"] else {}
    return (
        {"dicom": True}
        | like
        | {
            name: value
            for name, value in given.items()
            if value and name not in ("like", "like_series")
        }
    )


def _like(given: dict[str, Any]) -> dict[str, str]:
    series = given["like_series"]
    return {"path": given["like"]} | ({"series": series} if series else {})


def object_lines(fields: dict[str, Any]) -> list[str]:
    """What lies in the folder now, a line for each object."""
    return [f"  {_object_text(row)}" for row in fields.get("objects") or ()]


def _object_text(row: Mapping[str, Any]) -> str:
    count = len(row["files"])
    files = "1 file" if count == 1 else f"{count} files"
    return f"{row['role']}: {row['modality']} {row['description']!r}, {files}, {row['series_uid']}"
