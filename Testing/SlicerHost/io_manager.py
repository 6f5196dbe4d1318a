"""Reading and writing files: volumes and scenes over MRML's storage nodes, and modules' readers."""

from __future__ import annotations

import os
import re
from typing import Any

from SlicerHost import qt
from SlicerHost.standins import behavior

_VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".dcm")


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
        """ "*.ucv" of "Compressed volume (*.ucv)", for a file that is there and has that ending."""
        filters = re.findall(r"\*\.[\w.]+", " ".join(_asked(self, "extensions", list)))
        isThere = os.path.isfile(path)
        return [each for each in filters if isThere and path.lower().endswith(each[1:].lower())]

    def userMessages(self: Any) -> Any:
        return self._own.messages


def _messages() -> Any:
    import slicer

    return slicer.vtkMRMLMessageCollection()


def _asked(io: Any, method: str, kind: type, *arguments: Any) -> Any:
    """What the script answers; Slicer takes no answer but one of exactly that type."""
    answer = getattr(io.self(), method)(*arguments)
    if type(answer) is not kind:
        raise TypeError(f"{type(io.self()).__name__}.{method} returned {answer!r}, not a {kind}")
    return answer


def _can_load(reader: Any, path: str) -> bool:
    """Tell whether the file has the reader's ending, unless its script decides."""
    if hasattr(reader.self(), "canLoadFile"):
        return _asked(reader, "canLoadFile", bool, path)
    return bool(reader.supportedNameFilters(path))


@behavior
class qSlicerCoreIOManager:
    """Finds the reader for a file: a script of a module, or one of MRML's own, which write too."""

    def construct(self: Any) -> None:
        self._own.readers = {}

    def fileType(self: Any, path: str) -> str:
        for reader in self._own.readers.values():
            if _can_load(reader, str(path)):
                return _asked(reader, "fileType", str)
        if str(path).lower().endswith(".mrb"):
            return "SceneFile"
        return "VolumeFile" if str(path).lower().endswith(_VOLUMES) else "NoFile"

    def loadNodes(
        self: Any, kind: str, properties: Any, loaded: Any = None, messages: Any = None
    ) -> bool:
        import slicer

        for reader in self._own.readers.values():
            if _asked(reader, "fileType", str) == kind:
                nodes = _load_scripted(reader, properties, messages)
                break
        else:
            nodes = _load_built_in(kind, properties)
        for node in nodes or []:
            if loaded is not None:
                loaded.AddItem(slicer.mrmlScene.GetNodeByID(node))
        if nodes is not None:
            self.newFileLoaded.emit({**properties, "fileType": kind})
        return nodes is not None

    def fileWriterFileType(self: Any, node: Any, description: str = "") -> str:
        return "VolumeFile" if node.IsA("vtkMRMLVolumeNode") else "NodeFile"

    def fileWriterExtensions(self: Any, node: Any) -> tuple[str, ...]:
        storage = node.CreateDefaultStorageNode()
        storage.SetScene(node.GetScene())  # it asks the scene's data about formats
        own = storage.GetSupportedWriteFileTypes()
        return tuple(own.GetValue(index) for index in range(own.GetNumberOfValues()))

    def saveNodes(
        self: Any, kind: str, properties: Any, messages: Any = None, scene: Any = None
    ) -> bool:
        import slicer

        path = properties["fileName"]
        if kind == "SceneFile":
            return bool(slicer.mrmlScene.WriteToMRB(path))
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(path)
        return bool(node.GetStorageNode().WriteData(node))


@behavior
class qSlicerIOManager:
    """Asks for files in Qt's own dialogs."""

    def openAddDataDialog(self: Any) -> bool:
        path, _filter = qt.QFileDialog.getOpenFileName(None, "Add data into the scene")
        return bool(path) and self.loadNodes(self.fileType(path), {"fileName": path})


def _load_scripted(reader: Any, properties: Any, messages: Any) -> list[str] | None:
    """IDs of what a module's reader has loaded; None where it failed, with its messages."""
    reader._own.nodes, reader._own.messages = [], _messages()
    if not _can_load(reader, str(properties["fileName"])):
        return None
    done, said = _asked(reader, "load", bool, dict(properties)), reader.userMessages()
    for index in range(said.GetNumberOfMessages()):
        if messages is not None:
            messages.AddMessage(said.GetNthMessageType(index), said.GetNthMessageText(index))
    return reader.loadedNodes if done else None


def _load_built_in(kind: str, properties: Any) -> list[str] | None:
    import slicer

    path, scene = str(properties["fileName"]), slicer.mrmlScene
    if kind == "SceneFile":
        return [] if scene.ReadFromMRB(path, False) else None
    if kind != "VolumeFile":
        return None
    name = properties.get("name") or os.path.basename(path).split(".")[0]
    node = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, 0)
    return [node.GetID()] if node else None
