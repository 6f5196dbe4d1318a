"""Stands for Slicer's module Segment Editor: it has an editor, and something to edit in it."""

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget


class SegmentEditor(ScriptedLoadableModule):
    """The module."""


class SegmentEditorWidget(ScriptedLoadableModuleWidget):
    def setup(self):
        self.editor = slicer.qMRMLSegmentEditorWidget()
        self.layout.addWidget(self.editor)
        self.editor.setMRMLSegmentEditorNode(firstNode("vtkMRMLSegmentEditorNode"))
        self.editor.setMRMLScene(slicer.mrmlScene)

    def enter(self):
        """As the genuine one: choose the first segmentation, or add an empty one."""
        self.editor.setMRMLSegmentEditorNode(firstNode("vtkMRMLSegmentEditorNode"))
        if self.editor.segmentationNode() is None:
            self.editor.setSegmentationNode(firstNode("vtkMRMLSegmentationNode"))

    def exit(self):
        """Nothing to do: the editor has no effects."""


def firstNode(name):
    scene = slicer.mrmlScene
    return scene.GetFirstNodeByClass(name) or scene.AddNewNodeByClass(name)
