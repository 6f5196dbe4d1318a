"""What fits a volume: models, choices in words, and why it cannot be enhanced."""

from slicer.i18n import tr as _

from MedEnhanceLib.bundles.store import list_bundles
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.sequence_kind import is_filtered_together
from MedEnhanceNodes import bridge, results, sending
from MedEnhanceNodes.bridge import modalityOf
from MedEnhancePanels.errors import PanelError

ENHANCER, SEGMENTER, SLICES = "enhancer", "head", "slices"
#: DICOM's word for a modality that is none of the others: the user has to choose it.
UNKNOWN = "OT"


def isEnhanced(modality):
    """Return whether the noise of a modality can be measured, and so removed."""
    return profile_of(modality).is_measured


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
        bundle for bundle in list_bundles() if (bundle.kind, bundle.modality) == (kind, modality)
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
        name: text if isEnhanced(name) or name == UNKNOWN else unenhanced.format(modality=text)
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
        False: _("Faint lesions: mostly kept (default)"),
        True: _("Faint lesions: smoothed, for viewing"),
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
        return _("Only CT is enhanced in two ways.")
    return taskProblem(None, task)


def problemOf(node, options):
    """Say why a volume cannot be enhanced like this, and what to do; empty where it can."""
    try:
        bridge.checkIntensities(node)
        bridge.geometryOf(bridge.frameNodes(node)[0])
        results.checkOutput(options.output, node)
        return _modalityProblem(node, options.config.task)
    except PanelError as error:
        return error.text


def _modalityProblem(node, task):
    modality, choices, text = modalityOf(node), bridge.modalitiesOf(node), ""
    enhanced = [name for name in bridge.MODALITIES if isEnhanced(name)]
    if task == "slices" and bridge.hasFrames(node):
        text = _("Thin slices need a single volume, such as one frame.")
    elif modality == UNKNOWN:
        choices = [each for each in choices if each != UNKNOWN] or enhanced
        text = _("Is “{name}” {choices}? Choose its modality above.")
    elif task == "slices":
        if not installed(modality, SLICES):
            text = _("There is no model of thin slices for {modality}.")
    elif not isEnhanced(modality):
        text = _(
            "The modality of “{name}” is {modality}; only {others} are enhanced. If it is wrong, "
            "correct it above."
        )
    names = {"others": _(" and ").join(enhanced), "modality": bridge.modalityName(modality)}
    choices = _(" or ").join(map(bridge.modalityName, choices))
    return text.format(name=node.GetName(), choices=choices, **names)


def modelTexts(node, task):
    """Return a text for each model of a task, by name; a single one where nothing is to choose.

    Thin slices always take a model. Noise is removed by none; a scanner can be inverted by one that
    was trained for it.
    """
    if task == "slices":
        models = _modelsOf(node, task)
        texts = {model.name: _("Model: {name}").format(name=model.name) for model in models[1:]}
        names = [_("Model: {name} (default)").format(name=model.name) for model in models[:1]]
        return {"auto": "".join(names)} | texts
    text = _("Scanner model: {name}")
    texts = {model.name: text.format(name=model.name) for model in _modelsOf(node, task)}
    return {"auto": _("Scanner model: none")} | texts


def modelFor(node, config):
    """Return the model that a configuration runs on a node; None where it runs none."""
    models = _modelsOf(node, config.task)
    if config.model == "auto":
        return next(iter(models), None) if config.task == "slices" else None
    return next((model for model in models if model.name == config.model), None)


def _modelsOf(node, task):
    """List the models that a task can run on a node, the default one first."""
    if taskProblem(node, "noise"):
        return []
    modality = modalityOf(node)
    if task == "slices":
        return installed(modality, SLICES)
    return [model for model in installed(modality, ENHANCER) if model.inverts]
