"""Finds a segmenter's network, weights and spec in whatever file a user has.

Weights are read as data. Files that contain a program are run only where the user trusts them.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from MedEnhanceLib.bundles.schema import CARD, FORMAT, METADATA
from MedEnhanceLib.bundles.store import folder_of, open_bundle
from MedEnhanceLib.core.options import did_you_mean
from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.gradprom.foreign import installed_folder
from MedEnhanceLib.gradprom.monai_bundle import read_network, read_spec
from MedEnhanceLib.gradprom.monai_config import Config
from MedEnhanceLib.gradprom.segmenter_spec import (
    Intensity,
    NetworkSpec,
    SegmenterSpec,
    refuse_missing,
)
from MedEnhanceLib.nets.slices import GRID
from MedEnhanceLib.runtime.dependencies import require

Kind = Literal["head", "monai-bundle", "torchscript", "state-dict", "module"]
#: Sizes that are read at most: nothing in an archive is believed about its own size.
_MOST_TEXT, _MOST_WEIGHTS = 8 << 20, 4 << 30
_INFERENCE = PurePosixPath("configs/inference.json")
_WEIGHTS = ("models/model.safetensors", "models/model.pt")
_PROGRAM = "models/model.ts"
#: What a checkpoint calls its weights, where it holds more.
_KEYS = ("state_dict", "model_state_dict", "model", "network", "net")
#: Networks whose code in MONAI needs a package that MedEnhance does not.
_NEEDS_EINOPS = ("SwinUNETR", "UNETR")
#: Arguments of older classes of MONAI that have no effect any more.
_RETIRED = {"SwinUNETR": ("img_size",)}
_TRUST = (
    "If you trust where it comes from, allow it: --trust-segmenter, trust=True in Python, or the "
    "box below the segmenter in Slicer."
)
_WEIGHTS_ALONE = " Or give its weights alone (a state dict), and name the network in the spec."
_SAVE_WEIGHTS = (
    "Save the weights alone: torch.save(network.state_dict(), …), or as safetensors; their network "
    "is named in the spec (network)."
)
_SPEC = (
    "Write what it expects into {}, or give spec= in Python; docs/segmenters.md shows one of each "
    "kind."
)


LICENSES = ("LICENSE", "docs/license.txt", "docs/LICENSE")
#: What the note on a bundle's license begins with.
LICENSE_NOTE = "its license: "


@dataclass(frozen=True)
class Found:
    """A network for use, with what it expects; still to be frozen and checked."""

    name: str
    kind: Kind
    network: nn.Module
    spec: SegmenterSpec
    sha256: str
    notes: tuple[str, ...] = ()


def find(source: str | Path | nn.Module, spec: SegmenterSpec | None, *, trust: bool) -> Found:
    """The network of a source, and its spec; raises as `open_segmenter`."""
    if isinstance(source, nn.Module):
        name = type(source).__name__
        if spec is None:
            raise ModelError(
                f"the module {name} comes without a spec", "Give spec=SegmenterSpec(…)."
            )
        # A copy: the user's own module may go on learning.
        copy = deepcopy(source).float().eval()
        return Found(name, "module", copy, spec, _digest(copy))
    path = Path(source)
    if path.is_dir() and folder_of(str(source)) is not None:
        return _of_folder(path, spec, trust=trust)
    if path.is_file():
        return _of_file(path, spec or _spec_beside(path), trust=trust)
    if (installed := installed_folder(str(source), "segmenter")) is not None:
        return _of_folder(installed, spec, trust=trust)
    refuse_missing(source)
    return _of_head(str(source), spec)


def find_restoration(path: Path) -> Found:
    """The network of a MONAI bundle, folder or zip, that gives an image; raises ModelError.

    As data: what contains a program is refused, whoever made it. A name stands for one that was
    imported.
    """
    path = installed_folder(str(path), "restoration") or path
    if path.is_dir():
        members: _Members = _Folder(path)
    else:
        inside = _zip_names(path)
        if _kind_of(inside) != "monai-bundle":
            raise ModelError(f"{path.name}: no MONAI bundle", "Give its folder, or a zip of it.")
        members = _Zip.of_bundle(path, inside)
    metadata = _config(members, METADATA)
    assert metadata is not None  # what is_restoration looked at
    return _of_bundle(members, metadata, None, trust=False, restores=True)


def read_members(folder: Path) -> dict[str, bytes]:
    """All that is ever read of a MONAI bundle without trust, by path inside; raises ModelError."""
    members, found = _Folder(folder), dict[str, bytes]()
    for name in (*map(str, (METADATA, _INFERENCE, CARD)), *LICENSES, *_WEIGHTS):
        path = PurePosixPath(name)
        if any((folder / one).is_symlink() for one in (path, *path.parents[:-1])):
            raise ModelError(
                f"{folder}: {name} is a link", "Copy the bundle with files in place of links."
            )
        content = members.read(name, _MOST_WEIGHTS if name in _WEIGHTS else _MOST_TEXT)
        if content is not None and not (name in _WEIGHTS and found.keys() & set(_WEIGHTS)):
            found[name] = content
    return found


def _spec_beside(path: Path) -> SegmenterSpec | None:
    """That of `<file>.json`; None where there is no such file."""
    beside = path.with_name(f"{path.name}.json")
    if not beside.is_file():
        return None
    try:
        return SegmenterSpec.from_json(json.loads(beside.read_text(encoding="utf-8")))
    except ConfigError as error:
        raise ModelError(f"{beside.name}: {error.message}", error.hint) from error
    except (OSError, ValueError, RecursionError) as cause:
        raise ModelError(f"{beside.name}: cannot be read ({cause})", "Correct the JSON.") from cause


def _of_head(name_or_path: str, stated: SegmenterSpec | None) -> Found:
    """A head of MedEnhance; raises ModelError for another kind of model, or a damaged one."""
    if stated is not None:
        raise ModelError(
            f"{name_or_path}: a head of MedEnhance states itself what it expects",
            "Leave the spec out.",
        )
    from MedEnhanceLib.gradprom.head import kept_components, open_head

    bundle = open_bundle(name_or_path, kind="head", modality="OT")
    model = open_head(bundle)
    spec = SegmenterSpec.from_json(
        {
            "modality": bundle.modality,
            "labels": [label.name for label in model.labels],
            "dimensions": 2,
            "context": model.config.context,
            "intensity": Intensity(kind="own"),
            "multiple": GRID,
        }
    )
    kept = kept_components(bundle)
    notes = (f"all parts of each label count, not the {kept} largest alone",) if kept else ()
    return Found(bundle.name, "head", model.network, spec, bundle.sha256, notes)


class _Members(Protocol):
    """The files of a bundle: a folder or a zip."""

    @property
    def name(self) -> str: ...

    def read(self, member: str, most: int) -> bytes | None: ...


@dataclass(frozen=True)
class _Folder:
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def read(self, member: str, most: int) -> bytes | None:
        """A file of at most that size; None where there is none."""
        path = self.folder / member
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            return _limited(stream.read(most + 1), most, member)


@dataclass(frozen=True)
class _Zip:
    """Read in memory: nothing is written, so no name in it can lead anywhere."""

    path: Path
    root: str

    @classmethod
    def of_bundle(cls, path: Path, inside: list[str]) -> _Zip:
        """The bundle in a zip with these names, of which the first metadata count."""
        metadata = next(name for name in inside if name.endswith(str(METADATA)))
        return cls(path, metadata.removesuffix(str(METADATA)))

    @property
    def name(self) -> str:
        return PurePosixPath(self.root).name or self.path.stem

    def read(self, member: str, most: int) -> bytes | None:
        """A file of at most that size; None where there is none."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.root + member) as stream:
                return _limited(stream.read(most + 1), most, member)
        except KeyError:
            return None
        except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as cause:
            raise ModelError(
                f"{self.path.name}: {member} cannot be read ({cause})",
                "Download or copy the file again.",
            ) from cause


