"""Reading and writing files, by scripts: those of modules, and ours around MRML's own logics."""

from __future__ import annotations

import os
from typing import Any

import slicer

from SlicerHost import qt
from SlicerHost.standins import behavior, make


@behavior
class qSlicerIO:
    """What a script that reads or writes sees as its `parent`."""

    def construct(self: Any) -> None:
        own = self._own
        own.python, own.nodes, own.scene = None, [], None
        own.messages = slicer.vtkMRMLMessageCollection()

    def userMessages(self: Any) -> Any:
        return self._own.messages


def _script(self: Any) -> Any:
    return self._own.python


_nodes = property(
    lambda self: self._own.nodes, lambda self, value: setattr(self._own, "nodes", value)
)


@behavior
class qSlicerScriptedFileReader:
    """Reads the files that its script has extensions for, unless that decides by itself."""

    self, loadedNodes = _script, _nodes

    def supportedNameFilters(self: Any, path: str) -> list[str]:
        """The filters of a file that is there, such as "Compressed volume (*.ucv)"."""
        filters = _asked(self, "extensions", list) if os.path.isfile(path) else []
        return [each for each in filters if _fits(path, each)]


@behavior
class qSlicerScriptedFileWriter:
    """Writes the nodes that its script says it can write."""

    self, writtenNodes = _script, _nodes


def _asked(io: Any, method: str, kind: type, *arguments: Any, default: Any = None) -> Any:
    """What the script answers; Slicer takes no answer but one of exactly that type."""
    if default is not None and not hasattr(io.self(), method):
        return default
    answer = getattr(io.self(), method)(*arguments)
    if type(answer) is not kind:
        raise TypeError(f"{type(io.self()).__name__}.{method} returned {answer!r}, not a {kind}")
    return answer


def _fits(path: str, name_filter: str) -> bool:
    """Whether the file has one of the endings in a text such as "Volume (*.nii *.nrrd)"."""
    endings = name_filter[name_filter.rindex("(") + 1 : -1].lower().replace("*", "").split()
    return path.lower().endswith(tuple(endings))


def _read_confidence(reader: Any, path: str) -> float:
    fits = bool(reader.supportedNameFilters(path))
    can = _asked(reader, "canLoadFile", bool, path, default=fits)
    return _asked(reader, "canLoadFileConfidence", float, path, default=0.5 * can)


def _write_confidence(writer: Any, node: Any) -> float:
    can = hasattr(writer.self(), "canWriteObject") and _asked(writer, "canWriteObject", bool, node)
    return _asked(writer, "canWriteObjectConfidence", float, node, default=0.5 * can)


def _surest(ios: Any, confidence: Any, *arguments: Any) -> list[Any]:
    """Those that can, by their confidence; of equals the first comes first."""
    sure = {io: confidence(io, *arguments) for io in ios}
    return sorted((io for io in ios if sure[io] > 0), key=lambda io: -sure[io])


@behavior
class qSlicerCoreIOManager:
    """Finds the script that reads a file or writes a node."""

    def construct(self: Any) -> None:
        self._own.ios = {"Reader": {}, "Writer": {}}
        for kind, name, script in _BUILT_IN:
            self._register(kind, name, script)

    def _register(self: Any, kind: str, name: str, script: type) -> None:
        parent = make(f"qSlicerScriptedFile{kind}")()
        self._own.ios[kind][name] = parent
        parent._own.python = script(parent)

    def _of(self: Any, kind: str, file_type: str = "") -> list[Any]:
        ios = self._own.ios[kind].values()
        return [io for io in ios if file_type in ("", _asked(io, "fileType", str))]

    def fileType(self: Any, path: str) -> str:
        readers = _surest(self._of("Reader"), _read_confidence, path)
        return _asked(readers[0], "fileType", str) if readers else "NoFile"

    def loadNodes(
        self: Any, file_type: str, properties: Any, loaded: Any = None, messages: Any = None
    ) -> bool:
        path, readers = properties["fileName"], self._of("Reader", file_type)
        for reader in _surest(readers, _read_confidence, path):
            reader.loadedNodes = []
            if not _run(reader, "load", properties, messages):
                continue
            for node in reader.loadedNodes if loaded is not None else ():
                loaded.AddItem(slicer.mrmlScene.GetNodeByID(node))
            self.newFileLoaded.emit({**properties, "fileType": file_type})
            return True
        return False

    def fileWriterFileType(self: Any, node: Any, file_format: str = "") -> str:
        writers = _surest(self._of("Writer"), _write_confidence, node)
        exact = [io for io in writers if file_format in ("", *_asked(io, "extensions", list, node))]
        return _asked((exact or writers)[0], "fileType", str) if writers else "NoFile"

    def fileWriterExtensions(self: Any, node: Any) -> tuple[str, ...]:
        writers = _surest(self._of("Writer"), _write_confidence, node)
        found = [each for io in writers for each in _asked(io, "extensions", list, node)]
        return tuple(dict.fromkeys(found))

    def extractKnownExtension(self: Any, path: str, node: Any) -> str:
        ending = slicer.vtkDataFileFormatHelper.GetFileExtensionFromFormatString
        known = [ending(each) for each in self.fileWriterExtensions(node)]
        return max((each for each in known if path.endswith(each)), key=len, default="")

    def saveNodes(
        self: Any, file_type: str, properties: Any, messages: Any = None, scene: Any = None
    ) -> bool:
        """By the first writer of that type, for that ending, that can; it says what it wrote."""
        path, scene = properties["fileName"], scene or slicer.mrmlScene
        node = scene.GetNodeByID(properties.get("nodeID", ""))
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        for writer in self._of("Writer", file_type):
            filters = _asked(writer, "extensions", list, node)
            writer._own.scene = scene
            if any(_fits(path, each) for each in filters) and _run(
                writer, "write", properties, messages
            ):
                self.fileSaved.emit(properties)
                return file_type == "SceneFile" or bool(writer.writtenNodes)
        return False

    def exportNodes(
        self: Any, ids: Any, paths: Any, properties: Any, hardens: bool, messages: Any = None
    ) -> bool:
        """Save copies in a scene of their own, whose IDs are others in the scene that is open."""
        if hardens:
            raise NotImplementedError("the host exports no hardened transforms")
        done = []
        for node_id, path in zip(ids, paths, strict=True):
            scene, node = slicer.vtkMRMLScene(), slicer.mrmlScene.GetNodeByID(node_id)
            slicer.mrmlScene.CopyRegisteredNodesToScene(scene)
            copy = scene.AddNewNodeByClass(node.GetClassName())
            copy.CopyContent(node, False)
            copy.AddDefaultStorageNode()
            kind = self.fileWriterFileType(node, properties["fileFormat"])
            given = {**properties, "nodeID": copy.GetID(), "fileName": path}
            done.append(self.saveNodes(kind, given, messages, scene))
        return all(done)


