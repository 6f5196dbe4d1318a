"""Trained models: find, verify, import."""

from MedEnhanceLib.bundles.store import (
    Bundle,
    import_bundle,
    list_bundles,
    open_bundle,
    open_bundle_for,
    remove_bundle,
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
