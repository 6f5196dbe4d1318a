"""Opens a segmenter: a head of MedEnhance, or a MONAI bundle, of which weights are read as data.

A bundle may hold its network as a program (TorchScript), which runs where the user trusts it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor, nn

from MedEnhanceLib.bundles.schema import FORMAT, METADATA
from MedEnhanceLib.bundles.store import folder_of, open_bundle
from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.gradprom.head import open_head
from MedEnhanceLib.gradprom.monai_bundle import Network, read_network, read_spec
from MedEnhanceLib.gradprom.monai_config import Config
from MedEnhanceLib.gradprom.segmenter_spec import Intensity, SegmenterSpec
from MedEnhanceLib.nets.slices import GRID
from MedEnhanceLib.runtime.dependencies import require

#: Sizes that are read at most: nothing in an archive is believed about its own size.
_MOST_TEXT, _MOST_WEIGHTS = 8 << 20, 4 << 30
_INFERENCE = PurePosixPath("configs/inference.json")
_WEIGHTS = ("models/model.safetensors", "models/model.pt")
_PROGRAM = "models/model.ts"
_LICENSES = ("LICENSE", "docs/license.txt", "docs/LICENSE")
_FORM = "Give the folder of a MONAI bundle, or a zip of it: docs/segmenters.md shows one."
_TRUST = (
    "If you trust where it comes from, allow it: --trust-segmenter, trust_segmenter=True in "
    "Python, or the box below the segmenter in Slicer."
)
_SAVE_WEIGHTS = "Save the weights alone: torch.save(network.state_dict(), …), or as safetensors."
_COPY_AGAIN = "Download or copy the bundle again."


@dataclass(frozen=True)
class Opened:
    """A network for use, with what it expects; still to be frozen and checked.

    Attributes:
        name: as the user knows it.
        kind: head or monai-bundle.
        network: as its source made it.
        spec: what it expects.
        sha256: of its weights.
        notes: what of its bundle was left out, and its license, for users.
    """

    name: str
    kind: str
    network: nn.Module
    spec: SegmenterSpec
    sha256: str
    notes: tuple[str, ...] = ()


def open_source(source: str, *, trust: bool) -> Opened:
    """The network of a source, and its spec; raises as `open_segmenter`."""
    path = Path(source)
    if path.is_file() or (path.is_dir() and folder_of(source) is not None):
        root = _root_of(path)
        metadata = _config(root, METADATA)
        if metadata is None:
            raise ModelError(f"{path}: no {METADATA} inside", _FORM)
        if metadata.fields.get("format") != FORMAT:
            return _of_bundle(root, path, metadata, trust=trust)
    elif os.sep in source or path.suffix:
        raise ModelError(f"{source}: there is no such file", "Check the path of the segmenter.")
    return _of_head(source)


def _of_head(name_or_path: str) -> Opened:
    """A head of MedEnhance; raises ModelError for another kind of model, or a damaged one."""
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
    return Opened(bundle.name, "head", model.network, spec, bundle.sha256)


def _root_of(path: Path) -> Path | zipfile.Path:
    """The folder of a bundle, or the place of one in a zip, of which nothing is unpacked."""
    if path.is_dir():
        return path.resolve()
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as cause:
        raise ModelError(f"{path.name}: no MONAI bundle ({cause})", _FORM) from cause
    ends = [name for name in archive.namelist() if f"/{name}".endswith(f"/{METADATA}")]
    return zipfile.Path(archive, min(ends, key=len, default="").removesuffix(str(METADATA)))


def _read(root: Path | zipfile.Path, member: str, most: int) -> bytes | None:
    """A file of at most that size; None where there is none."""
    file = root.joinpath(member)
    if not file.is_file():
        return None
    try:
        with file.open("rb") as stream:
            content: bytes = stream.read(most + 1)
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError) as cause:
        raise ModelError(f"{member} cannot be read ({cause})", _COPY_AGAIN) from cause
    if len(content) > most:
        raise ModelError(f"{member}: larger than {most >> 20} MiB", "This is no segmenter's file.")
    return content


def _config(root: Path | zipfile.Path, member: PurePosixPath) -> Config | None:
    content = _read(root, str(member), _MOST_TEXT)
    if content is None:
        return None
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as cause:
        raise ModelError(f"{member}: no JSON ({cause})", _COPY_AGAIN) from cause
    if not isinstance(fields, dict):
        raise ModelError(f"{member}: no JSON object", _COPY_AGAIN)
    return Config(str(member), fields)


def _of_bundle(root: Path | zipfile.Path, path: Path, metadata: Config, *, trust: bool) -> Opened:
    """A MONAI bundle: its weights in a listed network, else its TorchScript where it is trusted."""
    name = root.name.removesuffix(".zip") or path.stem
    inference = _config(root, _INFERENCE)
    if inference is None:
        raise ModelError(f"{name}: no {_INFERENCE} inside (YAML is not read)", _FORM)
    program, network = None, None
    try:
        try:
            network = read_network(inference)
        except ModelError as error:
            program = _read(root, _PROGRAM, _MOST_WEIGHTS)
            if program is None:
                raise
            if not trust:
                hint = f"{error.hint} Or use its {_PROGRAM}. {_TRUST}"
                raise ModelError(error.message, hint) from error
        spec, notes = read_spec(metadata, inference, network)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as cause:
        raise ModelError(
            f"{name}: its configurations cannot be understood ({cause})", _FORM
        ) from cause
    except ConfigError as error:
        raise ModelError(f"{inference.file}: {error.message}", error.hint) from error
    if network is None:
        content = program or b""
        model = _script(content, name)
    else:
        file, content = _weights(root, name)
        model = _built(network, read_weights(content, f"{name}/{file}"), name)
    notes = (_license_of(root, metadata), *notes)
    digest = hashlib.sha256(content).hexdigest()
    return Opened(name, "monai-bundle", model, spec, digest, notes)


def _weights(root: Path | zipfile.Path, name: str) -> tuple[str, bytes]:
    """The first file of weights that is there, and its content."""
    for file in _WEIGHTS:
        content = _read(root, file, _MOST_WEIGHTS)
        if content is not None:
            return file, content
    raise ModelError(
        f"{name}: neither {' nor '.join(_WEIGHTS)} is inside",
        "Download the bundle with its large files: python -m monai.bundle download.",
    )


def _license_of(root: Path | zipfile.Path, metadata: Config) -> str:
    """What a bundle says of its license, in a line."""
    stated = [str(metadata.fields.get(name) or "") for name in ("license", "copyright")]
    for name in _LICENSES:
        content = _read(root, name, _MOST_TEXT) or b""
        stated += content.decode("utf-8", "replace").strip().splitlines()[:1]
    text = "; ".join(dict.fromkeys(line.strip() for line in stated if line.strip()))
    clean = "".join(sign for sign in text if sign.isprintable())[:200]
    return f"its license: {clean or 'not stated'}"


def read_weights(content: bytes, file: str) -> dict[str, Tensor]:
    """Tensors by name, of safetensors or of torch.save; code in the file is refused, not run."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        if content[8:9] == b"{":
            return dict(load(content))
        stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
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
    if isinstance(stored, Mapping):
        # A checkpoint of MONAI holds the weights as "model".
        weights = stored.get("model", stored)
        if isinstance(weights, Mapping) and all(isinstance(t, Tensor) for t in weights.values()):
            return {str(name): tensor for name, tensor in weights.items()}
    raise ModelError(f"{file}: holds no weights by name (a state dict)", _SAVE_WEIGHTS)


def _built(network: Network, weights: Mapping[str, Tensor], name: str) -> nn.Module:
    """A listed network with these weights, for use."""
    from monai.networks import nets

    if network.name == "SwinUNETR":
        require("einops", purpose="The network SwinUNETR")
    arguments = dict(network.arguments)
    if network.name == "SwinUNETR":
        arguments.pop("img_size", None)  # bundles state it, and MONAI has no use for it any more
    try:
        model: nn.Module = getattr(nets, network.name)(**arguments)
    except (TypeError, ValueError, RuntimeError, KeyError, IndexError, AttributeError,
            AssertionError, NotImplementedError, MemoryError) as cause:  # fmt: skip
        raise ModelError(
            f"{name}: {network.name} cannot be built with its arguments ({cause})",
            "Correct them: network_def in its configs/inference.json.",
        ) from cause
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as cause:
        missing = sorted(set(model.state_dict()) ^ set(weights))
        where = f"for example {missing[0]}" if missing else "their shapes differ"
        raise ModelError(
            f"{name}: the weights are not those of this {network.name} ({where})",
            "Correct its arguments: channels, strides, normalization.",
        ) from cause
    return model.float().eval()


def _script(content: bytes, name: str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # Deprecated since 2.9, and still what most people have.
            warnings.simplefilter("ignore", DeprecationWarning)
            network: nn.Module = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as cause:
        raise ModelError(
            f"{name}: no readable TorchScript ({cause})", "Export it again."
        ) from cause
    return network.float().eval()
