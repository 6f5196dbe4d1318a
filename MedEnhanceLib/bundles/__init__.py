"""Trained models: find, verify, import."""

from MedEnhanceLib.bundles.importing import import_bundle, remove_bundle
from MedEnhanceLib.bundles.store import (
    Bundle,
    list_bundles,
    open_bundle,
    open_bundle_for,
    verify_bundle,
)

__all__ = [
    "Bundle",
    "import_bundle",
    "list_bundles",
    "open_bundle",
    "open_bundle_for",
    "remove_bundle",
    "verify_bundle",
]
