"""Reading and writing files, by scripts: those of modules, and ours around MRML's own logics."""

import os

import slicer

from SlicerHost import qt
from SlicerHost.standins import behavior, make, part


@behavior()
class qSlicerIO:
    """What a script that reads or writes sees as its `parent`."""

    userMessages = part("messages")

    def construct(self):
        self._own.messages = slicer.vtkMRMLMessageCollection()


@behavior(loadedNodes=())
class qSlicerScriptedFileReader:
    """Reads the files that its script has extensions for, unless that decides by itself."""

    self = part("python")

    def supportedNameFilters(self, path):
        """The filters of a file that is there, such as "Compressed volume (*.ucv)"."""
        filters = _asked(self, "extensions", list) if os.path.isfile(path) else []
        return [each for each in filters if _fits(path, each)]


@behavior(writtenNodes=())
class qSlicerScriptedFileWriter:
    """Writes the nodes that its script says it can write."""

    self = part("python")


def _parent(kind, script):
    parent = make(f"qSlicerScriptedFile{kind}")()
    parent._own.python = script(parent)
    return parent


def _asked(io, method, kind, *arguments, default=None):
    """What the script answers; Slicer takes no answer but one of exactly that type."""
    if default is not None and not hasattr(io.self(), method):
        return default
    answer = getattr(io.self(), method)(*arguments)
    if type(answer) is not kind:
        raise TypeError(f"{type(io.self()).__name__}.{method} returned {answer!r}, not a {kind}")
    return answer


def _fits(path, name_filter):
    """Whether the file has one of the endings in a text such as "Volume (*.nii *.nrrd)"."""
    endings = name_filter[name_filter.rindex("(") + 1 : -1].lower().replace("*", "").split()
    return path.lower().endswith(tuple(endings))


def _surest(ios, confidence):
    """Those that are sure of it at all, the surest first, of equals that which was there first."""
    sure = {io: confidence(io) for io in ios}
    return sorted(filter(sure.get, sure), key=sure.get, reverse=True)


def _of_type(file_type, ios):
    return [io for io in ios if _asked(io, "fileType", str) == file_type]


@behavior()
class qSlicerCoreIOManager:
    """Finds the script that reads a file or writes a node."""

    def construct(self):
        self._own.readers = {script: _parent("Reader", script) for script in _READERS}
        self._own.writers = {script: _parent("Writer", script) for script in _WRITERS}

    def _register(self, name, module):
        """Take the scripts that a module has."""
        for kind, ios in (("Reader", self._own.readers), ("Writer", self._own.writers)):
            if hasattr(module, f"{name}File{kind}"):
                ios[name] = _parent(kind, getattr(module, f"{name}File{kind}"))

    def _unregister(self, name):
        for ios in (self._own.readers, self._own.writers):
            ios.pop(name, None)

    def _readers(self, path):
        """Those that can read the file."""

        def confidence(reader):
            fits = bool(reader.supportedNameFilters(path))
            can = _asked(reader, "canLoadFile", bool, path, default=fits)
            return _asked(reader, "canLoadFileConfidence", float, path, default=0.5 * can)

        return _surest(self._own.readers.values(), confidence)

    def _writers(self, node):
        """Those that can write the node."""

        def confidence(writer):
            can = _asked(writer, "canWriteObject", bool, node, default=False)
            return _asked(writer, "canWriteObjectConfidence", float, node, default=0.5 * can)

        return _surest(self._own.writers.values(), confidence)

    def fileType(self, path):
        readers = self._readers(path)
        return _asked(readers[0], "fileType", str) if readers else "NoFile"

    def loadNodes(self, file_type, properties, loaded=None, messages=None):
        for reader in _of_type(file_type, self._readers(properties["fileName"])):
            reader.loadedNodes = ()
            if not _runs(reader, "load", properties, messages):
                continue
            for node in reader.loadedNodes if loaded is not None else ():
                loaded.AddItem(slicer.mrmlScene.GetNodeByID(node))
            return True
        return False

    def fileWriterFileType(self, node, file_format=""):
        writers = self._writers(node)
        exact = [io for io in writers if file_format in ("", *_asked(io, "extensions", list, node))]
        return _asked((exact or writers)[0], "fileType", str) if writers else "NoFile"

    def fileWriterExtensions(self, node):
        found = (
            each for io in self._writers(node) for each in _asked(io, "extensions", list, node)
        )
        return tuple(dict.fromkeys(found))

    def extractKnownExtension(self, path, node):
        ending = slicer.vtkDataFileFormatHelper.GetFileExtensionFromFormatString
        known = [ending(each) for each in self.fileWriterExtensions(node)]
        return max((each for each in known if path.endswith(each)), key=len, default="")

    def saveNodes(self, file_type, properties, messages=None, scene=None):
        """By the first writer of that type, for that ending, that can; it says what it wrote."""
        path, scene = properties["fileName"], scene or slicer.mrmlScene
        node = scene.GetNodeByID(properties.get("nodeID", ""))
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        for writer in _of_type(file_type, self._own.writers.values()):
            filters = _asked(writer, "extensions", list, node)
            isFit = any(_fits(path, each) for each in filters)
            if isFit and _runs(writer, "write", properties, messages):
                return file_type == "SceneFile" or bool(writer.writtenNodes)
        return False

    def exportNodes(self, ids, paths, properties, hardens, messages=None):
        """Save copies in a scene of their own, whose IDs are others in the scene that is open."""
        if hardens:
            raise NotImplementedError("the host exports no hardened transforms")
        done = []
        for node_id, path in zip(ids, paths, strict=True):
            scene, node = slicer.vtkMRMLScene(), slicer.mrmlScene.GetNodeByID(node_id)
            slicer.mrmlScene.CopyRegisteredNodesToScene(scene)
            copy = scene.AddNewNodeByClass(node.GetClassName())
            copy.CopyContent(node, False)
            kind = self.fileWriterFileType(node, properties["fileFormat"])
            given = {**properties, "nodeID": copy.GetID(), "fileName": path}
            done.append(self.saveNodes(kind, given, messages, scene))
        return all(done)