def _limited(content: bytes, most: int, member: str) -> bytes:
    if len(content) > most:
        raise ModelError(f"{member}: larger than {most >> 20} MiB", "This is no segmenter's file.")
    return content


def _of_folder(folder: Path, spec: SegmenterSpec | None, *, trust: bool) -> Found:
    members = _Folder(folder)
    metadata = _config(members, METADATA)
    if metadata is not None and metadata.fields.get("format") == FORMAT:
        return _of_head(str(folder), spec)
    if metadata is None:
        raise ModelError(
            f"{folder}: no {METADATA} inside",
            "Choose a head of MedEnhance, the folder of a MONAI bundle, or a segmenter's file.",
        )
    return _of_bundle(members, metadata, spec or _spec_beside(folder.resolve()), trust=trust)


def _config(members: _Members, member: PurePosixPath) -> Config | None:
    content = members.read(str(member), _MOST_TEXT)
    if content is None:
        return None
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as cause:
        raise ModelError(f"{member}: no JSON ({cause})", "Download the bundle again.") from cause
    if not isinstance(fields, dict):
        raise ModelError(f"{member}: no JSON object", "Download the bundle again.")
    return Config(str(member), fields)


def _of_bundle(
    members: _Members,
    metadata: Config,
    spec: SegmenterSpec | None,
    *,
    trust: bool,
    restores: bool = False,
) -> Found:
    """A MONAI bundle: its weights in a listed network, else its TorchScript where it is trusted."""
    inference = _config(members, _INFERENCE)
    if inference is None and (spec is None or spec.network is None):
        raise ModelError(
            f"{members.name}: no {_INFERENCE} inside (YAML is not read)",
            _SPEC.format(f"{members.name}.json beside the bundle"),
        )
    inference = inference or Config(str(_INFERENCE), {})
    try:
        program = members.read(_PROGRAM, _MOST_WEIGHTS) if trust else None
        network = spec.network if spec else None
        try:
            network = network or read_network(inference)
        except ModelError as error:
            if program is None:
                has_program = not restores and members.read(_PROGRAM, _MOST_WEIGHTS) is not None
                way = f" Or use its {_PROGRAM}. {_TRUST}" if has_program else ""
                raise ModelError(error.message, error.hint + way) from error
        notes = _license_of(members, metadata)
        if spec is None:
            spec, more = read_spec(metadata, inference, network, restores=restores)
            notes += more
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as cause:
        raise ModelError(
            f"{members.name}: its configurations cannot be understood ({cause})",
            _SPEC.format(f"{members.name}.json beside the bundle"),
        ) from cause
    except ConfigError as error:
        raise ModelError(f"{inference.file}: {error.message}", error.hint) from error
    if network is None and program is not None:
        loaded = _script(program, members.name)
        return Found(members.name, "monai-bundle", loaded, spec, _sha256(program), notes)
    assert network is not None
    contents = ((name, members.read(name, _MOST_WEIGHTS)) for name in _WEIGHTS)
    name, content = next(((n, found) for n, found in contents if found is not None), ("", b""))
    if not name:
        raise ModelError(
            f"{members.name}: neither {' nor '.join(_WEIGHTS)} is inside",
            "Download the bundle with its large files: python -m monai.bundle download.",
        )
    built, more = build(network, read_weights(content, f"{members.name}/{name}"), members.name)
    return Found(members.name, "monai-bundle", built, spec, _sha256(content), (*notes, *more))


