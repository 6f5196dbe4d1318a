"""What every line of the protocol has: its version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.errors import ConfigError

#: Version of the line protocol: the "v" of every line.
PROTOCOL = 1


def check_version(fields: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the line is of this protocol's version."""
    version = fields.get("v")
    if version != PROTOCOL or isinstance(version, bool):
        raise ConfigError(
            f"a line of protocol version {version!r}",
            f'This MedEnhance speaks {{"v": {PROTOCOL}, …}}.',
        )
