"""Reading and writing files: Slicer's own kinds over MRML's storage nodes, and modules' readers.

Which reader is taken follows qSlicerCoreIOManager: those that say they can, the most confident
first; confidence grows with the length of the ending that matched.
"""

from __future__ import annotations

import os
import re
from typing import Any

from SlicerHost.standins import behavior

#: Kinds of file that Slicer brings, by their endings.
_KINDS = {
    ".nii.gz": "VolumeFile", ".nii": "VolumeFile", ".nrrd": "VolumeFile", ".mha": "VolumeFile",
    ".dcm": "VolumeFile", ".mrml": "SceneFile", ".mrb": "SceneFile",
}  # fmt: skip


@behavior
class qSlicerScriptedFileReader:
    """What a module's ...FileReader sees as its `parent`."""

    def construct(self: Any) -> None:
        self._own.python, self._own.nodes, self._own.messages = None, [], _messages()

    def self(self: Any) -> Any:
        return self._own.python

    loadedNodes = property(
        lambda self: list(self._own.nodes),
        lambda self, value: setattr(self._own, "nodes", list(value)),
    )

    def supportedNameFilters(self: Any, path: str) -> list[str]:
        if not os.path.isfile(path):
            return []
        return [f"*{each}" for each in _endings(self) if path.lower().endswith(each)]

    def userMessages(self: Any) -> Any:
        return self._own.messages


def _messages() -> Any:
    import slicer

    return slicer.vtkMRMLMessageCollection()


def _endings(io: Any) -> list[str]:
    """ ".ucv" of "Compressed volume (*.ucv)"."""
    filters = _asked(io, "extensions", list)
    return [each.lower() for text in filters for each in re.findall(r"\*(\.[\w.]+)", text)]


def _asked(io: Any, method: str, kind: type, *arguments: Any) -> Any:
    """What the script answers; Slicer takes no answer but one of exactly that type."""
    answer = getattr(io.self(), method)(*arguments)
    if type(answer) is not kind:
        raise TypeError(f"{type(io.self()).__name__}.{method} returned {answer!r}, not a {kind}")
    return answer


def _confidence(reader: Any, path: str) -> float:
    """0 where it cannot; more, the longer the ending is that it knows."""
    endings = reader.supportedNameFilters(path)
    if not endings:
        return 0.0
    if hasattr(reader.self(), "canLoadFile") and not _asked(reader, "canLoadFile", bool, path):
        return 0.0
    return 0.5 + 0.01 * max(len(each) - 1 for each in endings)


def _built_in(path: str) -> tuple[str, float]:
    endings = [each for each in _KINDS if path.lower().endswith(each)]
    best = max(endings, key=len, default=None)
    return (_KINDS[best], 0.5 + 0.01 * len(best)) if best else ("NoFile", 0.0)


@behavior
class qSlicerCoreIOManager:
    """Finds the reader for a file: a script of a module, or one of MRML's own, which write too."""

    def construct(self: Any) -> None:
        self._own.readers = {}

    def fileType(self: Any, path: str) -> str:
        path = str(path)
        found = [(_confidence(each, path), each) for each in self._own.readers.values()]
        kind, best = _built_in(path)
        for confidence, reader in found:
            if confidence > best:
                kind, best = _asked(reader, "fileType", str), confidence
        return kind

    def loadNodes(
        self: Any, kind: str, properties: Any, loaded: Any = None, messages: Any = None
    ) -> bool:
        import slicer

        readers = [
            each for each in self._own.readers.values() if _asked(each, "fileType", str) == kind
        ]
        for reader in readers:
            reader._own.nodes, reader._own.messages = [], _messages()
            if _confidence(reader, str(properties["fileName"])) <= 0:
                return False
            done = _asked(reader, "load", bool, dict(properties))
            _pass_on(reader.userMessages(), messages)
            if not done:
                return False
            for node_id in reader.loadedNodes:
                if loaded is not None:
                    loaded.AddItem(slicer.mrmlScene.GetNodeByID(node_id))
            self.newFileLoaded.emit({**properties, "fileType": kind})
            return True
        nodes = _load_built_in(kind, properties)
        for node in nodes or []:
            if loaded is not None:
                loaded.AddItem(node)
        return nodes is not None

    def fileWriterFileType(self: Any, node: Any, description: str = "") -> str:
        return _built_in_type(node)

    def fileWriterExtensions(self: Any, node: Any) -> list[str]:
        storage = node.CreateDefaultStorageNode()
        storage.SetScene(node.GetScene())  # it asks the scene's data about formats
        own = storage.GetSupportedWriteFileTypes()
        return [own.GetValue(index) for index in range(own.GetNumberOfValues())]

    def saveNodes(
        self: Any, kind: str, properties: Any, messages: Any = None, scene: Any = None
    ) -> bool:
        import slicer

        path = properties["fileName"]
        if kind == "SceneFile":
            return _save_scene(path)
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        return kind == _built_in_type(node) and _save_node(node, path)


def _pass_on(messages: Any, to: Any) -> None:
    for index in range(messages.GetNumberOfMessages()):
        if to is not None:
            to.AddMessage(messages.GetNthMessageType(index), messages.GetNthMessageText(index))


def _built_in_type(node: Any) -> str:
    return "VolumeFile" if node.IsA("vtkMRMLVolumeNode") else "NodeFile"


def _load_built_in(kind: str, properties: Any) -> list[Any] | None:
    import slicer

    path = str(properties["fileName"])
    if kind == "SceneFile":
        return [] if _load_scene(path) else None
    if kind != "VolumeFile":
        return None
    name = properties.get("name") or os.path.basename(path).split(".")[0]
    node = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, 0)
    return [node] if node else None


def _load_scene(path: str) -> bool:
    import slicer

    scene = slicer.mrmlScene
    if path.endswith(".mrb"):
        return bool(scene.ReadFromMRB(path, False))
    scene.SetURL(path)
    return bool(scene.Import())


def _save_scene(path: str) -> bool:
    import slicer

    scene = slicer.mrmlScene
    if path.endswith(".mrb"):
        return bool(scene.WriteToMRB(path))
    scene.SetURL(path)
    scene.SetRootDirectory(os.path.dirname(path))
    return bool(scene.Commit(path))


def _save_node(node: Any, path: str) -> bool:
    if node.GetStorageNode() is None:
        node.AddDefaultStorageNode()
    storage = node.GetStorageNode()
    storage.SetFileName(path)
    return bool(storage.WriteData(node))
