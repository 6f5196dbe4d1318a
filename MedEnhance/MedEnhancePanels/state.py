"""The panel's state, kept in the scene: a typed view of a vtkMRMLScriptedModuleNode.

Every field is a parameter or a node reference of the node itself, so that it is saved with the
scene, undone with it and shared by whoever looks at the same node. Nothing is cached here.
"""

import math

import slicer
import vtk

from MedEnhanceLib.core.options import option_of, options_of
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhancePanels import arguments

#: The attribute by which parameter nodes of this module are found.
MODULE_NAME = "MedEnhance"


class _Parameter:
    """A field stored as text under a name in the parameter node."""

    def __init__(self, name, default):
        self.name, self.default = name, default

    def __get__(self, state, owner=None):
        if state is None:
            return self
        text = state.node.GetParameter(self.name)
        if text == "":
            return self.default
        try:
            return self.fromText(text)
        except ValueError:  # a scene that somebody edited, or one of a later version
            return self.default

    def __set__(self, state, value):
        text = self.toText(value)
        if state.node.GetParameter(self.name) != text:
            state.node.SetParameter(self.name, text)

    def fromText(self, text):
        return text

    def toText(self, value):
        return str(value)


class Text(_Parameter):
    """A string; the empty one reads as the default."""


class Flag(_Parameter):
    """True or false."""

    def fromText(self, text):
        return text == "true"

    def toText(self, value):
        return "true" if value else "false"


class Number(_Parameter):
    """A float, every bit of it."""

    def fromText(self, text):
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(text)
        return number

    def toText(self, value):
        return repr(float(value))


class NumberOrWord(Number):
    """A float, or one of `words`."""

    def __init__(self, name, default, words):
        super().__init__(name, default)
        self.words = words

    def fromText(self, text):
        return text if text in self.words else super().fromText(text)

    def toText(self, value):
        return value if value in self.words else super().toText(value)


class Whole(_Parameter):
    """An integer."""

    def fromText(self, text):
        return int(text)

    def toText(self, value):
        return str(int(value))


class Choice(_Parameter):
    """One of `choices`; default: None is the first."""

    def __init__(self, name, *choices, default=None):
        super().__init__(name, default or choices[0])
        self.choices = choices

    def fromText(self, text):
        if text not in self.choices:
            raise ValueError(text)
        return text

    def toText(self, value):
        if value not in self.choices:
            raise ValueError(f"{self.name} is {value!r}: use one of {', '.join(self.choices)}")
        return value


class Switch(Flag):
    """True or false, for an option with two values: `off`, which is the default, and `on`."""

    def __init__(self, name, off, on):
        super().__init__(name, False)
        self.off, self.on = off, on


def fieldOf(declaration, option, name=""):
    """The field of an option: its type, choices and default are those of the declaration.

    name: of the parameter; empty: as the option is called.
    """
    one = option_of(declaration, option)
    name = name or option.title().replace("_", "")
    if len(one.choices) == 2:
        return Switch(name, *one.choices)
    if one.choices:
        return Choice(name, *one.choices, default=one.default)
    if one.words:
        return NumberOrWord(name, one.default, one.words)
    return {bool: Flag, float: Number, int: Whole, str: Text}[one.kind](name, one.default)


def choiceOf(declaration, option, name):
    """The field of an option with choices that are shown as a list, however many there are."""
    one = option_of(declaration, option)
    return Choice(name, *one.choices, default=one.default)


def declared(declaration):
    """Give the class of the state a field for each option that users choose and it has not yet."""

    def extend(cls):
        for one in options_of(declaration):
            name = arguments.camelCase(one.name)
            if one.about.flag is not None and not one.about.one_of and not hasattr(cls, name):
                setattr(cls, name, fieldOf(declaration, one.name))
        return cls

    return extend


class NodeReference:
    """A node of the scene, or None."""

    def __init__(self, role):
        self.role = role

    def __get__(self, state, owner=None):
        return self if state is None else state.node.GetNodeReference(self.role)

    def __set__(self, state, node):
        identifier = node.GetID() if node is not None else None
        if (state.node.GetNodeReferenceID(self.role) or None) != identifier:
            state.node.SetNodeReferenceID(self.role, identifier)


@declared(EnhanceConfig)
class State:
    """What a user chose on the pages of one parameter node.

    Options of enhancement have the fields that their declaration gives them; written out here is
    what the declaration does not know, and what starts at another value.
    """

    inputVolume = NodeReference("InputVolume")
    guideVolume = NodeReference("GuideVolume")
    outputVolume = NodeReference("OutputVolume")
    enhancedVolume = NodeReference("EnhancedVolume")
    #: Off: where shading is measured to be strong; on: always.
    biasCorrection = Switch("BiasCorrection", "auto", "n4")
    allFrames = Flag("AllFrames", False)
    noiseMap = Flag("NoiseMap", False)
    segment = Flag("Segment", False)
    head = Text("Head", "auto")

    compressMode = Choice("CompressMode", "lossless", "max_error", "ratio", "psnr", "ssim")
    maxError = Number("MaxError", 2.0)
    ratio = Number("Ratio", 10.0)
    psnr = Number("Psnr", 45.0)
    ssim = Number("Ssim", 0.95)
    compressPath = Text("CompressPath", "")

    distillTask = Choice("DistillTask", "distillMR", "distillCT", "trainMR", "trainCT")
    distillCohort = Text("DistillCohort", "")
    distillName = Text("DistillName", "my-run")
    distillGoal = fieldOf(DistillConfig, "task", "DistillGoal")
    distillMethod = choiceOf(DistillConfig, "method", "DistillMethod")
    #: "template", "representative" or the path of a file.
    distillPrior = Text("DistillPrior", "template")
    distillImages = fieldOf(DistillConfig, "images_per_patient", "DistillImages")
    distillPreset = Choice("DistillPreset", "cpu", "smoke", "full")
    distillDevice = Choice("DistillDevice", "auto", "cpu", "cuda", "mps")
    distillRoot = Text("DistillRoot", "")
    distillRun = Text("DistillRun", "")

    page = Text("Page", "")

    def __init__(self, node):
        if node is None or not node.IsA("vtkMRMLScriptedModuleNode"):
            raise TypeError("a State needs a vtkMRMLScriptedModuleNode")
        self.node = node

    def __eq__(self, other):
        return isinstance(other, State) and other.node is self.node

    def __hash__(self):
        return hash(self.node.GetID())

    def value(self, name):
        """What a field stands for: of a Switch the option's value, of others what they hold."""
        field, held = getattr(type(self), name), getattr(self, name)
        return (field.on if held else field.off) if isinstance(field, Switch) else held

    def observe(self, callback):
        """Call `callback(state)` after every change; returns a function that ends it."""
        tag = self.node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: callback(self))
        return lambda: self.node.RemoveObserver(tag)

    def changes(self):
        """A context in which many fields are set with one notification at its end."""
        return slicer.util.NodeModify(self.node)
