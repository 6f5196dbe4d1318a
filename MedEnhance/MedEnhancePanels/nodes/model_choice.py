"""Which models fit a volume, their description, and why a volume cannot be enhanced."""

import dataclasses

from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, cautions, results

ENHANCER, HEAD, SLICES = "enhancer", "head", "slices"
#: DICOM's word for a modality that is none of the others: the user has to choose the model.
UNKNOWN = "OT"
#: The number of structures of a model that are named; the others are counted.
_NAMED = 6


def fitting(modality):
    """The installed enhancers for a modality, the recommended one first; all where it is unknown.

    Without experimental ones, which have to be selected explicitly.
    """
    return [bundle for bundle in _installed(modality, ENHANCER) if not bundle.on_request]


def heads(node):
    """The models that can segment a node: the recommended one first, those on request last."""
    modality = modalityOf(node)
    if modality == UNKNOWN or bridge.isSequence(node):
        return []
    return sorted(_installed(modality, HEAD), key=lambda bundle: bundle.on_request)


def chosenHead(node, name):
    """The model that a name, or "auto", stands for in a node; None where it stands for none."""
    for bundle in heads(node):
        if name == bundle.name or (name == "auto" and not bundle.on_request):
            return bundle
    return None


def _installed(modality, kind):
    return [
        bundle
        for bundle in _listed()
        if bundle.kind == kind and modality in (bundle.modality, UNKNOWN)
    ]


#: The files of the models as they were, and what was read from them: a page asks often.
_known = (None, [])


def _listed():
    """All models; they are read again when a file of theirs has changed."""
    global _known
    from MedEnhanceLib.bundles import store

    files = store.bundle_files()
    if files != _known[0]:
        _known = (files, store.list_bundles())
    return _known[1]


def isUsable(node):
    """Whether the node has voxels, in scalar volumes."""
    frames = bridge.frameNodes(node) if node is not None else []
    return bool(frames) and all(
        frame is not None and frame.IsA("vtkMRMLScalarVolumeNode") and frame.GetImageData()
        for frame in frames
    )


def modalityOf(node):
    """The modality of a node, UNKNOWN for one without voxels."""
    return bridge.modalityOf(node) if isUsable(node) else UNKNOWN


def canSegment(node):
    """Why no model can segment a volume, in a sentence; empty where one can."""
    if bridge.isSequence(node):
        return _("A sequence cannot be segmented as a whole: choose one frame.")
    if not heads(node):
        return _("There is no segmentation model for {modality}.").format(
            modality=cautions.modalityName(bridge.modalityOf(node))
        )
    return ""


def headProblem(node, head):
    """Why this model cannot segment a volume, and what to do; empty where it can.

    head: a model's name, or "auto" for the recommended one.
    """
    problem = canSegment(node)
    if problem or chosenHead(node, head) is not None:
        return problem
    texts = {"auto": _("No segmentation model is recommended for {modality}")}
    text = texts.get(head, _("The segmentation model {head} is not for {modality}"))
    said = text.format(head=head, modality=cautions.modalityName(bridge.modalityOf(node)))
    return _("{problem}: choose another, or deselect Segmentation.").format(problem=said)


def tasks(modality=UNKNOWN):
    """What an enhancement can correct: the values of the option `task`, with a text for each."""
    measured = _("noise, blur, bias field") if modality == "MR" else _("noise")
    texts = {
        "auto": _("automatic ({what})").format(what=measured),
        "noise": _("noise only"),
        "sharpness": _("noise and blur"),
        "slices": _("thin slices from thick ones"),
        "motion": _("motion"),
    }
    if modality == UNKNOWN:
        texts["auto"] = _("automatic")
    elif modality != "MR":  # of which noise is all that is found
        texts = {task: text for task, text in texts.items() if task in ("auto", "slices")}
    if modality == UNKNOWN:
        return {task: text[:1].upper() + text[1:] for task, text in texts.items()}
    name = cautions.modalityName(modality)
    return {
        task: _("{modality}: {task}").format(modality=name, task=text)
        for task, text in texts.items()
    }


def aboutTask(task):
    """What a task does, in a sentence, as the tool tip of its entry."""
    return {
        "auto": _(
            "Corrects what is measured in the volume, as far as it is certain: noise, and in "
            "MR blur and bias field"
        ),
        "noise": _("Removes noise; blur and bias field stay"),
        "sharpness": _("Removes noise, and undoes blur; the bias field stays"),
        "slices": _("Makes thin slices between thick ones, on a new grid"),
        "motion": _("Corrects motion between slices during the scan"),
    }[task]


def slicesProblem(task):
    """Why guide, look, maps and N4 are not to be had for thin slices; empty for another task."""
    if task == "slices":
        return _("Not available for thin slices: enhance the result again for it.")
    return ""


