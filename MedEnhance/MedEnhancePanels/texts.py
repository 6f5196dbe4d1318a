"""The translation of the extension's texts, all of them under the extension's name."""

from slicer.i18n import translate


def tr(text):
    """Translate a text; Slicer's own `tr` names it by folder and file, such as "pages.models"."""
    return translate("MedEnhance", text)
