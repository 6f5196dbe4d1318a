"""Stands for Slicer's base class of plugins of the subject hierarchy."""

import slicer


class AbstractScriptedSubjectHierarchyPlugin:
    def __init__(self, scriptedPlugin):
        self.scriptedPlugin = scriptedPlugin
        slicer.qSlicerSubjectHierarchyPluginHandler.instance().registerPlugin(scriptedPlugin)
