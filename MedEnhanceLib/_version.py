"""The version; it is also in files that cannot import it (docs/release.md)."""

__version__ = "1.0.0"
