"""Volumes of a batch, and the path of each result."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from MedEnhanceLib import io
from MedEnhanceLib._version import __version__
from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError, OutputError
from MedEnhanceLib.io.atomic import entry_of, resolved, write_json
from MedEnhanceLib.io.dicom.listing import Choice, SeriesRow, choices, counted_kinds
from MedEnhanceLib.io.dicom.sources import is_dicom, named
from MedEnhanceLib.io.formats import CONTAINER, DICOM_ENDINGS, voxel_endings, written_format
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import counted

_DICOM = ".dcm"
#: A volume: the file or folder, its path below the place that was named, and whether it is a folder
#: of DICOM, whose series are not listed yet.
_Volume = tuple[str, Path, bool]
#: A part of a series whose name in a list holds no text of the header, such as "coronal 3".
_PLAIN_PART = re.compile("[A-Za-z]+ [0-9.]+")
#: The record of a batch, and its table, in the folder of the results.
ROWS, TABLE = "batch.jsonl", "batch.csv"
#: Ends of names of files that belong to volumes, to MedEnhance or to systems: nobody misses them.
_NOT_MISSED = (".json", "bval", "bvals", "bvec", "bvecs", ROWS, TABLE, "thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Shard:
    """The part of a batch that is for one of `count` commands; index: from 1 to `count`."""

    index: int
    count: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """Read "3/100"; raises ConfigError for anything else."""
        index, _, count = text.partition("/")
        if not (index + count).isdecimal() or not 1 <= int(index or 0) <= int(count or 0):
            raise ConfigError(
                f"shard is {text}, which is no part I/N of N",
                "I goes from 1 to N: 1/100 to 100/100. Number the tasks of an array job from 1.",
            )
        return cls(int(index), int(count))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def prefix(self) -> str:
        """The first part of its files' names."""
        return f"shard-{self.index}-of-{self.count}."

    def has(self, result: Path) -> bool:
        """Return whether a result is of this part, by a hash of its path in the folder."""
        digest = hashlib.sha256(os.fsencode(result.as_posix())).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1


@dataclass(frozen=True)
class Item:
    """One volume of a batch: its path, and where its result goes; absolute, for remote workers.

    Attributes:
        series: which one of a folder, as `--series` takes it: UID or UID/part, because numbers in a
            list change.
        left_out: what of the series is not in this volume; "" for nothing.
        number: of the series where `source` is listed; 0 for the only one.
        files: all files of the series; empty for a volume that is its source.
    """

    source: str
    output: str
    series: str = ""
    left_out: str = ""
    number: int = 0
    files: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name in a row."""
        return f"{self.source} (series {self.series})" if self.series else self.source

    @property
    def params(self) -> dict[str, str]:
        """The parameters of its job."""
        params = {"input": self.source, "output": self.output}
        return params | ({"series": self.series} if self.series else {})

    @property
    def label(self) -> str:
        """The short name, as "scout, series 2 (coronal 3)"."""
        return label_of(self.name, self.series, self.number)


def label_of(name: str, series: str = "", number: int = 0) -> str:
    """Return the short name of a volume.

    Args:
        name: its source, as in its row.
        series: as of an Item.
        number: of the series in the list of its folder; 0 for the only one.
    """
    place = Path(name.removesuffix(f" (series {series})")).name
    part = series.partition("/")[2]
    return place + (f", series {number}" if number else "") + (f" ({part})" if part else "")


def source_seen_from(folder: str | Path, source: str) -> str:
    """Return the path of a source from the folder of its result: both may move together."""
    with suppress(ValueError):  # on Windows, another drive
        return os.path.relpath(source, folder)
    return source


class _Names:
    """Names of results, which stay what earlier runs gave them, whatever series come and go."""

    def __init__(self, ending: str | None, earlier: Callable[[], Iterable[tuple[str, str]]]):
        """Take an ending and earlier sources and names, as of `gather`."""
        self._ending, self._earlier = ending, earlier

    @cached_property
    def _known(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """The names of each source, and the sources of each name; read for DICOM alone."""
        names, sources = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
        for source, name in self._earlier():
            names[source].append(name)
            sources[name].append(source)
        return names, sources

    def path_of(self, item: Item, relative: Path, suffix: str) -> Path:
        """Return the path of an item's result below the folder of all; suffix: of a series."""
        alone = result_path(relative, self._ending)
        if not item.series:
            return alone
        folder = Path(item.output, alone).parent
        place, source = (source_seen_from(folder, name) for name in (item.source, item.name))
        ending = io.ending_of(alone) if self._ending != "" else ""
        stem = re.escape(alone.name.removesuffix(ending))
        names, sources = self._known
        for name in reversed(names.get(source, [])):
            if re.fullmatch(f"{stem}(-[A-Za-z0-9-]+)?{re.escape(ending)}", name):
                return alone.with_name(name)
        for text in [suffix] if item.number else ["", suffix]:
            path = result_path(relative, self._ending, text)
            if not any(other.startswith(place) for other in sources.get(path.name, ())):
                return path
        return result_path(relative, self._ending, f"{suffix}-{_hash_of(item.series)}")


