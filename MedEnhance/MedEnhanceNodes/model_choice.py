"""Models that fit a volume, their description, and why a volume cannot be enhanced."""

from slicer.i18n import tr as _

from MedEnhanceLib.bundles.store import list_bundles
from MedEnhanceLib.core.sequence_kind import is_filtered_together
from MedEnhanceNodes import bridge, results, sending
from MedEnhanceNodes.bridge import modalityOf
from MedEnhancePanels.errors import PanelError

ENHANCER, SEGMENTER, SLICES = "enhancer", "head", "slices"
#: DICOM's word for a modality that is none of the others: the user has to choose the model.
UNKNOWN = "OT"


def fitting(modality):
    """List the installed enhancers for a modality, the recommended one first; all for OT."""
    return installed(modality, ENHANCER)


def segmentersFor(node):
    """List the models that segment a node, the recommended one first."""
    modality = modalityOf(node)
    return [] if modality == UNKNOWN or bridge.hasFrames(node) else installed(modality, SEGMENTER)


def segmenterFor(node, name):
    """Return the model that segments a node: that of a name, else the default; None for none."""
    models = segmentersFor(node)
    named = [model for model in models if model.name == name]
    return next(iter([*named, *models]), None)


def installed(modality, kind):
    """List the models of a kind for a modality."""
    return [
        bundle
        for bundle in list_bundles()
        if bundle.kind == kind and modality in (bundle.modality, UNKNOWN)
    ]


def modalityTexts(node):
    """Return a text for each modality that a node may be of, or that some model is for."""
    modalities = bridge.modalitiesOf(node)
    offered = {UNKNOWN, *modalities, *(bundle.modality for bundle in list_bundles())}
    texts = {name: bridge.modalityName(name) for name in bridge.MODALITIES if name in offered}
    if bridge.isGuessed(node):
        guess = modalities[0]
        texts[guess] = _("{modality} (guessed)").format(modality=texts[guess])
    unenhanced = _("{modality} (not enhanced)")
    return {
        name: text if fitting(name) else unenhanced.format(modality=text)
        for name, text in texts.items()
    }


def tasks():
    """List the values of the option `task`: (text, what it does) of each."""
    return {
        "noise": (_("Noise"), _("Removes noise")),
        "slices": (_("Thin slices from thick ones"), _("Makes thin slices, on a new grid")),
    }


def isJoint(node, sequence):
    """Return whether the frames of a node are filtered together by that value of `sequence`."""
    isStated = sequence == "auto" and is_filtered_together(sending.kindOf(node))
    return bridge.hasFrames(node) and (isStated or sequence in ("joint", "repeats"))


def framesTexts(node):
    """Return a text for each value of the option `sequence`, the automatic one for a node."""
    isTogether = isJoint(node, "auto")
    automatic = (_("Frames: automatic, one by one"), _("Frames: automatic, together"))[isTogether]
    return {
        "auto": automatic,
        "joint": _("Frames: together"),
        "each": _("Frames: one by one"),
        "repeats": _("Frames: together, as they repeat each other"),
    }


def lesionsTexts():
    """Return a text for each value of the option `for_viewing`."""
    return {
        False: _("Faint lesions: keep (default)"),
        True: _("Faint lesions: remove, for viewing"),
    }


def taskProblem(node, task):
    """Say why a task, or a node with frames, excludes the other options; empty if it does not."""
    if task == "slices":
        return _("Not available with thin slices: enhance the thin slices again to get it.")
    if bridge.hasFrames(node):
        return _("Not available for several frames: choose a single volume, such as one of them.")
    return ""


def biasFieldProblem(node, task):
    """Say why the bias field cannot be corrected; empty where it can."""
    if task != "slices" and modalityOf(node) != "MR":
        return _("Only MR has a bias field.")
    return taskProblem(None, task)


def viewingProblem(node, task):
    """Say why `for_viewing` changes nothing; empty where it does."""
    if task != "slices" and modalityOf(node) != "CT":
        return _("Only in CT noise that looks like faint lesions is kept.")
    return taskProblem(None, task)


def problemOf(node, options):
    """Say why a volume cannot be enhanced like this, and what to do; empty where it can."""
    try:
        bridge.checkIntensities(node)
        bridge.geometryOf(bridge.frameNodes(node)[0])
        results.checkOutput(options.output, node)
        return _modelProblem(node, options) or _guideProblem(node, options.guide)
    except PanelError as error:
        return error.text


def _modelProblem(node, options):
    modality, choices, task = modalityOf(node), bridge.modalitiesOf(node), options.config.task
    enhanced, text = sorted({bundle.modality for bundle in fitting(UNKNOWN)}), ""
    if task == "slices" and bridge.hasFrames(node):
        text = _("Thin slices need a single volume, such as one frame.")
    elif modality == UNKNOWN:
        choices = [each for each in choices if each != UNKNOWN] or enhanced
        text = _("Is “{name}” {choices}? Choose its modality above.")
    elif task == "slices":
        if not installed(modality, SLICES):
            text = _("There is no model of thin slices for {modality}.")
    elif not fitting(modality):
        text = _(
            "The modality of “{name}” is {modality}; there are models for {others} only. If it is "
            "wrong, correct it above."
        )
    names = {"others": _(" and ").join(enhanced), "modality": bridge.modalityName(modality)}
    choices = _(" or ").join(map(bridge.modalityName, choices))
    return text.format(name=node.GetName(), choices=choices, **names)


def _guideProblem(node, guide):
    if guide is None:
        return ""
    if guide is node:
        return _("The guide is the volume itself: choose another series of it, or None.")
    bridge.checkIntensities(guide)
    bridge.geometryOf(guide)
    modalities = [bridge.modalityName(modalityOf(each)) for each in (guide, node)]
    if modalityOf(node) in bridge.modalitiesOf(guide):
        return ""
    text = _("{name} is {modality}, the volume {volume}: choose one of the same modality.")
    return text.format(name=guide.GetName(), modality=modalities[0], volume=modalities[1])


def modelFor(node, task):
    """Return the model that does a task: the bundle, or None where there is none."""
    modality = modalityOf(node)
    models = installed(modality, SLICES) if task == "slices" else fitting(modality)
    return next(iter(models), None) if modality != UNKNOWN else None
