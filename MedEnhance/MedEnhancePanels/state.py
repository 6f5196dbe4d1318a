"""The panel's state, kept in the scene: a typed view of a vtkMRMLScriptedModuleNode.

Every field is a parameter or a node reference of the node itself, so that it is saved with the
scene, undone with it and shared by whoever looks at the same node. Nothing is cached here.
Why not Slicer's parameterNodeWrapper: docs/decisions/0009-slicer-stand-ins.md.
"""

import math

from MedEnhanceLib.core.options import option_of
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.runtime.dependencies import has_training
from MedEnhanceLib.unicompress.config import CompressConfig

if has_training():
    from MedEnhanceLib.training.spg.config import DistillConfig


class Field:
    """A text, number or truth value, kept as text under the field's name in the parameter node.

    default: says the type too. choices: what is allowed; empty for everything.
    """

    #: Declaration and name of the option that it keeps; None for none.
    option = None

    def __init__(self, default, *choices):
        self.default, self.choices, self.name = default, choices, ""

    @classmethod
    def of(cls, declaration, option):
        """Return the field of an option, with the default and the choices of its declaration."""
        declared = option_of(declaration, option)
        field = cls(declared.default, *declared.choices)
        field.option = declaration, option
        return field

    def __set_name__(self, owner, name):
        self.name = name[:1].upper() + name[1:]

    def __get__(self, state, owner=None):
        text, kind = state.node.GetParameter(self.name), type(self.default)
        try:
            value = text == "true" if kind is bool else kind(text)
        except ValueError:  # a scene that somebody edited, or one of a later version
            return self.default
        isFinite = kind is not float or math.isfinite(value)
        isAllowed = not self.choices or value in self.choices
        isSet = state.node.HasParameter(self.name)  # a text may be set to nothing
        return value if isSet and isFinite and isAllowed else self.default

    def __set__(self, state, value):
        value = type(self.default)(value)
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name} is {value!r}: use one of {', '.join(self.choices)}")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if state.node.GetParameter(self.name) != text:
            state.node.SetParameter(self.name, text)


class NodeReference:
    """A node of the scene, or None."""

    def __set_name__(self, owner, name):
        self.role = name[:1].upper() + name[1:]

    def __get__(self, state, owner=None):
        return state.node.GetNodeReference(self.role)

    def __set__(self, state, node):
        identifier = node.GetID() if node is not None else None
        if (state.node.GetNodeReferenceID(self.role) or None) != identifier:
            state.node.SetNodeReferenceID(self.role, identifier)


class State:
    """Choices of a user on the pages of a parameter node, a vtkMRMLScriptedModuleNode."""

    page = Field("")
    inputVolume = NodeReference()

    outputVolume = NodeReference()
    enhancedVolume = NodeReference()
    task = Field.of(EnhanceConfig, "task")
    correctBiasField = Field.of(EnhanceConfig, "correct_bias_field")
    forViewing = Field.of(EnhanceConfig, "for_viewing")
    device = Field.of(EnhanceConfig, "device")
    noise = Field(0.0)  # 1 SD in the units of `chosenFor`; 0 where it is measured
    sequence = Field.of(EnhanceConfig, "sequence")  # of the frames of `chosenFor`
    chosenFor = NodeReference()
    roi = NodeReference()  # of a region, and what is enhanced of it
    roiUse = Field("first", "first", "alone")
    uncertainty = Field.of(EnhanceConfig, "uncertainty")
    noiseMap = Field(False)
    forceSegmenter = Field(False)
    segment = Field(False)
    segmenter = Field("auto")
    scanner = Field("")  # the file of one that is inverted; "" for none
    scannerWithout = Field("")  # steps of that inversion that are left out
    scannerFor = Field("")  # modality of the volumes that it was chosen for
    model = Field("auto")  # that makes thin slices, or inverts a scanner

    compressMode = Field("lossless", "lossless", "maxError", "ratio", "psnr")
    maxError = Field(2.0)
    ratio = Field(10.0)
    psnr = Field(45.0)
    compressCodec = Field.of(CompressConfig, "block_type")  # of a ratio

    if has_training():
        trainTask = Field(
            "trainMR",
            "trainMR",
            "trainCT",
            "slicesMR",
            "slicesCT",
            "labelsMR",
            "scannerMR",
            "scannerCT",
            "distillMR",
            "distillCT",
        )
        trainData = Field("")
        trainHighQuality = Field("")  # what a scanner is compared with, or learned from
        trainName = Field("my-run")
        distillMethod = Field.of(DistillConfig, "method")
        distillVolumes = Field.of(DistillConfig, "volumes")
        distillLicense = Field.of(DistillConfig, "license")
        trainDevice = Field.of(DistillConfig, "device")
        trainPreset = Field("cpu", *DistillConfig.PRESETS)
        trainRun = Field("")

    def __init__(self, node):
        self.node = node

    @classmethod
    def fieldsOf(cls, declaration):
        """Return the names of the fields that keep options of a declaration, by option."""
        fields = {name: field for name, field in vars(cls).items() if isinstance(field, Field)}
        options = {name: field.option for name, field in fields.items() if field.option}
        return {option: name for name, (whose, option) in options.items() if whose is declaration}

    def optionsOf(self, declaration):
        """Return the options of a declaration that the state keeps, by name."""
        return {option: getattr(self, name) for option, name in self.fieldsOf(declaration).items()}