def _hash_of(series: str) -> str:
    return hashlib.sha256(series.encode()).hexdigest()[:8]


def _suffixes(images: Sequence[Choice]) -> dict[str, str]:
    """Return what tells the results of series apart: "CT-4", with a hash where several are alike.

    Descriptions may hold names of patients, so they are not used.
    """
    names = {choice.row.key: _suffix(choice.row) for choice in images if choice.part is not None}
    counts = Counter(names.values())
    return {
        key: name if counts[name] == 1 else f"{name}-{_hash_of(key)}" for key, name in names.items()
    }


def _suffix(row: SeriesRow) -> str:
    number = row.series_number if row.series_number.isdecimal() else ""
    part = row.part if _PLAIN_PART.fullmatch(row.part) else ""
    text = "-".join(filter(None, (row.modality or "series", number, part)))
    return re.sub("[^A-Za-z0-9]+", "-", text)


@dataclass(frozen=True)
class _Rest:
    """Files and objects among volumes that are left out.

    Attributes:
        files: that are not read as volumes → their paths below the place that was named.
        objects: the first files of objects of DICOM that are not images → these.
        unknown: folders of DICOM → files there that may not be DICOM, as `files` has them.
        modalities: of the series that are processed; empty for all. others: as objects, of others.
    """

    modalities: tuple[str, ...] = ()
    files: dict[Path, str] = field(default_factory=dict)
    objects: dict[Path, Choice] = field(default_factory=dict)
    unknown: dict[str, dict[Path, str]] = field(default_factory=dict)
    others: dict[Path, Choice] = field(default_factory=dict)

    def warn(self, monitor: Monitor) -> None:
        """Count and name all of it."""
        if self.files:
            files, names = counted(len(self.files), "file"), named([*self.files.values()])
            monitor.warn(f"left out: {files} that this command does not read: {names}")
        if self.objects:
            kinds = counted_kinds([*self.objects.values()])
            monitor.warn(f"left out, because they are not images: {kinds}")
        if self.others:
            counts = Counter(choice.row.modality for choice in self.others.values())
            kinds = ", ".join(f"{count} × {name}" for name, count in sorted(counts.items()))
            monitor.warn(f"left out, series that are not {' or '.join(self.modalities)}: {kinds}")


def gather(
    places: Sequence[str],
    out: Path,
    *,
    containers: bool,
    ending: str | None,
    monitor: Monitor,
    shard: Shard | None = None,
    modalities: Sequence[str] = (),
    earlier: Callable[[], Iterable[tuple[str, str]]] = tuple,
) -> list[Item]:
    """Return the volumes at all places, in order.

    Args:
        places: files, and folders, which give every volume below them; a folder of DICOM gives
            every series of images too, also of those that cannot be read.
        out: the folder of the results, a resolved path, which is not searched.
        containers: whether .ucv files are volumes too.
        ending: of the results; None keeps a source's, "" makes folders.
        monitor: warned of what is left out; may cancel.
        shard: whose volumes are returned. A folder of DICOM is of one, which alone reads its files.
        modalities: of DICOM series; others are left out, those that state none are not. Empty: all.
        earlier: returns sources that are done, as `source_seen_from`, with names of their results.
    Raises InputError if no volume exists, ConfigError if results share a name or `out` is named.
    """
    if not places:
        raise ConfigError("no volumes were named", "Name files or folders.")
    items, rest, skipped = dict[str, Item](), _Rest(tuple(modalities)), set[str]()
    names = _Names(ending, earlier)
    for place in places:
        for volume in _volumes_below(Path(place), out, containers, rest):
            monitor.check()
            if shard and not shard.has(result_path(volume[1], ending)):
                skipped.add(volume[0])
                continue
            for item, relative, suffix in _with_series(volume, str(out), rest):
                result = out / names.path_of(item, relative, suffix)
                item = replace(item, output=str(result))
                other = items.setdefault(item.output, item)
                if other.name != item.name:
                    raise ConfigError(
                        f"{other.source} and {item.source} would both become {item.output}",
                        "Rename one, or process them in two runs, into two folders.",
                    )
    for source, files in rest.unknown.items():
        if source not in skipped:
            rest.files.update(each for each in files.items() if not is_dicom(each[0]))
    rest.warn(monitor)
    if not any(map(os.path.lexists, [*skipped, *(item.source for item in items.values())])):
        if missing := [place for place in places if not os.path.lexists(place)]:
            verb = "does" if len(missing) == 1 else "do"
            raise InputError(f"{', '.join(missing)} {verb} not exist", "Check the path.")
        raise InputError(f"{', '.join(places)}: no volumes found", "Name a folder with volumes.")
    return list(items.values())


