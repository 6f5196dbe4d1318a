"""The last volume that a preview looked at stays in memory, for the next preview of it.

A second preview then pays for its slices alone: neither for reading the file nor for what is
measured of the whole volume (hqg.findings). One input and one guide are kept, no more.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.jobs.files import VolumeParams
from MedEnhanceLib.runtime.progress import Monitor

#: Files that hold all of their volume, so that their size and time tell of a change.
_WHOLE_FILES = (".nii", ".nii.gz", ".nrrd", ".mha", ".ucv")


class Recent:
    """One volume with the file, as it was then, that it was read from."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._volume: Volume | None = None
        self._frame: tuple[int, Volume] | None = None

    def load(
        self,
        params: VolumeParams,
        *,
        frame: int | None = None,
        keep: bool,
        scratch: Path | None = None,
        monitor: Monitor,
    ) -> Volume:
        """The volume of `params`, or its frame: the kept one where the file is still the same.

        Any other one is forgotten first. keep: whether to remember this one.
        scratch: as `io.load` takes it.
        """
        from MedEnhanceLib.hqg.findings import keep_findings

        key = _key_of(params)
        if self._volume is None or key is None or key != self._key:
            self.forget()
            volume = params.load(monitor, scratch)
            # A file that was exchanged while it was read has another key by now.
            if not keep or key is None or key != _key_of(params):
                return volume if frame is None else volume.frame(frame)
            self._key, self._volume = key, volume
            keep_findings(volume)
        monitor.progress(1.0, "load")
        return self._chosen(self._volume, frame)

    def forget(self) -> None:
        """Give the memory back."""
        self._key = self._volume = self._frame = None

    def _chosen(self, volume: Volume, frame: int | None) -> Volume:
        """The volume or its frame, each the same object for as long as it is asked for."""
        from MedEnhanceLib.hqg.findings import keep_findings

        if frame is None:
            return volume
        if self._frame is None or self._frame[0] != frame:
            self._frame = frame, volume.frame(frame)
            keep_findings(self._frame[1])
        return self._frame[1]


INPUT, GUIDE = Recent(), Recent()


def _key_of(params: VolumeParams) -> Hashable:
    """What names the content of the file; None for a folder, whose files may change unseen."""
    from MedEnhanceLib.io import ending_of

    path = Path(params.input)
    if ending_of(path) not in _WHOLE_FILES or not path.is_file():
        return None
    state = path.stat()
    place = str(path.resolve())
    return place, state.st_size, state.st_mtime_ns, params.series, params.modality
