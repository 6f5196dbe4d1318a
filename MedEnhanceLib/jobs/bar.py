"""A progress bar in place of events, for Python prompts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from MedEnhanceLib.jobs.failures import memory_errors
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Cancel, Event, Listener, Monitor


@contextmanager
def watched(progress: Listener | bool | None, cancel: Cancel | None) -> Iterator[Monitor]:
    """A monitor that calls `progress` with what happens; where memory runs out, DeviceMemoryError.

    progress: a function that takes Events; True shows a bar on stderr; None or False nothing.
    """
    with memory_errors():
        if progress is not True:
            yield Monitor(progress or None, cancel)
            return
        with progress_bar() as listener:
            yield Monitor(listener, cancel)


@contextmanager
def progress_bar() -> Iterator[Listener]:
    """A bar by tqdm on stderr; warnings and log lines are printed above it."""
    tqdm = require("tqdm", purpose="A progress bar").tqdm
    shape = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"
    with tqdm(total=1.0, bar_format=shape, dynamic_ncols=True) as bar:

        def listen(event: Event) -> None:
            if event.kind == "progress":
                bar.set_description_str(event.fields["stage"], refresh=False)
                bar.update(max(0.0, event.fields["fraction"] - bar.n))
            elif event.kind in ("warning", "log"):
                tqdm.write(f"{event.kind}: {event.fields['message']}", file=bar.fp)

        yield listen
