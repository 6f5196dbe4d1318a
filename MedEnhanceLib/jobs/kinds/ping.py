"""The job that does nothing but report: for trying a worker out."""

from __future__ import annotations

import time
from dataclasses import dataclass

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.runtime.progress import Monitor

_SAFE_POINT_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class PingParams:
    """count: progress events to send; seconds: how long to take over all of them."""

    count: int = 1
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.count < 0 or self.seconds < 0:
            raise ConfigError("ping: count and seconds are 0 or more", "Correct the number.")


def run_ping(params: PingParams, monitor: Monitor) -> Result:
    """Send `count` progress events, evenly over `seconds`."""
    pause = params.seconds / max(params.count, 1)
    for index in range(params.count):
        _wait(pause, monitor)
        monitor.progress((index + 1) / params.count, "ping")
    return Result({"count": params.count})


def _wait(seconds: float, monitor: Monitor) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        monitor.check()
        time.sleep(min(left, _SAFE_POINT_SECONDS))