def withoutWhatItLacks(options):
    """The options of an enhancement without those that its task does not support."""
    if options.task != "slices":
        return options
    lacking = dict.fromkeys(("guide", "look", "output"))
    lacking |= dict.fromkeys(("uncertainty", "noiseMap", "segment"), False)
    return dataclasses.replace(
        options, model="auto", segmenter="auto", biasCorrection="none", **lacking
    )


def problemOf(node, options):
    """Why a volume cannot be enhanced like this, and what to do; empty where it can."""
    if node is None:
        return _("Choose a volume above, or load one.")
    try:
        bridge.checkIntensities(node)
        bridge.geometryOf(bridge.frameNodes(node)[0])
        return (
            _modelProblem(node, options)
            or (headProblem(node, options.segmenter) if options.segment else "")
            or _otherVolumesProblem(node, options)
        )
    except PanelError as error:
        return error.text


def _modelProblem(node, options):
    modality = bridge.modalityOf(node)
    if options.task == "slices":
        return _slicesProblem(node, modality)
    names = [bundle.name for bundle in fitting(modality)]
    isAuto = options.model == "auto"
    if isAuto and names and modality == UNKNOWN:
        return _(
            "The modality of {name} is not known: choose it, or the model, below Advanced."
        ).format(name=node.GetName())
    if options.model in names or (isAuto and fitting(modality)):
        return ""
    named = cautions.modalityName(modality)
    if names:
        return _("The model {model} is not for {modality}: choose another.").format(
            model=options.model, modality=named
        )
    return _(
        "There is no model for {modality}, the modality of {name}; there are models for {others}."
        " If the modality is wrong, correct it below Advanced."
    ).format(
        modality=named,
        name=node.GetName(),
        others=_(" and ").join(sorted({bundle.modality for bundle in fitting(UNKNOWN)})),
    )


def _slicesProblem(node, modality):
    if bridge.isSequence(node):
        return _("Thin slices are made of single volumes: choose one frame.")
    if not _installed(modality, SLICES):
        return _("There is no model of thin slices for {modality}.").format(
            modality=cautions.modalityName(modality)
        )
    return ""


def _otherVolumesProblem(node, options):
    if options.guide is node:
        return _("The guide is the volume itself: choose another series of this examination.")
    for other in (options.guide, options.look):
        if other is None:
            continue
        bridge.checkIntensities(other)
        if bridge.modalityOf(other) != bridge.modalityOf(node):
            return _(
                "{name} is {modality}, the volume {volume}: choose one of the same modality."
            ).format(
                name=other.GetName(),
                modality=cautions.modalityName(bridge.modalityOf(other)),
                volume=cautions.modalityName(bridge.modalityOf(node)),
            )
    bridge.checkOutput(options.output, node, options.guide, options.look)
    return ""


def modelFor(node, model, task):
    """The model that does a task, for its card: the bundle, or None where none is chosen.

    model: a model's name, or "auto" for the recommended one.
    """
    modality = modalityOf(node)
    if task == "slices":
        found = _installed(modality, SLICES) if modality != UNKNOWN else []
        return next(iter(found), None)
    if model == "auto":
        return next(iter(fitting(modality)), None) if modality != UNKNOWN else None
    return next((each for each in fitting(modality) if each.name == model), None)


def segmentNote(node, isWanted, head="auto"):
    """What to know before a segmentation; empty where there is nothing to say.

    head: as for `headProblem`, which speaks where no model is chosen.
    """
    if not isUsable(node):
        return ""
    if bridge.isSequence(node):
        return _(
            "A sequence gets neither a segmentation nor a difference map: for these, choose a"
            " single frame as the volume."
        )
    bundle = chosenHead(node, head) if isWanted else None
    if bundle is None:
        return ""
    found = _("{name} finds: {structures}.").format(
        name=bundle.name, structures=_structures(bundle)
    )
    rare = _("Only for images that show it.") if bundle.on_request else ""
    return " ".join(filter(None, (found, rare, _scope(bundle))))


def cardText(bundle):
    """A model in some lines; the page Models has its card."""
    metadata = bundle.metadata
    trained = ", ".join(entry.get("name") or "" for entry in metadata.get("data", ()))
    lines = [
        f"{bundle.name} {metadata['version']}: {metadata['description']}",
        _("Trained on: {data}").format(data=trained),
        *metadata.get("limits", ()),
    ]
    return "\n".join(lines)


def _scope(bundle):
    return f"{results.scopeText(bundle.anatomy)}." if bundle.anatomy else ""


def _structures(bundle):
    """The structures that a head finds, as many as fit into a line."""
    names = [label["name"] for label in bundle.metadata.get("labels") or ()]
    text = ", ".join(names[:_NAMED])
    rest = len(names) - _NAMED
    return text if rest <= 0 else _("{names} and {count} more").format(names=text, count=rest)