def _volumes_below(path: Path, out: Path, containers: bool, rest: _Rest) -> Iterator[_Volume]:
    """Yield every volume at or below a path, and note what else lies there."""
    path = entry_of(path)  # a link at its end names the result
    if not path.is_dir():
        yield str(path), Path(path.name), False  # a missing file too: its row gets the error
        return
    top = resolved(path)
    if top == out:
        raise ConfigError(
            f"{path} is the folder of the volumes and of the results",
            "Name another one with --out; it may lie in the first.",
        )
    endings = {*io.READABLE, *([CONTAINER] if containers else ())}
    unreadable: list[OSError] = []
    series, place = None, path

    def place_of(folder: Path) -> tuple[Path, Path]:
        return (path, Path(path.name)) if folder == top else (folder, folder.relative_to(top))

    for name, below, names in os.walk(top, onerror=unreadable.append):
        folder = Path(name)
        # What is hidden is temporary, of MedEnhance, or metadata of macOS on other disks.
        below[:] = sorted(entry for entry in below if not entry.startswith("."))
        if folder == out:
            below.clear()
            continue
        files = [folder / entry for entry in sorted(names) if not entry.startswith(".")]
        of_voxels = {ending for file in files for ending in voxel_endings(file)}
        known = (*endings, *_NOT_MISSED, *of_voxels)
        others = [file for file in files if not file.name.lower().endswith(known)]
        is_dicom_here = series is not None and folder.is_relative_to(series)
        if not is_dicom_here and any(map(is_dicom, others)):
            series, is_dicom_here = folder, True  # with its subfolders
            place, relative = place_of(folder)
            yield str(place), relative, True
        links = [folder / entry for entry in below if not is_dicom_here]
        rest.files.update((link, str(link.relative_to(top))) for link in links if link.is_symlink())
        for file in files:
            ending = io.ending_of(file)
            if ending in endings or (ending in DICOM_ENDINGS and not is_dicom_here):
                yield str(file), file.relative_to(top), False
        unread = rest.unknown.setdefault(str(place), {}) if is_dicom_here else rest.files
        for file in others:
            if io.ending_of(file) not in DICOM_ENDINGS:
                unread[file] = str(file.relative_to(top))
    for error in unreadable:  # the job reports it
        place, relative = place_of(Path(error.filename))
        yield str(place), relative, False


def _with_series(volume: _Volume, out: str, rest: _Rest) -> Iterator[tuple[Item, Path, str]]:
    """Yield a volume, or the series of images in a folder of DICOM.

    Unreadable series are yielded too: their jobs will fail. A folder without a readable one is
    yielded itself: its job reports the fault. Objects that are not images are noted.

    Args:
        volume: as of `_volumes_below`.
        out: the folder of the results, which the items have for their output.
        rest: gets what is left out.
    Yields items, their paths below the place that was named, and what tells a series from others.
    """
    source, relative, is_folder = volume
    if not is_folder:
        yield Item(source, out), relative, ""
        return
    folder = Path(source)
    try:
        listed = choices(folder, Monitor())
    except MedEnhanceError:
        yield Item(source, out), relative, ""
        return
    images = [choice for choice in listed if choice.about.is_image]
    rest.objects.update((each.about.file, each) for each in listed if not each.about.is_image)
    wanted = ("", *rest.modalities)
    asked = [each for each in images if not rest.modalities or each.row.modality in wanted]
    rest.others.update((each.about.file, each) for each in images if each not in asked)
    if asked and all(choice.part is None for choice in images):
        yield Item(source, out), relative, ""
        return
    are_several = sum(choice.part is not None or choice.about.damaged for choice in images) > 1
    suffixes = _suffixes(images)
    for choice in asked:
        file, key = choice.about.file, choice.row.key
        if choice.part is None and not (choice.about.damaged and choice.row.uid):
            # Readable images may have the same UID. The ending keeps the name from a volume's.
            name = relative / f"{file.relative_to(folder)}{_DICOM}"
            yield Item(str(file), out), name, ""
        elif choice.row.uid:
            item = _listed_as(Item(source, out, key, "; ".join(choice.left_out)), choice)
            suffix = suffixes.get(key) or f"{_suffix(choice.row)}-{_hash_of(key)}"
            item = item if are_several else replace(item, number=0)
            yield item, relative, suffix
        else:
            yield Item(source, out), relative, ""


