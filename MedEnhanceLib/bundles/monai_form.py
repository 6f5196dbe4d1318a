"""A model in the form of a MONAI bundle, which `python -m monai.bundle run` runs.

The bundle holds a configuration, a description and a whole copy of our model. What is run is the
transform of this package, which has to be installed there: our enhancers begin with filters, and
no network alone does what they do.
"""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from MedEnhanceLib._version import __version__
from MedEnhanceLib.bundles.schema import METADATA
from MedEnhanceLib.bundles.store import Bundle, verify_bundle
from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.errors import ModelError, OutputError
from MedEnhanceLib.io.atomic import write_json

_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
_TRANSFORMS = {"enhancer": ("Enhanced", "_enhanced"), "head": ("Segmented", "_seg")}


def write_monai_bundle(bundle: Bundle, folder: Path) -> Path:
    """Write a model as a MONAI bundle.

    Args:
        bundle: an enhancer or a head.
        folder: new, or empty.
    Returns:
        The configuration to be run, configs/inference.json.
    Raises:
        ModelError: a model of another kind, or damaged.
        OutputError: the folder holds something, or cannot be written.
    """
    if bundle.kind not in _TRANSFORMS:
        raise ModelError(
            f"{bundle.name} is a {bundle.kind}, which no transform of MONAI stands for",
            f"Give one of these kinds: {', '.join(_TRANSFORMS)}.",
        )
    verify_bundle(bundle)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise OutputError(f"{folder} is not empty", "Name a new folder.")
        inside = folder / "models" / str(bundle.metadata["name"])
        for relative in (METADATA, *map(Path, bundle.metadata["files"])):
            (inside / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.folder / relative, inside / relative)
        for place in (folder / "configs", folder / "docs"):
            place.mkdir()
        card = bundle.folder / "docs" / "README.md"
        (folder / "docs" / "README.md").write_text(
            f"{card.read_text(encoding='utf-8').rstrip()}\n\n{_USE}", encoding="utf-8"
        )
    except OSError as cause:
        raise OutputError(f"{folder} cannot be written: {cause}", "Name another one.") from cause
    config = folder / "configs" / "inference.json"
    write_json(config, _inference(bundle), overwrite=False)
    write_json(folder / "configs" / "metadata.json", _described(bundle), overwrite=False)
    return config


_USE = """## As a MONAI bundle

With `medenhance` and `monai[fire]` installed, in this folder:

    python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
        --dataset_dir SCANS --output_dir RESULTS

SCANS holds .nii or .nii.gz; both are absolute paths. What is written has the type that MONAI's
LoadImaged gives, float32. `preprocessing` of the configuration is a Compose for programs.
"""


def _inference(bundle: Bundle) -> dict[str, Any]:
    transform, postfix = _TRANSFORMS[bundle.kind]
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "dataset_dir": "$os.path.join(@bundle_root, 'data')",
        "output_dir": "$os.path.join(@bundle_root, 'eval')",
        "device": "auto",
        "model": f"$os.path.join(@bundle_root, 'models', {bundle.metadata['name']!r})",
        "datalist": "$sorted(glob.glob(os.path.join(@dataset_dir, '*.nii*')))",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
                {
                    "_target_": f"MedEnhanceLib.transforms.{transform}",
                    "keys": "image",
                    "modality": bundle.modality,
                    "model": "@model",
                    "device": "@device",
                },
                {
                    "_target_": "MedEnhanceLib.transforms.Saved",
                    "keys": "image",
                    "folder": "@output_dir",
                    "postfix": postfix,
                },
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "run": ["$print(len(list(@dataset)), 'volumes of', @dataset_dir, '->', @output_dir)"],
    }


def _described(bundle: Bundle) -> dict[str, Any]:
    """What MONAI's metadata.json has to state."""
    image = {
        "type": "image",
        "format": "magnitude" if bundle.modality == "MR" else "hounsfield",
        "modality": bundle.modality,
        "num_channels": 1,
        "spatial_shape": ["*", "*", "*"],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {"0": "image"},
    }
    labels = bundle.metadata.get("labels") or ()
    found = {
        **image,
        "format": "segmentation",
        "dtype": "uint8",
        "value_range": [0, max((label["value"] for label in labels), default=0)],
        "channel_def": {"0": "background"}
        | {str(label["value"]): label["name"] for label in labels},
    }
    versions = {name: metadata.version(name) for name in ("monai", "torch", "numpy")}
    return {
        "schema": _SCHEMA,
        "version": str(bundle.metadata["version"]),
        "changelog": {str(bundle.metadata["version"]): "written by medenhance models monai"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {"medenhance": __version__},
        "name": bundle.name,
        "task": "segmentation" if bundle.kind == "head" else "restoration",
        "description": str(bundle.metadata["description"]),
        "authors": "The MedEnhance developers",
        "copyright": str(bundle.metadata.get("licence", "")),
        "intended_use": RESEARCH_ONLY,
        "network_data_format": {
            "inputs": {"image": image},
            "outputs": {"pred": found if bundle.kind == "head" else image},
        },
    }