def _run(io: Any, method: str, properties: Any, messages: Any) -> bool:
    io.userMessages().ClearMessages()
    done = _asked(io, method, bool, dict(properties))
    if messages is not None:
        messages.AddMessages(io.userMessages())
    return done


@behavior
class qSlicerIOManager:
    """Asks for files in Qt's own dialogs."""

    def openAddDataDialog(self: Any) -> bool:
        path, _filter = qt.QFileDialog.getOpenFileName(None, "Add data into the scene")
        return bool(path) and self.loadNodes(self.fileType(path), {"fileName": path})


# --- what Slicer's own modules register ----------------------------------------------------------


class _Volumes:
    """Reads volumes by the logic of the module Volumes."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent

    def fileType(self) -> str:
        return "VolumeFile"

    def extensions(self) -> list[str]:
        return ["Volume (*.nii.gz *.nii *.nrrd *.mha *.dcm)"]

    def load(self, properties: Any) -> bool:
        path = properties["fileName"]
        name = properties.get("name") or os.path.basename(path).split(".")[0]
        node = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, 0)
        self.parent.loadedNodes = [node.GetID()] if node else []
        return bool(node)


class _Scenes:
    """Reads and writes bundles of a whole scene."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent

    def fileType(self) -> str:
        return "SceneFile"

    def extensions(self, _scene: Any = None) -> list[str]:
        return ["Medical Reality Bundle (.mrb)"]

    def load(self, properties: Any) -> bool:
        return bool(slicer.mrmlScene.ReadFromMRB(properties["fileName"], False))

    def write(self, properties: Any) -> bool:
        return bool(slicer.mrmlScene.WriteToMRB(properties["fileName"]))


class _Nodes:
    """Writes nodes of a class by their storage nodes."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent

    def fileType(self) -> str:
        return self.FILE_TYPE

    def canWriteObject(self, node: Any) -> bool:
        return bool(node.IsA(self.NODES))

    def extensions(self, node: Any) -> list[str]:
        types = self._storage(node).GetSupportedWriteFileTypes()
        return [types.GetValue(index) for index in range(types.GetNumberOfValues())]

    def write(self, properties: Any) -> bool:
        node = self.parent._own.scene.GetNodeByID(properties["nodeID"])
        storage = self._storage(node)
        storage.SetFileName(properties["fileName"])
        self.parent.writtenNodes = [node.GetID()]
        return bool(storage.WriteData(node))

    def _storage(self, node: Any) -> Any:
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        return node.GetStorageNode()


_WRITTEN = {
    "VolumeFile": "vtkMRMLVolumeNode", "SegmentationFile": "vtkMRMLSegmentationNode",
    "TableFile": "vtkMRMLTableNode", "MarkupsFile": "vtkMRMLMarkupsNode",
    "SequenceFile": "vtkMRMLSequenceNode", "TransformFile": "vtkMRMLTransformNode",
}  # fmt: skip
_BUILT_IN = [
    ("Reader", "Volumes", _Volumes),
    ("Reader", "Scenes", _Scenes),
    ("Writer", "Scenes", _Scenes),
    *(
        ("Writer", kind, type(kind, (_Nodes,), {"FILE_TYPE": kind, "NODES": nodes}))
        for kind, nodes in _WRITTEN.items()
    ),
]
