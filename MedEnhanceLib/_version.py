"""The version, as files that cannot import it have it too (docs/release.md)."""

__version__ = "1.0.0"
