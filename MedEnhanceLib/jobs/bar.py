"""A progress bar in place of events, for Python prompts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Event, Listener
from MedEnhanceLib.runtime.text import printable
from MedEnhanceLib.runtime.tolerance import Messages


@contextmanager
def progress_bar() -> Iterator[Listener]:
    """Yield a bar by tqdm on stderr; warnings and log lines are printed above it."""
    tqdm = require("tqdm.auto", purpose="A progress bar").tqdm
    shape = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"
    # Until the first event, packages are imported, which can take seconds.
    with tqdm(
        total=1.0, desc="loading", bar_format=shape, dynamic_ncols=True, file=Messages(sys.stderr)
    ) as bar:

        def listen(event: Event) -> None:
            if event.kind == "progress":
                bar.set_description_str(printable(event.fields["stage"]), refresh=False)
                bar.update(max(0.0, event.fields["fraction"] - bar.n))
            elif event.kind in ("warning", "log"):
                tqdm.write(printable(f"{event.kind}: {event.fields['message']}"), file=bar.fp)

        yield listen
        bar.update(1.0 - bar.n)  # the last event may come before the end of the work