def _license_of(members: _Members, metadata: Config) -> tuple[str, ...]:
    """What a bundle says of its license, in a line."""
    said = [str(metadata.fields.get(name) or "") for name in ("license", "copyright")]
    for name in LICENSES:
        content = members.read(name, _MOST_TEXT) or b""
        said += content.decode("utf-8", "replace").strip().splitlines()[:1]
    text = "; ".join(dict.fromkeys(line.strip() for line in said if line.strip()))
    clean = "".join(sign for sign in text if sign.isprintable())[:200]
    return (f"{LICENSE_NOTE}{clean or 'not stated'}",)


def _of_file(path: Path, spec: SegmenterSpec | None, *, trust: bool) -> Found:
    """A single file, recognized by its content."""
    inside = _zip_names(path)
    kind = _kind_of(inside)
    if kind == "monai-bundle":
        members = _Zip.of_bundle(path, inside)
        metadata = _config(members, METADATA)
        assert metadata is not None
        if metadata.fields.get("format") == FORMAT:
            raise ModelError(
                f"{path.name}: a head of MedEnhance in a zip",
                f"Import it first: medenhance models import {path.name}",
            )
        return _of_bundle(members, metadata, spec, trust=trust)
    if path.stat().st_size > _MOST_WEIGHTS:
        raise ModelError(f"{path.name}: larger than {_MOST_WEIGHTS >> 30} GiB", "Too large.")
    if kind == "torchscript" and not trust:
        hint = _TRUST + _WEIGHTS_ALONE
        raise ModelError(f"{path.name}: TorchScript, which runs code of its author", hint)
    if spec is None:
        raise ModelError(
            f"{path.name} does not say what it expects", _SPEC.format(f"{path.name}.json beside it")
        )
    content = path.read_bytes()
    sha256, name = _sha256(content), path.name.partition(".")[0]
    if kind == "torchscript":
        return Found(name, kind, _script(content, path.name), spec, sha256)
    weights = read_weights(content, path.name)
    if spec.network is None:
        raise ModelError(
            f"{path.name}: weights alone",
            "Name their network in the spec: network has a name and its arguments.",
        )
    network, notes = build(spec.network, weights, path.name)
    return Found(name, "state-dict", network, spec, sha256, notes)


