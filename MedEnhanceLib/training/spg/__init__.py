"""SPG: low-level data set distillation (structure-preserving personalized generation).

Importing this package and its configurations needs numpy alone.
"""

from pathlib import Path

from MedEnhanceLib.runtime.texts import TEMPLATES, read_templates

TEMPLATES.update(read_templates(Path(__file__).with_name("texts.json")))
