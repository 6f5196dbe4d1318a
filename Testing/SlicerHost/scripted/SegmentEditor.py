"""Stands for Slicer's module Segment Editor: it has an editor, and something to edit in it."""

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget


class SegmentEditor(ScriptedLoadableModule):
    """The module."""


class SegmentEditorWidget(ScriptedLoadableModuleWidget):
    def setup(self):
        self.editor = slicer.qMRMLSegmentEditorWidget()
        self.layout.addWidget(self.editor)
        self.selectParameterNode()
        self.editor.setMRMLScene(slicer.mrmlScene)

    def selectParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag("SegmentEditor")
            slicer.mrmlScene.AddNode(node)
        self.editor.setMRMLSegmentEditorNode(node)

    def enter(self):
        """As the genuine one: choose the first segmentation, or add an empty one."""
        self.selectParameterNode()
        if self.editor.segmentationNode() is None:
            first = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
            added = first or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
            self.editor.setSegmentationNode(added)

    def exit(self):
        """Nothing to do: the editor has no effects."""