def _listed_as(item: Item, choice: Choice) -> Item:
    files = tuple(sorted(map(str, choice.members)))
    return replace(item, number=choice.row.number, files=files)


def with_files(items: Sequence[Item]) -> list[Item]:
    """Return items of rows, which have no files, with the files of their series."""
    listed = dict[str, dict[str, Choice]]()
    for source in {item.source for item in items if item.series}:
        with suppress(MedEnhanceError):  # the job reports it
            listed[source] = {each.row.key: each for each in choices(Path(source), Monitor())}
    choices_of = ((item, listed.get(item.source, {}).get(item.series)) for item in items)
    return [_listed_as(item, choice) if choice else item for item, choice in choices_of]


def result_path(relative: Path, ending: str | None, suffix: str = "") -> Path:
    """Return the path of a result below the folder of all.

    Args:
        relative: the path of the source below the place that was named.
        ending: as of `gather`.
        suffix: what tells a series from others in its folder.
    """
    source_ending = io.ending_of(relative)
    has_ending = source_ending in io.READABLE or source_ending in (CONTAINER, _DICOM)
    stem = relative.name[: -len(source_ending)] if has_ending else relative.name
    if ending is None:
        ending = source_ending if written_format(relative) else io.WRITABLE[0]
    return relative.with_name("-".join(filter(None, (stem, suffix))) + ending)


_DESCRIPTION = "dataset_description.json"
#: An anatomical or diffusion image of BIDS: not the phase of a complex image, nor a derivative.
_BIDS_IMAGE = re.compile(
    r"(?P<entities>sub-(?!.*_(?:part-(?:phase|real|imag)|desc-)).+)"
    r"_(?P<suffix>T1w|T2w|PDw|T2starw|FLAIR|inplaneT1|inplaneT2|PDT2|angio|dwi)\.nii(\.gz)?"
)


def bids_items(root: Path, out: Path, task: str, shard: Shard | None = None) -> list[Item]:
    """Return the images of a BIDS dataset to process, and their names in a derivative dataset.

    Args:
        root: of the dataset.
        out: folder of the derivative dataset.
        task: of the batch, for names.
        shard: whose images are returned.
    Raises InputError if `root` is not a dataset, OutputError if `out` lies among its raw files.
    """
    if not (root / _DESCRIPTION).is_file():
        raise InputError(
            f"{root} is no BIDS dataset: it has no {_DESCRIPTION}",
            "Name the top folder of one, or leave out --bids to process the volumes of any folder.",
        )
    real = out.resolve()
    if real.is_relative_to(root.resolve()) and (root / "derivatives").resolve() not in real.parents:
        raise OutputError(
            f"{out} lies in the raw dataset",
            f"Omit --out, or name a folder in {root / 'derivatives'} or outside the dataset.",
        )
    items = []
    folders = ["anat"] if task == "segment" else ["anat", "dwi"]
    levels = [f"{level}/{folder}/*" for level in ("sub-*", "sub-*/ses-*") for folder in folders]
    for path in sorted(path for level in levels for path in root.glob(level)):
        image = _BIDS_IMAGE.fullmatch(path.name)
        if image is None:
            continue
        # The entity desc comes last; two contrasts of a subject keep their labels apart.
        name = f"{image['entities']}_desc-enhanced_{image['suffix']}.nii.gz"
        if task == "segment":
            name = f"{image['entities']}_desc-{image['suffix']}_dseg.nii.gz"
        items.append(Item(str(path), str(out / path.relative_to(root).with_name(name))))
    if not items:
        raise InputError(
            f"{root}: no {' or '.join(folders)} images",
            "Expected: sub-*/[ses-*/]anat/*_T1w.nii.gz, for enhance also dwi/*_dwi.nii.gz.",
        )
    return [i for i in items if shard is None or shard.has(Path(i.output).relative_to(out))]


def describe_derivatives(out: Path) -> None:
    """Write the file that makes a folder a derivative dataset of BIDS, unless it exists."""
    description = {
        "Name": "Derived by MedEnhance",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "MedEnhance", "Version": __version__}],
    }
    if not os.path.lexists(out / _DESCRIPTION):
        write_json(out / _DESCRIPTION, description, overwrite=True)  # another shard may be faster
