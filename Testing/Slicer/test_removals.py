"""Nodes and folders that go while they are chosen: nothing else is chosen in their place."""

import slicer
from medenhance_testing import MedEnhanceTestCase


class RemovalTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        from MedEnhancePanels.nodes import bridge, results

        self.results = results
        self.panel = self.widget.panels["enhance"]
        self.ui = self.panel.ui
        self.widget.showPage("enhance")
        self.nodes = [self.smallVolume(name=name) for name in "ABCD"]
        for node in self.nodes:
            node.SetAttribute(bridge.MODALITY, "MR")
        self.processEvents(80)

    def remove(self, node):
        slicer.mrmlScene.RemoveNode(node)
        self.processEvents(80)

    def selectors(self):
        """Every selector of a node, with the field of the state that it shows."""
        return (
            (self.widget.ui.inputSelector, "inputVolume"),
            (self.ui.guideSelector, "guideVolume"),
            (self.ui.outputSelector, "outputVolume"),
        )

    def test_noSelectorTakesTheNeighborOfANodeThatWasRemoved(self):
        for selector, field in self.selectors():
            node = self.smallVolume(name="removed")
            node.SetAttribute("MedEnhance.derived", "enhanced")  # which an output has to be
            last = self.smallVolume(name="last")
            selector.setCurrentNode(node)
            self.assertIs(getattr(self.context.state, field), node, field)
            self.remove(node)
            self.assertIsNone(selector.currentNode(), field)
            self.assertIsNone(getattr(self.context.state, field), field)
            self.remove(last)

    def test_noOtherResultIsShownForOneThatWasRemoved(self):
        for node in self.nodes[1:]:
            self.results.stamp(node, "enhanced", self.nodes[0])
        self.smallVolume(name="E")
        self.widget.ui.inputSelector.setCurrentNode(self.nodes[0])
        self.processEvents(80)
        self.ui.resultSelector.setCurrentNode(self.nodes[2])
        self.assertIs(self.context.state.enhancedVolume, self.nodes[2])
        self.remove(self.nodes[2])
        self.assertIsNone(self.ui.resultSelector.currentNode())
        self.assertIsNone(self.context.state.enhancedVolume)