def _zip_names(path: Path) -> list[str]:
    """Names inside a zip, shortest first; none for another file."""
    if not zipfile.is_zipfile(path):
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return sorted(archive.namelist(), key=len)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as cause:
        raise ModelError(
            f"{path.name}: not a readable zip ({cause})", "Download or copy the file again."
        ) from cause


def _kind_of(inside: list[str]) -> Kind:
    """What an archive is by its members; state dicts may be archives, too."""
    if any(name == str(METADATA) or name.endswith(f"/{METADATA}") for name in inside):
        return "monai-bundle"
    last = {name.rpartition("/")[2] for name in inside}
    return "torchscript" if "constants.pkl" in last else "state-dict"


def read_weights(content: bytes, file: str) -> dict[str, Tensor]:
    """Tensors by name, of safetensors or of torch.save; code in the file is refused, not run."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    is_safetensors = content[8:9] == b"{"
    try:
        if is_safetensors:
            return dict(load(content))
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        raise ModelError(
            f"{file}: holds more than weights, and that could run code: it is not read",
            _SAVE_WEIGHTS,
        ) from cause
    except (
        SafetensorError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError,
        IndexError, OSError,
    ) as cause:  # fmt: skip
        raise ModelError(f"{file}: its weights cannot be read ({cause})", _SAVE_WEIGHTS) from cause
    named = [found, *(found[key] for key in _KEYS if isinstance(found, Mapping) and key in found)]
    for one in named:
        if isinstance(one, Mapping) and one and all(isinstance(t, Tensor) for t in one.values()):
            # Training on several devices puts a word in front of all names.
            plain = all(str(name).startswith("module.") for name in one)
            return {
                str(name).removeprefix("module." if plain else ""): t for name, t in one.items()
            }
    raise ModelError(f"{file}: holds no weights by name (a state dict)", _SAVE_WEIGHTS)


def build(
    spec: NetworkSpec, weights: Mapping[str, Tensor], name: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """A listed network with these weights, for use, and notes.

    Raises ModelError; DependencyError where its code needs a package that is missing.
    """
    from monai.networks import nets

    if spec.name in _NEEDS_EINOPS:
        require("einops", purpose=f"The network {spec.name}")
    cls: type[nn.Module] = getattr(nets, spec.name)
    arguments, notes = dict(spec.arguments), []
    known = inspect.signature(cls).parameters
    for argument in list(arguments):
        if argument in _RETIRED.get(spec.name, ()) and argument not in known:
            del arguments[argument]
            notes.append(f"{argument} of {spec.name} is left out: it has no effect any more")
        elif argument not in known:
            raise ModelError(
                f"{name}: {spec.name} has no argument {argument!r}",
                f"{did_you_mean(argument, known)}It has: {', '.join(known)}.",
            )
    if "pretrained" in known:
        arguments["pretrained"] = False  # its weights come from the file, not from the network
    try:
        network = cls(**arguments)
    except (TypeError, ValueError, RuntimeError, KeyError, IndexError, AttributeError,
            AssertionError, NotImplementedError) as cause:  # fmt: skip
        raise ModelError(
            f"{name}: {spec.name} cannot be built with its arguments ({cause})",
            "Correct them: network.arguments in the spec, or network_def in the bundle.",
        ) from cause
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as cause:
        missing = sorted(set(network.state_dict()) ^ set(weights))
        where = f"for example {missing[0]}" if missing else "their shapes differ"
        raise ModelError(
            f"{name}: the weights are not those of this {spec.name} ({where})",
            "Correct its arguments: channels, strides, normalization.",
        ) from cause
    return network.float().eval(), tuple(notes)


def _script(content: bytes, name: str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # Deprecated since 2.9, and still what most people have.
            warnings.simplefilter("ignore", DeprecationWarning)
            loaded = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as cause:
        raise ModelError(
            f"{name}: no readable TorchScript ({cause})", "Export it again."
        ) from cause
    network: nn.Module = loaded.float().eval()
    return network


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest(network: nn.Module) -> str:
    """A hash of names, shapes and values of all weights."""
    digest = hashlib.sha256(type(network).__name__.encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