def _runs(io, method, properties, messages):
    """Have a script do it; False where it failed. What it says is passed on."""
    io.userMessages().ClearMessages()
    done = _asked(io, method, bool, dict(properties))
    if messages is not None:
        messages.AddMessages(io.userMessages())
    return done


@behavior()
class qSlicerIOManager:
    """Asks for files in Qt's own dialogs."""

    def openAddDataDialog(self):
        path, _filter = qt.QFileDialog.getOpenFileName(None, "Add data into the scene")
        return bool(path) and self.loadNodes(self.fileType(path), {"fileName": path})


# --- what Slicer's own modules register ----------------------------------------------------------


class _Scene:
    """Bundles of a whole scene."""

    def __init__(self, parent):
        self.parent = parent

    def fileType(self):
        return f"{type(self).__name__.strip('_')}File"

    def extensions(self, _scene=None):
        return ["Medical Reality Bundle (.mrb)"]

    def load(self, properties):
        return bool(slicer.mrmlScene.ReadFromMRB(properties["fileName"], False))

    def write(self, properties):
        return bool(slicer.mrmlScene.WriteToMRB(properties["fileName"]))


class _Volume(_Scene):
    """Volumes, and nodes of other classes by what derives from it; their storage nodes write."""

    def canWriteObject(self, node):
        return bool(node.IsA(f"vtkMRML{type(self).__name__.strip('_')}Node"))

    def extensions(self, node=None):
        if node is None:
            return ["Volume (*.nii.gz *.nii *.nrrd *.mha *.dcm)"]
        self.node = node
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        kinds = node.GetStorageNode().GetSupportedWriteFileTypes()
        return [kinds.GetValue(index) for index in range(kinds.GetNumberOfValues())]

    def load(self, properties):
        path = properties["fileName"]
        name = properties.get("name") or os.path.basename(path).split(".")[0]
        node = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, 0)
        self.parent.loadedNodes = [node.GetID()] if node else []
        return bool(node)

    def write(self, properties):
        self.node.GetStorageNode().SetFileName(properties["fileName"])
        self.parent.writtenNodes = [properties["nodeID"]]
        return bool(self.node.GetStorageNode().WriteData(self.node))


_READERS = [_Scene, _Volume]
_WRITERS = [_Scene, _Volume] + [
    type(name, (_Volume,), {}) for name in ("Segmentation", "Table", "Markups", "Sequence")
]
