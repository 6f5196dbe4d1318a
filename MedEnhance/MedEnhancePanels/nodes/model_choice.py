"""Which models fit a volume, their description, and why a volume cannot be enhanced."""

import dataclasses

from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, cautions, results
from MedEnhancePanels.nodes.bridge import isUsable, modalityOf

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


#: The files of the models as they were, and what was read from them: a page asks often.
_cached = (None, [])


def _installed(modality, kind):
    """The models of a kind for a modality; read again when one of their files has changed."""
    global _cached
    from MedEnhanceLib.bundles import store

    files = store.bundle_files()
    if files != _cached[0]:
        _cached = (files, store.list_bundles())
    return [
        bundle
        for bundle in _cached[1]
        if bundle.kind == kind and modality in (bundle.modality, UNKNOWN)
    ]


def canSegment(node):
    """Why no model can segment a volume, in a sentence; empty where one can."""
    if bridge.isSequence(node):
        return _("A sequence cannot be segmented as a whole: choose one frame.")
    if not heads(node):
        text = _("There is no segmentation model for {modality}.")
        return text.format(modality=_modalityName(node))
    return ""


def _modalityName(node):
    return cautions.modalityName(modalityOf(node))


def _headProblem(node, head):
    """Why this model, or "auto", cannot segment a volume, and what to do; empty where it can."""
    problem = canSegment(node)
    if problem or chosenHead(node, head) is not None:
        return problem
    if head == "auto":
        text = _(
            "No segmentation model is recommended for {modality}: choose another, or deselect"
            " Segmentation."
        )
    else:
        text = _(
            "The segmentation model {head} is not for {modality}: choose another, or deselect"
            " Segmentation."
        )
    return text.format(head=head, modality=_modalityName(node))


def tasks(modality=UNKNOWN):
    """What an enhancement can correct: the values of the option `task`, with a text for each."""
    texts = {
        "auto": _("automatic (noise, blur, bias field)"),
        "noise": _("noise only"),
        "sharpness": _("noise and blur"),
        "slices": _("thin slices from thick ones"),
        "motion": _("motion"),
    }
    if modality == UNKNOWN:
        texts["auto"] = _("automatic")
        return {task: text[:1].upper() + text[1:] for task, text in texts.items()}
    if modality != "MR":  # in which noise is all that is measured
        texts = {"auto": _("automatic (noise)"), "slices": texts["slices"]}
    name = cautions.modalityName(modality)
    return {task: f"{name}: {text}" for task, text in texts.items()}


def aboutTask(task):
    """What a task does, in a sentence, as the tool tip of its entry."""
    return {
        "auto": _(
            "Corrects the noise that is measured in the volume, and in MR blur and bias field "
            "where they are found"
        ),
        "noise": _("Removes noise; blur and bias field stay"),
        "sharpness": _("Removes noise, and undoes blur; the bias field stays"),
        "slices": _("Makes thin slices between thick ones, on a new grid"),
        "motion": _("Corrects motion between slices during the scan"),
    }[task]


def slicesProblem(task):
    """Why guide, look, maps and N4 are not to be had for thin slices; empty for another task."""
    if task == "slices":
        return _("Not available with thin slices: enhance the thin slices again to get it.")
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
            or (_headProblem(node, options.segmenter) if options.segment else "")
            or _otherVolumesProblem(node, options)
        )
    except PanelError as error:
        return error.text


def _modelProblem(node, options):
    modality, text = bridge.modalityOf(node), ""
    names, others = [bundle.name for bundle in fitting(modality)], ()
    isAuto = options.model == "auto"
    if options.task == "slices" and bridge.isSequence(node):
        text = _("Thin slices need a single volume: choose one frame of the sequence.")
    elif options.task == "slices":
        if not _installed(modality, SLICES):
            text = _("There is no model of thin slices for {modality}.")
    elif not names:
        others = sorted({bundle.modality for bundle in fitting(UNKNOWN)})
        text = _(
            "There is no model for {modality}, the modality of {name}; there are models for "
            "{others}. If the modality is wrong, correct it below Advanced."
        )
    elif isAuto and modality == UNKNOWN:
        text = _("The modality of {name} is not known: choose it, or the model, below Advanced.")
    elif not isAuto and options.model not in names:
        text = _("The model {model} is not for {modality}: choose another.")
    return text.format(
        name=node.GetName(),
        model=options.model,
        modality=_modalityName(node),
        others=_(" and ").join(others),
    )


def _otherVolumesProblem(node, options):
    if options.guide is node:
        return _("The guide is the volume itself: choose another series of this examination.")
    for other in filter(None, (options.guide, options.look)):
        bridge.checkIntensities(other)
        if modalityOf(other) != modalityOf(node):
            text = _("{name} is {modality}, the volume {volume}: choose one of the same modality.")
            return text.format(
                name=other.GetName(), modality=_modalityName(other), volume=_modalityName(node)
            )
    bridge.checkOutput(options.output, node, options.guide, options.look)
    return ""


def modelFor(node, model, task):
    """The model that does a task, for its card: the bundle, or None where none is chosen.

    model: a model's name, or "auto" for the recommended one.
    """
    modality = modalityOf(node)
    models = _installed(modality, SLICES) if task == "slices" else fitting(modality)
    if task != "slices" and model != "auto":
        models = [each for each in models if each.name == model]
    elif modality == UNKNOWN:
        models = []
    return next(iter(models), None)


def segmentNote(node, isWanted, head="auto"):
    """What to know before a segmentation; empty where there is nothing to say.

    head: a model's name, or "auto" for the recommended one.
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
    notes = [_("{name} finds: {names}.").format(name=bundle.name, names=_structures(bundle))]
    if bundle.on_request:
        notes.append(_("Only for images that show it."))
    if bundle.anatomy:
        notes.append(f"{results.scopeText(bundle.anatomy)}.")
    return " ".join(notes)


def _structures(bundle):
    """The structures that a head finds, as many as fit into a line."""
    names = [label["name"] for label in bundle.metadata.get("labels") or ()]
    text, more = ", ".join(names[:_NAMED]), len(names) - _NAMED
    return text if more <= 0 else _("{names} and {count} more").format(names=text, count=more)


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
